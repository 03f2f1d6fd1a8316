"""The event decoder over whole columns.

A row that is certainly right (plain ids, whole non-negative milliseconds) is decoded with its whole column; every other
row goes through :func:`recsys.events.from_mapping`, which accepts it or says why not. So there is one contract, and a
log costs nanoseconds a row instead of microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.errors import EventError
from recsys.events import (
    DEFAULT_EVENT_TYPE,
    MAX_ID_BYTES,
    MAX_TIMESTAMP_MS,
    MAX_TYPE_BYTES,
    MIN_TIMESTAMP_MS,
    check_clock,
    from_mapping,
    identifier,
)
from recsys.hashing import buffers, hash_texts, rows_with
from recsys.pseudonyms import Pseudonyms
from recsys.sessions import NO_ID
from recsys.times import TimeUnit, in_milliseconds, plain_times


@dataclass(frozen=True)
class EventColumns:
    """Accepted events in columns, all of shape ``[events]``.

    Attributes:
        rows: int64, the input row of each event.
        users, items, types: large_string.
        sessions: large_string, the log's own session ids; ``None`` where it has none.
        times: int64, epoch milliseconds.
        event_ids: uint64 hashes, :data:`recsys.sessions.NO_ID` where an event carries none.
    """

    rows: NDArray[np.int64]
    users: pa.LargeStringArray
    items: pa.LargeStringArray
    times: NDArray[np.int64]
    types: pa.LargeStringArray
    event_ids: NDArray[np.uint64]
    sessions: pa.LargeStringArray | None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Rejection:
    """A row that breaks the contract, and how."""

    row: int
    error: EventError


@dataclass(frozen=True)
class Clock:
    """How the log tells time, and how far after ``now_ms`` (epoch milliseconds) an event can be.

    Numbers are of the ``unit``; with a ``pattern``, times are texts of that :func:`time.strptime` form instead, in UTC
    where they name no zone.
    """

    unit: TimeUnit = "ms"
    now_ms: int = MAX_TIMESTAMP_MS
    max_future_ms: int = 0
    pattern: str | None = None


def decode_columns(
    columns: Mapping[str, pa.Array],
    fields_of: Callable[[int], Mapping[str, Any]],
    clock: Clock,
    doubtful: NDArray[np.bool_] | None = None,
) -> tuple[EventColumns, list[Rejection]]:
    """Decode the rows of ``columns`` (named as event fields, and ``session_id``).

    ``fields_of`` gives a row as the one-event decoder wants it; rows marked ``doubtful`` go there whatever their
    columns hold. Without a ``user_id`` column the session is the user. Accepted events stand in no particular order.
    """
    rows = len(next(iter(columns.values())))
    fast = np.ones(rows, np.bool_) if doubtful is None else ~doubtful
    texts: dict[str, pa.LargeStringArray] = {}
    for name, limit in _LIMITS.items():
        if name in columns:
            optional = name in ("event_type", "event_id")
            texts[name], right = _plain_texts(columns[name], limit, optional)
            fast &= right
    times, right = plain_times(columns["timestamp"], clock.unit, clock.pattern)
    latest = min(clock.now_ms + clock.max_future_ms, MAX_TIMESTAMP_MS)
    fast &= right & (times >= MIN_TIMESTAMP_MS) & (times <= latest)

    slow, rejections = _decode_one_by_one(np.flatnonzero(~fast), fields_of, clock, "session_id" in columns)
    if not slow and fast.all():
        chosen = np.arange(rows)
    else:
        chosen = np.flatnonzero(fast)
        texts = {name: values.take(pa.array(chosen)) for name, values in texts.items()}
        times = times[chosen]

    def joined(name: str, of: Callable[[_Slow], str], default: str) -> pa.LargeStringArray:
        values = texts[name] if name in texts else pa.repeat(pa.scalar(default, pa.large_string()), len(chosen))
        return (
            pa.concat_arrays([values, pa.array([of(event) for event in slow], pa.large_string())]) if slow else values
        )

    sessions = joined("session_id", lambda event: event.session or "", "") if "session_id" in columns else None
    types = joined("event_type", lambda event: event.type, DEFAULT_EVENT_TYPE)
    users = joined("user_id", lambda event: event.user, "") if "user_id" in columns else sessions
    assert users is not None
    return EventColumns(
        rows=np.concatenate((chosen, [event.row for event in slow])).astype(np.int64),
        users=users,
        items=joined("item_id", lambda event: event.item, ""),
        times=np.concatenate((times, [event.time for event in slow])).astype(np.int64),
        types=pc.if_else(pc.equal(types, ""), DEFAULT_EVENT_TYPE, types) if "event_type" in columns else types,
        event_ids=hash_event_ids(joined("event_id", lambda event: event.id or "", "")),
        sessions=sessions,
    ), rejections


def with_pseudonyms(events: EventColumns, pseudonyms: Pseudonyms) -> EventColumns:
    """The events with their user ids hashed, each different one once."""
    encoded = events.users.dictionary_encode()
    names = pa.array(pseudonyms.of_all(encoded.dictionary.to_pylist()), pa.large_string())
    return replace(events, users=names.take(encoded.indices))


def decode_fields(fields: Mapping[str, Any], clock: Clock, has_session: bool = False) -> _Slow:
    """Decode one row by the one-event decoder.

    Raises:
        EventError: the row breaks the contract.
    """
    session = identifier("session_id", fields.get("session_id")) if has_session else None
    known = {name: value for name, value in fields.items() if name != "session_id"}
    if has_session and "user_id" not in known:
        known["user_id"] = session
    known["timestamp"] = in_milliseconds(known.get("timestamp"), clock.unit, clock.pattern)
    event = from_mapping(known)
    check_clock(event, clock.now_ms, clock.max_future_ms)
    return _Slow(0, event.user_id, event.item_id, event.timestamp, event.event_type, event.event_id, session)


_LIMITS = {
    "user_id": MAX_ID_BYTES,
    "item_id": MAX_ID_BYTES,
    "session_id": MAX_ID_BYTES,
    "event_type": MAX_TYPE_BYTES,
    "event_id": MAX_ID_BYTES,
}


@dataclass(frozen=True, slots=True)
class _Slow:
    """An event that the one-event decoder accepted."""

    row: int
    user: str
    item: str
    time: int
    type: str
    id: str | None
    session: str | None


def _decode_one_by_one(
    rows: NDArray[np.int64], fields_of: Callable[[int], Mapping[str, Any]], clock: Clock, has_session: bool
) -> tuple[list[_Slow], list[Rejection]]:
    accepted, rejected = [], []
    for row in rows.tolist():
        try:
            event = decode_fields(fields_of(row), clock, has_session)
            accepted.append(_Slow(row, event.user, event.item, event.time, event.type, event.id, event.session))
        except EventError as error:
            rejected.append(Rejection(row, error))
    return accepted, rejected


def _plain_texts(column: pa.Array, limit: int, optional: bool) -> tuple[pa.LargeStringArray, NDArray[np.bool_]]:
    """The column as text, and where a value is certainly right; an absent optional value is the empty text."""
    if pa.types.is_null(column.type):
        return pa.repeat(pa.scalar("", pa.large_string()), len(column)), np.full(len(column), optional)
    if not (
        pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        return pa.repeat(pa.scalar("", pa.large_string()), len(column)), np.zeros(len(column), np.bool_)
    texts = column.cast(pa.large_string())
    if texts.null_count:
        texts = texts.fill_null("")
    lengths = np.diff(buffers(texts)[0])
    right = (lengths <= limit) & ~rows_with(texts, _is_control)
    return texts, right if optional else right & (lengths > 0)


def hash_event_ids(ids: pa.LargeStringArray) -> NDArray[np.uint64]:
    """Hashes of the event ids; an absent id is :data:`NO_ID`, and no id hashes to it."""
    lengths = np.diff(buffers(ids)[0])
    if not lengths.any():
        return np.full(len(ids), NO_ID, np.uint64)
    return np.where(lengths == 0, np.uint64(NO_ID), np.maximum(hash_texts(ids), np.uint64(NO_ID + 1)))


def _is_control(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The bytes of :data:`recsys.events.CONTROL`."""
    control: NDArray[np.bool_] = (data < 0x20) | (data == 0x7F)
    return control
