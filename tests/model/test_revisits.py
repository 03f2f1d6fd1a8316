"""What is fitted of revisits: on logs in which it is known how often items come again."""

import numpy as np
import pytest

from recsys.model.network import Weights, initial_weights
from recsys.model.revisits import fit_revisits
from recsys.settings import ModelSettings

from .logs import sessions_of

ITEMS, MEMORY = 40, 2


def indifferent() -> Weights:
    """A network to which all items are the same, whatever came before."""
    weights = initial_weights(ITEMS, ModelSettings(units=4, memory=MEMORY), 1)
    weights["embedding"][:] = 0
    return weights


def log(chances: tuple[float, ...], count: int = 800, length: int = 9) -> list[list[int]]:
    """Each click after the first is the item of the trail's place i by ``chances[i]``, else any other."""
    random = np.random.default_rng(3)
    rows = []
    for _ in range(count):
        trail: list[int] = []
        row: list[int] = []
        while len(row) < length:
            drawn = random.random()
            places = [place for place, end in enumerate(np.cumsum(chances)) if drawn < end]
            item = trail[places[0]] if places and places[0] < len(trail) else int(random.integers(ITEMS))
            if not places and item in trail[: 1 + MEMORY]:
                continue
            trail = [item, *(other for other in trail if other != item)]
            row.append(item)
        rows.append(row)
    return rows


def test_revisits_are_as_likely_as_in_the_log() -> None:
    """A place revisited by chance p against 37 other items that share 1 - q scores log(37 p / (1 - q)) more."""
    p = (0.1, 0.4, 0.05)
    found = fit_revisits(indifferent(), sessions_of(log(p, length=30)))
    expected = [np.log((ITEMS - 3) * chance / (1 - sum(p))) for chance in p]
    # The trail blanks an item that came again, so that places further back are a little older than distinct items.
    np.testing.assert_allclose(found[:2], expected[:2], atol=0.35)
    assert found.dtype == np.float32


def test_items_that_never_come_again_are_pushed_down() -> None:
    found = fit_revisits(indifferent(), sessions_of(log((0.0, 0.0, 0.0))))
    assert (found < -3).all()


def test_what_was_fitted_before_stays_where_the_log_says_little() -> None:
    weights = indifferent() | {"revisit": np.array([-8, 2, 1], np.float32)}
    np.testing.assert_allclose(fit_revisits(weights, sessions_of([[1, 2]])), [-8, 2, 1], atol=0.3)
    assert fit_revisits(weights, sessions_of(log((0.0, 0.0, 0.0))))[1] < -2


@pytest.mark.parametrize("rows", [[[1, 2]], [[1], [2, 3]]])
def test_next_to_nothing_to_learn_from_leaves_what_was_learnt(rows: list[list[int]]) -> None:
    found = fit_revisits(indifferent(), sessions_of(rows))
    assert np.abs(found).max() < 0.1
