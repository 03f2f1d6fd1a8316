"""Parquet files of clicks, a bounded batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.logs.parsed import Parsed, fields_from

BATCH_ROWS = 1 << 18


def read(path: str, columns: Mapping[str, str]) -> Iterator[Parsed]:
    """The event columns of a file; times become epoch milliseconds (UTC where no zone is named).

    Raises:
        OSError, pa.ArrowException: the file is damaged.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns.values()))):
            batch.validate(full=True)
            arrays = {field: _plain(batch.column(column)) for field, column in columns.items()}
            yield Parsed(arrays, np.arange(batch.num_rows), fields_from(arrays), [])


def _plain(column: pa.Array) -> pa.Array:
    """The column as the decoder knows it: text and numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return column.cast(pa.large_string())
    return column
