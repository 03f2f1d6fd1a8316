"""What recommenders know that follow the clicks of all visitors: at each moment, of the clicks before it alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.predictions import Predictions
from recsys.scoring.trend import Pairs
from recsys.sessions import Sessions


class Part(NamedTuple):
    """A number for each of some items, and of some pairs of an item and one that follows it.

    ``rows`` int32 ``[n]``, ascending, have the numbers ``values`` float32 ``[n]``.
    """

    rows: NDArray[np.int32]
    values: NDArray[np.float32]
    pairs: Pairs


class Asked(NamedTuple):
    """When predictions are made, which is when the click before the target is, and what that was on.

    ``moments`` are int64 ``[n]``, epoch milliseconds; ``last`` int32 ``[n]`` rows.
    """

    moments: NDArray[np.int64]
    last: NDArray[np.int32]

    @classmethod
    def of(cls, sessions: Sessions) -> Self:
        """All predictions of ``sessions``."""
        before = Predictions.of(sessions).event - 1
        return cls(sessions.times[before], sessions.items[before])

    def cut(self, count: int) -> tuple[Asked, Asked]:
        """The first predictions, and the rest."""
        return Asked(self.moments[:count], self.last[:count]), Asked(self.moments[count:], self.last[count:])


class OverTime:
    """What is added to scores, and changes as time goes on.

    Args:
        times: int64 ``[n]``, ascending, epoch milliseconds: when each of ``parts`` begins to hold; none does before.
        parts: what is in none gets 0.
    """

    def __init__(self, times: NDArray[np.int64], parts: Sequence[Part]) -> None:
        self._times, self._parts = times, parts

    def add_to(self, scores: NDArray[np.float32], asked: Asked) -> None:
        """Add to each row of ``scores`` ``[n, items]`` what holds for the question ``[n]``."""
        holds = np.searchsorted(self._times, asked.moments, side="right") - 1
        for number in np.unique(holds[holds >= 0]):
            part, mine = self._parts[number], np.flatnonzero(holds == number)
            scores[np.ix_(mine, part.rows)] += part.values
            place, pair = part.pairs.after(asked.last[mine])
            scores[mine[place], part.pairs.follower[pair]] += part.pairs.surplus[pair]


def intervals(times: NDArray[np.int64], every_ms: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The events, whose ``times`` are given, of each interval that has any: its end, and which they are, by time.

    Ends are multiples of ``every_ms``; an event at an end belongs to the next interval.
    """
    if not len(times):
        return
    order = np.argsort(times, kind="stable")
    number = times[order] // every_ms
    for begin, end in zip(*_runs(number), strict=True):
        yield int(number[begin] + 1) * every_ms, order[begin:end]


def _runs(numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each run of equal numbers begins and ends."""
    borders = np.flatnonzero(np.diff(numbers)) + 1
    return np.concatenate(([0], borders)), np.concatenate((borders, [len(numbers)]))
