"""Recent popularity: what most people have clicked in the last half hour, the same for everybody."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.over_time import Asked, OverTime, Part, intervals
from recsys.evaluation.predictions import Predictions
from recsys.scoring.trend import Pairs
from recsys.sessions import Sessions
from recsys.vocabulary import below_one

RECENT_MS = 1_800_000


class RecentPopularity:
    """Scores an item by its events in the last half hour, equals by their training events.

    Like the model with its live trend, it sees what other visitors do meanwhile.

    Args:
        seen: what they do.
        every_ms: how often events are counted.
    """

    name = "recent popularity"

    def __init__(self, seen: Sessions, every_ms: int) -> None:
        self._recent = OverTime(*_counts(seen, every_ms))

    def fit(self, sessions: Sessions, items: int) -> None:
        """Count the events of each of ``items`` items."""
        self._below_one = below_one(np.bincount(sessions.items, minlength=items))

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Chunks ``[n, items]``; the item just clicked comes last."""
        left = Asked.of(sessions)
        for chunk in Predictions.of(sessions).chunks(len(self._below_one)):
            asked, left = left.cut(len(chunk))
            scores = np.tile(self._below_one, (len(chunk), 1))
            self._recent.add_to(scores, asked)
            scores[np.arange(len(chunk)), asked.last] = -1
            yield scores


def _counts(seen: Sessions, every_ms: int) -> tuple[NDArray[np.int64], list[Part]]:
    """When each count begins to hold, and the count."""
    ends = [end for end, _ in intervals(seen.times, every_ms)]
    order = np.argsort(seen.times, kind="stable")
    times, items = seen.times[order], seen.items[order]
    parts = []
    for end in ends:
        first, last = np.searchsorted(times, (end - RECENT_MS, end))
        rows, counts = np.unique(items[first:last], return_counts=True)
        parts.append(Part(rows, counts.astype(np.float32), Pairs.none()))
    return np.array(ends, np.int64), parts
