"""Coarse scores of all items for a batch of states: fast, and known to be off by no more than so much.

The items are dealt to blocks of about :data:`BLOCK_ITEMS` as cards are: item ``i`` is column ``i // blocks`` of block
``i % blocks``. So each block is a fair sample of all, whatever their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_ITEMS = 1 << 14  # fewer would cost more calls, more would no longer fit into a core's caches
FEW, SLICE = 8, 1024  # for so few states, so many items at a time: OpenBLAS multiplies them without copying them
ROUNDING = 2.0**-22  # of four roundings to float32

States = NDArray[np.float32]


class Query(Protocol):
    """A batch of states that a table is asked about.

    Attributes:
        unit: float64 ``[batch]``: what a coarse score of one is worth.
        error: float64 ``[batch]``: no score is off by more, in worth.
    """

    unit: NDArray[np.float64]
    error: NDArray[np.float64]

    def scores(self, block: int) -> NDArray[Any]:
        """``[batch, width]``: coarse scores of a block's items; they may be overwritten by the next block's."""
        ...


class Table(Protocol):
    """The items' vectors and biases. The true score is their product with a state, and the bias.

    Attributes:
        items: how many there are.
        blocks: into how many blocks they are dealt.
        width: columns of a block; where items do not come out even, the last columns of some blocks are none.
    """

    items: int
    blocks: int
    width: int

    def ask(self, states: States) -> Query:
        """Make ready a batch of states ``[batch, units]``."""
        ...


TableOf = Callable[[States, States], Table]  # of vectors ``[items, units]`` and biases ``[items]``


def dealt(items: int) -> tuple[int, int]:
    """Blocks for so many items, and their width."""
    blocks = max(1, -(-items // BLOCK_ITEMS))
    return blocks, -(-items // blocks)


class Rounding:
    """How far a score may be off by the roundings of float32, in whatever order it is summed."""

    def __init__(self, vectors: States, bias: States) -> None:
        self._share = ROUNDING * (vectors.shape[1] + 4)
        self._longest, self._bias = float(lengths(vectors).max(initial=0)), float(np.abs(bias).max(initial=0))

    def of(self, states: States) -> NDArray[np.float64]:
        """Float64 ``[batch]``."""
        found: NDArray[np.float64] = self._share * (lengths(states).astype(np.float64) * self._longest + self._bias)
        return found


class FloatTable:
    """Products in float32, by BLAS."""

    def __init__(self, vectors: States, bias: States) -> None:
        self.items, units = vectors.shape
        self.blocks, self.width = dealt(self.items)
        self._rounding = Rounding(vectors, bias)
        self.table = np.zeros((self.blocks, units + 1, self.width), np.float32)
        for block, columns in enumerate(self.table):
            mine = vectors[block :: self.blocks]
            columns[:-1, : len(mine)] = mine.T
            columns[-1, : len(mine)] = bias[block :: self.blocks]  # a state's last number is 1

    def ask(self, states: States) -> FloatQuery:
        """Make ready a batch of states ``[batch, units]``."""
        return FloatQuery(self.table, states, self._rounding.of(states))


class FloatQuery:
    """Asks a :class:`FloatTable`."""

    def __init__(self, table: States, states: States, error: NDArray[np.float64]) -> None:
        self._table = table
        self._states = np.concatenate([states, np.ones((len(states), 1), np.float32)], axis=1)
        self._scores = np.empty((len(states), table.shape[2]), np.float32)
        self.unit, self.error = np.ones(len(states)), error

    def scores(self, block: int) -> States:
        """Float32 ``[batch, width]``; each block's overwrite the last one's."""
        items, found = self._table[block], self._scores
        step = SLICE if len(found) <= FEW else found.shape[1]
        for start in range(0, found.shape[1], step):
            np.matmul(self._states, items[:, start : start + step], out=found[:, start : start + step])
        return found


def lengths(vectors: States) -> States:
    """``[n]``: the length of each vector ``[n, units]``."""
    found: States = np.sqrt(np.vecdot(vectors, vectors))
    return found
