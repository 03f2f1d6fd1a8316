"""Narrowing: what a run goes through next, and that what the newest sessions say is learnt from them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.history import Epoch, Phase, Progress, best_epoch
from recsys.model.narrowing import newest_share, next_share
from recsys.model.network import Weights
from recsys.model.training import fit
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, TrainingSettings

from .logs import markov_chain, markov_log, recall, sessions_of

SETTINGS = TrainingSettings(epochs=4, patience=2, halvings=3)
SMALL = ModelSettings(units=8)
QUICK = TrainingSettings(epochs=2, halvings=2, samples=16, batch_size=4, clicks_per_step=2)
LOG = markov_log(markov_chain(30, 5, 1), 200, 5, 1)


def searched(*values: float | tuple[float, float]) -> list[Epoch]:
    """Epochs of a search: the Recall@20 of each, and its share where that is not all."""
    pairs = [value if isinstance(value, tuple) else (value, 1.0) for value in values]
    return [
        Epoch("search", number, 1.0, 1.0, {"recall@20": recall, "mrr@20": 1.0}, share=share)
        for number, (recall, share) in enumerate(pairs, 1)
    ]


def final(*shares: float) -> list[Epoch]:
    return [Epoch("final", number, 1.0, 1.0, share=share) for number, share in enumerate(shares, 1)]


NARROWED = [(0.4, 0.5), (0.6, 0.25), (0.5, 0.125)]


@pytest.mark.parametrize(
    ("phase", "history", "share"),
    [
        ("search", [], 1.0),
        ("search", searched(0.1, 0.3, 0.2), 1.0),
        ("search", searched(0.1, 0.3, 0.2, 0.25), 0.5),  # two that were no better, or all four
        ("search", searched(0.3, 0.2, 0.2), 0.5),
        ("search", searched(0.3, 0.2, 0.2, *NARROWED[:1]), 0.25),
        ("search", searched(0.3, 0.2, 0.2, *NARROWED[:2]), 0.125),
        ("search", searched(0.3, 0.2, 0.2, *NARROWED), None),
        ("final", searched(0.1, 0.3, 0.2, 0.2, *NARROWED), 1.0),
        ("final", searched(0.1, 0.3, 0.2, 0.2, *NARROWED) + final(1.0), 1.0),
        ("final", searched(0.1, 0.3, 0.2, 0.2, *NARROWED) + final(1.0, 1.0), 0.5),
        ("final", searched(0.1, 0.3, 0.2, 0.2, *NARROWED) + final(1.0, 1.0, 0.5), 0.25),
        ("final", searched(0.1, 0.3, 0.2, 0.2, *NARROWED) + final(1.0, 1.0, 0.5, 0.25), None),
        ("final", searched(0.7, 0.3, 0.2, *NARROWED) + final(1.0), None),  # the best has gone through all of them
        ("final", searched(0.3, 0.2, 0.2, (0.305, 0.5)) + final(1.0), None),  # nor is it clearly better to narrow
        ("final", searched(0.3, 0.2, 0.2, (0.31, 0.5)) + final(1.0), 0.5),
        ("final", final(1.0, 1.0, 1.0), 1.0),  # without a search, all epochs that are set
        ("final", final(1.0, 1.0, 1.0, 1.0), None),
    ],
)
def test_what_comes_next(phase: Phase, history: list[Epoch], share: float | None) -> None:
    assert next_share(history, phase, SETTINGS) == share


def test_step_sizes_that_have_fallen_to_zero_narrow_nothing() -> None:
    settings = SETTINGS.model_copy(update={"schedule": "linear"})
    assert next_share(searched(0.3, 0.2, 0.2), "search", settings) is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.floats(0.001, 0.999))
def test_the_newest_sessions_have_their_share_of_all_events(lengths: list[int], share: float) -> None:
    sessions = sessions_of([[0] * length for length in [*lengths, 2]])
    newest = newest_share(sessions, share)
    assert newest.lengths.tolist() == sessions.lengths.tolist()[-len(newest) :]
    assert (newest.lengths > 1).any()
    if len(newest) > 1:
        assert newest.events <= share * sessions.events
    if len(newest) < len(sessions):
        assert newest.events + sessions.lengths[-len(newest) - 1] > share * sessions.events


def joined(*parts: Sessions) -> Sessions:
    return sessions_of([row.tolist() for part in parts for row in part])


def test_what_has_changed_of_late_is_learnt_from_the_newest_sessions() -> None:
    """The last eighth of the log follows another chain, and so do validation and test."""
    before, now = markov_chain(40, 4, 1), markov_chain(40, 4, 2)
    log = joined(markov_log(before, 2800, 5, 1), markov_log(now, 400, 5, 2))
    validation, test = markov_log(now, 200, 5, 3), markov_log(now, 600, 5, 4)
    validate = lambda weights: {"recall@20": recall(weights, validation, 4), "mrr@20": 1.0}  # noqa: E731
    settings = TrainingSettings(epochs=1, halvings=5, samples=64, batch_size=8, clicks_per_step=4)
    model = ModelSettings(units=16, followers=0)
    plain = fit(log, joined(log, validation), 40, model, settings.model_copy(update={"halvings": 0}), validate=validate)
    fitted = fit(log, joined(log, validation), 40, model, settings, validate=validate)
    best = best_epoch(fitted.history)
    assert best.share <= 0.125
    assert [epoch.share for epoch in fitted.history if epoch.phase == "final"] == [
        0.5**halvings for halvings in range(round(-np.log2(best.share)) + 1)
    ]
    assert recall(fitted.weights, test, 4) > recall(plain.weights, test, 4) + 0.1


class Planned:
    """Validation that likes the second epoch over all sessions, and the second halving best."""

    PLAN = 0.2, 0.3, 0.25, 0.4

    def __init__(self, done: int = 0) -> None:
        self.calls = 2 * done

    def __call__(self, weights: Weights) -> dict[str, float]:
        self.calls += 1
        return {"recall@20": self.PLAN[(self.calls - 1) // 2], "mrr@20": 0.1}


@pytest.mark.parametrize(
    ("done", "middle"), [(2, False), (2, True), (3, False), (4, False), (6, True), (7, False), (8, False)]
)
def test_a_run_that_is_resumed_ends_as_an_unbroken_one(
    tmp_path: Path, done: int, middle: bool, unbroken: Weights
) -> None:
    """Killed soon after any of its epochs, before a part of the next is saved or in the middle; or at the very end."""
    settings = QUICK.model_copy(update={"checkpoint_seconds": 1e-9 if middle else 1e9})
    ended = 0

    def die(event: Progress | Epoch) -> None:
        nonlocal ended
        if isinstance(event, Epoch):
            ended += 1
            if ended == done == 8:
                raise InterruptedError
        elif ended == done and event.window >= event.windows / 2:
            raise InterruptedError

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(InterruptedError):
        fit(LOG, LOG, 30, SMALL, settings, validate=Planned(), checkpoint=checkpoint, report=die)
    resumed = fit(LOG, LOG, 30, SMALL, settings, validate=Planned(min(done, 4)), checkpoint=checkpoint)
    shares = [(epoch.phase, epoch.share) for epoch in resumed.history]
    assert shares == [(phase, share) for phase in ("search", "final") for share in (1.0, 1.0, 0.5, 0.25)]
    assert all(np.array_equal(resumed.weights[name], unbroken[name]) for name in unbroken)


@pytest.fixture(scope="module")
def unbroken() -> Weights:
    return fit(LOG, LOG, 30, SMALL, QUICK, validate=Planned()).weights
