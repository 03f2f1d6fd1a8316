"""What is rising: items clicked more in the last hour than in the whole log score more.

A network learns from all of a log. What visitors want changes meanwhile, most of all where items live for hours, as
news do, and the last hour says more of the next ones than the network has picked up. So the score of each item is
raised by ``trend * rise``, ``rise`` being how much likelier its clicks have become of late, as a logarithm. How far
that holds, the one number ``trend``, differs from shop to shop and is no matter of taste: it is what makes the clicks
of the validation sessions likeliest, which come after all that the network and ``rise`` know. News have about 0.4, a
shop with a standing catalogue about 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.model.asked import Asked
from recsys.model.network import REVISIT, RISE, TREND, Weights
from recsys.sessions import Sessions

HOUR_MS = 3_600_000
PRIOR_CLICKS = 3.0  # of the last hour, as steady as the log: so few clicks are no rise
PREDICTIONS, SCORES = (
    8192,
    1 << 27,
)  # that the number is fitted to, at most: a second or two, however large the catalogue
PRECISION = 10.0  # of its prior, which is normal around zero
NEWTON_STEPS, LONGEST_STEP = 6, 0.5


def rise_of(sessions: Sessions, items: int) -> NDArray[np.float32]:
    """float32 ``[items]``: log of an item's clicks in the last hour of ``sessions`` over what its share of all says."""
    recent = sessions.times > sessions.times.max(initial=0) - HOUR_MS
    clicks = np.bincount(sessions.items[recent], minlength=items)
    steady = np.bincount(sessions.items, minlength=items) * recent.mean()
    rise: NDArray[np.float32] = np.log((clicks + PRIOR_CLICKS) / (steady + PRIOR_CLICKS)).astype(np.float32)
    return rise


def with_trend(weights: Weights, rise: NDArray[np.float32], trend: float) -> Weights:
    """The weights as they serve: ``bias`` includes the trend, and what it consists of stands beside it."""
    return {**weights, "bias": weights["bias"] + trend * rise, RISE: rise, TREND: np.array([trend], np.float32)}


def without_trend(weights: Mapping[str, NDArray[np.float32]]) -> Weights:
    """The weights as they learn; how strong the trend was is kept."""
    return {**weights, "bias": weights["bias"] - weights[TREND] * weights[RISE], RISE: np.zeros_like(weights[RISE])}


def fit_trend(weights: Mapping[str, NDArray[np.float32]], rise: NDArray[np.float32], later: Sessions) -> float:
    """How much of ``rise`` to add to the scores, by maximum likelihood over the clicks of ``later`` sessions.

    Args:
        weights: of a network that has learnt, without a trend.
        rise: as :func:`rise_of` gives it for the sessions that the network has learnt.
        later: sessions that come after those.
    """
    asked = Asked.of(weights, _spread(later, min(PREDICTIONS, SCORES // len(rise))))
    trend = 0.0
    for _ in range(NEWTON_STEPS if rise.any() else 0):
        gradient, curvature = -PRECISION * trend, PRECISION
        for part, scores in asked.scores(weights):
            row, item, place = asked.places(part)
            scores[row, item] += weights[REVISIT][place]
            chances = _softmax(scores + np.float32(trend) * rise)
            expected = chances @ rise
            gradient += float((rise[asked.targets[part]] - expected).sum())
            curvature += float((chances @ rise**2 - expected**2).sum())
        trend += float(np.clip(gradient / curvature, -LONGEST_STEP, LONGEST_STEP))
    return trend


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    chances: NDArray[np.float32] = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    return chances


def _spread(sessions: Sessions, wanted: int) -> Sessions:
    """Sessions from all over the time, with about so many predictions."""
    stride = max(1, -(-(sessions.events - len(sessions)) // max(wanted, 1)))
    return sessions.keep_sessions(np.arange(len(sessions)) % stride == 0)
