"""Times of any form are read column by column as they are value by value."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import EventError
from recsys.times import in_milliseconds, plain_times

REES46 = "%Y-%m-%d %H:%M:%S UTC"
GERMAN = "%d.%m.%Y %H:%M"

moments = st.one_of(
    st.datetimes().map(lambda moment: moment.strftime(REES46)),
    st.datetimes().map(lambda moment: moment.strftime(GERMAN)),
    st.builds(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}".format,
        st.integers(1969, 2101),
        st.integers(0, 13),
        st.integers(0, 32),
        st.integers(0, 24),
        st.integers(0, 61),
        st.integers(0, 61),
        st.sampled_from([" UTC", " UTC ", " utc", ""]),
    ),
    st.sampled_from(["", "2019-1-1 0:0:0 UTC", "yesterday", "31.02.2020 00:00", "1.2.2020 3:04", " 01.02.2020 03:04"]),
)


@given(st.lists(moments, min_size=1), st.sampled_from([REES46, GERMAN, "%Y-%m-%d %H:%M:%S%z"]))
def test_what_a_column_is_sure_of_is_what_the_value_alone_means(texts: list[str], pattern: str) -> None:
    times, right = plain_times(pa.array(texts), "ms", pattern)
    for text, time, sure in zip(texts, times.tolist(), right.tolist(), strict=True):
        if sure:
            assert in_milliseconds(text, "ms", pattern) == time


@pytest.mark.parametrize(
    ("value", "unit", "pattern", "expected"),
    [
        ("2019-10-01 00:00:01 UTC", "ms", REES46, 1_569_888_001_000),
        ("01.10.2019 00:00", "ms", GERMAN, 1_569_888_000_000),
        ("2019-10-01 02:00:01.25+0200", "ms", "%Y-%m-%d %H:%M:%S.%f%z", 1_569_888_001_250),
        (20191001, "ms", "%Y%m%d", 1_569_888_000_000),
        ("1569888001.25", "s", None, 1_569_888_001_250),
        (1569888001.25, "s", None, 1_569_888_001_250),
        (1569888001.123, "s", None, 1_569_888_001_123),
        ("1569888001", "s", None, 1_569_888_001_000),
        (1_569_888_001_250_999, "us", None, 1_569_888_001_250),
    ],
)
def test_a_value_means_these_milliseconds(value: object, unit: str, pattern: str | None, expected: int) -> None:
    assert in_milliseconds(value, unit, pattern) == expected  # type: ignore[arg-type]


def test_most_columns_of_a_pattern_are_read_at_once() -> None:
    assert plain_times(pa.array(["2019-10-01 00:00:01 UTC"] * 3), "ms", REES46)[1].all()


def test_a_value_of_another_form_is_refused_with_the_form() -> None:
    with pytest.raises(EventError, match=r"no time of the form %d\.%m\.%Y"):
        in_milliseconds("2019-10-01", "ms", "%d.%m.%Y")
