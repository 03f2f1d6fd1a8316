"""The mean of weights over the end of an epoch, and who decides whether it serves."""

import numpy as np
import pytest

from recsys.model.averaging import TailAverage
from recsys.model.history import Epoch
from recsys.model.network import Weights
from recsys.model.training import fit
from recsys.settings import ModelSettings, TrainingSettings

from .logs import markov_chain, markov_log


def looks(windows: int) -> list[int]:
    tail = TailAverage(windows)
    return [window for window in range(1, windows + 1) if tail.due(window)]


def test_looks_are_spread_over_the_last_tenth() -> None:
    assert looks(800) == [730, 740, 750, 760, 770, 780, 790, 800]
    assert looks(20) == [19, 20]
    assert looks(1) == [1]


def test_the_mean_is_that_of_all_looks_and_is_taken_once() -> None:
    tail = TailAverage(80)
    for window in range(1, 81):
        if tail.due(window):
            tail.add({"bias": np.full(2, window, np.float32)})
    assert tail.take_mean()["bias"].tolist() == [76.5, 76.5]  # of 73 to 80
    assert tail.sums == {}


def test_a_run_that_goes_on_in_the_middle_has_the_same_mean() -> None:
    unbroken, first = TailAverage(80), TailAverage(80)
    for window in (73, 74, 75, 76):
        for tail in (unbroken, first):
            tail.add({"bias": np.array([window], np.float32)})
    second = TailAverage(80, first.sums)
    for window in (77, 78, 79, 80):
        for tail in (unbroken, second):
            tail.add({"bias": np.array([window], np.float32)})
    assert unbroken.take_mean() == second.take_mean()


MODEL = ModelSettings(units=8)
SETTINGS = TrainingSettings(batch_size=4, clicks_per_step=2, samples=8, epochs=2, halvings=0)


@pytest.mark.parametrize(("gain", "averaged"), [(0.1, True), (-0.005, True), (-0.1, False)])
def test_averaged_weights_serve_unless_the_last_are_clearly_better(gain: float, averaged: bool) -> None:
    """Each epoch validates its last weights, then their mean; the refit serves what the best epoch chose."""
    log = markov_log(markov_chain(20, 5, 1), 400, 5, 1)
    part = log.keep_sessions(np.arange(len(log)) < 300)
    asked: list[Weights] = []

    def validate(weights: Weights) -> dict[str, float]:
        asked.append(weights)
        return {"recall@20": 0.5 if len(asked) % 2 else 0.5 + gain, "mrr@20": 0.5}

    fitted = fit(part, log, 20, MODEL, SETTINGS, validate=validate)
    searched: list[Epoch] = [epoch for epoch in fitted.history if epoch.phase == "search"]
    assert [epoch.averaged for epoch in searched] == [averaged, averaged]
    assert [epoch.validation["recall@20"] for epoch in searched] == [0.5 + gain if averaged else 0.5] * 2
    assert not np.array_equal(asked[0]["embedding"], asked[1]["embedding"])

    other = fit(part, log, 20, MODEL, SETTINGS.model_copy(update={"epochs": 1}))  # the same steps, the last weights
    assert np.array_equal(fitted.weights["embedding"], other.weights["embedding"]) is not averaged
    assert np.allclose(fitted.weights["embedding"], other.weights["embedding"], atol=0.2)
