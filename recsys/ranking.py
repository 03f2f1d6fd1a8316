"""The best of each row of scores that come in blocks of columns: exact, and most scores are looked at once.

The columns of a block are dealt out to lanes, and the best score of each lane is found by comparing whole vectors. At
least ``count`` scores are as high as the ``count``-th best of the lanes, so what is below that cannot be in the list:
only lanes that reach it are looked at again, about as many as the list is long. It rises from block to block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LANES = 1024
MOST_ROWS, MOST_COLUMNS = 1 << 7, 1 << 24  # what fits into one number with a score, and is sorted by it
LOWEST = np.finfo(np.float32).min

Rows = NDArray[np.int32]
Scores = NDArray[np.float32]


class Ranking:
    """The ``count`` largest finite scores of each of ``rows`` rows, best first, equal scores by column.

    There are at most :data:`MOST_ROWS` rows and :data:`MOST_COLUMNS` columns.
    """

    def __init__(self, rows: int, count: int) -> None:
        self._rows, self._count = rows, count
        self._best = np.full((rows, count), -np.inf, np.float32)  # each of a lane of its own
        self._found: list[tuple[NDArray[np.int64], NDArray[np.int64], Scores]] = []  # row, column, score

    def add(self, scores: Scores, first: int = 0) -> None:
        """Look at ``[rows, width]``, whose first column is column ``first`` of all."""
        if not (self._count and scores.size):
            return
        depth = scores.shape[1] // LANES
        dealt, rest = scores[:, : depth * LANES].reshape(self._rows, depth, LANES), scores[:, depth * LANES :]
        maxima = dealt.max(axis=1, initial=-np.inf)
        lanes = np.concatenate([self._best, maxima, rest], axis=1)
        lanes.partition(lanes.shape[1] - self._count, axis=1)
        self._best = lanes[:, -self._count :]
        threshold = np.maximum(self._best[:, :1], LOWEST)  # -inf is for what must not appear
        row, lane = _places(maxima >= threshold)
        reaching = dealt[row, :, lane]
        which, level = _places(reaching >= threshold[row])
        self._found.append((row[which], first + level * LANES + lane[which], reaching[which, level]))
        row, column = _places(rest >= threshold)
        self._found.append((row, first + depth * LANES + column, rest[row, column]))

    def lists(self) -> list[tuple[Rows, Scores]]:
        """For each row the columns and their scores."""
        nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        row, column, score = (np.concatenate(part) for part in zip(nothing, *self._found, strict=True))
        order = np.argsort((row << 56) | (_descending(score) << 24) | column)
        found = np.bincount(row, minlength=self._rows)
        starts = np.cumsum(found) - found
        chosen = [
            order[start : start + size] for start, size in zip(starts, np.minimum(found, self._count), strict=True)
        ]
        return [(column[picked].astype(np.int32), score[picked]) for picked in chosen]


def _places(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of what is true, row by row: ``np.nonzero``, in a quarter of the time."""
    flat = np.flatnonzero(mask)
    row = flat // max(1, mask.shape[1])
    return row, flat - row * mask.shape[1]


def _descending(scores: Scores) -> NDArray[np.int64]:
    """Whole numbers below 2**32 in the opposite order of finite scores."""
    bits = (scores + np.float32(0)).view(np.uint32).astype(np.int64)  # -0.0 becomes 0.0, its equal
    return np.where(scores < 0, bits, 0x7FFFFFFF - bits)
