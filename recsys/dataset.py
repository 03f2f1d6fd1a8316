"""The session dataset: what the Beam pipeline writes and training reads.

::

    dataset/
        manifest.json         settings, split, counts, hash of each file; no wall-clock time: same input, same bytes
        vocabulary.json       item ids in row order with their counts
        train/*.parquet       sessions that begin before the validation boundary, events before the test boundary
        validation/*.parquet  sessions that begin between the boundaries, events before the test boundary
        test/*.parquet        sessions that begin at or after the test boundary; only items of the vocabulary
        dead-letter.jsonl     lines that could not be read, with file, line and reason
        bots.jsonl            users that were dropped for how much they click, where that was asked for
        kept/*.parquet        all clicks, for whoever adds to the dataset (:mod:`pipelines.kept`); not read otherwise

A Parquet row is one session: ``user_id`` string, ``items`` list<int32> (vocabulary rows), ``times`` list<int64> (epoch
milliseconds), ``types`` list<int8> (positions in ``event_types``). A dataset appears whole or not at all. Whoever reads
sessions with times of another split is told so (:mod:`recsys.periods`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue

from recsys.errors import DatasetError
from recsys.events import DEFAULT_EVENT_TYPE
from recsys.files import put_back, sha256, staged_directory
from recsys.fingerprint import fingerprint
from recsys.manifest import Counts, DatasetFile, Manifest, Size, Split
from recsys.periods import Period
from recsys.sessions import Sessions
from recsys.settings import SessionSettings
from recsys.vocabulary import Vocabulary

SPLITS = ("train", "validation", "test")
KEPT = "kept"
MIN_EVENTS = 2  # a shorter session holds nothing to predict
_SCHEMA = pa.schema(
    [
        ("user_id", pa.large_string()),
        ("items", pa.list_(pa.int32())),
        ("times", pa.list_(pa.int64())),
        ("types", pa.list_(pa.int8())),
    ]
)


@dataclass(frozen=True)
class Dataset:
    """A session dataset on disk, read split by split into columns."""

    path: Path
    manifest: Manifest
    vocabulary: Vocabulary

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> Dataset:
        """Open the dataset in the directory ``path``; ``verify`` compares each file but ``kept`` with its hash.

        Where a process was killed while it replaced the dataset, the old one is put back.

        Raises:
            MissingInputError: there is none.
            DatasetError: names the file that is missing, unreadable or altered.
        """
        path = Path(path)
        put_back(path)
        manifest = Manifest.load(path / "manifest.json")
        if verify:
            for entry in manifest.files:
                if not entry.path.startswith(f"{KEPT}/"):
                    entry.verify(path)
        try:
            vocabulary = Vocabulary.load(path / "vocabulary.json")
        except OSError as error:
            raise DatasetError(f"{path / 'vocabulary.json'}: {error.strerror}") from None
        return cls(path, manifest, vocabulary)

    @property
    def event_types(self) -> list[str]:
        """The event type of each code."""
        return self.manifest.event_types

    @property
    def session_settings(self) -> SessionSettings:
        """The settings by which the sessions were cut and filtered."""
        return self.manifest.session_settings

    def training(self) -> Sessions:
        """Events before the validation boundary, in sessions of two or more."""
        return self._training

    @cached_property
    def _training(self) -> Sessions:
        """Read once, since :meth:`validation` asks for it too."""
        sessions, _ = self._read("train")
        boundary = self.manifest.split.validation_from
        if boundary is not None:
            sessions = sessions.keep_events(sessions.times < boundary)
        return _long_enough(sessions)

    def validation(self) -> Sessions:
        """Sessions between the two boundaries, of items seen in :meth:`training`, of two or more events."""
        sessions, _ = self._read("validation")
        known = np.zeros(len(self.vocabulary), np.bool_)
        known[self.training().items] = True
        return _long_enough(sessions.keep_events(known[sessions.items]))

    def development(self) -> Sessions:
        """Everything before the test boundary, in sessions of two or more."""
        return self._read("train", "validation")[0]

    def test(self) -> Sessions:
        """Sessions that begin at or after the test boundary, of items in the vocabulary, of two or more events."""
        return self._read("test")[0]

    def test_users(self) -> list[str]:
        """The user id of each session of :meth:`test`."""
        users: list[str] = self._read("test")[1].to_pylist()
        return users

    def _read(self, *splits: str) -> tuple[Sessions, pa.Array]:
        """The sessions of some splits with their users, in the order of (session start, user)."""
        tables = [self.read_file(path) for path in self.session_files(*splits)]
        table = pa.concat_tables([_SCHEMA.empty_table(), *tables]).combine_chunks()
        starts = pc.list_element(table["times"], 0)
        order = pc.sort_indices(
            pa.table({"start": starts, "user": table["user_id"]}), [("start", "ascending"), ("user", "ascending")]
        )
        table = table.take(order).combine_chunks()
        return sessions_of(table)

    def session_files(self, *splits: str) -> list[str]:
        """The files of some splits."""
        return [entry.path for entry in self.manifest.files if entry.path.split("/")[0] in splits]

    def read_file(self, path: str) -> pa.Table:
        """The sessions of one file of the manifest, in no order; all are of the period of its split."""
        try:
            table = pq.read_table(self.path / path, schema=_SCHEMA)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{self.path}: cannot read sessions: {error}") from None
        split = self.manifest.split
        period = Period.of(Path(path).parts[0], split.validation_from, split.test_from)
        period.check(sessions_of(table)[0], self.path / path)
        return table


def sessions_of(table: pa.Table) -> tuple[Sessions, pa.Array]:
    """Sessions and their users from a table of one session a row."""
    items, times, types = (_only_chunk(table[name]) for name in ("items", "times", "types"))
    starts = items.offsets.to_numpy().astype(np.int64)
    values = (items.flatten().to_numpy(), times.flatten().to_numpy(), types.flatten().to_numpy())
    return Sessions(*values, starts - starts[0]), _only_chunk(table["user_id"])


def table_of(sessions: Sessions, user_ids: Sequence[str] | pa.Array) -> pa.Table:
    """A table of one session a row; ``user_ids`` has shape ``[sessions]``."""
    offsets = pa.array(sessions.starts.astype(np.int32))
    columns = [pa.ListArray.from_arrays(offsets, pa.array(c)) for c in (sessions.items, sessions.times, sessions.types)]
    users = user_ids if isinstance(user_ids, pa.Array) else pa.array(user_ids, pa.large_string())
    return pa.Table.from_arrays([users, *columns], schema=_SCHEMA)


def session_file(sessions: Sessions, user_ids: Sequence[str] | pa.Array) -> pa.Buffer:
    """A Parquet file of sessions, in the order given; ``user_ids`` has shape ``[sessions]``."""
    file = pa.BufferOutputStream()
    # Times as differences, items and types by the words they use: smaller, and written in two thirds of the time.
    pq.write_table(
        table_of(sessions, user_ids),
        file,
        compression="zstd",
        use_dictionary=["items.list.element", "types.list.element"],
        column_encoding={"times.list.element": "DELTA_BINARY_PACKED"},
    )
    return file.getvalue()


def write_sessions(path: Path, sessions: Sessions, user_ids: Sequence[str] | pa.Array) -> None:
    """Write a :func:`session_file`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(session_file(sessions, user_ids))


def finish(
    directory: Path,
    *,
    vocabulary: Vocabulary,
    settings: SessionSettings,
    event_types: Sequence[str],
    split: Split,
    counts: Counts,
    sizes: dict[str, Size],
    fingerprints: dict[str, str],
    parameters: dict[str, JsonValue],
    known: Sequence[DatasetFile] = (),
) -> Manifest:
    """Write vocabulary and manifest around the session files that ``directory`` holds.

    ``fingerprints`` has the :func:`recsys.fingerprint.fingerprint` of each split's sessions; files that are ``known``
    are not read again.

    Raises:
        DatasetError: the counts do not add up.
    """
    counts.check()
    vocabulary.save(directory / "vocabulary.json")
    (directory / "dead-letter.jsonl").touch()
    described = {file.path: file for file in known}
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    files = [described.get(name) or _describe(directory, name) for name in names]
    identity = hashlib.sha256((directory / "vocabulary.json").read_bytes())
    for part in (
        settings.model_dump_json(),
        split.model_dump_json(),
        repr(list(event_types)),
        repr(sorted(fingerprints.items())),
    ):
        identity.update(part.encode())
    manifest = Manifest(
        session_settings=settings,
        event_types=list(event_types),
        parameters=parameters,
        split=split,
        counts=counts,
        sizes=sizes,
        files=files,
        content_hash=identity.hexdigest(),
    )
    (directory / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def write_dataset(
    path: Path,
    vocabulary: Vocabulary,
    sessions: dict[str, tuple[Sessions, Sequence[str]]],
    split: Split,
    settings: SessionSettings | None = None,
    event_types: Sequence[str] = (DEFAULT_EVENT_TYPE,),
    overwrite: bool = False,
) -> Dataset:
    """Write a small dataset from memory; ``sessions`` maps ``train``, ``validation``, ``test`` to sessions and users.

    Raises:
        RecsysError: ``path`` exists and ``overwrite`` is false.
    """
    with staged_directory(path, overwrite=overwrite) as directory:
        for name, (part, users) in sessions.items():
            write_sessions(directory / name / "00000.parquet", part, users)
        kept = sum(part.events for part, _ in sessions.values())
        finish(
            directory,
            vocabulary=vocabulary,
            settings=settings or SessionSettings(),
            event_types=event_types,
            split=split,
            counts=Counts(read=kept, kept=kept),
            sizes={name: measure(part) for name, (part, _) in sessions.items()},
            fingerprints={name: fingerprint(part, users) for name, (part, users) in sessions.items()},
            parameters={},
        )
    return Dataset.open(path)


def measure(sessions: Sessions) -> Size:
    """The size of a split."""
    return Size(events=sessions.events, sessions=len(sessions), items=len(np.unique(sessions.items)))


def _long_enough(sessions: Sessions) -> Sessions:
    return sessions.keep_sessions(sessions.lengths >= MIN_EVENTS)


def _only_chunk(column: pa.ChunkedArray) -> pa.Array:
    column = column.combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def _describe(directory: Path, name: str) -> DatasetFile:
    path = directory / name
    if path.suffix == ".parquet":
        rows = pq.read_metadata(path).num_rows
    else:
        with path.open("rb") as file:
            rows = sum(1 for _ in file)
    return DatasetFile(path=name, rows=rows, sha256=sha256(path))
