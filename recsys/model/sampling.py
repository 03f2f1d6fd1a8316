"""Negative samples by popularity, the same for the same (seed, step)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class NegativeSampler:
    """Draws items with replacement, by ``counts ** alpha`` (Hidasi and Karatzoglou 2018, section 3.1).

    Args:
        counts: int64 ``[items]``, training events of each item; an item without any is never drawn.
        alpha: 1 draws by popularity, 0 draws the items seen uniformly.
    """

    def __init__(self, counts: NDArray[np.int64], alpha: float) -> None:
        weight = np.where(counts > 0, counts.astype(np.float64) ** alpha, 0.0)
        self.probability: NDArray[np.float64] = weight / weight.sum()
        cumulative = np.cumsum(self.probability)
        self._cumulative = tf.constant(cumulative / cumulative[-1])

    def draw(self, samples: int, seed: Any) -> Any:
        """int32 ``[samples]`` items; ``seed`` is an int tensor of shape ``[2]``."""
        uniform = tf.random.stateless_uniform([samples], seed, dtype=tf.float64, alg="philox")
        return tf.searchsorted(self._cumulative, uniform, side="right")
