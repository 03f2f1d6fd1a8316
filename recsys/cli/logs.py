"""Flags that say how click logs are laid out, the same wherever a command reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from recsys.columns import Clock
    from recsys.logs.presets import Preset
    from recsys.logs.sources import Layout

_OPTIONS = (
    click.option("--column", "columns", multiple=True, metavar="FIELD=COLUMN", help="Which column holds a field."),
    click.option("--preset", metavar="NAME", help="Columns and times of a public log, such as rees46 or globo."),
    click.option("--header", metavar="NAME,NAME,...", help="Columns of CSV files that have no header."),
    click.option(
        "--delimiter", help="Between CSV fields (tab: \\t). [default: what the first line has most of: , tab ; |]"
    ),
    click.option("--time-unit", type=click.Choice(["s", "ms", "us"]), help="Of numbers. [default: ms]"),
    click.option(
        "--time-format", metavar="PATTERN", help="Of times that are texts, as for strptime: '%d.%m.%Y %H:%M:%S'."
    ),
)


@dataclass(frozen=True)
class Reading:
    """How logs are to be read: the column of each event field, the layout of files, and how they tell time."""

    mapping: dict[str, str]
    layout: Layout
    clock: Clock


@dataclass(frozen=True)
class LogFlags:
    """What the flags said."""

    columns: tuple[str, ...] = ()
    preset: str | None = None
    header: str | None = None
    delimiter: str | None = None
    time_unit: Any = None
    time_format: str | None = None

    def reading(self, now_ms: int, max_future_ms: int, known: Preset | None = None) -> Reading:
        """How to read the logs, by the flags before the preset before what is ``known``.

        Raises:
            click.UsageError: a flag has a value that cannot be.
        """
        from recsys.columns import Clock
        from recsys.logs.presets import PRESETS, Preset
        from recsys.logs.sources import Layout, parse_mapping

        if self.preset is not None and self.preset not in PRESETS:
            raise click.BadParameter(f"{self.preset!r} is none of {', '.join(PRESETS)}", param_hint="--preset")
        if self.time_unit is not None and self.time_format is not None:
            raise click.UsageError("--time-unit and --time-format exclude each other")
        delimiter = "\t" if self.delimiter == "\\t" else self.delimiter
        if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
            raise click.BadParameter(f"{delimiter!r} is no single ASCII character", param_hint="--delimiter")
        known = PRESETS[self.preset] if self.preset is not None else known or Preset({})
        try:
            mapping = {**known.columns, **parse_mapping(self.columns)}
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--column") from None
        names = tuple(name.strip() for name in self.header.split(",")) if self.header else known.layout.header
        pattern = self.time_format or (known.pattern if self.time_unit is None else None)
        layout = Layout(names, delimiter or known.layout.delimiter, known.layout.events)
        return Reading(mapping, layout, Clock(self.time_unit or known.unit, now_ms, max_future_ms, pattern))

    def as_arguments(self) -> list[str]:
        """The flags again, for another command."""
        single = ("preset", "header", "delimiter", "time_unit", "time_format")
        given = [("column", column) for column in self.columns] + [(name, getattr(self, name)) for name in single]
        return [part for name, value in given if value is not None for part in (f"--{name.replace('_', '-')}", value)]


def with_log_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags, and pass the :class:`LogFlags` that result to the command as ``log``."""

    @wraps(command)
    def run(**arguments: Any) -> Any:
        flags = {name: arguments.pop(name) for name in LogFlags.__dataclass_fields__}
        return command(log=LogFlags(**flags), **arguments)

    wrapped: Callable[..., Any] = run
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
