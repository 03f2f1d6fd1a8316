"""Optimisers, for whole tensors and for rows of large tables.

A rule says how a gradient changes a weight, number by number, and what is kept beside the weight (its *slots*). The
optimiser applies the rule to whole weights, and to those rows of a table that a step touches. A row that a step does
not touch keeps its weight and all its slots as they are: it does not drift on its last velocity, its averages do not
fade, and it does not decay. So each row learns as if the steps that touch it were all there are.

A row that several clicks of a step touch has a gradient of each. They add up; the square by which Adagrad slows down is
the sum of their squares, as if the clicks had come one after the other. The square of their sum would be up to as many
times larger as there are clicks, and what is clicked most would learn as if it had been clicked once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple, Protocol, Self, cast

import tensorflow as tf

from recsys.settings import TrainingSettings

Slots = dict[str, Any]

EPSILON = 1e-6  # of Adagrad, under the root
MEAN_DECAY, SQUARE_DECAY, ADAM_EPSILON = 0.9, 0.999, 1e-7


class Rule(Hashable, Protocol):
    """How a gradient changes a weight; rules that do the same are equal."""

    @property
    def decay(self) -> float:
        """What share of a weight, times the rate, a step takes away besides."""

    def slots(self, weight: Any) -> Slots:
        """What is kept beside a weight ``[n, ...]`` before the first step: tensors ``[n, ...]`` or ``[n, 1, ...]``."""

    def change(self, slots: Slots, gradient: Any, square: Any, rate: Any) -> tuple[Any, Slots]:
        """What is added to the weight, and the slots afterwards; ``square`` is of the gradient, or of its parts."""


@dataclass(frozen=True)
class Adagrad:
    """``a += s;  v = momentum v - rate g / sqrt(a + epsilon);  w += v`` (Duchi et al. 2011; momentum is Polyak's).

    ``g`` is the gradient and ``s`` its square, or the sum of the squares of the clicks' parts in it.
    """

    momentum: float
    decay: ClassVar[float] = 0.0

    def slots(self, weight: Any) -> Slots:
        """``accumulator`` is a; ``velocity``, where there is momentum, is v."""
        names = ("accumulator", "velocity") if self.momentum else ("accumulator",)
        return {name: tf.zeros_like(weight) for name in names}

    def change(self, slots: Slots, gradient: Any, square: Any, rate: Any) -> tuple[Any, Slots]:
        """One step."""
        accumulator = slots["accumulator"] + square
        change = -rate * gradient * tf.math.rsqrt(accumulator + EPSILON)
        if not self.momentum:
            return change, {"accumulator": accumulator}
        change += self.momentum * slots["velocity"]
        return change, {"accumulator": accumulator, "velocity": change}


@dataclass(frozen=True)
class Adam:
    """``m += 0.1 (g - m);  v += 0.001 (g^2 - v);  w -= rate (m^ / (sqrt(v^) + epsilon))`` (Kingma and Ba 2015).

    ``m^`` and ``v^`` are m and v corrected for their start from zero, by the number of steps that touched the row. With
    ``decay``, which the averages know nothing of, it is AdamW (Loshchilov and Hutter 2019).
    """

    decay: float = 0.0

    def slots(self, weight: Any) -> Slots:
        """``mean`` is m, ``square`` is v, and ``count`` the steps that touched a row."""
        rows = [weight.shape[0], *[1] * (len(weight.shape) - 1)]
        return {"mean": tf.zeros_like(weight), "square": tf.zeros_like(weight), "count": tf.zeros(rows)}

    def change(self, slots: Slots, gradient: Any, square: Any, rate: Any) -> tuple[Any, Slots]:
        """One step, by the square of the whole gradient."""
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


class Rows(NamedTuple):
    """The gradient of some rows of a table.

    Attributes:
        rows: int32 ``[n]``, each once.
        gradient: ``[n, ...]``.
        square: ``[n, ...]``, the sum of the squares of what adds up to the gradient.
    """

    rows: Any
    gradient: Any
    square: Any

    @classmethod
    def once(cls, rows: Any, *gradients: Any) -> list[Self]:
        """Gradients by rows of tables: those of a row that stands twice in ``rows [n]`` are added up.

        A gradient that is shorter than ``rows`` belongs to the first of them, and touches no others.
        """
        unique, place = tf.unique(rows)  # in the order in which they first stand
        found = []
        for gradient in gradients:
            places = place[: tf.shape(gradient)[0]]
            count = tf.reduce_max(places) + 1
            sums = (tf.math.unsorted_segment_sum(each, places, count) for each in (gradient, tf.square(gradient)))
            found.append(cls(unique[:count], *sums))
        return found


def clipped(gradients: Mapping[str, Any], norm: float) -> dict[str, Any]:
    """Gradients, of whole weights or of :class:`Rows`, scaled down to this norm of all together."""
    length = tf.linalg.global_norm([each.gradient if isinstance(each, Rows) else each for each in gradients.values()])
    share = tf.minimum(1.0, norm / length)
    return {
        name: each._replace(gradient=share * each.gradient, square=share**2 * each.square)
        if isinstance(each, Rows)
        else share * each
        for name, each in gradients.items()
    }


class Optimizer:
    """A rule, the weights it changes, and the slots it keeps.

    Attributes:
        slots: variables, by ``<slot>.<weight>``.
    """

    def __init__(self, weights: Mapping[str, tf.Variable], rule: Rule, compiled: bool = True) -> None:
        self._weights, self._rule = weights, rule
        self._changed = partial(_changed, rule)
        self._changed_whole = _compiled(rule) if compiled else self._changed
        self._kept = {
            name: {slot: tf.Variable(start, trainable=False) for slot, start in rule.slots(weight).items()}
            for name, weight in weights.items()
        }
        self.slots = {f"{slot}.{name}": kept for name, slots in self._kept.items() for slot, kept in slots.items()}

    def restart(self) -> None:
        """All slots as before the first step."""
        for name, slots in self._kept.items():
            for slot, start in self._rule.slots(self._weights[name]).items():
                slots[slot].assign(start)

    def apply(self, gradients: Mapping[str, Any], rate: Any) -> None:
        """Change weights, by name: wholly by a tensor, by rows where the gradient is :class:`Rows`."""
        for name, gradient in gradients.items():
            change = self._change_rows if isinstance(gradient, Rows) else self._change
            change(self._weights[name], self._kept[name], gradient, rate)

    def _change(self, weight: tf.Variable, kept: Slots, gradient: Any, rate: Any) -> None:
        slots = {slot: tf.convert_to_tensor(variable) for slot, variable in kept.items()}  # of this device
        changed, slots = self._changed_whole(tf.convert_to_tensor(weight), slots, gradient, tf.square(gradient), rate)
        for slot, value in slots.items():
            kept[slot].assign(value)
        weight.assign(changed)

    def _change_rows(self, weight: tf.Variable, kept: Slots, gradient: Rows, rate: Any) -> None:
        rows, values, square = gradient
        slots = {slot: tf.gather(variable, rows) for slot, variable in kept.items()}
        changed, slots = self._changed(tf.gather(weight, rows), slots, values, square, rate)
        for slot, value in slots.items():
            kept[slot].scatter_update(tf.IndexedSlices(value, rows))
        weight.scatter_update(tf.IndexedSlices(changed, rows))


def _changed(rule: Rule, weight: Any, slots: Slots, gradient: Any, square: Any, rate: Any) -> tuple[Any, Slots]:
    """A weight, or rows of it, and its slots after a step."""
    change, slots = rule.change(slots, gradient, square, rate)
    return weight + (change - rate * rule.decay * weight), slots


@lru_cache(maxsize=8)
def _compiled(rule: Rule) -> Callable[..., tuple[Any, Slots]]:
    """The same for whole weights by XLA, once for all optimisers of a process that follow the rule."""
    return cast(Callable[..., tuple[Any, Slots]], tf.function(partial(_changed, rule), jit_compile=True))
