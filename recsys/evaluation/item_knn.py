"""Item-kNN: the items that shared most sessions with the current one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.predictions import Predictions
from recsys.sessions import Sessions

PAIRS_AT_ONCE = 1 << 22


class ItemKNN:
    """Scores an item by its similarity to the current item.

    The similarity is the cosine of the items' session vectors with the supports shrunk towards equality, after Hidasi
    et al. 2016::

        similarity(i, j) = sessions with both / sqrt((sessions with i + shrink) * (sessions with j + shrink))

    Args:
        neighbours: how many similar items are kept for each item.
        shrink: regularisation against rare items with chance neighbours.
    """

    name = "item-kNN"

    def __init__(self, neighbours: int = 100, shrink: float = 20.0) -> None:
        self.neighbours, self.shrink = neighbours, shrink

    def fit(self, sessions: Sessions, items: int) -> None:
        """Count for each pair of ``items`` items the sessions that hold both."""
        keys = np.unique(sessions.owner * items + sessions.items)
        owner, item = np.divmod(keys, items)
        support = np.bincount(item, minlength=items)
        pairs, together = _co_occurrences(owner, item, items)
        one, other = np.divmod(pairs, items)
        similarity = together / np.sqrt((support[one] + self.shrink) * (support[other] + self.shrink))
        order = np.lexsort((-similarity, one))
        one, other, similarity = one[order], other[order], similarity[order]
        first = np.searchsorted(one, np.arange(items + 1))
        near = np.arange(len(one)) - first[one] < self.neighbours
        self._other, self._similarity = other[near], similarity[near].astype(np.float32)
        self._first = np.searchsorted(one[near], np.arange(items + 1))

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Chunks ``[n, items]``; items that are no neighbour are never recommended."""
        items = len(self._first) - 1
        for chunk in Predictions.of(sessions).chunks(items):
            scores = np.full((len(chunk), items), -np.inf, np.float32)
            current = sessions.items[chunk.event - 1]
            row, at = expand(self._first[current], self._first[current + 1])
            scores[row, self._other[at]] = self._similarity[at]
            yield scores


def expand(first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All indices of many ranges ``first[i]..end[i]``, one after another, and the ``i`` that each is of."""
    lengths = end - first
    row = np.repeat(np.arange(len(lengths)), lengths)
    return row, np.arange(len(row)) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths)


def _co_occurrences(
    owner: NDArray[np.int64], item: NDArray[np.int64], items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ordered pairs of different items in one session, coded ``i * items + j``, and in how many sessions each stands.

    ``owner`` and ``item`` are the distinct (session, item) pairs, ordered. Counted block by block: a session of n
    items has n * (n - 1) pairs.
    """
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    session = np.searchsorted(starts, np.arange(len(owner)), side="right") - 1
    first, end = starts[session], np.append(starts, len(owner))[session + 1]
    blocks = np.searchsorted(np.cumsum(end - first), np.arange(0, int((end - first).sum()), PAIRS_AT_ONCE))
    pairs, together = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for begin, stop in zip(blocks, [*blocks[1:], len(owner)], strict=True):
        row, at = expand(first[begin:stop], end[begin:stop])
        one, other = item[begin + row], item[at]
        keys, counts = np.unique((one * items + other)[one != other], return_counts=True)
        merged, index = np.unique(np.concatenate((pairs, keys)), return_inverse=True)
        together = np.bincount(index, np.concatenate((together, counts)), len(merged)).astype(np.int64)
        pairs = merged
    return pairs, together
