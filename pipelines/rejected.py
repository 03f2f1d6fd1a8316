"""The lines of the logs that cannot be used: gathered in one file, and refused where they are too many."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from pipelines.places import Place
from pipelines.tally import Tally
from recsys.errors import InputError, MissingInputError


def gather_dead_letters(work: Place, target: Path) -> None:
    """Join the parts, which sort in the order of the input."""
    with target.open("wb") as file:
        file.writelines((work / "dead").contents())


def prepend(earlier: Path, letters: Path) -> None:
    """Put the dead letters of an earlier run before those in the file ``letters``."""
    later = letters.rename(letters.with_name(f".{letters.name}"))
    with letters.open("wb") as file:
        for path in (earlier, later):
            with path.open("rb") as part:
                shutil.copyfileobj(part, file)
    later.unlink()


def check_read(read: Tally, inputs: Sequence[str], max_bad: float, dead_letters: Path, kept: Path) -> None:
    """Refuse what was read if a file is damaged or too many lines are bad; these are then copied to ``kept``.

    Raises:
        InputError: says what is wrong, and where the first bad line is.
        MissingInputError: there are no clicks at all.
    """
    if read.damaged:
        raise InputError("; ".join(read.damaged))
    clicks, rejected = read.counts["read"], read.group("rejected")
    bad = sum(rejected.values())
    if clicks == 0:
        raise MissingInputError(f"no clicks: {', '.join(inputs)}: only headers or blank lines")
    if bad <= max_bad * clicks and bad < clicks:
        return
    shutil.copyfile(dead_letters, kept)
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(rejected.items(), key=lambda pair: -pair[1]))
    raise InputError(
        f"{bad:,} of {clicks:,} clicks ({bad / clicks:.1%}) cannot be used, more than --max-bad {max_bad:.1%}: "
        f"{reasons}; the first: {_first(dead_letters)}{_hint(rejected)}; each is in {kept} with its line and reason"
    )


def _hint(rejected: Mapping[str, int]) -> str:
    """What most often helps, where most lines fall to their times."""
    most = max(rejected, key=rejected.__getitem__)
    return " (see --time-unit and --time-format)" if most in ("timestamp.format", "timestamp.out_of_range") else ""


def _first(dead_letters: Path) -> str:
    """The first dead letter in words."""
    with dead_letters.open("rb") as file:
        letter = orjson.loads(next(file))
    return f"{letter['file']} line {letter['line']}: {letter['detail'] or letter['reason']}"
