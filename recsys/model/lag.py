"""What a network that has learnt expects too often, or too seldom, of late.

Steps of constant size leave each item's bias where the last of them happened to push it, and behind where visitors are
by now. A few tenths too much are nothing, but for the items that are clicked most, where they decide who stands first.
The *lag* of an item is the logarithm of its clicks in the last minutes over those that the network expected in them;
added to the biases, it is one step of iterative scaling (Darroch and Ratcliff 1972) towards those under which the two
are the same. It is most of what makes a trend (:mod:`recsys.model.trend`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.model.asked import Asked, newest
from recsys.model.network import REVISIT
from recsys.sessions import Sessions

RECENT_MS = 1_200_000
PRIOR_CLICKS = 2.0  # as the network expects them: where clicks are few, there is hardly a lag
PREDICTIONS, SCORES = 1 << 18, 1 << 30  # that are looked at, at most: seconds, however large the catalogue


def lag_of(weights: Mapping[str, NDArray[np.float32]], sessions: Sessions) -> NDArray[np.float32]:
    """float32 ``[items]``: log of an item's clicks in the last 20 minutes over those expected.

    Args:
        weights: of a network that has learnt, and its revisit numbers.
        sessions: what it has learnt from.
    """
    items = len(weights["bias"])
    asked = _last_asked(weights, sessions, min(PREDICTIONS, SCORES // items))
    expected = np.zeros(items)
    for part, scores in asked.scores(weights):
        row, item, place = asked.places(part)
        scores[row, item] += weights[REVISIT][place]
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected += (1 / chances.sum(axis=1)) @ chances
    clicks = np.bincount(asked.targets, minlength=items)
    lag: NDArray[np.float32] = np.log((clicks + PRIOR_CLICKS) / (expected + PRIOR_CLICKS)).astype(np.float32)
    return lag


def _last_asked(weights: Mapping[str, NDArray[np.float32]], sessions: Sessions, most: int) -> Asked:
    """The predictions of the last minutes, those of the newest sessions if they are more than ``most``."""
    since = sessions.times.max(initial=0) - RECENT_MS
    goes_on = np.zeros(len(sessions), np.bool_)
    goes_on[sessions.owner[sessions.times > since]] = True
    asked = Asked.of(weights, newest(sessions.keep_sessions(goes_on), most))
    return asked.keep(asked.times > since)
