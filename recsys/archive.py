"""The archive: the click topic as Parquet files by day, which changes all at once or not at all.

::

    archive/
        2026-11-20/000000000012.parquet   clicks of that day (UTC, by the time of the click), as change 12 brought them
        _dead-letter/000000000012.jsonl   records that are no clicks, with the reason
        _position.json                    where in the topic to go on, and counts
        .change/                          a change that is decided and not yet carried out
        .lock                             held by the one process that writes

A row is one click: ``user_id``, ``item_id``, ``timestamp`` (epoch milliseconds), ``event_type``, ``event_id``; its
``context`` and its unknown fields (``extra``) as JSON text; ``partition`` and ``offset`` of its record.

A change brings files, takes files away and moves the position. It is made aside, and decided by one rename; from then
on whoever opens the archive carries it out, and nothing is lost or done twice if that takes two attempts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import InputError, MissingInputError, RecsysError
from recsys.files import locked, staged_directory, sync
from recsys.pseudonyms import KEY_METADATA

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),
        ("event_type", pa.string()),
        ("event_id", pa.string()),
        ("context", pa.string()),
        ("extra", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)
_POSITION, _CHANGE, _GONE, _LOCK = "_position.json", ".change", "gone.json", ".lock"
_DEAD_LETTERS = "_dead-letter"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Counts(_Model):
    """What became of the records that were read; ``missed`` ones were gone from the topic before they could be."""

    records: int = 0
    clicks: int = 0
    dead_letters: int = 0
    forgotten: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.model_fields})

    def check(self) -> None:
        """Refuse counts that do not add up.

        Raises:
            RecsysError: records were lost or invented on the way.
        """
        if self.records != self.clicks + self.dead_letters + self.forgotten:
            raise RecsysError(f"counts do not add up: {self}")


class Position(_Model):
    """Which topic the archive keeps and, by partition, the first offset that it does not have.

    ``topic_id`` is the broker's, if it has ids; ``epoch`` counts the topics of that name where it has none. ``changes``
    numbers what was done to the archive. ``key`` says by which key its user ids are hashed, if they are.
    """

    schema_version: Literal[1] = 1
    topic: str
    topic_id: str | None = None
    epoch: int = 0
    offsets: dict[int, int] = {}
    changes: int = 0
    counts: Counts = Counts()
    key: str | None = None


@dataclass
class Change:
    """A change in the making: files at their places under ``directory``, files that go, and where the archive then is.

    ``position`` has the number of this change already.
    """

    directory: Path
    position: Position
    gone: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What files that the change brings are called."""
        return f"{self.position.changes:012}"

    def new_file(self, path: str) -> Path:
        """Where to write the file that will be at ``path`` of the archive."""
        target = self.directory / path
        target.parent.mkdir(exist_ok=True)
        return target

    def new_dead_letters(self) -> Path:
        """Where to write the dead letters of this change."""
        return self.new_file(f"{_DEAD_LETTERS}/{self.name}.jsonl")


class Archive:
    """An archive that this process may change; see :meth:`open`. ``position`` is None while it is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: Position | None = None

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, create: bool = False) -> Iterator[Archive]:
        """Hold the archive in the directory ``path`` while the block lasts.

        Raises:
            MissingInputError: there is none, and none shall be made.
            InputError: the directory holds something else, or its position is lost or damaged.
            RecsysError: another process writes to it.
        """
        if not create and not path.is_dir():
            raise MissingInputError(f"{path}: no such archive")
        path.mkdir(parents=True, exist_ok=True)
        archive = cls(path)
        if not (path / _LOCK).exists():
            archive._refuse_others(new=create)  # before anything is left in the directory
            (path / _LOCK).touch()
        with locked(path / _LOCK, wait=False) as free:
            if not free:
                raise RecsysError(f"{path}: another process writes to this archive: stop it first")
            archive._carry_out()
            archive._refuse_others(new=create)
            archive.position = archive._load()
            yield archive

    def clicks(self) -> list[Path]:
        """The files of clicks, the oldest day first."""
        return sorted(self.path.glob("[0-9]*/*.parquet"))

    def dead_letters(self) -> list[Path]:
        """The files of records that are no clicks."""
        return sorted(self.path.glob(f"{_DEAD_LETTERS}/*.jsonl"))

    @contextmanager
    def change(self, position: Position) -> Iterator[Change]:
        """Change the archive when the block ends well; ``position`` is the one before.

        Raises:
            RecsysError: the counts of the position do not add up.
        """
        with staged_directory(self.path / _CHANGE) as directory:
            change = Change(directory, position.model_copy(update={"changes": position.changes + 1}))
            yield change
            change.position.counts.check()
            (directory / _GONE).write_bytes(orjson.dumps(change.gone))
            (directory / _POSITION).write_text(change.position.model_dump_json(indent=2) + "\n")
        self._carry_out()
        self.position = change.position

    def _carry_out(self) -> None:
        """Do what a decided change says, from its beginning or from where a killed process left it."""
        decided = self.path / _CHANGE
        if not (decided / _GONE).is_file():  # its last file, once all is done
            shutil.rmtree(decided, ignore_errors=True)
            return
        touched = {self.path}
        for name in orjson.loads((decided / _GONE).read_bytes()):
            (self.path / name).unlink(missing_ok=True)
            touched.add((self.path / name).parent)
        for file in sorted(decided.glob("*/*")):
            target = self.path / file.relative_to(decided)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
            touched.add(target.parent)
        for directory in (each for each in touched if each.is_dir()):
            sync(directory)
            if not any(directory.iterdir()):
                directory.rmdir()
        if (decided / _POSITION).is_file():
            (decided / _POSITION).replace(self.path / _POSITION)
        sync(self.path)
        for directory in (each for each in decided.iterdir() if each.is_dir()):
            directory.rmdir()
        shutil.rmtree(decided)

    def _refuse_others(self, *, new: bool) -> None:
        """Refuse a directory that is no archive, nor will be one: only where a ``new`` one may be made, an empty one.

        Raises:
            InputError: it holds something else.
            MissingInputError: it holds nothing.
        """
        if (self.path / _CHANGE).exists() or (self.path / _POSITION).exists():
            return
        strangers = sorted(each.name for each in self.path.iterdir() if not each.name.startswith("."))
        if strangers:
            raise InputError(f"{self.path}: no archive: it has no {_POSITION}, but {strangers[0]}")
        if not new:
            raise MissingInputError(f"{self.path}: no archive: it has no {_POSITION}")

    def _load(self) -> Position | None:
        path = self.path / _POSITION
        if not path.exists():
            return None
        try:
            return Position.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def write_clicks(path: Path, clicks: pa.Table, key: str | None) -> None:
    """Write clicks of :data:`SCHEMA` as one file, which says by which key its user ids are hashed."""
    pq.write_table(clicks.replace_schema_metadata(metadata_of(key)), path, compression="zstd")


def read_clicks(path: Path) -> pa.Table:
    """The clicks of a file.

    Raises:
        InputError: it is damaged.
    """
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a Parquet file, or damaged: {error}") from None


def metadata_of(key: str | None) -> Mapping[bytes, bytes] | None:
    """What files of clicks say of the key by which their user ids are hashed."""
    return None if key is None else {KEY_METADATA: key.encode()}
