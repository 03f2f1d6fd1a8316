"""Parquet files of clicks, a bounded batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.logs.parsed import Parsed, fields_from

BATCH_ROWS = 1 << 18


def read(stored: pa.NativeFile, columns: Mapping[str, str]) -> Iterator[tuple[Parsed, int]]:
    """The event columns of a file, and how many of its bytes are read, by the share of rows.

    Columns of timestamps become epoch milliseconds (UTC where no zone is named).

    Raises:
        OSError, pa.ArrowException: the file is damaged.
    """
    size = stored.size()
    with pq.ParquetFile(stored, page_checksum_verification=True) as file:
        done = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns.values()))):
            batch.validate(full=True)
            done += batch.num_rows
            yield _parse(batch, columns), round(size * done / file.metadata.num_rows)


def _parse(batch: pa.RecordBatch, columns: Mapping[str, str]) -> Parsed:
    raw = {field: _decoded(batch.column(column)) for field, column in columns.items()}
    typed = pa.types.is_timestamp(raw["timestamp"].type)
    raw["timestamp"] = _milliseconds(raw["timestamp"]) if typed else raw["timestamp"]
    arrays, doubtful = {}, np.zeros(batch.num_rows, np.bool_)
    for field, column in raw.items():
        arrays[field] = column
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            arrays[field], not_utf8 = _texts(column)
            doubtful |= not_utf8
    values_of = fields_from(raw)

    def fields_of(row: int) -> Mapping[str, Any]:
        # What is no UTF-8 becomes lone surrogates, which the one-event decoder refuses.
        return {
            name: value.decode(errors="surrogateescape") if isinstance(value, bytes) else value
            for name, value in values_of(row).items()
        }

    return Parsed(arrays, np.arange(batch.num_rows), fields_of, [], doubtful, in_milliseconds=typed)


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _milliseconds(column: pa.Array) -> pa.Array:
    return column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())


def _texts(column: pa.Array) -> tuple[pa.LargeStringArray, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Bytes as text, and where they are none."""
    try:
        return column.cast(pa.large_string()), np.zeros(len(column), np.bool_)
    except pa.ArrowInvalid:
        wrong = np.array([not _is_utf8(value) for value in column.to_pylist()])
        return pc.if_else(pa.array(wrong), pa.scalar(b"", column.type), column).cast(pa.large_string()), wrong


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
