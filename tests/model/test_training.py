"""Training as a whole: it learns what there is to learn, it stops, and chance is a function of the seed."""

import signal
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from recsys.cli import main
from recsys.cli.train import train
from recsys.dataset import write_dataset
from recsys.errors import SettingsError
from recsys.manifest import Split
from recsys.model.history import Epoch, Progress, best_epoch
from recsys.model.network import Weights
from recsys.model.training import fit
from recsys.settings import ModelSettings, TrainingSettings
from recsys.vocabulary import Vocabulary

from .logs import markov_chain, markov_log, recall, sessions_of

SMALL = ModelSettings(units=24)
QUICK = TrainingSettings(epochs=2, samples=32, batch_size=8, clicks_per_step=4)
EXACT: dict[str, Any] = {"hidden_dropout": 0.0, "embedding_dropout": 0.0, "backwards": False, "clicks_per_step": 4}
PRECISIONS: tuple[Any, ...] = ("float32", "bfloat16")
LOG = markov_log(markov_chain(60, 10, 1), 300, 6, 1)


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max", "top1-max"])
def test_a_first_order_process_is_learnt_close_to_its_best(loss: str) -> None:
    chances = markov_chain(60, 30, seed=1)
    test = markov_log(chances, 1000, 8, seed=3)
    best_items = np.argsort(-chances, axis=1)[:, :20]
    best = np.mean([target in best_items[item] for row in test for item, target in pairwise(row)])
    settings = TrainingSettings(
        epochs=8, loss=loss, samples=128, batch_size=128, learning_rate=0.05, schedule="linear", **EXACT
    )
    log = markov_log(chances, 16_000, 8, seed=2)
    fitted = fit(log, log, 60, ModelSettings(units=64), settings)
    assert recall(fitted.weights, test) > 0.98 * best


def test_the_state_is_used() -> None:
    """Two chains interleaved: the next item follows from the one before last, and nothing from the last one alone.

    The first prediction of a session is chance (20 of 60 items). No first-order method, whatever it has learnt from,
    does better than one that counts the test sessions themselves.
    """
    random = np.random.default_rng(1)
    after = random.permutation(60)

    def sessions(count: int) -> list[list[int]]:
        pairs = random.integers(60, size=(count, 2))
        return [np.stack([pair, after[pair], after[after[pair]]]).ravel().tolist() for pair in pairs]

    train, test = sessions_of(sessions(6000)), sessions_of(sessions(2000))
    followed = np.zeros((60, 60))
    for row in test:
        np.add.at(followed, (row[:-1], row[1:]), 1)
    first_order = np.sort(followed, axis=1)[:, -20:].sum() / followed.sum()
    assert 1 / 3 < first_order < 0.6
    fitted = fit(
        train, train, 60, ModelSettings(units=64), TrainingSettings(epochs=5, samples=128, learning_rate=0.05, **EXACT)
    )
    assert recall(fitted.weights, test) > first_order + 0.2


def test_bfloat16_learns_as_float32_does() -> None:
    """Losses of the epochs agree within a hundredth, and are not the same numbers."""
    options = {"epochs": 3, "samples": 64, "clicks_per_step": 4}
    full, half = (
        fit(LOG, LOG, 60, SMALL, TrainingSettings(precision=precision, **options)) for precision in PRECISIONS
    )
    losses = np.array([[epoch.loss for epoch in fitted.history] for fitted in (full, half)])
    assert losses[0, -1] < losses[0, 0] - 0.05
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)
    assert not np.array_equal(losses[1], losses[0])
    assert {weight.dtype for weight in half.weights.values()} == {np.dtype(np.float32)}


def test_same_seed_same_weights() -> None:
    one, again = (fit(LOG, LOG, 60, SMALL, QUICK).weights for _ in range(2))
    other = fit(LOG, LOG, 60, SMALL, QUICK.model_copy(update={"seed": 2})).weights
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize(
    "model",
    [
        ModelSettings(units=8, layers=2),
        ModelSettings(units=8, embedding="separate"),
        ModelSettings(units=8, layers=2, embedding="one-hot"),
    ],
)
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max", "top1-max"])
def test_every_form_of_the_model_learns(model: ModelSettings, loss: str) -> None:
    settings = QUICK.model_copy(update={"loss": loss, "momentum": 0.0, "embedding_dropout": 0.1, "epochs": 4})
    fitted = fit(LOG, LOG, 60, model, settings)
    assert fitted.history[-1].loss < fitted.history[0].loss
    assert all(np.isfinite(weight).all() for weight in fitted.weights.values())


class Planned:
    """Validation that gives what was planned for the last or the averaged weights of each epoch, and keeps these."""

    def __init__(self, *recalls: float, averaged: bool = False) -> None:
        self.recalls, self.averaged = recalls, averaged
        self.calls = 0
        self.seen: list[Weights] = []

    def __call__(self, weights: Weights) -> dict[str, float]:
        epoch, averaged = divmod(self.calls, 2)
        self.calls += 1
        if averaged != self.averaged:
            return {"recall@20": self.recalls[epoch] - 0.01, "mrr@20": 0.1}
        self.seen.append(weights)
        return {"recall@20": self.recalls[epoch], "mrr@20": 0.1}


STOPPING = QUICK.model_copy(update={"epochs": 10, "patience": 2, "halvings": 0})


@pytest.mark.parametrize("averaged", [False, True])
def test_early_stopping_and_refit(averaged: bool) -> None:
    validate = Planned(0.1, 0.3, 0.2, 0.3, averaged=averaged)
    fitted = fit(LOG, LOG, 60, SMALL, STOPPING, validate=validate)
    phases = [(epoch.phase, epoch.number) for epoch in fitted.history]
    assert phases == [*(("search", n) for n in (1, 2, 3, 4)), ("final", 1), ("final", 2)]
    assert best_epoch(fitted.history).number == 2
    assert best_epoch(fitted.history).averaged is averaged
    assert same(fitted.weights, validate.seen[1]), "the refit saw the same sessions in the same order"
    assert fitted.learnt == "development"


def test_without_refit_the_best_epoch_is_kept() -> None:
    validate = Planned(0.1, 0.3, 0.2, 0.25)
    fitted = fit(LOG, LOG, 60, SMALL, STOPPING.model_copy(update={"refit": False}), validate=validate)
    assert [epoch.number for epoch in fitted.history] == [1, 2, 3, 4]
    assert same(fitted.weights, validate.seen[1])
    assert fitted.learnt == "training"


class KilledError(Exception):
    pass


RECALLS = (0.1, 0.3, 0.2, 0.25)


@pytest.mark.parametrize(
    ("refit", "epochs_done", "share", "averaged"), [(True, 2, 0.2, False), (True, 5, 1.0, True), (False, 3, 1.0, True)]
)
def test_a_run_that_is_resumed_ends_as_an_unbroken_one(
    tmp_path: Path, refit: bool, epochs_done: int, share: float, averaged: bool
) -> None:
    """Killed in the next epoch, part of which is saved by then, also where weights are being averaged."""
    settings = STOPPING.model_copy(update={"refit": refit, "checkpoint_seconds": 1e-9, "clicks_per_step": 1})
    unbroken = fit(LOG, LOG, 60, SMALL, settings, validate=Planned(*RECALLS, averaged=averaged))
    ended: list[Epoch] = []

    def die(event: Progress | Epoch) -> None:
        if isinstance(event, Epoch):
            ended.append(event)
        elif len(ended) == epochs_done and event.window >= share * event.windows:
            raise KilledError

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        fit(
            LOG,
            LOG,
            60,
            SMALL,
            settings,
            validate=Planned(*RECALLS, averaged=averaged),
            checkpoint=checkpoint,
            report=die,
        )
    remaining = Planned(*RECALLS[len([epoch for epoch in ended if epoch.validation]) :], averaged=averaged)
    resumed = fit(LOG, LOG, 60, SMALL, settings, validate=remaining, checkpoint=checkpoint)
    assert same(resumed.weights, unbroken.weights)
    assert [(epoch.number, epoch.loss) for epoch in resumed.history] == [
        (epoch.number, epoch.loss) for epoch in unbroken.history
    ]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    fit(LOG, LOG, 60, SMALL, QUICK, checkpoint=checkpoint)
    with pytest.raises(SettingsError, match="other settings or another dataset"):
        fit(LOG, LOG, 60, SMALL, QUICK.model_copy(update={"momentum": 0.3}), checkpoint=checkpoint)


def test_without_validation_all_sessions_are_learnt() -> None:
    assert fit(LOG, LOG, 60, SMALL, QUICK.model_copy(update={"refit": False})).learnt == "development"


def test_nothing_to_compare_with_is_refused() -> None:
    with pytest.raises(SettingsError, match="batch_size 1 with samples 0"):
        fit(LOG, LOG, 60, SMALL, TrainingSettings(batch_size=1, samples=0))


@pytest.mark.parametrize("rows", [[], [[3], [5], [7]]])
def test_sessions_without_a_next_click_are_refused(rows: list[list[int]]) -> None:
    log = sessions_of(rows)
    for validate in (None, Planned()):
        with pytest.raises(SettingsError, match=f"nothing to learn: .*{len(rows)} sessions"):
            fit(log, log, 60, SMALL, QUICK, validate=validate)


def test_a_dataset_without_a_next_click_is_refused_before_a_run_is_overwritten(tmp_path: Path) -> None:
    sessions = sessions_of([[0], [1]])
    data = write_dataset(
        tmp_path / "dataset", Vocabulary(["a", "b"], np.ones(2, np.int64)), {"train": (sessions, ["u", "v"])}, Split()
    )
    history = tmp_path / "run" / "history.json"
    history.parent.mkdir()
    history.touch()
    with pytest.raises(SettingsError, match=r"nothing to learn: .*2 sessions"):
        CliRunner().invoke(train, [str(data.path), "--out", str(history.parent), "--overwrite"], catch_exceptions=False)
    assert history.exists()


def test_a_training_that_has_lost_ctrl_c_stops_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(
        tmp_path / "dataset",
        Vocabulary(["a", "b"], np.ones(2, np.int64)),
        {"train": (sessions_of([[0, 1]]), ["u"])},
        Split(),
    )
    said = []

    def goes_on(*_: Any, report: Any, **__: Any) -> None:
        report(Progress("final", 1, 1, 1, 2, 0.0, 1.0))
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        said.append("goes on")
        report(Progress("final", 1, 1, 2, 2, 0.0, 1.0))
        said.append("to the end")

    monkeypatch.setattr("recsys.model.training.fit", goes_on)
    monkeypatch.setattr(sys, "argv", ["recsys", "train", str(data.path), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, said) == (130, ["goes on"])
    assert capsys.readouterr().err.endswith("stopped\n")


def test_tensorboard_logs_are_written(tmp_path: Path) -> None:
    fit(LOG, LOG, 60, SMALL, QUICK, logs=tmp_path)
    assert list((tmp_path / "final").glob("events.out.tfevents.*"))
