"""How clicks travel from the files to the shards of their users.

A block of clicks is cut into pieces, one a shard. Where the work directory is on a disk that all workers see, the
pieces are written one after the other to a file, and Beam shuffles where each lies: so the memory of a run does not
grow with the log, even where the runner keeps in memory what it shuffles. Object stores are no places for so many small
reads: then Beam shuffles the pieces themselves, which runners on clusters do by way of their disks.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.places import Local, Place
from recsys.columns import EventColumns
from recsys.hashing import hash_texts

Extent = tuple[str, int, int]  # file, first byte, bytes
Piece = tuple[int, int, bytes | Extent]  # number of the source, number of the block, the clicks or where they lie
NO_PIECE: Piece = -1, 0, b""  # for a shard to which nothing comes

_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


def partition(events: EventColumns, shards: int) -> list[tuple[int, bytes]]:
    """The events of each shard as Arrow bytes; a user's shard depends on nothing but the user id."""
    owner = shard_of(events.users, shards)
    order = np.argsort(owner, kind="stable")
    # Narrow offsets, few words spelt once, nothing that is absent.
    columns = {
        "user": events.users.cast(pa.string()),
        "item": events.items.cast(pa.string()),
        "time": pa.array(events.times),
        "type": events.types.dictionary_encode(),
    }
    if events.event_ids.any():
        columns["event_id"] = pa.array(events.event_ids)
    if events.sessions is not None:
        columns["session"] = events.sessions.cast(pa.string())
    table = pa.table(columns).take(pa.array(order)).combine_chunks()
    bounds = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=shards))))
    return [
        (shard, to_bytes(table.slice(bounds[shard], bounds[shard + 1] - bounds[shard])))
        for shard in np.flatnonzero(np.diff(bounds)).tolist()
    ]


def shard_of(users: pa.LargeStringArray, shards: int) -> NDArray[np.uint16]:
    """The shard of each user. (Of sixteen bits: NumPy sorts them by counting.)"""
    return (hash_texts(users) % np.uint64(shards)).astype(np.uint16)


class PieceWriter:
    """Writes the pieces of one source. A worker that repeats a source writes another file; none reads the first."""

    def __init__(self, directory: Place, source: int) -> None:
        self._source = source
        self._path = directory.path / f"{source:06}-{uuid4().hex}" if isinstance(directory, Local) else None

    def __enter__(self) -> PieceWriter:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            self._file.close()

    def write(self, block: int, data: bytes) -> Piece:
        """Append a piece; it can be read when the writer is closed."""
        if self._path is None:
            return self._source, block, data
        start = self._file.tell()
        self._file.write(data)
        return self._source, block, (str(self._path), start, len(data))


def read_pieces(pieces: Iterable[Piece]) -> pa.Table | None:
    """The clicks of all pieces, in the order of the input: what comes of a shard depends on no order of work.

    ``None`` if there are none.
    """
    some = sorted((piece for piece in pieces if piece != NO_PIECE), key=lambda piece: piece[:2])
    tables = [from_bytes(_read(content)) for _, _, content in some]
    return pa.concat_tables(tables, promote_options="default") if tables else None


def _read(content: bytes | Extent) -> bytes:
    if isinstance(content, bytes):
        return content
    path, start, size = content
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def to_bytes(table: pa.Table) -> bytes:
    """A table in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_COMPRESSED) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_bytes(data: bytes) -> pa.Table:
    """The table that :func:`to_bytes` wrote."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
