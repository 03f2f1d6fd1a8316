"""The trail, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.sessions import Sessions
from recsys.trail import MOST_ITEMS, extend, trails


def trail_of(rows: list[int], memory: int) -> NDArray[np.float32]:
    trail = np.zeros((1, 1 + memory), np.float32)
    for row in rows:
        trail = extend(trail, np.array([row], np.int32))
    return trail[0]


def test_an_item_stands_once_at_its_latest_click() -> None:
    assert trail_of([4, 7], 3).tolist() == [8, 5, 0, 0]
    assert trail_of([4, 7, 4], 3).tolist() == [5, 8, 0, 0]
    assert trail_of([4, 7, 4, 9], 3).tolist() == [10, 5, 8, 0]


def test_a_click_leaves_the_trail_after_memory_more() -> None:
    assert trail_of([1, 2, 3, 4], 2).tolist() == [5, 4, 3]


def test_without_memory_a_trail_is_the_click() -> None:
    assert trail_of([1, 2], 0).tolist() == [3]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 6))
def test_the_trail_is_the_last_clicks_without_those_that_come_again(rows: list[int], memory: int) -> None:
    last = rows[::-1][: 1 + memory]
    expected = [row + 1 if row not in last[:back] else 0 for back, row in enumerate(last)]
    assert trail_of(rows, memory).tolist() == expected + [0] * (1 + memory - len(last))


@pytest.mark.parametrize("row", [MOST_ITEMS - 1, MOST_ITEMS - 2])
def test_the_highest_rows_are_exact(row: int) -> None:
    assert trail_of([row], 1).tolist() == [row + 1, 0]


@given(st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=1, max_size=4), st.integers(0, 6))
def test_whole_sessions_give_what_their_clicks_give_one_by_one(rows: list[list[int]], memory: int) -> None:
    items = np.array([row for session in rows for row in session], np.int32)
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    sessions = Sessions(items, np.arange(len(items), dtype=np.int64), np.zeros(len(items), np.int8), starts)
    grown = [trail_of(session[: count + 1], memory).tolist() for session in rows for count in range(len(session))]
    assert trails(sessions, memory).tolist() == grown
