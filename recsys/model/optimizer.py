"""Adagrad with momentum, for whole tensors and for rows of large tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

EPSILON = 1e-6


class AdagradMomentum:
    """``a += g^2;  v = momentum v - rate g / sqrt(a + epsilon);  w += v`` (Duchi et al. 2011, with Polyak's momentum).

    A row that a step does not touch keeps its ``a`` and ``v`` as they are.

    Attributes:
        slots: the variables ``a`` and ``v`` of each weight, by ``accumulator.<name>`` and ``velocity.<name>``.
    """

    def __init__(self, weights: Mapping[str, tf.Variable], learning_rate: float, momentum: float) -> None:
        self._weights = weights
        self._rate = learning_rate
        self._momentum = momentum
        self.slots: dict[str, tf.Variable] = {}
        for name, weight in weights.items():
            self.slots[f"accumulator.{name}"] = tf.Variable(tf.zeros_like(weight), trainable=False)
            if momentum:
                self.slots[f"velocity.{name}"] = tf.Variable(tf.zeros_like(weight), trainable=False)

    def apply(self, name: str, gradient: Any) -> None:
        """Update the whole of a weight."""
        accumulated = self.slots[f"accumulator.{name}"].assign_add(tf.square(gradient))
        change = -self._rate * gradient * tf.math.rsqrt(accumulated + EPSILON)
        if self._momentum:
            velocity = self.slots[f"velocity.{name}"]
            change = velocity.assign(self._momentum * velocity + change)
        self._weights[name].assign_add(change)

    def apply_rows(self, name: str, rows: Any, gradients: Any) -> None:
        """Update some rows: ``rows [n]``, ``gradients [n, ...]``; gradients of a row that stands twice add up."""
        unique, place = tf.unique(rows)
        gradient = tf.math.unsorted_segment_sum(gradients, place, tf.size(unique))
        accumulator = self.slots[f"accumulator.{name}"]
        accumulated = tf.gather(accumulator, unique) + tf.square(gradient)
        accumulator.scatter_update(tf.IndexedSlices(accumulated, unique))
        change = -self._rate * gradient * tf.math.rsqrt(accumulated + EPSILON)
        if self._momentum:
            velocity = self.slots[f"velocity.{name}"]
            change += self._momentum * tf.gather(velocity, unique)
            velocity.scatter_update(tf.IndexedSlices(change, unique))
        self._weights[name].scatter_add(tf.IndexedSlices(change, unique))
