"""Who is to be forgotten, and how tables and texts name them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import SettingsError
from recsys.pseudonyms import Pseudonyms

_WORD = re.compile(r"\w+|\W")
_ESCAPED = re.compile(r"\\(?:[bfnrt]|u[0-9a-f]{4})(?=.)")  # by JSON, and no part of the word that follows
_LETTER = re.compile(r"\w")
_TEXTS = ("event_id", "context", "extra")  # of a click, in which users may be named


@dataclass(frozen=True)
class Removed:
    """What was taken away. ``texts`` are values of other users' clicks that named one of the users, now empty."""

    clicks: int = 0
    sessions: int = 0
    dead_letters: int = 0
    bots: int = 0
    texts: int = 0
    files: int = 0

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def __add__(self, other: Removed) -> Removed:
        return Removed(**{name: n + getattr(other, name) for name, n in vars(self).items()})


class Users:
    """The users, by their ids in clear; ``pseudonyms`` are those of the key that is set."""

    def __init__(self, ids: Collection[str], pseudonyms: Pseudonyms | None) -> None:
        self._ids, self._pseudonyms = frozenset(ids), pseudonyms
        names = self._ids | (set(pseudonyms.of_all(ids)) if pseudonyms else set())
        self._forms = {form for name in names for form in _written(name)}
        self._lengths: dict[str, set[int]] = {}  # of those that begin with a character
        for form in self._forms:
            self._lengths.setdefault(form[0], set()).add(len(form))

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, key: str | None, where: Path) -> frozenset[str]:
        """Their ids as ``where`` has them: hashed by the key that is called ``key``, or in clear.

        Raises:
            SettingsError: that key is not the one that is set.
        """
        if key is None:
            return self._ids
        if self._pseudonyms is None or self._pseudonyms.key != key:
            raise SettingsError(f"settings: privacy.key: {where} has user ids hashed by the key {key}: set it")
        return frozenset(self._pseudonyms.of_all(self._ids))

    def named_in(self, text: str | None) -> bool:
        """Whether a text names one of them, never as a part of a longer word."""
        return text is not None and any(
            text[at : at + length] in self._forms and not _LETTER.match(text, at + length)
            for at in _beginnings(text)
            for length in self._lengths.get(text[at], ())
        )


def rows_of(column: pa.ChunkedArray, ids: Collection[str]) -> pa.ChunkedArray:
    """Where a column of user ids has one of ``ids``."""
    texts = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return pc.is_in(texts, value_set=pa.array(ids, texts.type))


def clicks_without(clicks: pa.Table, users: Users, ids: Collection[str]) -> tuple[pa.Table, Removed]:
    """Clicks without those of the users, whom the table calls ``ids``, and without what others say of them."""
    kept = without(clicks, rows_of(clicks["user_id"], ids))
    removed = Removed(clicks=len(clicks) - len(kept))
    for name in (name for name in _TEXTS if name in kept.column_names):
        named = pa.array(map(users.named_in, kept[name].to_pylist()), pa.bool_())
        if count := pc.sum(named).as_py():
            texts = pc.if_else(named, pa.scalar(None, kept[name].type), kept[name])
            kept = kept.set_column(kept.schema.get_field_index(name), name, texts)
            removed += Removed(texts=count)
    return kept, removed


def without(table: pa.Table, rows: pa.ChunkedArray) -> pa.Table:
    """The table without the marked rows, in whose words nothing of them is left."""
    kept = table.filter(pc.invert(rows))
    for place, column in enumerate(kept.columns):
        if pa.types.is_dictionary(column.type):  # its words would stay
            anew = column.cast(column.type.value_type).combine_chunks().dictionary_encode().cast(column.type)
            kept = kept.set_column(place, table.schema.field(place), anew)
    return kept


def _written(name: str) -> set[str]:
    """A name as it is, and as JSON and CSV write it."""
    texts = {name, name.replace('"', '""'), json.dumps(name)[1:-1], orjson.dumps(name).decode()[1:-1]}
    return texts | {json.dumps(text)[1:-1] for text in texts}


def _beginnings(text: str) -> Iterator[int]:
    """Where in a text a name may begin."""
    yield from (found.start() for found in _WORD.finditer(text))
    yield from (found.end() for found in _ESCAPED.finditer(text))
