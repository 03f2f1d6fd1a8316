"""Logs whose times are a date, and milliseconds since some moment of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.logs.parsed import Parsed
from recsys.times import plain_times

DATE = "%Y-%m-%d"


def with_dates(parsed: Parsed) -> Parsed:
    """The rows with the column ``date`` added to ``timestamp``; where either is no such thing, the row is no click."""
    columns = dict(parsed.columns)
    days, dated = plain_times(columns.pop("date"), "ms", DATE)
    offsets, timed = plain_times(columns["timestamp"], "ms", None)
    right = dated & timed
    times = days + offsets

    def fields_of(row: int) -> Mapping[str, Any]:
        fields = dict(parsed.fields_of(row))
        date, offset = fields.pop("date", None), fields["timestamp"]
        return fields | {"timestamp": int(times[row]) if right[row] else f"{date} + {offset} ms"}

    columns["timestamp"] = pa.array(times)
    doubtful = ~right if parsed.doubtful is None else ~right | parsed.doubtful
    return replace(parsed, columns=columns, fields_of=fields_of, doubtful=np.asarray(doubtful), in_milliseconds=True)
