"""JSON lines: one object a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from recsys.events import MAX_EVENT_BYTES
from recsys.logs.parsed import Bad, Parsed
from recsys.logs.records import Records


def parse(records: Records, columns: Mapping[str, str], events: str = "") -> Parsed:
    """The event columns of a block of lines, typed as JSON gives them.

    With ``events``, a line holds a list of them under that key.
    """
    rows: list[dict[str, Any]] = []
    good, bad = [], []
    loads = orjson.loads
    data = records.data
    for record, (start, end) in enumerate(zip(records.starts.tolist(), records.ends.tolist(), strict=True)):
        if end - start > MAX_EVENT_BYTES:
            bad.append(Bad(record, "too_large", f"has {end - start} bytes, at most {MAX_EVENT_BYTES} are allowed"))
            continue
        try:
            value = loads(data[start:end])
        except orjson.JSONDecodeError as error:
            bad.append(Bad(record, "not_json", f"not a JSON value: {error}"))
            continue
        if not isinstance(value, dict):
            bad.append(Bad(record, "not_an_object", "must be a JSON object"))
        elif events:
            inner = _events(value, events)
            rows += inner
            good += [record] * len(inner)
            if not inner:
                bad.append(Bad(record, "no_events", f"has no list of objects under {events!r}"))
        else:
            rows.append(value)
            good.append(record)

    return of_objects(rows, good, columns, bad)


def of_objects(
    rows: list[dict[str, Any]],
    records: list[int],
    columns: Mapping[str, str],
    bad: list[Bad],
    in_milliseconds: bool = False,
) -> Parsed:
    """The event columns of objects, one a row, that came from these records."""

    def fields_of(row: int) -> Mapping[str, Any]:
        value = rows[row]
        return {"context": value.get("context")} | {field: value.get(column) for field, column in columns.items()}

    with_context = np.fromiter(("context" in row for row in rows), np.bool_, len(rows))
    doubtful = with_context.copy()
    for row in np.flatnonzero(with_context).tolist():
        doubtful[row] = not isinstance(rows[row]["context"], dict | None)
    arrays = {}
    for field, column in columns.items():
        arrays[field], mixed = _array([row.get(column) for row in rows])
        doubtful |= mixed
    return Parsed(arrays, np.array(records, np.int64), fields_of, bad, doubtful, in_milliseconds)


def _events(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The events in an object, each with the fields beside their list; none where one of them is no object."""
    inner = value.pop(key, None)
    if not isinstance(inner, list) or not all(isinstance(event, dict) for event in inner):
        return []
    return [value | event for event in inner]


def _array(values: list[Any]) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Values of one kind as an array, with where it cannot say what the value was."""
    kinds = set(map(type, values)) - {type(None)}
    none = np.zeros(len(values), np.bool_)
    try:
        if kinds == {str}:
            return pa.array(values, pa.large_string()), none
        if kinds <= {int}:
            return pa.array(values, pa.int64()), none
    except (OverflowError, pa.ArrowInvalid):
        pass
    return pa.nulls(len(values), pa.large_string()), ~none
