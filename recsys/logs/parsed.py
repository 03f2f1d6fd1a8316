"""What every reader makes of a block: columns for the event decoder, and the records that are beyond reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bad:
    """A record that cannot be used: its index in the block, a stable word for counting, and words for people."""

    record: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Parsed:
    """The rows of a block.

    Attributes:
        columns: for each event field the log has, an array ``[rows]``.
        records: int64 ``[rows]``, the record of each row.
        fields_of: a row as the one-event decoder wants it.
        bad: the records that gave no row.
        doubtful: rows that only the one-event decoder may judge.
        in_milliseconds: the times are epoch milliseconds, whatever the unit of the log's numbers.
    """

    columns: Mapping[str, pa.Array]
    records: NDArray[np.int64]
    fields_of: Callable[[int], Mapping[str, Any]]
    bad: list[Bad]
    doubtful: NDArray[np.bool_] | None = None
    in_milliseconds: bool = False


def fields_from(columns: Mapping[str, pa.Array]) -> Callable[[int], Mapping[str, Any]]:
    """Rows as mappings, straight from their columns."""
    return lambda row: {name: column[row].as_py() for name, column in columns.items()}
