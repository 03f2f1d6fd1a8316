"""Networks that expect too much or too little of some items, on logs in which it is known of which and by how much."""

import numpy as np
import pytest

import recsys.model.lag as module
from recsys.model.lag import PRIOR_CLICKS, RECENT_MS, lag_of
from recsys.model.network import Weights, initial_weights
from recsys.sessions import Sessions
from recsys.settings import ModelSettings

from .logs import sessions_of

ITEMS = 30
CHANCES = np.arange(1, ITEMS + 1) / (ITEMS * (ITEMS + 1) / 2)


def network(bias: np.ndarray) -> Weights:
    """One whose scores are its biases, whatever came before."""
    weights = initial_weights(ITEMS, ModelSettings(units=4, memory=2), 1)
    weights["embedding"][:] = 0
    return {**weights, "bias": bias.astype(np.float32)}


def at_times(sessions: Sessions, times: np.ndarray) -> Sessions:
    return Sessions(sessions.items, times.astype(np.int64), sessions.types, sessions.starts)


def drawn(sessions: int, seed: int = 1) -> Sessions:
    """Sessions of four clicks, all within the last minutes."""
    clicks = sessions_of(np.random.default_rng(seed).choice(ITEMS, (sessions, 4), p=CHANCES).tolist())
    return at_times(clicks, np.linspace(0, RECENT_MS - 1, clicks.events))


def test_a_bias_that_is_off_is_seen() -> None:
    """One popular item stands e^.5 times too high, another e^.5 times too low."""
    right = np.log(CHANCES)
    off = right.copy()
    off[ITEMS - 1] += 0.5
    off[ITEMS - 2] -= 0.5
    bias = off + lag_of(network(off), drawn(20_000))
    np.testing.assert_allclose(bias - bias.mean(), right - right.mean(), atol=0.06)


def test_few_clicks_are_little_of_a_lag() -> None:
    """Three clicks on item 0, two of them after another click; the network expects a tenth of each of three."""
    bias = np.full(ITEMS, -30.0)
    bias[:10] = 0
    log = at_times(sessions_of([[0, 1], [1, 0], [2, 0]]), np.arange(6))
    lag = lag_of(network(bias), log)
    clicks = np.bincount([1, 0, 0], minlength=10)
    expected = np.log((clicks + PRIOR_CLICKS) / (3 / 10 + PRIOR_CLICKS))
    np.testing.assert_allclose(lag[:10], expected, atol=1e-5)
    assert abs(lag[29]) < 1e-9


def test_what_the_trail_adds_is_expected_too() -> None:
    """An item that is hardly ever clicked again is no less popular for that."""
    weights = network(np.zeros(ITEMS))
    weights["revisit"][0] = -30
    log = at_times(sessions_of([[0, 1]]), np.arange(2))
    lag = lag_of(weights, log)
    assert lag[0] == pytest.approx(0, abs=1e-6)
    assert lag[2] == pytest.approx(np.log(PRIOR_CLICKS / (1 / (ITEMS - 1) + PRIOR_CLICKS)), abs=1e-5)


def test_only_the_last_minutes_count_and_of_sessions_that_go_on_only_their_last_clicks() -> None:
    """A session that began long before ends now: the click within the minutes counts, those before do not."""
    log = at_times(sessions_of([[3, 4, 5], [6, 7]]), np.array([0, 1, 2 * RECENT_MS, 10, 11]))
    weights = network(np.zeros(ITEMS))
    lag = lag_of(weights, log)
    assert lag[5] > 0.2
    assert all(lag[item] == pytest.approx(lag[0], abs=1e-6) for item in range(ITEMS) if item != 5)


def test_in_a_large_catalogue_the_newest_sessions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCORES", 2 * ITEMS)
    log = at_times(sessions_of([[0, 5], [0, 6], [0, 7]]), np.array([0, 9, 1, 3, 2, 8]))
    lag = lag_of(network(np.zeros(ITEMS)), log)
    assert lag[6] == lag[7] > 0.2
    assert lag[5] == lag[8] < 0
