"""The best of each row of scores that come as a list of places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_ROWS, MOST_COLUMNS = 1 << 8, 1 << 24  # a column fits into one number with a score, and is sorted by it

_LAST = np.iinfo(np.int64).max  # sorts behind all that stand for a score

Rows = NDArray[np.int32]
Scores = NDArray[np.float32]
Places = NDArray[np.int64]


def rank(row: Places, column: Places, score: Scores, rows: int, count: int) -> list[tuple[Rows, Scores]]:
    """For each of ``rows`` rows the columns and scores of its ``count`` largest, best first, equal ones by column.

    Scores are finite; there are at most :data:`MOST_ROWS` rows and :data:`MOST_COLUMNS` columns.
    """
    order = np.argsort(row.astype(np.uint8), kind="stable")
    row = row[order]
    sizes = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - (np.cumsum(sizes) - sizes)[row]
    keys = np.full((rows, sizes.max(initial=0)), _LAST)
    keys[row, place] = (_descending(score) << 24 | column)[order]
    keys.sort(axis=1)  # short rows are sorted many times as fast as all together
    keys = keys[:, :count]
    columns, scores = (keys & MOST_COLUMNS - 1).astype(np.int32), _scores(keys >> 24)
    return [(columns[each, :size], scores[each, :size]) for each, size in enumerate(np.minimum(sizes, count).tolist())]


def _descending(scores: Scores) -> Places:
    """Whole numbers below 2**32 in the opposite order of finite scores."""
    bits = (scores + np.float32(0)).view(np.uint32).astype(np.int64)  # -0.0 becomes 0.0, its equal
    return np.where(scores < 0, bits, 0x7FFFFFFF - bits)


def _scores(descending: Places) -> Scores:
    """The scores of :func:`_descending`."""
    bits = np.where(descending > 0x7FFFFFFF, descending, 0x7FFFFFFF - descending)
    return bits.astype(np.uint32).view(np.float32)
