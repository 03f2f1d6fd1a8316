"""Session-parallel mini-batches (Hidasi et al. 2016, section 3.1.1), several clicks at a time.

Sessions run side by side in a fixed number of lanes. When a session ends, its lane takes the next session in line; the
hidden state of the lane is reset there. All lanes are cut into windows of equal width, so that every batch has the same
shape; where a lane has run out of sessions, its steps are marked invalid.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.sessions import Sessions
from recsys.settings import TrainingSettings

RARE = 0.02  # share of clicks


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
        backwards: bool, where the session runs from its last click to its first.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    resets: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    backwards: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """Inputs, targets, resets, valid and backwards."""
        return self.inputs, self.targets, self.resets, self.valid, self.backwards

    @property
    def repeats(self) -> bool:
        """Whether items follow themselves at all often.

        Where direct repeats are collapsed a few still stand: those that an item between them, too rare to be kept, has
        left behind.
        """
        return bool(np.count_nonzero(self.valid & (self.inputs == self.targets)) > RARE * np.count_nonzero(self.valid))

    @property
    def events(self) -> NDArray[np.int64]:
        """int64 ``[windows]``: valid steps in each window."""
        counts: NDArray[np.int64] = np.count_nonzero(self.valid, axis=(1, 2))
        return counts


def both_ways(sessions: Sessions) -> tuple[Sessions, NDArray[np.bool_]]:
    """All sessions from their last click to their first, then all of them as they are.

    Which items go together hardly depends on the order, so a session read backwards is nearly as good an example as
    another session. What comes last is learnt best: that is the order in which visitors click, of the newest sessions.

    Returns:
        The sessions, and which of them run backwards, bool ``[sessions]``.
    """
    turned = np.repeat(sessions.starts[:-1] + sessions.starts[1:] - 1, sessions.lengths) - np.arange(sessions.events)
    order = np.concatenate([turned, np.arange(sessions.events)])
    starts = np.concatenate([sessions.starts, sessions.starts[1:] + sessions.events])
    both = Sessions(sessions.items[order], sessions.times[order], sessions.types[order], starts)
    return both, np.arange(len(both)) < len(sessions)


def session_parallel(
    sessions: Sessions, lanes: int, clicks: int, backwards: NDArray[np.bool_] | None = None
) -> Batches:
    """Lay out every (click, next click) pair of ``sessions``, each once, in windows of ``clicks`` steps.

    ``backwards`` is bool ``[sessions]``, as :func:`both_ways` gives it.
    """
    pairs = np.maximum(sessions.lengths - 1, 0)
    layout = assign(pairs, lanes)
    windows = -(-layout.steps // clicks)
    shape = (windows, clicks, lanes)
    time, lane = layout.positions
    is_first, is_last = np.zeros(sessions.events, np.bool_), np.zeros(sessions.events, np.bool_)
    nonempty = sessions.lengths > 0
    is_first[sessions.starts[:-1][nonempty]] = True
    is_last[sessions.starts[1:][nonempty] - 1] = True

    def laid_out(values: Any, dtype: Any, at: tuple[Any, Any] = (time, lane)) -> NDArray[Any]:
        grid = np.zeros((windows * clicks, lanes), dtype)
        grid[at] = values
        return grid.reshape(shape)

    valid = laid_out(True, np.bool_)
    return Batches(
        inputs=_filled(laid_out(sessions.items[~is_last], np.int32), valid),
        targets=_filled(laid_out(sessions.items[~is_first], np.int32), valid),
        resets=laid_out(True, np.bool_, (layout.offset[pairs > 0], layout.lane[pairs > 0])),
        valid=valid,
        backwards=laid_out(False if backwards is None else np.repeat(backwards, pairs), np.bool_),
    )


def _filled(items: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Where there is no click, one of the same window, so that no row of a table is touched for nothing."""
    windows, clicks, lanes = items.shape
    first = valid.reshape(windows, clicks * lanes).argmax(1)[:, None]
    filler = np.take_along_axis(items.reshape(windows, clicks * lanes), first, 1)
    return np.where(valid, items, filler[:, :, None])


def batches_of(sessions: Sessions, settings: TrainingSettings) -> Batches:
    """What an epoch over ``sessions`` goes through."""
    backwards = None
    if settings.backwards:
        sessions, backwards = both_ways(sessions)
    return session_parallel(sessions, settings.batch_size, settings.clicks_per_step, backwards)
