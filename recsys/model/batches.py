"""Session-parallel mini-batches (Hidasi et al. 2016, section 3.1.1), several clicks at a time.

Sessions run side by side in a fixed number of lanes. When a session ends, its lane takes the next session in line; the
hidden state of the lane is reset there. All lanes are cut into windows of equal width, so that every batch has the same
shape; where a lane has run out of sessions, its steps are marked invalid.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.sessions import Sessions


@dataclass(frozen=True)
class Lanes:
    """Where each session runs: ``lane`` and first ``offset`` in it (int64 ``[sessions]``), of ``lanes`` lanes."""

    lane: NDArray[np.int64]
    offset: NDArray[np.int64]
    lengths: NDArray[np.int64]
    lanes: int

    @property
    def steps(self) -> int:
        """Length of the longest lane."""
        return int((self.offset + self.lengths).max(initial=0))

    @property
    def positions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``(time, lane)`` of every step of every session, in session order; int64 ``[sum of lengths]`` each."""
        first = np.cumsum(self.lengths) - self.lengths
        within = np.arange(self.lengths.sum()) - np.repeat(first, self.lengths)
        return np.repeat(self.offset, self.lengths) + within, np.repeat(self.lane, self.lengths)


def assign(lengths: NDArray[np.int64], lanes: int) -> Lanes:
    """Give each session in turn to the lane that is free first (the lowest numbered among equals)."""
    lane = np.empty(len(lengths), np.int64)
    offset = np.empty(len(lengths), np.int64)
    free = [(0, number) for number in range(lanes)]
    for session, length in enumerate(lengths.tolist()):
        at, number = free[0]
        lane[session], offset[session] = number, at
        heapq.heapreplace(free, (at + length, number))
    return Lanes(lane, offset, lengths, lanes)


@dataclass(frozen=True)
class Batches:
    """Windows of clicks side by side; every array has the shape ``[windows, clicks, lanes]``.

    Attributes:
        inputs: int32, the item just clicked.
        targets: int32, the item clicked next.
        resets: bool, where the input opens a session.
        valid: bool, where there is an input and a target at all.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    resets: NDArray[np.bool_]
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def events(self) -> NDArray[np.int64]:
        """int64 ``[windows]``: valid steps in each window."""
        counts: NDArray[np.int64] = np.count_nonzero(self.valid, axis=(1, 2))
        return counts


def session_parallel(sessions: Sessions, lanes: int, clicks: int) -> Batches:
    """Lay out every (click, next click) pair of ``sessions``, each once, in windows of ``clicks`` steps."""
    pairs = np.maximum(sessions.lengths - 1, 0)
    layout = assign(pairs, lanes)
    windows = -(-layout.steps // clicks)
    time, lane = layout.positions
    inputs = np.zeros((windows * clicks, lanes), np.int32)
    targets = np.zeros_like(inputs)
    resets = np.zeros(inputs.shape, np.bool_)
    valid = np.zeros(inputs.shape, np.bool_)
    is_first, is_last = np.zeros(sessions.events, np.bool_), np.zeros(sessions.events, np.bool_)
    nonempty = sessions.lengths > 0
    is_first[sessions.starts[:-1][nonempty]] = True
    is_last[sessions.starts[1:][nonempty] - 1] = True
    inputs[time, lane] = sessions.items[~is_last]
    targets[time, lane] = sessions.items[~is_first]
    resets[layout.offset[pairs > 0], layout.lane[pairs > 0]] = True
    valid[time, lane] = True
    shape = (windows, clicks, lanes)
    return Batches(inputs.reshape(shape), targets.reshape(shape), resets.reshape(shape), valid.reshape(shape))
