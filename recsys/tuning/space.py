"""What is searched: for each of some settings a range, or a list of choices.

A space is written like a settings file (``space.toml`` is the one that comes with the product), so any setting of the
sections ``model`` and ``training`` can be in it without a word here.
"""

from __future__ import annotations

import math
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from recsys.errors import SettingsError
from recsys.settings import ModelSettings, Settings, TrainingSettings

Space = dict[str, BaseDistribution]  # by the full name of a setting, such as training.learning_rate

DEFAULT_SPACE = Path(__file__).with_name("space.toml")
SECTIONS: Mapping[str, type[BaseModel]] = {"model": ModelSettings, "training": TrainingSettings}
# These change nothing about a trial, or change it by luck.
UNTUNABLE = {
    "training.refit",
    "training.seed",
    "training.devices",
    "training.checkpoint_seconds",
    "training.warm_epochs",
    "training.replay",
}


def read_space(path: Path) -> Space:
    """The space in a TOML file.

    Raises:
        SettingsError: names the file and the setting, and says what is wrong with it.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a TOML file: {error}") from None
    space: Space = {}
    for section, table in tables.items():
        if section not in SECTIONS or not isinstance(table, dict):
            raise SettingsError(f"{path}: {section}: what can be searched is in the tables [model] and [training]")
        for setting, given in table.items():
            name = f"{section}.{setting}"
            try:
                space[name] = _distribution(name, given)
            except (ValueError, UserWarning) as error:
                raise SettingsError(f"{path}: {name}: {_first_line(error)}") from None
    if not space:
        raise SettingsError(f"{path}: there is nothing to search in it")
    return space


def values_in_force(settings: Settings, space: Space) -> dict[str, Any]:
    """What the settings that are searched are without a search.

    Raises:
        SettingsError: one of them lies outside of the space.
    """
    values = {name: getattr(getattr(settings, name.partition(".")[0]), name.partition(".")[2]) for name in space}
    for name, value in values.items():
        if not _holds(space[name], value):
            flag = name.partition(".")[2].replace("_", "-")
            raise SettingsError(
                f"{name}: the value in force, {value}, lies outside of what is searched ({describe(space[name])}): "
                f"pass --{flag} to hold a value, or a --space that includes this one"
            )
    return values


def configure(settings: Settings, values: Mapping[str, Any]) -> tuple[ModelSettings, TrainingSettings]:
    """Model and training settings with the values of one trial, by full name; without a refit, which no trial needs.

    Raises:
        SettingsError: values that cannot go together.
    """
    sections: dict[str, dict[str, Any]] = {"model": settings.model.model_dump(), "training": {}}
    sections["training"] = {**settings.training.model_dump(), "refit": False}
    for name, value in values.items():
        section, _, setting = name.partition(".")
        sections[section][setting] = value
    try:
        return ModelSettings(**sections["model"]), TrainingSettings(**sections["training"])
    except ValidationError as error:
        raise SettingsError(_first_line(error)) from None


def describe(values: BaseDistribution) -> str:
    """A range or its choices in words."""
    if isinstance(values, CategoricalDistribution):
        return ", ".join(map(str, values.choices))
    assert isinstance(values, (FloatDistribution, IntDistribution))
    step = f" by {values.step:g}" if values.step not in (None, 1) else ""
    return f"{values.low:g} to {values.high:g}{step}{', by orders of magnitude' if values.log else ''}"


def _distribution(name: str, given: Any) -> BaseDistribution:
    section, _, setting = name.partition(".")
    field = SECTIONS[section].model_fields.get(setting)
    if field is None:
        raise ValueError("there is no such setting")
    if name in UNTUNABLE:
        raise ValueError("this is no setting to search")
    if isinstance(given, list):
        if not given:
            raise ValueError("an empty list leaves no choice")
        return CategoricalDistribution([_valid(field, value) for value in given])
    return _range(field, given)


def _range(field: FieldInfo, given: Any) -> BaseDistribution:
    if not isinstance(given, dict) or not {"low", "high"} <= given.keys() <= {"low", "high", "step", "log"}:
        raise ValueError("give a range { low, high } with 'step' or 'log = true' if wanted, or a list of choices")
    if field.annotation not in (int, float):
        raise ValueError("only a number has a range: give a list of choices")
    low, high = _valid(field, given["low"]), _valid(field, given["high"])
    step, log = given.get("step"), given.get("log", False)
    if not isinstance(log, bool):
        raise ValueError("'log' is true or false")
    if step is not None:
        TypeAdapter(field.annotation).validate_python(step, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a range that Optuna would change in silence
        if field.annotation is int:
            return IntDistribution(low, high, log=log, step=1 if step is None else step)
        return FloatDistribution(low, high, log=log, step=step)


def _valid(field: FieldInfo, value: Any) -> Any:
    """The value, if the setting can have it."""
    kind: Any = Annotated[field.annotation, field]
    return TypeAdapter(kind).validate_python(value, strict=True)


def _holds(values: BaseDistribution, value: Any) -> bool:
    if isinstance(values, CategoricalDistribution):
        return value in values.choices
    assert isinstance(values, (FloatDistribution, IntDistribution))
    steps = (value - values.low) / values.step if values.step else 0.0
    return bool(values.low <= value <= values.high and math.isclose(steps, round(steps), abs_tol=1e-6))


def _first_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        words = first["msg"].removeprefix("Value error, ")
        return f"{place}: {words}" if place else words
    return str(error).splitlines()[0]
