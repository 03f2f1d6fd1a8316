"""Drift: found within the delay that is stated, and as good as never raised in vain."""

from __future__ import annotations

import json
from math import log
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import save_model
from recsys.published import Bundles
from recsys.serving import CurrentModel
from recsys.vocabulary import UNKNOWN
from stream.drift import ALARM_CLICKS, LEARNT_FROM, SIGNALS, DriftMonitor, Signal, popular_half
from stream.online import Trial
from stream.outcome import Outcome
from tests.conftest import publish, random_model

BOUND = 0.1
H = log(2 * len(SIGNALS) * ALARM_CLICKS)


def trials(share: float, count: int, seed: int) -> list[bool]:
    drawn: list[bool] = (np.random.default_rng(seed).random(count) < share).tolist()
    return drawn


def delay(signal: Signal, stream: list[bool]) -> int:
    """Trials until the alarm."""
    for number, hit in enumerate(stream, start=1):
        signal.add([hit])
        if signal.alarm:
            return number
    raise AssertionError("no alarm")


def divergence(share: float, allowed: float, refused: float) -> float:
    """What one trial adds to the score on average."""
    return share * log(refused / allowed) + (1 - share) * log((1 - refused) / (1 - allowed))


@pytest.mark.parametrize(
    ("reference", "share", "stated"),
    [(0.5, 0.4, 4500), (0.5, 0.0, 260), (0.5, 0.6, 4500), (0.3, 0.15, 1500), (0.02, 0.12, 1500), (0.02, 1.0, 60)],
)
def test_a_planted_shift_is_found_within_the_stated_delay(reference: float, share: float, stated: int) -> None:
    sign = 1 if share > reference else -1
    expected = H / divergence(share, reference + sign * BOUND / 2, reference + sign * BOUND)
    assert expected == pytest.approx(stated, rel=0.35)
    delays = []
    for seed in range(10):
        signal = Signal(BOUND, reference)
        signal.add(trials(reference, 20_000, seed))
        assert not signal.alarm
        delays.append(delay(signal, trials(share, 10 * stated, 100 + seed)))
    assert np.mean(delays) < 1.2 * expected
    assert max(delays) < 2.5 * expected


def alarms(reference: float, share: float, clicks: float, count: int) -> int:
    """How many are raised in ``count`` trials, each test beginning anew after its alarm."""
    stream, found, signal = trials(share, count, seed=7), 0, Signal(BOUND, reference, clicks)
    for start in range(0, count, 10):
        signal.add(stream[start : start + 10])
        if signal.alarm:
            found, signal = found + 1, Signal(BOUND, reference, clicks)
    return found


@pytest.mark.parametrize(("reference", "allowed"), [(0.05, 0.1), (0.3, 0.35), (0.5, 0.45), (0.9, 0.85)])
def test_false_alarms_are_rarer_than_stated(reference: float, allowed: float) -> None:
    """With thresholds so low that there are some to count; at the edge of what is allowed, the worst there is."""
    count = 400_000
    often, seldom = (alarms(reference, allowed, clicks, count) for clicks in (10, 100))
    assert 0 < often < count / 10 / len(SIGNALS)
    assert 5 * seldom < often  # they fall with the clicks asked for, so that those of production can be relied on


def test_three_million_clicks_of_sessions_raise_no_alarm() -> None:
    """At the bound and threshold of production, with trials that depend on each other: visitors differ in luck."""
    random = np.random.default_rng(11)
    luck = random.beta(0.5 * 6, 0.5 * 6, 600_000)  # of each session; the mean is the reference
    stream = (random.random(3_000_000) < np.repeat(luck, 5)).tolist()
    signal = Signal(BOUND, 0.5)
    for start in range(0, len(stream), 100):
        signal.add(stream[start : start + 100])
        assert not signal.alarm


def test_a_reference_that_is_not_given_is_learnt() -> None:
    signal = Signal(BOUND)
    for start in range(0, LEARNT_FROM + 100, 70):
        signal.add(trials(0.2, 70, start))
    assert signal.reference == pytest.approx(0.2, abs=0.03)
    signal.add(trials(0.2, 50_000, 3))
    assert not signal.alarm
    signal.add(trials(0.5, 2000, 4))
    assert signal.alarm


def test_an_alarm_ends_when_the_share_is_back() -> None:
    signal = Signal(BOUND, 0.5)
    signal.add(trials(0.2, 2000, 1))
    assert signal.alarm
    signal.add(trials(0.5, 500, 2))
    assert signal.alarm
    signal.add(trials(0.5, 20_000, 3))
    assert not signal.alarm


def test_the_popular_half_is_the_fewest_items_of_half_the_events() -> None:
    assert popular_half(np.array([1, 5, 2, 2], np.int64)) == [1]
    assert popular_half(np.array([4, 1, 3, 2], np.int64)) == [0, 2]


def outcome(version: str, rows: list[int], ranks: list[int]) -> Outcome:
    return Outcome(clicked={version: rows}, trials=[Trial(version, 1, "view", rank) for rank in ranks])


def test_the_monitor_raises_each_alarm_and_begins_anew_with_another_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = tmp_path / "evaluation.json"
    figures = {"model": "GRU", "recommenders": [{"name": "GRU", "metrics": {"recall@20": 0.6}}]}
    evaluation.write_text(json.dumps(figures))
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", random_model())
    bundles = Bundles(tmp_path / "bundles")
    version = bundles.publish(tmp_path / "model", evaluation)
    model = CurrentModel(bundles)
    monitor = DriftMonitor(model, BOUND)
    popular = popular_half(model.served.vocabulary.counts)
    trained = model.served.vocabulary.counts[popular].sum() / model.served.vocabulary.counts.sum()
    assert monitor.signals["hit_rate"].reference == 0.6
    assert monitor.signals["popular_items"].reference == pytest.approx(trained)

    usual = [popular[0], 49] * 3000
    monitor.observe(outcome(version, usual, [1, 2, 3, 90, 90]))
    monitor.observe(outcome("another", [UNKNOWN] * 9000, [99] * 9000))
    assert not any(signal.alarm for signal in monitor.signals.values())
    monitor.observe(outcome(version, [UNKNOWN] * 300, []))
    assert [name for name, signal in monitor.signals.items() if signal.alarm] == ["unknown_items"]
    monitor.observe(outcome(version, [49] * 350, [21] * 350))
    samples = {(s.name, s.labels["signal"]): s.value for metric in monitor.collect() for s in metric.samples}
    assert [samples["recsys_drift_alarm", name] for name in SIGNALS] == [1, 1, 1]
    assert samples["recsys_drift_reference_ratio", "hit_rate"] == 0.6
    assert [record.message for record in caplog.records if "drift" in record.message] == [
        "drift: unknown_items has left its reference",
        "drift: hit_rate has left its reference",
        "drift: popular_items has left its reference",
    ]

    publish(tmp_path / "bundles", random_model(seed=4))
    assert model.refresh()
    monitor.observe(outcome(model.served.version, usual, []))
    assert not any(signal.alarm for signal in monitor.signals.values())
    assert monitor.signals["hit_rate"].reference is None


def test_without_a_bound_nothing_is_watched(bundles: Path) -> None:
    model = CurrentModel(Bundles(bundles))
    monitor = DriftMonitor(model, 0.0)
    monitor.observe(outcome(model.served.version, [UNKNOWN] * 10_000, [99] * 10_000))
    assert not any(signal.alarm for signal in monitor.signals.values())
