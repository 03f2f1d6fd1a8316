"""The command ``settings``: every setting, its value here, and where else it can be given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_PASSWORD = re.compile(r"(://[^/@:]*:)[^@]*(@)")


@click.command(name="settings")
@click.option("--markdown", is_flag=True, help="Print the defaults as the table that the README holds.")
def show_settings(markdown: bool) -> None:
    """Show every setting with the value it has here.

    \b
    Example:
      RECSYS_TRAINING__EPOCHS=5 recsys settings

    Flags go before the environment, the environment before the file recsys.toml (or the one that RECSYS_SETTINGS
    names), the file before the defaults.
    """
    from rich.table import Table
    from rich.text import Text

    from recsys.console import output
    from recsys.settings import Settings
    from recsys.settings_in_force import load_settings

    if markdown:
        click.echo(table_of_defaults())
        return
    table = Table(highlight=True)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("what it is")
    for (name, field, value), (_, _, default) in zip(
        _values(load_settings()), _values(Settings.model_construct()), strict=True
    ):
        shown = str(value) if value == default else Text.assemble((str(value), "bold"), f" (default {default})")
        table.add_row(name, shown, field.description)
    output.print(table)


def table_of_defaults() -> str:
    """All settings as a Markdown table."""
    from recsys.settings import Settings

    lines = ["| setting | default | what it is |", "|---|---|---|"]
    lines += [
        f"| `{name}` | `{str(value) or ' '}` | {field.description}{_choices(field)} |"
        for name, field, value in _values(Settings.model_construct())
    ]
    return "\n".join(lines)


def _choices(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f" ({' or '.join(choices)})" if choices else ""


def _values(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _values(value, f"{name}.")
        else:
            yield f"{prefix}{name}", field, _PASSWORD.sub(r"\1***\2", value) if isinstance(value, str) else value
