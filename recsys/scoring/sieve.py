"""Finds the items that may be among the best of a state, without a true score of each.

A table (:mod:`recsys.scoring.tables`) gives coarse scores, and how far they may be off. From those of its first block,
a fair sample, comes a guess of what the last item of the list is worth at least, and found is every item that may be
worth as much. The true scores of what is found confirm the guess: when ``count`` of them are as good, no other item is
better. Else the ``count``-th best of them is a bound, by which to search anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.scoring.tables import Query, States, Table

GROUP = 8  # blocks whose items are looked for together
MOST_PLACES = 1 << 20  # found at a time; where all items are worth the same, all are found
LANES = 512  # a sample's best is sought among the best of so many lanes
_LEAST, _MOST = np.iinfo(np.int32).min, np.iinfo(np.int32).max

Bounds = NDArray[np.float64]


@dataclass(frozen=True)
class Places:
    """Pairs of a state, by its place in the batch, and an item."""

    row: NDArray[np.int64]
    item: NDArray[np.int64]


class Sieve:
    """Sifts the items of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def search(self, states: States, count: int, but: Places, least: Bounds) -> tuple[Places, Bounds] | None:
        """For states ``[batch, units]`` all items but some that may be worth ``least`` ``[batch]``, and this.

        Where ``least`` is NaN it is guessed, such that probably ``count`` items and not many more are worth as much.
        None when more than :data:`MOST_PLACES` are found for several states: ask for fewer states at a time.
        """
        table, query = self._table, self._table.ask(states)
        block, column = but.item % table.blocks, but.item // table.blocks
        rows, items = [], []
        for first in range(0, table.blocks, GROUP):
            reached = np.empty((len(states), min(GROUP, table.blocks - first), table.width), np.bool_)
            for place in range(reached.shape[1]):
                scores = query.scores(first + place)
                if first + place == 0:
                    least = np.where(np.isnan(least), self._guess(scores, query, count), least)
                    thresholds = _thresholds(least, query, scores.dtype)
                np.greater_equal(scores, thresholds, out=reached[:, place])
            here = np.flatnonzero((block >= first) & (block < first + reached.shape[1]))
            reached[but.row[here], block[here] - first, column[here]] = False
            row, item = self._places(reached, first)
            rows.append(row)
            items.append(item)
            if len(states) > 1 and sum(map(len, rows)) > MOST_PLACES:
                return None
        return Places(np.concatenate(rows), np.concatenate(items)), least

    def _guess(self, sample: NDArray[Any], query: Query, count: int) -> Bounds:
        """What the ``count``-th best item is worth at least, as far as the first block tells.

        So many of its items will be among the best in the mean, and three standard deviations more nearly always.
        """
        mean = count / self._table.blocks
        rank = int(np.ceil(mean + 3 * np.sqrt(mean)))
        depth = sample.shape[1] // LANES
        if depth > 1 and rank < LANES // 2:
            sample = sample[:, : depth * LANES].reshape(len(sample), depth, LANES).max(axis=1)
        if rank > sample.shape[1]:
            return np.full(len(sample), -np.inf)
        return query.unit * np.partition(sample, -rank, axis=1)[:, -rank]

    def _places(self, reached: NDArray[np.bool_], first: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and items of what is true of ``[batch, group, width]``, whose first block is ``first``."""
        _, group, width = reached.shape
        flat = np.flatnonzero(reached)
        dealt = flat // width
        row = dealt // group
        item = (flat - dealt * width) * self._table.blocks + (dealt - row * group + first)
        some = item < self._table.items
        return (row, item) if some.all() else (row[some], item[some])


def _thresholds(least: Bounds, query: Query, kind: np.dtype[Any]) -> NDArray[Any]:
    """``[batch, 1]``: what coarse scores of this kind must reach."""
    least = (least - query.error) / query.unit
    if kind.kind == "i":
        found = np.minimum(np.maximum(np.floor(least), _LEAST), _MOST).astype(kind)
    else:
        found = np.nextafter(least.astype(kind), kind.type(-np.inf))
    return found[:, None]
