"""What a step goes by besides weights, made ready while the step before it runs.

A window's clicks, what they are compared with, and the noise of dropout depend on the data and the seed alone. So they
are made ahead, on cores that a step leaves idle, and a step finds them waiting. Chance is seeded by the number of the
step, which tells it from all others of a run: a run that goes on from a checkpoint meets the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from recsys.model.batches import Batches
from recsys.model.sampling import Negatives
from recsys.settings import TrainingSettings

AHEAD = 4  # steps


class Prepared(NamedTuple):
    """One step's share of the data; ``pairs = clicks * lanes``.

    Attributes:
        number: of the step, in the run.
        inputs: int32 ``[clicks, lanes]``, the items clicked.
        barred: int32 ``[clicks, lanes]``, an item that cannot be clicked next, -1 for none.
        resets: bool ``[clicks, lanes]``, where a session begins.
        valid: bool ``[clicks, lanes]``, where there is a click at all.
        backwards: bool ``[clicks, lanes]``, where a session is read backwards.
        candidates: int32 ``[pairs + samples]``, the items compared with: the window's targets, then the samples.
        log_expected: float32 ``[pairs + samples]``, what logQ takes from each candidate's score.
        noise: float32 ``[clicks, lanes, numbers]``, uniform in [0, 1): what dropout goes by.
    """

    number: Any
    inputs: Any
    barred: Any
    resets: Any
    valid: Any
    backwards: Any
    candidates: Any
    log_expected: Any
    noise: Any


class Feed:
    """Steps' data in order.

    Args:
        batches: what is learnt from.
        items: rows of the vocabulary.
        numbers: how many random numbers a click takes.
        settings: seed, samples, logQ.
    """

    def __init__(self, batches: Batches, items: int, numbers: int, settings: TrainingSettings) -> None:
        self._negatives = Negatives(batches, items, settings)
        self._repeats = batches.repeats
        self._settings = settings
        self._noise = [*batches.inputs.shape[1:], numbers]
        with tf.device("CPU"):
            self._columns = tuple(map(tf.constant, batches.columns))

    def steps(self, windows: range, number: int) -> Iterator[Prepared]:
        """The data of ``windows``, one after the other; ``number`` is that of the first step."""
        steps = tf.data.Dataset.range(windows.start, windows.stop, windows.step).enumerate(number)
        return iter(steps.map(self._prepared).prefetch(AHEAD))

    def _prepared(self, number: Any, window: Any) -> Prepared:
        inputs, targets, resets, valid, backwards = (column[window] for column in self._columns)
        number = tf.cast(number, tf.int32)
        seeds = tf.random.split(tf.stack([self._settings.seed, number]), 2)
        candidates = self._negatives.candidates(tf.reshape(targets, [-1]), seeds[0])
        expected = self._negatives.expected_counts(candidates, valid)
        log_expected = self._settings.logq * tf.math.log(tf.maximum(expected, 1e-30))
        barred = tf.fill(inputs.shape, -1) if self._repeats else inputs
        noise = tf.random.stateless_uniform(self._noise, seeds[1], alg="philox")
        return Prepared(number, inputs, barred, resets, valid, backwards, candidates, log_expected, noise)
