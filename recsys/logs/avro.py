"""Avro files of clicks, a bounded batch at a time."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from recsys.errors import InputError
from recsys.logs.jsonlines import of_objects
from recsys.logs.parsed import Parsed

MAGIC = b"Obj\x01"
BATCH_ROWS = 1 << 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# What the reader raises of damaged files; it has no error of its own.
_DAMAGE = (EOFError, ValueError, LookupError, TypeError, OverflowError, MemoryError, struct.error, zlib.error)


def names(name: str, file: pa.NativeFile) -> list[str]:
    """The names of the fields.

    Raises:
        InputError: the file is damaged, or holds something else than records.
    """
    import fastavro

    try:
        schema = fastavro.reader(io.BufferedReader(file)).writer_schema
    except _DAMAGE as error:
        raise InputError(f"{name}: not an Avro file, or damaged: {error!r}") from None
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise InputError(f"{name}: an Avro file of records is needed")
    return [field["name"] for field in schema["fields"]]


def read(name: str, file: pa.NativeFile, columns: Mapping[str, str]) -> Iterator[tuple[Parsed, int]]:
    """The event columns of a file, and how many of its bytes are read.

    Timestamps become epoch milliseconds (UTC where they are local).

    Raises:
        InputError: the file is damaged.
    """
    import fastavro

    rows: list[Any] = []
    buffered = io.BufferedReader(file)
    blocks = iter(fastavro.block_reader(buffered))
    while True:
        try:
            block = next(blocks, None)
            rows += block or []
        except _DAMAGE as error:
            raise InputError(f"{name}: is damaged, or cannot be read to its end: {error!r}") from None
        if rows and (block is None or len(rows) >= BATCH_ROWS):
            yield _parse(rows, columns), buffered.tell()
            rows = []
        if block is None:
            return


def _parse(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> Parsed:
    column = columns["timestamp"]
    typed = any(isinstance(row[column], datetime) for row in rows)
    if typed:
        rows = [row | {column: _milliseconds(row[column])} for row in rows]
    return of_objects(rows, list(range(len(rows))), columns, [], in_milliseconds=typed)


def _milliseconds(moment: Any) -> Any:
    if not isinstance(moment, datetime):
        return moment
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
