"""Recall@k, MRR@k and their intervals, from the rank of each prediction.

A rank counts from 1 and is pessimistic (see :mod:`recsys.evaluation.protocol`). Both metrics are averages over
predictions. Predictions of one session depend on each other, so intervals resample whole sessions: the cluster
bootstrap, percentile form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


def hits(ranks: NDArray[np.int32], k: int) -> NDArray[np.float64]:
    """``[predictions]``: 1 where the rank is at most ``k``, else 0. Its mean is Recall@k."""
    return (ranks <= k).astype(np.float64)


def reciprocal_ranks(ranks: NDArray[np.int32], k: int) -> NDArray[np.float64]:
    """``[predictions]``: 1 / rank where the rank is at most ``k``, else 0. Its mean is MRR@k."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def bootstrap(values: NDArray[np.float64], owner: NDArray[np.int64], seed: int = 0) -> NDArray[np.float64]:
    """Means of ``values`` over resampled sessions.

    Args:
        values: ``[predictions]`` or ``[predictions, columns]``; a column is a metric, or a difference of two metrics.
        owner: ``[predictions]``, the session of each prediction.
        seed: the same seed resamples the same sessions, which pairs recommenders with one another.

    Returns:
        ``[resamples]`` or ``[resamples, columns]``.
    """
    _, session = np.unique(owner, return_inverse=True)
    columns = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(session, column) for column in columns.T], axis=1)
    sizes = np.bincount(session)
    random = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, columns.shape[1]))
    for resample in range(RESAMPLES):
        times = np.bincount(random.integers(len(sizes), size=len(sizes)), minlength=len(sizes))
        means[resample] = times @ sums / (times @ sizes)
    return means.reshape(RESAMPLES, *values.shape[1:])


def interval(means: NDArray[np.float64]) -> Interval:
    """The percentile interval of bootstrap means ``[resamples]``."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))
