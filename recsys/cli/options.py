"""Command line flags made from the settings, so that a default is written once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from recsys.errors import EventError, MissingInputError
from recsys.events import parse_timestamp
from recsys.settings import Settings
from recsys.settings_in_force import load_settings

# Sections whose field names mean nothing alone: --kafka-topic, --trend-seconds.
PREFIXED = frozenset({"kafka", "redis", "trend", "log"})


def with_settings(*sections: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a flag for each field of the sections, and pass the ``settings`` that result to the command.

    ``"bundles"`` names the single setting of that name.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(**arguments: Any) -> Any:
            overrides: dict[str, Any] = {}
            for section in sections:
                if section == "bundles":
                    overrides[section] = arguments.pop(section)
                    continue
                values = {name: arguments.pop(_parameter(section, name)) for name in _fields(section)}
                overrides[section] = {name: value for name, value in values.items() if value is not None}
            given = {name: value for name, value in overrides.items() if value not in (None, {})}
            return command(settings=load_settings(given), **arguments)

        wrapped: Callable[..., Any] = run
        for section in reversed(sections):
            for option in reversed(_options(section)):
                wrapped = option(wrapped)
        return wrapped

    return decorate


class _Present(click.ParamType):
    """Something that must be there; click itself would call it a wrong command line."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value != "-" and not Path(value).exists():
            raise MissingInputError(f"{value}: no such file or directory")
        return super().convert(value, param, ctx)


class InputPath(_Present, click.Path):
    """The path of something that is there."""


class InputFile(_Present, click.File):
    """A file that is there, opened; - is standard input."""


class FiniteRange(click.FloatRange):
    """A number in a range; to click nan is in any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class _Moment(click.ParamType):
    """A date (its midnight in UTC), an RFC 3339 time, or epoch milliseconds; gives epoch milliseconds."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_timestamp(f"{value}T00:00:00Z" if _DATE.fullmatch(str(value)) else value)
        except EventError as error:
            self.fail(error.detail, param, ctx)


MOMENT = _Moment()
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _options(section: str) -> list[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    if section == "bundles":
        field = Settings.model_fields["bundles"]
        return [click.option("--bundles", type=click.Path(path_type=Path), help=_help(field))]
    return [
        click.option(
            _flag(section, name, field),
            _parameter(section, name),
            type=_type(field),
            default=None,  # also for flags, which would otherwise be off
            help=_help(field),
        )
        for name, field in _fields(section).items()
    ]


def _fields(section: str) -> dict[str, FieldInfo]:
    model = Settings.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    # Whoever lists the processes of a machine reads their command lines: secrets have no flags.
    return {name: field for name, field in model.model_fields.items() if field.annotation is not SecretStr}


def _parameter(section: str, name: str) -> str:
    return f"{section}_{name}"


def _flag(section: str, name: str, field: FieldInfo) -> str:
    flag = (f"{section}-{name}" if section in PREFIXED else name).replace("_", "-")
    return f"--{flag}/--no-{flag}" if field.annotation is bool else f"--{flag}"


def _type(field: FieldInfo) -> Any:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    return field.annotation if field.annotation in (int, float, bool) else str


def _help(field: FieldInfo) -> str:
    return f"{field.description} [default: {field.default}]"
