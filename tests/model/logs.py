"""Small click logs and what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.protocol import evaluate
from recsys.model.network import Weights
from recsys.scoring.scorer import Scorer
from recsys.sessions import Sessions


def sessions_of(rows: Iterable[Sequence[int]]) -> Sessions:
    """Sessions with these items, a second apart."""
    rows = list(rows)
    lengths = np.array([len(row) for row in rows], np.int64)
    items = np.array([item for row in rows for item in row], np.int32)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Sessions(items, np.arange(len(items), dtype=np.int64) * 1000, np.zeros(len(items), np.int8), starts)


def markov_chain(items: int, successors: int, seed: int) -> NDArray[np.float64]:
    """``[items, items]``: the chance of each next item; a few successors each, likelier and less likely ones."""
    random = np.random.default_rng(seed)
    chances = np.zeros((items, items))
    weight = 0.85 ** np.arange(successors)
    for row in chances:
        row[random.choice(items, successors, replace=False)] = weight / weight.sum()
    return chances


def markov_log(chances: NDArray[np.float64], sessions: int, length: int, seed: int) -> Sessions:
    """Sessions of equal length from a first-order process."""
    random = np.random.default_rng(seed)
    steps = np.empty((sessions, length), np.int64)
    steps[:, 0] = random.integers(len(chances), size=sessions)
    cumulative = chances.cumsum(axis=1)
    for step in range(1, length):
        above = cumulative[steps[:, step - 1]] < random.random((sessions, 1))
        steps[:, step] = np.minimum(above.sum(axis=1), len(chances) - 1)
    return sessions_of(steps.tolist())


def recall(weights: Weights, sessions: Sessions, k: int = 20) -> float:
    """Recall@k of a model."""
    return evaluate(Scorer(weights), sessions, np.ones(len(weights["bias"]), np.int64), ks=(k,)).recall(k)
