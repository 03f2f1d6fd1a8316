"""What a search found: its trials in the order in which they ended, the best of them, and its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
import orjson
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel

from recsys.settings import Settings
from recsys.tuning.space import configure
from recsys.tuning.study import EPOCHS, ERROR, FIGURES, finished

State = Literal["complete", "pruned", "failed"]
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
FEWEST = 10  # complete trials from which importances are worth a look
TOP = 0.25  # share of the trials that importance asks about


@dataclass(frozen=True)
class Trial:
    """A trial that ended.

    Attributes:
        number: from 1, which is the trial of the settings in force.
        value: of the metric; of a pruned trial the best it had reached, of a failed one NaN.
        curve: the value after each epoch.
        epochs: the epoch that was kept, or how many a pruned trial was given.
        figures: all metrics of a complete trial on the validation sessions.
        values: of the settings searched, by full name.
        reason: why a trial failed.
    """

    number: int
    state: State
    value: float
    curve: dict[int, float]
    epochs: int
    seconds: float
    figures: dict[str, float]
    values: dict[str, Any]
    reason: str

    @classmethod
    def of(cls, number: int, trial: FrozenTrial) -> Trial:
        """Trial ``number`` of those that ended."""
        state, curve = _STATES[trial.state], trial.intermediate_values
        complete = state == "complete"
        return cls(
            number=number,
            state=state,
            value=_value(trial),
            curve=curve,
            epochs=trial.user_attrs[EPOCHS] if complete else len(curve),
            seconds=trial.duration.total_seconds() if trial.duration else 0.0,
            figures=trial.user_attrs.get(FIGURES, {}),
            values=trial.params,
            reason=trial.user_attrs.get(ERROR, ""),
        )


@dataclass(frozen=True)
class Outcome:
    """All trials of a search, at least one of them complete: the first, which has the settings in force."""

    metric: str
    space: Mapping[str, BaseDistribution]
    trials: list[Trial]
    importances: dict[str, float]

    @classmethod
    def of(cls, study: optuna.Study, metric: str, space: Mapping[str, BaseDistribution]) -> Outcome | None:
        """What ``study`` found so far; None before its first trial is complete."""
        trials = [Trial.of(number, trial) for number, trial in enumerate(finished(study), 1)]
        return cls(metric, space, trials, _importances(study, space)) if trials else None

    @property
    def ranked(self) -> list[Trial]:
        """Complete trials, the best first."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return sorted(complete, key=lambda trial: (-trial.value, trial.number))

    @property
    def best(self) -> Trial:
        """The complete trial with the highest value, the first of equals."""
        return self.ranked[0]

    @property
    def listed(self) -> list[Trial]:
        """All trials: complete ones and pruned ones, each from the best to the worst, then failed ones."""
        pruned = [trial for trial in self.trials if trial.state == "pruned"]
        failed = [trial for trial in self.trials if trial.state == "failed"]
        return self.ranked + sorted(pruned, key=lambda trial: (-trial.value, trial.number)) + failed

    @property
    def first(self) -> Trial:
        """The trial of the settings that were in force."""
        return self.trials[0]

    @property
    def gain(self) -> float:
        """How far the best is above the first, relative to it."""
        return self.best.value / (self.first.value or math.nan) - 1


def _value(trial: FrozenTrial) -> float:
    if trial.state == TrialState.COMPLETE:
        assert trial.value is not None
        return trial.value
    return max(trial.intermediate_values.values()) if trial.state == TrialState.PRUNED else math.nan


def settings_of(settings: Settings, trial: Trial) -> str:
    """All model and training settings with the values of ``trial``, as a settings file."""
    model, training = configure(settings, trial.values)
    sections: dict[str, BaseModel] = {
        "model": model,
        "training": training.model_copy(update={"refit": settings.training.refit}),
    }
    lines: list[str] = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        for name, value in values.model_dump(exclude_none=True).items():
            if f"{section}.{name}" != "training.checkpoint_seconds":
                lines.append(f"{name} = {orjson.dumps(value).decode()}")
        lines.append("")
    return "\n".join(lines)


def _importances(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> dict[str, float]:
    """Share of each setting in reaching the best quarter of the complete trials; empty with too few of them.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces"). Settings with one possible value have no part in it.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = [name for name, values in space.items() if not values.single()]
    if len(complete) < FEWEST or len(varied) < 2:
        return {}
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=TOP), params=varied)
