"""What the one decoder takes, what it refuses and why."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import EventError
from recsys.events import (
    MAX_EVENT_BYTES,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
    ClickEvent,
    check_clock,
    decode,
    encode,
    from_mapping,
    parse_timestamp,
)

GOOD = {"user_id": "u", "item_id": "i", "timestamp": 1_700_000_000_000}


def test_the_smallest_event_is_a_view() -> None:
    assert decode(orjson.dumps(GOOD)) == ClickEvent("u", "i", 1_700_000_000_000, "view", None, None, {})


def test_every_field_is_read_and_unknown_ones_are_kept() -> None:
    fields = GOOD | {"event_type": "cart", "event_id": "e1", "context": {"page": 2}, "price": 9.5, "tags": ["a"]}
    assert decode(orjson.dumps(fields)) == ClickEvent(
        "u", "i", 1_700_000_000_000, "cart", "e1", {"page": 2}, {"price": 9.5, "tags": ["a"]}
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"user_id": None}, "user_id.missing"),
        ({"user_id": ""}, "user_id.empty"),
        ({"user_id": 1.5}, "user_id.type"),
        ({"user_id": True}, "user_id.type"),
        ({"user_id": ["u"]}, "user_id.type"),
        ({"item_id": "é" * 129}, "item_id.too_long"),
        ({"item_id": "a\nb"}, "item_id.control_character"),
        ({"item_id": "\ud800"}, "item_id.not_unicode"),
        ({"timestamp": None}, "timestamp.missing"),
        ({"timestamp": ""}, "timestamp.missing"),
        ({"timestamp": True}, "timestamp.type"),
        ({"timestamp": 1.5}, "timestamp.type"),
        ({"timestamp": float("inf")}, "timestamp.type"),
        ({"timestamp": "soon"}, "timestamp.format"),
        ({"timestamp": "2024-01-01"}, "timestamp.format"),
        ({"timestamp": "2024-01-01T00:00:00"}, "timestamp.format"),
        ({"timestamp": "2024-13-01T00:00:00Z"}, "timestamp.format"),
        ({"timestamp": -1}, "timestamp.negative"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "timestamp.negative"),
        ({"timestamp": MAX_TIMESTAMP_MS + 1}, "timestamp.out_of_range"),
        ({"timestamp": 1_700_000_000}, "timestamp.out_of_range"),  # seconds
        ({"event_type": 3.5}, "event_type.type"),
        ({"event_type": "x" * 65}, "event_type.too_long"),
        ({"event_id": "x" * 257}, "event_id.too_long"),
        ({"context": "page"}, "context.type"),
    ],
)
def test_what_breaks_the_contract_is_named(change: dict[str, Any], code: str) -> None:
    with pytest.raises(EventError) as caught:
        from_mapping(GOOD | change)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"user_id": "\xff"}', "not_json"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"x": "' + b"x" * MAX_EVENT_BYTES + b'"}', "too_large"),
    ],
)
def test_what_is_no_event_at_all_is_named(raw: bytes, code: str) -> None:
    with pytest.raises(EventError) as caught:
        decode(raw)
    assert caught.value.code == code


@pytest.mark.parametrize("empty", [None, ""])
def test_optional_fields_may_be_empty(empty: str | None) -> None:
    event = from_mapping(GOOD | {"event_type": empty, "event_id": empty})
    assert (event.event_type, event.event_id) == ("view", None)


def test_whole_numbers_are_ids_too() -> None:
    event = from_mapping(GOOD | {"user_id": 12, "item_id": -7})
    assert (event.user_id, event.item_id) == ("12", "-7")


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (MIN_TIMESTAMP_MS, MIN_TIMESTAMP_MS),
        (" 1700000000000 ", 1_700_000_000_000),
        (1_700_000_000_000.0, 1_700_000_000_000),
        ("2000-01-01T00:00:01Z", 946_684_801_000),
        ("2000-01-01 00:00:01.5z", 946_684_801_500),
        ("2000-01-01T01:00:00+01:00", 946_684_800_000),
        ("2000-01-01T00:00:00.0019Z", 946_684_800_001),
        (MAX_TIMESTAMP_MS, MAX_TIMESTAMP_MS),
    ],
)
def test_times(value: Any, milliseconds: int) -> None:
    assert parse_timestamp(value) == milliseconds


@given(
    st.datetimes(datetime(1973, 3, 5), datetime(2099, 12, 30)),
    st.integers(-23 * 60, 23 * 60),
)
def test_rfc_3339_is_the_same_moment_in_any_zone(moment: datetime, minutes: int) -> None:
    there = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    since = there - datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_timestamp(there.isoformat()) == since // timedelta(milliseconds=1)


identifiers = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
values = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | identifiers, st.lists, max_leaves=4)
known = {"user_id", "item_id", "timestamp", "event_type", "event_id", "context"}
events = st.builds(
    ClickEvent,
    user_id=identifiers,
    item_id=identifiers,
    timestamp=st.integers(MIN_TIMESTAMP_MS, MAX_TIMESTAMP_MS),
    event_type=st.sampled_from(["view", "cart"]),
    event_id=st.none() | identifiers,
    context=st.none() | st.dictionaries(identifiers, values, max_size=3),
    extra=st.dictionaries(identifiers.filter(lambda name: name not in known), values, max_size=3),
)


@given(events)
def test_an_encoded_event_decodes_to_itself(event: ClickEvent) -> None:
    assert decode(encode(event)) == event


@given(st.dictionaries(st.sampled_from(sorted(known)) | identifiers, values | st.floats(), max_size=8))
def test_any_object_is_an_event_or_an_event_error(fields: dict[str, Any]) -> None:
    try:
        event = from_mapping(fields)
    except EventError:
        return
    assert 0 <= event.timestamp <= MAX_TIMESTAMP_MS
    assert 1 <= len(event.user_id.encode()) <= 256


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_an_event_error(raw: bytes) -> None:
    with pytest.raises(EventError):
        decode(raw)


def test_an_event_may_lead_the_clock_by_so_much_and_no_more() -> None:
    event = from_mapping(GOOD)
    check_clock(event, event.timestamp - 5000, 5000)
    with pytest.raises(EventError, match="future") as caught:
        check_clock(event, event.timestamp - 5001, 5000)
    assert caught.value.code == "timestamp.future"


def test_events_and_sessions_need_no_data_library() -> None:
    check = (
        "import sys, recsys.events, recsys.sessions, recsys.vocabulary;"
        "print(sorted({'tensorflow', 'apache_beam', 'pyarrow', 'faust'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
