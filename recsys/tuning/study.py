"""A search on disk: Optuna's journal of its trials, one JSON line each act.

::

    DIR/
        study.jsonl             the journal: what is searched, every trial, every epoch's value
        checkpoint.safetensors  the trial at hand, while there is one
        best.toml               the best settings so far, as a settings file
        report.html             what the search found

One process at a time works on a search. A trial that a killed one left in the middle is closed and asked for again; its
checkpoint lets it go on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import orjson
from optuna.distributions import distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from recsys.errors import InputError, RecsysError, SettingsError
from recsys.files import locked
from recsys.settings import Settings
from recsys.tuning.space import Space

JOURNAL, CHECKPOINT, BEST, REPORT = "study.jsonl", "checkpoint.safetensors", "best.toml", "report.html"
NAME = "recsys"
IDENTITY = "identity"  # attribute of the study: what it is a search of
ERROR, FIGURES, EPOCHS = "error", "figures", "epochs"  # attributes of a trial: why it failed, what it reached
AGAIN = "again"  # attribute of a trial that goes on with a broken one: the number of that one


@dataclass(frozen=True)
class Identity:
    """What a search depends on; its trials can be compared with one another only if all of it is the same."""

    dataset: str
    metric: str
    space: dict[str, str]
    settings: dict[str, Any]

    @classmethod
    def of(cls, dataset: str, metric: str, space: Space, settings: Settings) -> Identity:
        """``dataset`` is its content hash, ``settings`` those that the first trial has."""
        training = settings.training.model_dump(mode="json", exclude={"refit", "checkpoint_seconds"})
        return cls(
            dataset,
            metric,
            {name: distribution_to_json(values) for name, values in space.items()},
            {"model": settings.model.model_dump(mode="json"), "training": training},
        )


_WORDS = {"dataset": "dataset", "metric": "metric", "space": "search space", "settings": "settings"}


@contextmanager
def open_study(directory: Path, identity: Identity, first: dict[str, Any]) -> Iterator[optuna.Study]:
    """The search in ``directory``, begun if there is none yet; ``first`` are the values of its first trial.

    Raises:
        SettingsError: the search is of another dataset, metric, space or of other settings.
        InputError: the journal is damaged.
        RecsysError: another process works on it.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory, wait=False) as ours:
        if not ours:
            raise RecsysError(f"{directory}: another process works on this search")
        journal = directory / JOURNAL
        _mend(journal)
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal))),
                study_name=NAME,
                direction="maximize",
                load_if_exists=True,
            )
        except (ValueError, KeyError) as error:
            raise InputError(f"{journal}: damaged journal: {error}") from None
        if not study.trials:
            study.set_user_attr(IDENTITY, asdict(identity))
            study.enqueue_trial(first)
        _refuse_another(journal, study.user_attrs[IDENTITY], identity)
        _take_up(study)
        yield study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to an end, in order: complete, pruned, or failed for a reason that is known."""
    trials = study.get_trials(deepcopy=False)
    return [
        trial
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or ERROR in trial.user_attrs
    ]


def _mend(journal: Path) -> None:
    """Cut off the line that a killed process did not finish, and the lock that it held."""
    for lock in journal.parent.glob(f"{JOURNAL}.lock*"):
        lock.unlink()
    if journal.exists():
        written = journal.read_bytes()
        whole = written.rfind(b"\n") + 1
        if whole < len(written):
            with journal.open("r+b") as file:
                file.truncate(whole)


def _refuse_another(journal: Path, theirs: dict[str, Any], ours: Identity) -> None:
    same = orjson.loads(orjson.dumps(asdict(ours)))
    others = [words for name, words in _WORDS.items() if theirs[name] != same[name]]
    if others:
        raise SettingsError(
            f"{journal}: this search is of another {' and another '.join(others)}: pass the same to resume, or another "
            "--out"
        )


def _take_up(study: optuna.Study) -> None:
    """Close a trial that was left in the middle, and ask for it again, once: unless it had failed for a reason, or was
    asked for by a process that was killed before it closed it."""
    again = {trial.user_attrs.get(AGAIN) for trial in study.get_trials(deepcopy=False)}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number not in again and ERROR not in trial.user_attrs:
            values = trial.system_attrs.get("fixed_params", {}) | trial.params  # it may not have come to ask for all
            study.enqueue_trial(values, user_attrs={AGAIN: trial.number})
        study.tell(trial.number, state=TrialState.FAIL)
