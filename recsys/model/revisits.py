"""How much likelier, or less likely, an item of the trail is clicked again than the network says.

One number for each place in the trail (:mod:`recsys.trail`), added to the score of the item there. They are fitted when
the network has learnt, by maximum likelihood over the newest predictions: with all else fixed the problem is convex,
and a few Newton steps solve it. News are hardly ever read twice, a shop's items often are, and neither is said by which
items go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.model.asked import Asked, newest
from recsys.model.network import REVISIT
from recsys.sessions import Sessions

PREDICTIONS, SCORES = 8192, 1 << 31  # that the numbers are fitted to, at most: seconds, however large the catalogue
PRECISION = 1.0  # of their prior, which is normal: a place that hardly any trail has stays as it was
NEWTON_STEPS, LONGEST_STEP = 25, 1.0


def fit_revisits(weights: Mapping[str, NDArray[np.float32]], sessions: Sessions) -> NDArray[np.float32]:
    """float32 ``[1 + memory]``: what to add to the scores of the items of a trail, by place.

    The prior is around the numbers that ``weights`` hold: zeros at first, after a warm start what was fitted before.
    """
    asked = Asked.of(weights, newest(sessions, min(PREDICTIONS, SCORES // len(weights["bias"]))))
    of_trail, of_others = _scores(weights, asked)
    clicked = asked.trail == asked.targets[:, None] + 1
    return _maximum_likelihood(of_trail, of_others, clicked, weights[REVISIT]).astype(np.float32)


def _scores(
    weights: Mapping[str, NDArray[np.float32]], asked: Asked
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the items in the trails ``[n, 1 + memory]`` (-inf for none), and the log of all other items' mass."""
    of_trail, of_others = np.full(asked.trail.shape, -np.inf), np.empty(len(asked))
    for part, scores in asked.scores(weights):
        row, item, place = asked.places(part)
        of_trail[part.start + row, place] = scores[row, item]
        scores[row, item] = -np.inf
        of_others[part] = _log_sum_exp(scores)
    return of_trail, of_others


def _maximum_likelihood(
    of_trail: NDArray[np.float64],
    of_others: NDArray[np.float64],
    clicked: NDArray[np.bool_],
    prior: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Newton's method on the log likelihood of a softmax in which only the places' numbers are free."""
    found = prior.astype(np.float64)
    for _ in range(NEWTON_STEPS):
        shifted = of_trail + found
        whole = np.logaddexp(_log_sum_exp(shifted), of_others)
        chance = np.exp(shifted - whole[:, None])
        gradient = (clicked - chance).sum(axis=0) - PRECISION * (found - prior)
        curvature = np.diag(chance.sum(axis=0) + PRECISION) - chance.T @ chance
        found += np.clip(np.linalg.solve(curvature, gradient), -LONGEST_STEP, LONGEST_STEP)
    return found


def _log_sum_exp(scores: NDArray[Any]) -> NDArray[Any]:
    """By rows; -inf for a row of nothing but -inf."""
    highest = scores.max(axis=1, keepdims=True)
    highest[np.isneginf(highest)] = 0
    with np.errstate(divide="ignore"):
        total: NDArray[Any] = highest[:, 0] + np.log(np.exp(scores - highest).sum(axis=1))
    return total
