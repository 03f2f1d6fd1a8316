"""The flags that say how click logs are laid out."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from recsys.cli.logs import LogFlags, with_log_flags

GIVEN = ["--column", "user=who", "--column", "item=what", "--header", "who,what,when", "--time-format", "%d.%m.%Y"]


@click.command()
@with_log_flags
def shown(log: LogFlags) -> None:
    """Show the flags as they go to another command, as the demo hands them on."""
    reading = log.reading(0, 0)
    click.echo([log.as_arguments(), reading.mapping, reading.layout.header, reading.clock.pattern])


def test_flags_are_handed_on_as_they_came() -> None:
    expected = [GIVEN, {"user_id": "who", "item_id": "what"}, ("who", "what", "when"), "%d.%m.%Y"]
    assert CliRunner().invoke(shown, GIVEN).output == f"{expected}\n"


def test_flags_go_before_the_preset() -> None:
    reading = LogFlags(columns=("item=other",), preset="rees46", time_unit="s").reading(0, 0)
    assert (reading.mapping["item_id"], reading.mapping["user_id"]) == ("other", "user_id")
    assert (reading.clock.unit, reading.clock.pattern) == ("s", None)


@pytest.mark.parametrize(
    "flags", [["--preset", "nope"], ["--time-unit", "s", "--time-format", "%Y"], ["--delimiter", "ab"]]
)
def test_what_cannot_be_is_a_wrong_command_line(flags: list[str]) -> None:
    assert CliRunner().invoke(shown, flags).exit_code == 2
