"""The search: one training run a trial, on training sessions, judged on validation sessions.

Values are drawn by the tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter
Optimization"). A trial whose best epoch so far is worse than the median of what complete trials had at that epoch is
pruned. What trial n tries follows from the seed, n and the trials before it, so a search that is broken off and resumed
finds what an unbroken one finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from recsys.dataset import Dataset
from recsys.errors import DatasetError, RecsysError
from recsys.model.history import Epoch, Progress, best_epoch
from recsys.model.training import Fitted, Report, fit
from recsys.settings import Settings
from recsys.tuning.space import Space, configure
from recsys.tuning.study import EPOCHS, ERROR, FIGURES, finished
from recsys.validation import validation_on

import tensorflow as tf  # after recsys.model  # isort: skip

STARTUP = 5  # complete trials before any is pruned
SPARED = 1  # epochs that no trial is pruned for

Ended = Callable[[int, FrozenTrial], None]


@dataclass(frozen=True)
class Limits:
    """When the search ends.

    Attributes:
        trials: so many in all, those of earlier runs included; None for no limit.
        deadline: on the monotonic clock, in seconds; the epoch at hand is finished, and its trial is left for a later
            run to go on with.
    """

    trials: int | None
    deadline: float | None

    def reached(self, done: int) -> bool:
        """Whether no further trial is begun after ``done``."""
        return (self.trials is not None and done >= self.trials) or self.late

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.monotonic() >= self.deadline


class _OutOfTimeError(Exception):
    """The deadline came before the last epoch of a trial."""


def search(
    study: optuna.Study,
    trainer: Trainer,
    space: Space,
    limits: Limits,
    watch: Report = lambda _: None,
    ended: Ended = lambda *_: None,
) -> FrozenTrial | None:
    """Try settings until the limits are reached.

    Args:
        study: the search so far.
        trainer: runs the trials.
        space: which settings are searched, and where.
        watch: called with what training reports.
        ended: called with the number, from 1, of each trial that ends, and the trial.

    Returns:
        The trial that the deadline left in the middle, if there is one.

    Raises:
        RecsysError: the settings that the search begins with cannot be trained.
    """
    study.pruner = MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=SPARED + 1)
    while not limits.reached(done := len(finished(study))):
        study.sampler = TPESampler(seed=trainer.settings.training.seed + done)
        trial = study.ask(dict(space))
        try:
            state, value = trainer.run(trial, limits, watch, spared=done == 0)
        except _OutOfTimeError:
            return study.trials[trial.number]
        trainer.checkpoint.unlink(missing_ok=True)  # before the trial ends: a checkpoint is always of one that has not
        ended(done + 1, study.tell(trial, value, state))
    return None


def value_of(metric: str, figures: Mapping[str, float]) -> float:
    """The value of a metric, which may be a sum such as ``recall@20+mrr@20``."""
    return sum(figures[name] for name in metric.split("+"))


class Trainer:
    """Runs trials on a dataset, whose test split is not read.

    Args:
        settings: what every trial begins with.
        metric: such as ``recall@20`` or ``recall@20+mrr@20``, of the epoch that training would keep.
        checkpoint: file in which the trial at hand is saved.

    Raises:
        DatasetError: the dataset has no validation sessions.
    """

    def __init__(self, data: Dataset, settings: Settings, metric: str, checkpoint: Path) -> None:
        self.settings, self.checkpoint, self._metric = settings, checkpoint, metric
        self._training, self._items = data.training(), len(data.vocabulary)
        self._later = data.validation()
        if not len(self._later):
            raise DatasetError(
                f"{data.path}: it has no validation sessions to tune on: build it with --validation-from or "
                "--validation-days"
            )
        self._validate = validation_on(self._later, data.vocabulary)

    def run(
        self, trial: optuna.Trial, limits: Limits, watch: Report, *, spared: bool
    ) -> tuple[TrialState, float | None]:
        """How a trial ended, and its value if it is complete; one that is ``spared`` raises what it fails for."""
        try:
            best = best_epoch(self._learn(trial, limits, watch).history)
        except optuna.TrialPruned:
            return TrialState.PRUNED, None
        except (RecsysError, tf.errors.ResourceExhaustedError) as error:
            if spared:
                raise
            self.checkpoint.unlink(missing_ok=True)  # with its reason the trial has ended, and the next one begins anew
            trial.set_user_attr(ERROR, str(error).splitlines()[0])
            return TrialState.FAIL, None
        trial.set_user_attr(FIGURES, best.validation)
        trial.set_user_attr(EPOCHS, best.number)
        return TrialState.COMPLETE, value_of(self._metric, best.validation)

    def _learn(self, trial: optuna.Trial, limits: Limits, watch: Report) -> Fitted:
        model, training = configure(self.settings, trial.params)

        def report(event: Progress | Epoch) -> None:
            watch(event)
            if isinstance(event, Epoch):
                trial.report(value_of(self._metric, event.validation), event.number)
                if trial.should_prune():
                    raise optuna.TrialPruned
                if limits.late and event.number < training.epochs:
                    raise _OutOfTimeError

        return fit(
            self._training,
            self._training,
            self._items,
            model,
            training,
            validate=self._validate,
            later=self._later,
            checkpoint=self.checkpoint,
            report=report,
        )
