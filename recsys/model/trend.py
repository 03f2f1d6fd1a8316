"""What is rising: items clicked more of late than the network says, and than in the whole log, score more.

A network learns from all of a log. What visitors want changes meanwhile, most of all where items live for hours, as
news do, and the last clicks say more of the next ones than the network has picked up. So the score of each item is
raised by ``trend * rise``. An item's *rise* is, as a logarithm, how much likelier it is clicked than the network says
(:mod:`recsys.model.lag`), with a little of how much likelier than in the whole log: what has risen goes on to rise. How
far that holds, the one number ``trend``, is fitted (:mod:`recsys.model.strengths`): nearly wholly for news; in a shop,
whose lags are small, it may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.model.lag import lag_of
from recsys.model.network import RISE, TREND, Weights
from recsys.sessions import Sessions

RECENT_MS = 1_800_000
PRIOR_CLICKS = 1.0  # as steady as the log: a few clicks are no rise
GOES_ON = 0.2  # how much of a rise is that over the whole log; the rest is the lag


def rise_of(weights: Mapping[str, NDArray[np.float32]], sessions: Sessions) -> NDArray[np.float32]:
    """float32 ``[items]``: how much likelier than the network says an item is clicked after ``sessions``, as a log.

    Args:
        weights: of a network that has learnt, and its revisit numbers.
        sessions: what it has learnt from.
    """
    lag, rose = lag_of(weights, sessions), risen(sessions, len(weights["bias"]))
    rise: NDArray[np.float32] = (1 - GOES_ON) * lag + GOES_ON * rose
    return rise


def risen(sessions: Sessions, items: int) -> NDArray[np.float32]:
    """float32 ``[items]``: log of an item's clicks in the last half hour over what its share of all says."""
    recent = sessions.times > sessions.times.max(initial=0) - RECENT_MS
    clicks = np.bincount(sessions.items[recent], minlength=items)
    steady = np.bincount(sessions.items, minlength=items) * recent.mean()
    ratio: NDArray[np.float32] = np.log((clicks + PRIOR_CLICKS) / (steady + PRIOR_CLICKS)).astype(np.float32)
    return ratio


def with_trend(weights: Weights, rise: NDArray[np.float32], trend: float) -> Weights:
    """The weights as they serve: ``bias`` includes the trend, and what it consists of stands beside it."""
    return {**weights, "bias": weights["bias"] + trend * rise, RISE: rise, TREND: np.array([trend], np.float32)}


def without_trend(weights: Mapping[str, NDArray[np.float32]]) -> Weights:
    """The weights as they learn; how strong the trend was is kept."""
    return {**weights, "bias": weights["bias"] - weights[TREND] * weights[RISE], RISE: np.zeros_like(weights[RISE])}
