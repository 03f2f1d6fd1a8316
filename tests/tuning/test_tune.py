"""The search: what it writes, that it goes on where it was stopped, and what it does not touch."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import orjson
import pytest
from click.testing import CliRunner, Result
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from recsys.cli.train import train
from recsys.cli.tune import tune
from recsys.dataset import Dataset
from recsys.errors import DatasetError, InputError, RecsysError, SettingsError
from recsys.model.history import Epoch, Progress, best_epoch
from recsys.model.training import Report
from recsys.settings import Settings
from recsys.tuning.outcome import Outcome
from recsys.tuning.report import render
from recsys.tuning.search import STARTUP, Limits, Trainer, search
from recsys.tuning.space import Space
from recsys.tuning.study import CHECKPOINT, EPOCHS, ERROR, FIGURES, JOURNAL, Identity, finished, open_study

from .conftest import OPTIONS, make_dataset

QUICK = Settings.model_validate(
    {
        "model": {"units": 8},
        "training": {"epochs": 3, "halvings": 0, "batch_size": 8, "clicks_per_step": 4, "samples": 8},
    }
)
RATE: Space = {"training.learning_rate": FloatDistribution(0.01, 0.5, log=True)}


def run(dataset: Path, out: Path, space: Path, *options: str, trials: int = 4) -> Result:
    arguments = [str(dataset), "--out", str(out), "--space", str(space), "--trials", str(trials), *OPTIONS, *options]
    return CliRunner().invoke(tune, arguments, catch_exceptions=False)


def trials_of(out: Path) -> list[tuple[TrialState, float | None, dict[str, Any], dict[int, float]]]:
    """The trials that ended, from the journal."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / JOURNAL)))
    study = optuna.load_study(study_name=None, storage=storage)
    return [(trial.state, trial.value, trial.params, trial.intermediate_values) for trial in finished(study)]


def test_a_search_begins_with_the_settings_in_force_and_keeps_the_best(tuned: Path) -> None:
    trials = trials_of(tuned)
    assert len(trials) == 4
    begun = Settings().training
    assert trials[0][2] == {"training.learning_rate": begun.learning_rate, "training.momentum": begun.momentum}
    assert len({tuple(params.values()) for _, _, params, _ in trials}) == 4
    assert {path.name for path in tuned.iterdir()} == {JOURNAL, "best.toml", "report.html"}
    assert all(orjson.loads(line) for line in (tuned / JOURNAL).read_bytes().splitlines())


def test_the_best_settings_train_the_model_of_the_best_trial(
    tuned: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_SETTINGS", str(tuned / "best.toml"))
    done = CliRunner().invoke(train, [str(dataset), "--out", str(tmp_path / "run"), "--no-refit"])
    assert done.exit_code == 0, done.output
    history = orjson.loads((tmp_path / "run" / "history.json").read_bytes())
    best = max(value for state, value, _, _ in trials_of(tuned) if state == TrialState.COMPLETE and value is not None)
    assert best_epoch([Epoch(**epoch) for epoch in history]).validation["recall@20"] == best


def test_the_report_stands_by_itself_and_says_what_tuning_gained(tuned: Path) -> None:
    report = (tuned / "report.html").read_text()
    values = [value for state, value, _, _ in trials_of(tuned) if state == TrialState.COMPLETE and value is not None]
    assert f"{max(values):.4f}" in report
    assert f"{values[0]:.4f}" in report
    assert f"{100 * (max(values) / values[0] - 1):+.1f}%" in report
    assert "training.learning_rate" in report
    assert "validation" in report
    assert not {"<script", "<link", "src="} & set(report.split())
    assert report.count("<svg") == 3, "importances are not estimated from four trials"


def test_killed_and_resumed_is_as_unbroken(tuned: Path, dataset: Path, space: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "from recsys.cli import main; main()"
    command = [sys.executable, "-c", code, "tune", str(dataset), "--out", str(out), "--space", str(space)]
    process = subprocess.Popen([*command, "--trials", "4", *OPTIONS], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        # In the second trial, after its first epoch.
        if b'"trial_id":1,"step"' in read(out / JOURNAL):
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "report.html").exists(), "killed too late"
    with (out / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":5,"worker_')  # as a kill in the middle of a line leaves it
    lock = out / f"{JOURNAL}.lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(out / JOURNAL)
    with pytest.raises(RecsysError, match="exists already"):
        run(dataset, out, space)
    run(dataset, out, space, "--resume")
    assert trials_of(out) == trials_of(tuned)
    assert {path.name for path in out.iterdir()} == {JOURNAL, "best.toml", "report.html"}
    assert (out / "best.toml").read_bytes() == (tuned / "best.toml").read_bytes()


def read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def test_a_finished_search_can_go_on(tuned: Path, dataset: Path, space: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(tuned, out)
    run(dataset, out, space, "--resume", trials=5)
    assert trials_of(out)[:4] == trials_of(tuned)
    assert len(trials_of(out)) == 5


@pytest.mark.parametrize(
    ("options", "other"),
    [
        (("--metric", "mrr@20"), "metric"),
        (("--patience", "2"), "settings"),
        (("--loss", "bpr-max"), "settings"),
    ],
)
def test_a_search_of_something_else_is_refused(
    options: tuple[str, ...], other: str, tuned: Path, dataset: Path, space: Path
) -> None:
    with pytest.raises(SettingsError, match=f"of another {other}: pass the same"):
        run(dataset, tuned, space, "--resume", *options)


def test_a_search_of_another_dataset_or_space_is_refused(
    tuned: Path, dataset: Path, space: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="of another dataset: pass the same"):
        run(make_dataset(tmp_path / "dataset", seed=2).path, tuned, space, "--resume")
    (tmp_path / "space.toml").write_text("[training]\nmomentum = [0.0, 0.4]")
    with pytest.raises(SettingsError, match="of another search space: pass the same"):
        run(dataset, tuned, tmp_path / "space.toml", "--resume")


def test_a_damaged_journal_is_named(tuned: Path, dataset: Path, space: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(tuned, out)
    journal = (out / JOURNAL).read_bytes()
    (out / JOURNAL).write_bytes(b"garbage\n" + journal)
    with pytest.raises(InputError, match=r"study\.jsonl: damaged"):
        run(dataset, out, space, "--resume")


def test_a_dataset_without_validation_is_refused(tmp_path: Path, space: Path) -> None:
    data = make_dataset(tmp_path / "dataset", validation=False)
    with pytest.raises(DatasetError, match=r"no validation sessions to tune on.*--validation-days"):
        run(data.path, tmp_path / "out", space)
    assert not (tmp_path / "out").exists()


def test_flags_hold_settings(dataset: Path, space: Path, tmp_path: Path) -> None:
    done = run(dataset, tmp_path / "out", space, "--momentum", "0.3")
    assert done.exit_code == 2
    assert "training.momentum: given as a flag and searched by" in done.output


def study_in_memory(**first: Any) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({name.replace("__", "."): value for name, value in first.items()})
    return study


def test_the_test_split_is_not_read(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "dataset")
    shutil.rmtree(data.path / "test")
    with pytest.raises(DatasetError):
        data.test()
    study = study_in_memory(training__learning_rate=0.1)
    search(study, Trainer(data, QUICK, "recall@20+mrr@20", tmp_path / "checkpoint"), RATE, Limits(1, None))
    [trial] = finished(study)
    assert trial.value == trial.user_attrs["figures"]["recall@20"] + trial.user_attrs["figures"]["mrr@20"]


def test_a_trial_below_the_median_is_pruned(dataset: Path, tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    curve = dict.fromkeys((1, 2, 3), 0.999)
    for rate in range(1, STARTUP + 1):
        params = {"training.learning_rate": rate / 10}
        study.add_trial(create_trial(value=0.999, params=params, distributions=RATE, intermediate_values=curve))
    ended: list[int] = []
    trainer = Trainer(Dataset.open(dataset), QUICK, "recall@20", tmp_path / "checkpoint")
    search(study, trainer, RATE, Limits(STARTUP + 1, None), ended=lambda number, _: ended.append(number))
    pruned = finished(study)[-1]
    assert pruned.state == TrialState.PRUNED
    assert list(pruned.intermediate_values) == [1, 2], "the first epoch is spared"
    assert ended == [STARTUP + 1]
    assert not (tmp_path / "checkpoint").exists()


def test_settings_that_cannot_be_trained_fail_with_a_reason(dataset: Path, tmp_path: Path) -> None:
    alone = QUICK.model_copy(update={"training": QUICK.training.model_copy(update={"samples": 0, "epochs": 1})})
    space: Space = {"training.batch_size": CategoricalDistribution([8, 1])}
    trainer = Trainer(Dataset.open(dataset), alone, "recall@20", tmp_path / "checkpoint")
    study = study_in_memory(training__batch_size=8)
    study.enqueue_trial({"training.batch_size": 1})
    search(study, trainer, space, Limits(2, None))
    outcome = Outcome.of(study, "recall@20", space)
    assert outcome is not None
    assert [trial.state for trial in outcome.trials] == ["complete", "failed"]
    assert "batch_size 1 with samples 0" in outcome.trials[1].reason
    assert outcome.best is outcome.first
    with pytest.raises(SettingsError, match="batch_size 1 with samples 0"):
        search(study_in_memory(training__batch_size=1), trainer, space, Limits(1, None))


RATE_STUDY = Identity.of("d", "mrr@20", RATE, QUICK), {"training.learning_rate": 0.1}


def searched(
    dataset: Path, directory: Path, watch: Report = lambda _: None, deadline: float | None = None
) -> tuple[set[int], FrozenTrial]:
    """A search of one trial: the epochs that were gone through, and the trial that ended or was left."""
    gone_through: set[int] = set()

    def see(event: Progress | Epoch) -> None:
        if isinstance(event, Progress):
            gone_through.add(event.epoch)
        watch(event)

    trainer = Trainer(Dataset.open(dataset), QUICK, "mrr@20", directory / CHECKPOINT)
    with open_study(directory, *RATE_STUDY) as study:
        left = search(study, trainer, RATE, Limits(1, deadline), see)
        [trial] = finished(study) if left is None else [left]
        return gone_through, trial


def in_the_third_epoch(event: Progress | Epoch) -> None:
    if isinstance(event, Progress) and event.epoch == 3:
        raise KeyboardInterrupt


def when_the_second_epoch_is_saved(event: Progress | Epoch) -> None:
    if isinstance(event, Epoch) and event.number == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("interrupt", [in_the_third_epoch, when_the_second_epoch_is_saved])
def test_an_interrupted_trial_goes_on_from_its_last_epoch(dataset: Path, tmp_path: Path, interrupt: Report) -> None:
    _, unbroken = searched(dataset, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        searched(dataset, tmp_path / "broken", interrupt)
    gone_through, broken = searched(dataset, tmp_path / "broken")
    assert gone_through == {3}, "two epochs were done before"
    assert list(unbroken.intermediate_values) == [1, 2, 3]
    assert broken.intermediate_values == unbroken.intermediate_values
    assert (broken.params, broken.value) == (unbroken.params, unbroken.value)


def test_the_epoch_in_which_the_time_is_over_is_finished(dataset: Path, tmp_path: Path) -> None:
    deadline = time.monotonic() + 1

    def wait(_: Progress | Epoch) -> None:
        time.sleep(max(0.0, deadline - time.monotonic()))

    gone_through, left = searched(dataset, tmp_path, wait, deadline)
    assert gone_through == set(left.intermediate_values) == {1}
    gone_through, trial = searched(dataset, tmp_path)
    assert gone_through == {2, 3}
    assert (trial.state, list(trial.intermediate_values)) == (TrialState.COMPLETE, [1, 2, 3])


def test_the_time_that_is_over_is_said(dataset: Path, space: Path, tmp_path: Path) -> None:
    arguments = [str(dataset), "--out", str(tmp_path / "out"), "--space", str(space), "--minutes", "0.05", *OPTIONS]
    done = CliRunner().invoke(tune, [*arguments, "--epochs", "1000", "--patience", "1000"])
    assert re.search(r"the time is over: trial 1 is left after epoch \d+: --resume goes on with it", done.stderr)
    assert "no trial ended in 0.05 minutes" in str(done.exception)


def test_a_trial_is_asked_for_again_once_wherever_its_successor_is_killed(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        searched(dataset, tmp_path, in_the_third_epoch)
    journal = tmp_path / JOURNAL
    broken = journal.read_bytes().splitlines(keepends=True)
    with open_study(tmp_path, *RATE_STUDY):
        whole = journal.read_bytes().splitlines(keepends=True)
    assert len(whole) > len(broken) + 1, "one line asks again, one ends the broken trial"
    for killed_at in range(len(broken), len(whole) + 1):
        journal.write_bytes(b"".join(whole[:killed_at]))
        with open_study(tmp_path, *RATE_STUDY) as study:
            assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_that_failed_is_not_asked_for_again(tmp_path: Path) -> None:
    with open_study(tmp_path, *RATE_STUDY) as study:
        study.ask(dict(RATE)).set_user_attr(ERROR, "too large")
    with open_study(tmp_path, *RATE_STUDY) as study:
        assert [trial.state for trial in study.trials] == [TrialState.FAIL]
        assert len(finished(study)) == 1


def test_trials_without_an_epoch_are_drawn(tmp_path: Path) -> None:
    """A failed trial may have none, and a journal that an older version wrote may lack those of any trial."""
    study, reasons = optuna.create_study(direction="maximize"), {ERROR: "too large"}
    figures = {FIGURES: {"recall@20": 0.5, "mrr@20": 0.2}, EPOCHS: 2}
    rates: list[dict[str, Any]] = [{"training.learning_rate": rate} for rate in (0.1, 0.2)]
    study.add_trial(create_trial(value=0.5, params=rates[0], distributions=RATE, user_attrs=figures))
    study.add_trial(create_trial(state=TrialState.FAIL, params=rates[1], distributions=RATE, user_attrs=reasons))
    outcome = Outcome.of(study, "recall@20", RATE)
    assert outcome is not None
    assert render(outcome, {}, "best.toml").count("<svg") == 3


def test_two_processes_do_not_share_a_search(tmp_path: Path) -> None:
    with (
        open_study(tmp_path, *RATE_STUDY),
        pytest.raises(RecsysError, match="another process works on this search"),
        open_study(tmp_path, *RATE_STUDY),
    ):
        pass


def test_no_trial_is_begun_after_the_time_is_over(dataset: Path, tmp_path: Path) -> None:
    study = study_in_memory(training__learning_rate=0.1)
    trainer = Trainer(Dataset.open(dataset), QUICK, "recall@20", tmp_path / "checkpoint")
    search(study, trainer, RATE, Limits(None, time.monotonic()))
    assert finished(study) == []
