"""Whole columns are decoded exactly as the one-event decoder decodes each row."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.columns import Clock, EventColumns, TimeUnit, decode_columns
from recsys.errors import EventError
from recsys.events import check_clock, from_mapping, identifier
from recsys.hashing import hash_texts
from recsys.sessions import NO_ID

NOW = 1_700_000_000_000
DAY = 86_400_000

ids = st.one_of(
    st.sampled_from(
        ["", "a", "item 7", "ü", "x" * 256, "x" * 257, "é" * 128, "é" * 129, "a\nb", "a\x7f", "\x00", "007"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
times = st.one_of(
    st.integers(0, NOW + 2 * DAY).map(str),
    st.integers(-(10**20), 10**20).map(str),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.builds(
        "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
        st.integers(1969, 2101) | st.sampled_from([0, 2000, 2023]),
        st.integers(0, 13),
        st.integers(0, 32),
        st.sampled_from("TTT t"),
        st.integers(0, 24),
        st.integers(0, 60),
        st.integers(0, 60),
        st.sampled_from(["", ".277", ".000", ".5", ".x77", ",277"]),
        st.sampled_from("ZZZz"),
    ),
    st.sampled_from(
        ["", " 5", "5 ", "+5", "-0", "0x10", "1e3", "1_000", "٣", "1.0", "2024-01-01", "2024-01-01T00:00:00"]
    ),
    st.floats(0, 2e9).map(lambda seconds: f"{seconds:.4f}") | st.sampled_from([".5", "5.", "1.2.3", "-1700000000.5"]),
    st.sampled_from(["2024-01-01T00:00:00+01:00", "2024-02-30T00:00:00Z", "2016-12-31T23:59:60Z", "9" * 19, "0" * 20]),
)
text_rows = st.lists(
    st.fixed_dictionaries({"user_id": ids, "item_id": ids, "timestamp": times, "event_type": ids, "event_id": ids})
)


def expected(fields: dict[str, Any], clock: Clock) -> tuple[str, str, int, str, int] | str:
    """The event, or the reason against it, as the contract's one decoder gives it."""
    fields = dict(fields)
    session = fields.pop("session_id", None)
    scale = {"s": lambda n: n * 1000, "ms": lambda n: n, "us": lambda n: n // 1000}[clock.unit]
    raw = fields["timestamp"]
    digits = raw.strip().removeprefix("-") if isinstance(raw, str) and raw.isascii() else ""
    whole = isinstance(raw, int | float) and not isinstance(raw, bool) and raw == raw // 1
    parts = digits.partition(".")
    if whole or (digits.isdecimal() and len(digits) <= 19):
        fields["timestamp"] = scale(int(raw))
    elif clock.unit == "s" and (
        all(part.isdecimal() and len(part) <= 15 for part in parts[::2])
        or (isinstance(raw, float) and math.isfinite(raw) and "e" not in repr(raw))
    ):
        fields["timestamp"] = math.floor(Fraction(str(raw)) * 1000)
    try:
        if session is not None:
            identifier("session_id", session)
        event = from_mapping(fields)
        check_clock(event, clock.now_ms, clock.max_future_ms)
    except EventError as error:
        return error.code
    event_id = NO_ID if event.event_id is None else int(hash_texts([event.event_id])[0])
    return event.user_id, event.item_id, event.timestamp, event.event_type, event_id


def found(events: EventColumns) -> dict[int, tuple[str, str, int, str, int]]:
    columns = (
        events.users.to_pylist(),
        events.items.to_pylist(),
        events.times,
        events.types.to_pylist(),
        events.event_ids,
    )
    rows = zip(*columns, strict=True)
    return {
        int(row): (user, item, int(time), kind, int(event_id))
        for row, (user, item, time, kind, event_id) in zip(events.rows, rows, strict=True)
    }


def assert_same(rows: list[dict[str, Any]], arrays: dict[str, pa.Array], clock: Clock) -> None:
    events, rejections = decode_columns(arrays, rows.__getitem__, clock)
    result: dict[int, Any] = found(events) | {rejection.row: rejection.error.code for rejection in rejections}
    assert len(events) + len(rejections) == len(rows)
    assert [result[row] for row in range(len(rows))] == [expected(row, clock) for row in rows]


@given(text_rows.filter(len), st.sampled_from(["s", "ms", "us"]), st.sampled_from([[], ["event_id"], ["event_type"]]))
def test_text_columns_decode_row_by_row(rows: list[dict[str, Any]], unit: TimeUnit, absent: list[str]) -> None:
    rows = [{name: value for name, value in row.items() if name not in absent} for row in rows]
    arrays = {name: pa.array([row[name] for row in rows], pa.large_string()) for name in rows[0]}
    assert_same(rows, arrays, Clock(unit, NOW, DAY))


wholes = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(0, NOW + 2 * DAY), st.integers(0, 10**13))
texts_or_null = st.one_of(st.none(), ids)


@given(
    st.lists(
        st.fixed_dictionaries({"user_id": wholes, "item_id": wholes, "timestamp": wholes, "event_type": texts_or_null}),
        min_size=1,
    ),
    st.sampled_from(["s", "ms", "us"]),
)
def test_number_columns_with_nulls_decode_row_by_row(rows: list[dict[str, Any]], unit: TimeUnit) -> None:
    kinds = {"event_type": pa.string()}
    arrays = {name: pa.array([row[name] for row in rows], kinds.get(name, pa.int64())) for name in rows[0]}
    assert_same(rows, arrays, Clock(unit, NOW, DAY))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, 2.5, None]),
        pa.array([1.7e9, float("inf"), float("nan")]),
        pa.array([1.6e9 + 0.123, 1.6e9 + 0.0009, -0.5]),
        pa.array([True, False, None]),
        pa.nulls(3),
        pa.array([[1], [2], None]),
    ],
)
@pytest.mark.parametrize("name", ["user_id", "item_id", "timestamp", "event_type", "event_id"])
def test_columns_of_other_types_decode_row_by_row(column: pa.Array, name: str) -> None:
    arrays = {
        "user_id": pa.array(["u"] * 3),
        "item_id": pa.array([7] * 3),
        "timestamp": pa.array([1, 2, 3]),
        name: column,
    }
    rows = [{field: values[row].as_py() for field, values in arrays.items()} for row in range(3)]
    for unit in ("s", "ms", "us"):
        assert_same(rows, arrays, Clock(unit, NOW, DAY))


def test_a_log_without_users_takes_the_session_as_the_user() -> None:
    rows = [
        {"session_id": session, "item_id": "i", "timestamp": "1700000000005"} for session in ("s1", "", "s\t", "s2")
    ]
    arrays = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    events, rejections = decode_columns(arrays, rows.__getitem__, Clock())
    assert events.users.to_pylist() == ["s1", "s2"]
    assert events.sessions == events.users
    assert [rejection.error.code for rejection in rejections] == ["session_id.empty", "session_id.control_character"]


def test_slices_of_larger_columns_decode_like_their_copies() -> None:
    texts = pa.array(["x", "\x01", "1700000000001", "1700000000002", "y"], pa.large_string())
    arrays = dict.fromkeys(("user_id", "item_id", "timestamp"), texts.slice(2, 2))
    events, rejections = decode_columns(arrays, lambda row: {}, Clock())
    assert not rejections
    np.testing.assert_array_equal(events.times, [1_700_000_000_001, 1_700_000_000_002])
