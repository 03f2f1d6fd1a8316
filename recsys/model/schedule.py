"""The learning rate of each step."""

from __future__ import annotations

from math import pi
from typing import Any

import tensorflow as tf

from recsys.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, number: Any, steps: int) -> Any:
    """The rate of a step by its ``number``, an int tensor from 0; ``steps`` is how many the run has at most.

    It rises in a straight line over the first ``warmup`` of all steps, then stays (constant), or falls to zero at the
    end, in a straight line (linear) or by half a cosine wave (Loshchilov and Hutter 2017, without restarts). Nothing
    but the number decides, so that a resumed run goes on with the rates of an unbroken one.
    """
    if settings.schedule == "constant" and not settings.warmup:
        return settings.learning_rate
    number = tf.cast(number, tf.float64)
    rising = settings.warmup * steps
    left = tf.clip_by_value((steps - number) / max(steps - rising, 1.0), 0.0, 1.0)
    falling = {"constant": tf.ones_like(left), "linear": left, "cosine": (1 - tf.cos(pi * left)) / 2}[settings.schedule]
    risen = tf.minimum((number + 1) / max(rising, 1.0), 1.0)
    return tf.cast(settings.learning_rate * risen * falling, tf.float32)
