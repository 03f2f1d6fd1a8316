"""What a click event is, and the one decoder that reads it.

The HTTP door, the stream worker and the batch readers all accept exactly what :func:`from_mapping` accepts. On the wire
an event is one JSON object; its Kafka key is the user id. Unknown fields are kept in ``extra``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from recsys.errors import EventError

MAX_ID_BYTES = 256
MAX_TYPE_BYTES = 64
MAX_EVENT_BYTES = 64 * 1024
MIN_TIMESTAMP_MS = 100_000_000_000  # 1973-03-03: before it, seconds were surely given for milliseconds
MAX_TIMESTAMP_MS = 4_102_444_800_000  # 2100-01-01: beyond it, a timestamp was surely given in another unit
DEFAULT_EVENT_TYPE = "view"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
INTEGER = re.compile(r"-?[0-9]{1,19}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_KNOWN_FIELDS = frozenset({"user_id", "item_id", "timestamp", "event_type", "event_id", "context"})


@dataclass(frozen=True, slots=True)
class ClickEvent:
    """One click: who, what, when (epoch milliseconds), and of which kind."""

    user_id: str
    item_id: str
    timestamp: int
    event_type: str = DEFAULT_EVENT_TYPE
    event_id: str | None = None
    context: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def decode(raw: bytes | str) -> ClickEvent:
    """Read one event from its JSON form.

    Raises:
        EventError: not UTF-8, not JSON, not an object, too large, or a field that breaks the contract.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise EventError("", "too_large", f"event has {len(raw)} bytes, at most {MAX_EVENT_BYTES} are allowed")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise EventError("", "not_json", f"not a JSON value: {error}") from None
    if not isinstance(value, dict):
        raise EventError("", "not_an_object", f"must be a JSON object, got {_kind(value)}")
    return from_mapping(value)


def from_mapping(fields: Mapping[str, Any]) -> ClickEvent:
    """Read one event from named fields, as JSON, CSV or Parquet give them.

    Ids may be integers, which become their decimal text. ``timestamp`` is epoch milliseconds (a whole number, or its
    digits as text) or an RFC 3339 time with its offset.

    Raises:
        EventError: names the first field that breaks the contract.
    """
    event_type = fields.get("event_type")
    event_id = fields.get("event_id")
    context = fields.get("context")
    if context is not None and not isinstance(context, Mapping):
        raise EventError("context", "type", f"must be an object, got {_kind(context)}")
    return ClickEvent(
        user_id=identifier("user_id", fields.get("user_id")),
        item_id=identifier("item_id", fields.get("item_id")),
        timestamp=parse_timestamp(fields.get("timestamp")),
        event_type=DEFAULT_EVENT_TYPE
        if event_type is None or event_type == ""
        else identifier("event_type", event_type, MAX_TYPE_BYTES),
        event_id=None if event_id is None or event_id == "" else identifier("event_id", event_id),
        context=context,
        extra={name: value for name, value in fields.items() if name not in _KNOWN_FIELDS}
        if not fields.keys() <= _KNOWN_FIELDS
        else {},
    )


def encode(event: ClickEvent) -> bytes:
    """The event's JSON form; :func:`decode` gives back an equal event.

    Raises:
        EventError: it cannot be written.
    """
    value: dict[str, Any] = {**event.extra, "user_id": event.user_id, "item_id": event.item_id}
    value["timestamp"] = event.timestamp
    value["event_type"] = event.event_type
    if event.event_id is not None:
        value["event_id"] = event.event_id
    if event.context is not None:
        value["context"] = event.context
    return as_json(value)


def as_json(value: Mapping[str, Any]) -> bytes:
    """The value as JSON.

    Raises:
        EventError: it nests deeper than can be written, though it could be read.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise EventError("", "not_json", f"cannot be written as JSON: {error}") from None


def parse_timestamp(value: Any) -> int:
    """Epoch milliseconds from a whole number, its digits, or an RFC 3339 time.

    Raises:
        EventError: missing, of another form, negative, or so far from today that it is of another unit.
    """
    if value is None or value == "":
        raise EventError("timestamp", "missing", "is missing")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise EventError("timestamp", "type", f"must be epoch milliseconds or RFC 3339, got {_kind(value)}")
    if isinstance(value, str):
        milliseconds = _timestamp_from_text(value.strip())
    elif isinstance(value, float) and not value.is_integer():
        raise EventError("timestamp", "type", f"must be whole milliseconds, got {value!r}")
    else:
        milliseconds = int(value)
    if milliseconds < 0:
        raise EventError("timestamp", "negative", f"is before 1970: {milliseconds}")
    if milliseconds < MIN_TIMESTAMP_MS:
        raise EventError("timestamp", "out_of_range", f"is before March 1973 (seconds?): {milliseconds}")
    if milliseconds > MAX_TIMESTAMP_MS:
        raise EventError("timestamp", "out_of_range", f"is after the year 2100 (milliseconds?): {milliseconds}")
    return milliseconds


def identifier(name: str, value: Any, max_bytes: int = MAX_ID_BYTES) -> str:
    """The value as an id: text, or a whole number in decimal.

    Raises:
        EventError: names the field ``name``: missing, not text, empty, too long, or with control characters.
    """
    if isinstance(value, str) and 0 < len(value) <= max_bytes and value.isascii() and value.isprintable():
        return value  # nearly always, and soon said
    if value is None:
        raise EventError(name, "missing", "is missing")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise EventError(name, "type", f"must be a string, got {_kind(value)}")
    if not value:
        raise EventError(name, "empty", "is empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise EventError(name, "not_unicode", "holds an unpaired surrogate") from None
    if size > max_bytes:
        raise EventError(name, "too_long", f"has {size} bytes, at most {max_bytes} are allowed")
    if CONTROL.search(value):
        raise EventError(name, "control_character", f"holds a control character: {value[:40]!r}")
    return value


def check_clock(event: ClickEvent, now_ms: int, max_future_ms: int) -> None:
    """Refuse an event from the future: it would hold its session open until that time comes.

    Raises:
        EventError: the event's time is more than ``max_future_ms`` after ``now_ms``.
    """
    if event.timestamp > now_ms + max_future_ms:
        ahead = (event.timestamp - now_ms) / 1000
        raise EventError("timestamp", "future", f"is {ahead:.0f} s in the future, at most {max_future_ms / 1000:.0f} s")


def _timestamp_from_text(text: str) -> int:
    if INTEGER.fullmatch(text):
        return int(text)
    if not _RFC3339.fullmatch(text):
        raise EventError("timestamp", "format", f"is neither epoch milliseconds nor RFC 3339: {text[:40]!r}")
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise EventError("timestamp", "format", f"is not a time ({error}): {text[:40]!r}") from None
    return (moment - _EPOCH) // _MILLISECOND


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
