"""The model as the worker serves it, with the live trend, on sessions of the past.

The trend is what the worker's would have been, had these sessions come in: every few minutes it follows the clicks
since, and a prediction has the one that held when the visitor made the click before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.over_time import Asked, OverTime, Part, intervals
from recsys.evaluation.predictions import Predictions
from recsys.scoring.clicks import Clicks, spread
from recsys.scoring.live_trend import LiveTrend
from recsys.scoring.scorer import Scorer
from recsys.sessions import Sessions

FIXED = "GRU, no live trend"  # what evaluations call the model as it was trained


class Following:
    """A model that follows the clicks of ``sessions``, each time ``every_ms`` have passed.

    Args:
        scorer: of the model.
        sessions: what visitors do.
        every_ms: how often the trend follows.
        advance: called with the number of predictions that are followed, to show progress.
    """

    name = "GRU"

    def __init__(
        self, scorer: Scorer, sessions: Sessions, every_ms: int, advance: Callable[[int], object] = lambda _: None
    ) -> None:
        self._scorer = scorer
        self._trends = OverTime(*_trends(scorer, sessions, every_ms, advance))

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Chunks ``[n, items]``."""
        left = Asked.of(sessions)
        for scores in self._scorer.predict(sessions):
            asked, left = left.cut(len(scores))
            self._trends.add_to(scores, asked)
            yield scores


def _trends(
    scorer: Scorer, sessions: Sessions, every_ms: int, advance: Callable[[int], object]
) -> tuple[NDArray[np.int64], list[Part]]:
    """When each trend begins to hold, and what it adds."""
    predictions, live = Predictions.of(sessions), LiveTrend(scorer)
    times = sessions.times[predictions.event]
    parcels = list(intervals(times, every_ms))
    told = [_told(predictions, which, scorer.items, live.most) for _, which in parcels]
    used = np.zeros(len(times), np.bool_)
    for which in told:
        used[which] = True
    states, place = scorer.states_before(sessions, used), np.cumsum(used) - 1
    parts = []
    for (_, asked), which in zip(parcels, told, strict=True):
        trend = live.follow(Clicks(states[place[which]], predictions.target[which], times[which]))
        parts.append(Part(trend.rows, trend.raised, trend.changes(scorer.weights)))
        advance(len(asked))
    return np.array([end for end, _ in parcels], np.int64), parts


def _told(predictions: Predictions, which: NDArray[np.int64], items: int, most: int) -> NDArray[np.int64]:
    """The predictions of an interval that are followed: of each visitor one an item, and not too many."""
    _, first = np.unique(predictions.session[which] * items + predictions.target[which], return_index=True)
    return spread(which[np.sort(first)], most)
