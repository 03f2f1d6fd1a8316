"""Optimisers, for whole tensors and for rows of large tables.

A rule says how a gradient changes a weight, number by number, and what is kept beside the weight (its *slots*). The
optimiser applies the rule to whole weights, and to those rows of a table that a step touches. A row that a step does
not touch keeps its weight and all its slots as they are: it does not drift on its last velocity, its averages do not
fade, and it does not decay. So each row learns as if the steps that touch it were all there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from recsys.settings import TrainingSettings

Slots = dict[str, Any]

EPSILON = 1e-6  # of Adagrad, under the root
MEAN_DECAY, SQUARE_DECAY, ADAM_EPSILON = 0.9, 0.999, 1e-7


class Rule(Protocol):
    """How a gradient changes a weight.

    Attributes:
        decay: what share of a weight, times the rate, a step takes away besides.
    """

    decay: float

    def slots(self, weight: Any) -> Slots:
        """What is kept beside a weight ``[n, ...]`` before the first step: tensors ``[n, ...]`` or ``[n, 1, ...]``."""

    def change(self, slots: Slots, gradient: Any, rate: Any) -> tuple[Any, Slots]:
        """What is added to the weight, and the slots afterwards."""


class Adagrad:
    """``a += g^2;  v = momentum v - rate g / sqrt(a + epsilon);  w += v`` (Duchi et al. 2011; momentum is Polyak's)."""

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum
        self.decay = 0.0

    def slots(self, weight: Any) -> Slots:
        """``accumulator`` is a; ``velocity``, where there is momentum, is v."""
        names = ("accumulator", "velocity") if self._momentum else ("accumulator",)
        return {name: tf.zeros_like(weight) for name in names}

    def change(self, slots: Slots, gradient: Any, rate: Any) -> tuple[Any, Slots]:
        """One step."""
        accumulator = slots["accumulator"] + tf.square(gradient)
        change = -rate * gradient * tf.math.rsqrt(accumulator + EPSILON)
        if not self._momentum:
            return change, {"accumulator": accumulator}
        change += self._momentum * slots["velocity"]
        return change, {"accumulator": accumulator, "velocity": change}


class Adam:
    """``m += 0.1 (g - m);  v += 0.001 (g^2 - v);  w -= rate (m^ / (sqrt(v^) + epsilon))`` (Kingma and Ba 2015).

    ``m^`` and ``v^`` are m and v corrected for their start from zero, by the number of steps that touched the row. With
    ``decay``, which the averages know nothing of, it is AdamW (Loshchilov and Hutter 2019).
    """

    def __init__(self, decay: float = 0.0) -> None:
        self.decay = decay

    def slots(self, weight: Any) -> Slots:
        """``mean`` is m, ``square`` is v, and ``count`` the steps that touched a row."""
        rows = [weight.shape[0], *[1] * (len(weight.shape) - 1)]
        return {"mean": tf.zeros_like(weight), "square": tf.zeros_like(weight), "count": tf.zeros(rows)}

    def change(self, slots: Slots, gradient: Any, rate: Any) -> tuple[Any, Slots]:
        """One step."""
        count = slots["count"] + 1
        mean = slots["mean"] + (1 - MEAN_DECAY) * (gradient - slots["mean"])
        square = slots["square"] + (1 - SQUARE_DECAY) * (tf.square(gradient) - slots["square"])
        root = tf.sqrt(square / (1 - SQUARE_DECAY**count))
        change = mean / (1 - MEAN_DECAY**count) / (root + ADAM_EPSILON)
        return -rate * change, {"mean": mean, "square": square, "count": count}


def rule(settings: TrainingSettings) -> Rule:
    """The rule that the settings name."""
    if settings.optimizer == "adagrad":
        return Adagrad(settings.momentum)
    return Adam(settings.weight_decay if settings.optimizer == "adamw" else 0.0)


def rows_once(rows: Any, *gradients: Any) -> list[tf.IndexedSlices]:
    """Gradients by rows of tables, each row once: those of a row that stands twice in ``rows [n]`` are added up.

    A gradient that is shorter than ``rows`` belongs to the first of them, and touches no others.
    """
    unique, place = tf.unique(rows)  # in the order in which they first stand
    slices = []
    for gradient in gradients:
        places = place[: tf.shape(gradient)[0]]
        count = tf.reduce_max(places) + 1
        slices.append(tf.IndexedSlices(tf.math.unsorted_segment_sum(gradient, places, count), unique[:count]))
    return slices


class Optimizer:
    """A rule, the weights it changes, and the slots it keeps.

    Attributes:
        slots: variables, by ``<slot>.<weight>``.
    """

    def __init__(self, weights: Mapping[str, tf.Variable], rule: Rule, compiled: bool = True) -> None:
        self._weights, self._rule = weights, rule
        self._changed_whole = tf.function(self._changed, jit_compile=True) if compiled else self._changed
        self._kept = {
            name: {slot: tf.Variable(start, trainable=False) for slot, start in rule.slots(weight).items()}
            for name, weight in weights.items()
        }
        self.slots = {f"{slot}.{name}": kept for name, slots in self._kept.items() for slot, kept in slots.items()}

    def apply(self, gradients: Mapping[str, Any], rate: Any) -> None:
        """Change weights, by name: wholly by a tensor, by rows where the gradient is what :func:`rows_once` gives."""
        for name, gradient in gradients.items():
            change = self._change_rows if isinstance(gradient, tf.IndexedSlices) else self._change
            change(self._weights[name], self._kept[name], gradient, rate)

    def _change(self, weight: tf.Variable, kept: Slots, gradient: Any, rate: Any) -> None:
        slots = {slot: tf.convert_to_tensor(variable) for slot, variable in kept.items()}  # of this device
        changed, slots = self._changed_whole(tf.convert_to_tensor(weight), slots, gradient, rate)
        for slot, value in slots.items():
            kept[slot].assign(value)
        weight.assign(changed)

    def _change_rows(self, weight: tf.Variable, kept: Slots, gradient: Any, rate: Any) -> None:
        rows = gradient.indices
        slots = {slot: tf.gather(variable, rows) for slot, variable in kept.items()}
        changed, slots = self._changed(tf.gather(weight, rows), slots, gradient.values, rate)
        for slot, value in slots.items():
            kept[slot].scatter_update(tf.IndexedSlices(value, rows))
        weight.scatter_update(tf.IndexedSlices(changed, rows))

    def _changed(self, weight: Any, slots: Slots, gradient: Any, rate: Any) -> tuple[Any, Slots]:
        """A weight, or rows of it, and its slots after a step."""
        change, slots = self._rule.change(slots, gradient, rate)
        return weight + (change - rate * self._rule.decay * weight), slots
