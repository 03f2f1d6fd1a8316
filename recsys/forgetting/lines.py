"""Files of JSON lines, some of which go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from recsys.forgetting.users import Users


def split_lines(path: Path, goes: Callable[[dict[str, Any]], bool]) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The lines of a file of JSON lines that stay, as they are, and those that go."""
    kept, gone = [], []
    with path.open("rb") as file:
        for line in file:
            value = orjson.loads(line)
            if goes(value):
                gone.append(value)
            else:
                kept.append(line)
    return kept, gone


def quotes(letter: dict[str, Any], users: Users) -> bool:
    """Whether a dead letter of a log names one of the users."""
    return users.named_in(letter["text"]) or users.named_in(letter["detail"])
