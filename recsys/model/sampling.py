"""What each target is compared with: the other targets of its window, and samples by popularity."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from recsys.model.batches import Batches
from recsys.settings import TrainingSettings


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


class Negatives:
    """The candidates of a window, and how often each stands among them.

    Args:
        batches: what will be learnt from; chances follow from its targets and clicks.
        items: rows of the vocabulary.
        settings: how many samples, and by which power of popularity.
    """

    def __init__(self, batches: Batches, items: int, settings: TrainingSettings) -> None:
        targets = np.bincount(batches.targets[batches.valid], minlength=items)
        seen = targets + np.bincount(batches.inputs[batches.valid & batches.resets], minlength=items)
        self._samples = settings.samples
        self._sampler = NegativeSampler(seen, settings.alpha)
        self._sampled = tf.constant(settings.samples * self._sampler.probability, tf.float32)
        self._shared = tf.constant(targets / max(targets.sum(), 1), tf.float32)

    def candidates(self, targets: Any, seed: Any) -> Any:
        """int32 ``[pairs + samples]``: the window's ``targets [pairs]``, then samples by ``seed``, int ``[2]``."""
        return tf.concat([targets, self._sampler.draw(self._samples, seed)], 0)

    def expected_counts(self, candidates: Any, valid: Any) -> Any:
        """How often each candidate stands, on average, in what one prediction of such a window is compared with.

        That is the targets of the other lanes, and the samples. ``candidates`` has any shape, and so has the result;
        ``valid`` is bool ``[clicks, lanes]``.
        """
        rivals = tf.reduce_sum(tf.cast(valid, tf.float32)) * (1 - 1 / valid.shape[1])
        return rivals * tf.gather(self._shared, candidates) + tf.gather(self._sampled, candidates)
