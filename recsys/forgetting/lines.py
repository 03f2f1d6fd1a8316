"""Files of JSON lines, some of which go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from recsys.errors import InputError
from recsys.forgetting.users import Users


def split_lines(path: Path, goes: Callable[[dict[str, Any]], bool]) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The lines of a file of JSON lines that stay, as they are, and those that go.

    Raises:
        InputError: names the file and the line that is no JSON.
    """
    kept, gone = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(f"{path}: line {number}: not a JSON value: {error}") from None
            if goes(value):
                gone.append(value)
            else:
                kept.append(line)
    return kept, gone


def quotes(letter: dict[str, Any], users: Users) -> bool:
    """Whether a dead letter of a log names one of the users."""
    return users.named_in(letter["text"]) or users.named_in(letter["detail"])
