"""The command ``dead-letter``: what could not be used, and how it is tried once more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from recsys.cli.options import MOMENT, with_settings
from recsys.events import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS
from recsys.settings import Settings

if TYPE_CHECKING:
    from stream.letters import Letter


class _Stretch(click.ParamType):
    """``PARTITION:FIRST-LAST``: offsets of letters in a partition of the dead-letter topic."""

    name = "partition:first-last"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        found = re.fullmatch(r"(\d+):(\d+)-(\d+)", str(value))
        if found is None:
            self.fail(f"{value!r} is not like 0:17-42", param, ctx)
        partition, first, last = map(int, found.groups())
        return partition, first, last


_REASON = click.option("--reason", "reasons", multiple=True, help="Only letters of this reason (more than one: each).")
_SINCE = click.option("--since", type=MOMENT, default=MIN_TIMESTAMP_MS, help="Only letters written from this time on.")


@click.group(name="dead-letter")
def dead_letter() -> None:
    """See and replay the clicks that could not be used.

    \b
    Example:
      recsys dead-letter list --counts
      recsys dead-letter replay --reason unknown_item
    """


@dead_letter.command(name="list")
@_REASON
@_SINCE
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most letters, the newest.")
@click.option("--counts", is_flag=True, help="How many letters of each reason instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_settings("kafka")
def list_letters(
    settings: Settings, reasons: tuple[str, ...], since: int, limit: int, counts: bool, as_json: bool
) -> None:
    """Show letters, newest first.

    \b
    Example:
      recsys dead-letter list --counts
      recsys dead-letter list --reason unknown_item --since 2025-03-10 --json
    """
    import orjson

    from stream.letters import Letters, Selection

    letters, selection = Letters(settings.kafka), Selection(frozenset(reasons), since)
    if counts:
        found = letters.counts(selection).most_common()
        if as_json:
            click.echo(orjson.dumps(dict(found)))
        else:
            _print_table(("reason", "letters"), [(reason, f"{count:,}") for reason, count in found])
        return
    newest = letters.newest(selection, limit)
    if as_json:
        for letter in newest:
            click.echo(orjson.dumps(letter.as_dict()))
    else:
        _print_table(("letter", "written (UTC)", "reason", "stood at", "detail"), [_cells(each) for each in newest])


@dead_letter.command()
@_REASON
@_SINCE
@click.option("--until", type=MOMENT, default=MAX_TIMESTAMP_MS, help="Only letters written before this time.")
@click.option("--offsets", type=_Stretch(), multiple=True, help="Only letters here, as dead-letter list names them.")
@click.option("--again", is_flag=True, help="Letters that were replayed before, too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings("kafka")
def replay(
    settings: Settings,
    reasons: tuple[str, ...],
    since: int,
    until: int,
    offsets: tuple[tuple[int, int, int], ...],
    again: bool,
    yes: bool,
) -> None:
    """Put letters back into the click topic, each once.

    \b
    Example:
      recsys dead-letter replay --reason unknown_item          # after a model was published that knows the items
      recsys dead-letter replay --offsets 0:17-17 --again --yes

    They go as they were, under the user's key. A letter of the same reason that stands before a chosen one in its
    partition, and is not chosen, counts as replayed from then on; --again brings it back. Prints one JSON object:
    how many letters were replayed, and which were refused because only their beginning is left.
    """
    from contextlib import closing
    from dataclasses import asdict

    import orjson

    from recsys.console import console
    from stream.letter_replay import LetterReplay, Replayed
    from stream.letters import Selection

    selection = Selection(frozenset(reasons), since, until, offsets)
    with closing(LetterReplay(settings.kafka, selection, again=again)) as work:
        plan = work.plan()
        for reason, count in plan.chosen.most_common():
            console.print(f"{count:,} of {reason}", soft_wrap=True)
        if plan.already:
            console.print(f"{plan.already:,} were replayed before and stay (--again)")
        if plan.passed_over:
            console.print(f"{plan.passed_over:,} older ones are not chosen and count as replayed from now on")
        total = plan.chosen.total()
        if total and not yes:
            click.confirm(f"Put {total:,} letters back into {settings.kafka.topic}?", abort=True, err=True)
        click.echo(orjson.dumps(asdict(work.run() if total else Replayed({}, {}))))


def _cells(letter: Letter) -> tuple[str, ...]:
    from datetime import UTC, datetime

    written = datetime.fromtimestamp(letter.time / 1000, UTC)
    place = f"{letter.topic} {letter.origin[0]}:{letter.origin[1]}"
    return (f"{letter.place[0]}:{letter.place[1]}", f"{written:%Y-%m-%d %H:%M:%S}", letter.reason, place, letter.detail)


def _print_table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from recsys.console import output

    if not rows:
        output.print("no letters")
        return
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # details quote what strangers sent: no markup
    output.print(table)
