"""How far what was counted in the sessions learnt holds in later ones.

What rises (:mod:`recsys.model.trend`) and what follows what (:mod:`recsys.model.followers`) are added to the scores,
each times a number. The numbers differ from shop to shop and are no matter of taste: they are what makes the clicks of
the validation sessions likeliest, which come after all that the network and the counts know. But what was counted
counts once at most, and never against itself: more than that would hold in those sessions alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.model.asked import Asked
from recsys.model.followers import Followers
from recsys.model.network import REVISIT
from recsys.sessions import Sessions

PREDICTIONS, SCORES = 8192, 1 << 27  # that they are fitted to, at most: seconds, however large the catalogue
PRECISION = 10.0  # of their prior, which is normal around zero
NEWTON_STEPS, LONGEST_STEP = 6, 0.5


class Strengths(NamedTuple):
    """What rises is multiplied with ``trend``, and the surplus of followers with ``following``."""

    trend: float = 0.0
    following: float = 0.0


def fit_strengths(
    weights: Mapping[str, NDArray[np.float32]], rise: NDArray[np.float32], followers: Followers, later: Sessions
) -> Strengths:
    """By maximum likelihood over the clicks of ``later`` sessions, from 0 to 1.

    Args:
        weights: of a network that has learnt, and its revisit numbers.
        rise: as :func:`recsys.model.trend.rise_of` gives it for the sessions that the network has learnt.
        followers: as :func:`recsys.model.followers.fit_followers` gives them for those sessions.
        later: sessions that come after those.
    """
    asked = Asked.of(weights, _spread(later, min(PREDICTIONS, SCORES // len(rise))))
    found = np.zeros(2)
    for _ in range(NEWTON_STEPS if rise.any() or followers.items.any() else 0):
        gradient, curvature = -PRECISION * found, np.diag([PRECISION, PRECISION])
        for part, scores in asked.scores(weights):
            row, item, place = asked.places(part)
            scores[row, item] += weights[REVISIT][place]
            mine = followers.after(asked.trail[part, 0] - 1)
            slopes = _derivatives(scores, asked.targets[part], rise, mine, found)
            gradient, curvature = gradient + slopes[0], curvature + slopes[1]
        free = np.flatnonzero(np.where(gradient > 0, found < 1, found > 0))  # others stay at their bounds
        step = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        found[free] += np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        found = np.clip(found, 0, 1)
    return Strengths(*found.tolist())


def _derivatives(
    scores: NDArray[np.float32],
    targets: NDArray[np.int32],
    rise: NDArray[np.float32],
    followers: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
    at: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and negative second derivatives of the log likelihood of ``targets``, summed; ``scores`` are changed."""
    row, item, surplus = followers
    scores += np.float32(at[0]) * rise
    scores[row, item] += np.float32(at[1]) * surplus
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    taken = chances[row, item].astype(np.float64) * surplus
    expected = np.stack([(chances @ rise).astype(np.float64), np.bincount(row, taken, len(targets))])
    clicked = np.array([rise[targets].sum(), surplus[item == targets[row]].sum()], np.float64)
    cross = (taken * rise[item]).sum()
    squares = np.array([[(chances @ rise**2).sum(dtype=np.float64), cross], [cross, (taken * surplus).sum()]])
    return clicked - expected.sum(axis=1), squares - expected @ expected.T


def _spread(sessions: Sessions, wanted: int) -> Sessions:
    """Sessions from all over the time, with about so many predictions."""
    stride = max(1, -(-(sessions.events - len(sessions)) // max(wanted, 1)))
    return sessions.keep_sessions(np.arange(len(sessions)) % stride == 0)
