"""How far trends hold: on logs in which it is known by how much."""

import numpy as np
import pytest

from recsys.model.lag import lag_of
from recsys.model.network import Weights, initial_weights
from recsys.model.training import fit
from recsys.model.trend import GOES_ON, rise_of, risen, with_trend, without_trend
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, TrainingSettings

from .logs import recall, sessions_of

ITEMS, HOUR_MS = 40, 3_600_000


def indifferent() -> Weights:
    """A network to which all items are the same, whatever came before."""
    weights = initial_weights(ITEMS, ModelSettings(units=4, memory=0), 1)
    weights["embedding"][:] = 0
    return weights


def drawn(chances: np.ndarray, sessions: int, seed: int, begin: float, end: float) -> Sessions:
    """Sessions of five clicks on items drawn by ``chances``, spread evenly from one hour to another."""
    items = np.random.default_rng(seed).choice(ITEMS, (sessions, 5), p=chances / chances.sum())
    made = sessions_of(items.tolist())
    times = np.linspace(begin * HOUR_MS, end * HOUR_MS, made.events, endpoint=False).astype(np.int64)
    return Sessions(made.items, times, made.types, made.starts)


def joined(*parts: Sessions) -> Sessions:
    starts = np.concatenate([[0], *(np.diff(part.starts) for part in parts)]).cumsum()
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("items", "times", "types")]
    return Sessions(*columns, starts)


EVEN = np.ones(ITEMS)
RISING = np.where(np.arange(ITEMS) < 5, 8.0, 1.0)  # five items have become eight times as likely
LOG = joined(drawn(EVEN, 4000, 1, 0, 9), drawn(RISING, 1000, 2, 9, 10))


def test_what_rises_is_seen() -> None:
    rise = risen(LOG, ITEMS)
    last_hour = RISING / RISING.sum()
    all_hours = 0.8 / ITEMS + 0.2 * last_hour
    np.testing.assert_allclose(rise, np.log(last_hour / all_hours), atol=0.35)


def test_few_clicks_are_little_of_a_rise_and_no_clicks_none() -> None:
    """One click in the last half hour, which has 30 of 1,001: one more than .03, beside the prior's one."""
    often = np.zeros(1000, np.int32)
    items = np.concatenate([often, np.ones(1, np.int32)])
    log = Sessions(items, np.arange(1001) * 60_000, np.zeros(1001, np.int8), np.array([0, 1001]))
    assert risen(log, 3)[1] == pytest.approx(np.log(2 / (1 + 30 / 1001)), abs=1e-5)
    assert risen(log, 3)[2] == 0


def test_a_rise_is_what_the_network_lags_behind_and_a_little_of_what_has_risen() -> None:
    """A network that knows of the rise lags behind nothing; to one that does not it is all news."""
    knows = {**indifferent(), "bias": np.log(RISING).astype(np.float32)}
    has_risen = GOES_ON * risen(LOG, ITEMS)
    lag = rise_of(knows, LOG) - has_risen
    assert abs(lag[:5].mean()) < 0.1
    assert abs(lag[5:].mean()) < 0.1
    np.testing.assert_allclose(rise_of(indifferent(), LOG) - has_risen, (1 - GOES_ON) * lag_of(indifferent(), LOG))
    assert (rise_of(indifferent(), LOG)[:5] > rise_of(knows, LOG)[:5] + 0.5).all()


def test_weights_with_a_trend_score_it_and_without_it_are_what_they_were() -> None:
    rise, weights = risen(LOG, ITEMS), indifferent()
    trended = with_trend(weights, rise, 0.5)
    np.testing.assert_allclose(trended["bias"], 0.5 * rise)
    back = without_trend(trended)
    np.testing.assert_allclose(back["bias"], weights["bias"], atol=1e-6)
    assert not back["rise"].any()
    assert back["trend"] == 0.5


def test_a_trend_that_holds_is_learnt_from_validation_and_served_after_the_refit() -> None:
    """The last hour of all there is says what is rising; how far to believe it comes from the search."""
    fading = np.roll(RISING, 5)
    log = joined(drawn(fading, 4000, 1, 0, 9), drawn(RISING, 1000, 2, 9, 10))
    validation, test = drawn(RISING, 300, 3, 10, 11), drawn(RISING, 1000, 4, 11, 12)
    settings = TrainingSettings(epochs=1, halvings=0, samples=64, learning_rate=0.02, seed=3, clicks_per_step=4)
    development = joined(log, validation)
    model = ModelSettings(units=8, memory=0, followers=0)
    validate = lambda weights: {"recall@20": 0.5, "mrr@20": 0.5}  # noqa: E731
    plain = fit(log, development, ITEMS, model, settings, validate=validate)
    fitted = fit(log, development, ITEMS, model, settings, validate=validate, later=validation)
    assert plain.weights["trend"] == 0
    assert fitted.weights["trend"] == np.float32(fitted.history[0].trend)
    assert fitted.weights["trend"] > 0.3
    np.testing.assert_allclose(fitted.weights["rise"], rise_of(without_trend(fitted.weights), development), atol=1e-3)
    assert recall(fitted.weights, test, 5) > recall(plain.weights, test, 5) + 0.02
