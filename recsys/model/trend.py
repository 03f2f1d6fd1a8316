"""What is rising: items clicked more in the last half hour than in the whole log score more.

A network learns from all of a log. What visitors want changes meanwhile, most of all where items live for hours, as
news do, and the last clicks say more of the next ones than the network has picked up. So the score of each item is
raised by ``trend * rise``, ``rise`` being how much likelier its clicks have become of late, as a logarithm. How far
that holds, the one number ``trend``, is fitted (:mod:`recsys.model.strengths`): news have about 0.4, a shop with a
standing catalogue about 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.model.network import RISE, TREND, Weights
from recsys.sessions import Sessions

RECENT_MS = 1_800_000
PRIOR_CLICKS = 1.0  # as steady as the log: a few clicks are no rise


def rise_of(sessions: Sessions, items: int) -> NDArray[np.float32]:
    """float32 ``[items]``: log of an item's clicks in the last half hour over what its share of all says."""
    recent = sessions.times > sessions.times.max(initial=0) - RECENT_MS
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
