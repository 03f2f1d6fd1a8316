"""Coarse scores from the leading directions of the items alone, by which lists are nearly exact.

Vectors of trained items lie near a space of fewer dimensions, in which their products are nearly those of the whole
(Shim et al. 2017, *SVD-softmax*). With ``h'`` and ``w'`` for what is outside of it, by Cauchy-Schwarz::

    |h w - (what is inside)|  =  |h' w'|  <=  |h'| |w'|

The bound is for vectors that point the same way, and those of trained models come nowhere near it. So only a part of it
is allowed for, :data:`LIKELY`; an item is missed where that is too little. Scores of what is found are exact.

Chosen on models of 825 thousand items (generated log; ``python -m tests.benchmarks.scoring``) and of 4 thousand (a real
shop): .9998 and .993 of the items of lists of 20 are the exact ones, in 1 / 1.5 of the time, alone in 1 / 1.8. With
CARRIED .5 it was hardly faster, and .978 of the shop's.
"""

from __future__ import annotations

import numpy as np

from recsys.scoring.byte_table import fastest_table
from recsys.scoring.tables import Query, States, Table, TableOf

CARRIED = 0.6  # of the squares of all numbers
LIKELY = 0.1  # of the bound


class LeadingTable:
    """A table of the items as they are seen in the directions that carry most of them.

    Attributes:
        directions: how many these are.
    """

    def __init__(self, vectors: States, bias: States) -> None:
        squares, directions = np.linalg.eigh(vectors.T @ vectors)  # the least comes first
        carried = np.cumsum(squares[::-1]) / max(squares.sum(), np.finfo(np.float32).tiny)
        self.directions = min(len(squares), 1 + int(np.count_nonzero(carried < CARRIED)))
        self._directions = np.ascontiguousarray(directions[:, ::-1][:, : self.directions])
        inside = vectors @ self._directions
        self._longest = float(_outside(vectors, inside).max(initial=0))
        self._table = fastest_table(inside, bias)
        self.items, self.blocks, self.width = self._table.items, self._table.blocks, self._table.width

    def ask(self, states: States) -> Query:
        """Make ready a batch of states ``[batch, units]``."""
        inside = states @ self._directions
        query = self._table.ask(inside)
        query.error = query.error + LIKELY * _outside(states, inside) * self._longest
        return query


def _outside(vectors: States, inside: States) -> States:
    """``[n]``: the lengths of what is left of vectors."""
    squares = np.einsum("ik,ik->i", vectors, vectors) - np.einsum("ik,ik->i", inside, inside)
    found: States = np.sqrt(np.maximum(squares, 0))
    return found


def near_table(vectors: States, bias: States) -> Table:
    """By the leading directions, if a few of them carry the items; else an exact one, which is faster then."""
    table = LeadingTable(vectors, bias)
    return table if table.directions <= vectors.shape[1] / 2 else fastest_table(vectors, bias)


TABLES: dict[str, TableOf] = {"exact": fastest_table, "approximate": near_table}  # by setting
