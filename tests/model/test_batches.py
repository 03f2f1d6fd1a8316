"""Session-parallel batches, event by event."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.batches import both_ways, session_parallel

from .logs import sessions_of


def test_a_small_log_by_hand() -> None:
    """Each session goes to the lane that is free first: lane 0 takes sessions 0, 2 and 3, lane 1 takes session 1."""
    batches = session_parallel(sessions_of([[1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11]]), lanes=2, clicks=2)
    np.testing.assert_array_equal(batches.inputs[..., 0].ravel(), [1, 2, 8, 10])
    np.testing.assert_array_equal(batches.targets[..., 0].ravel(), [2, 3, 9, 11])
    np.testing.assert_array_equal(batches.resets[..., 0].ravel(), [True, False, True, True])
    np.testing.assert_array_equal(
        batches.inputs[..., 1].ravel(), [4, 5, 6, 8]
    )  # the last is no click: 8 is its window's
    np.testing.assert_array_equal(batches.targets[..., 1].ravel(), [5, 6, 7, 9])
    np.testing.assert_array_equal(batches.resets[..., 1].ravel(), [True, False, False, False])
    np.testing.assert_array_equal(batches.valid.sum(axis=(1, 2)), batches.events)
    np.testing.assert_array_equal(batches.events, [4, 3])


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 5), st.integers(1, 6))
def test_no_event_is_lost_none_comes_twice_and_resets_stand_where_sessions_begin(
    lengths: list[int], lanes: int, clicks: int
) -> None:
    first = np.cumsum([0, *lengths])
    rows = [list(range(start, start + length)) for start, length in zip(first, lengths, strict=False)]
    batches = session_parallel(sessions_of(rows), lanes, clicks)
    assert batches.inputs.shape[1:] == (clicks, lanes)
    found = []
    for lane in range(lanes):
        columns = (batches.inputs, batches.targets, batches.resets, batches.valid)
        session: list[int] = []
        for item, target, reset, valid in zip(*(column[..., lane].ravel().tolist() for column in columns), strict=True):
            if not valid:
                assert not reset
                continue
            if reset:
                found.append(session)
                session = [item]
            assert session[-1] == item, "an input is the target before it, or opens a session"
            session.append(target)
        found.append(session)
    assert sorted(session for session in found if session) == [row for row in rows if len(row) > 1]


@given(st.lists(st.integers(2, 9), min_size=1, max_size=30), st.integers(1, 5))
def test_lanes_end_within_one_session_of_each_other(lengths: list[int], lanes: int) -> None:
    batches = session_parallel(sessions_of([[0] * length for length in lengths]), lanes, 1)
    ends = batches.valid.sum(axis=(0, 1))
    assert ends.max() - ends.min() <= max(lengths) - 1


def test_both_ways_by_hand() -> None:
    sessions, backwards = both_ways(sessions_of([[1, 2, 3], [4, 5], [], [6, 7, 8]]))
    assert [items.tolist() for items in sessions] == [
        [3, 2, 1],
        [5, 4],
        [],
        [8, 7, 6],
        [1, 2, 3],
        [4, 5],
        [],
        [6, 7, 8],
    ]
    assert backwards.tolist() == [True] * 4 + [False] * 4


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=9))
def test_both_ways_holds_each_session_and_its_mirror_image(rows: list[list[int]]) -> None:
    sessions, backwards = both_ways(sessions_of(rows))
    read = list(zip((items.tolist() for items in sessions), backwards.tolist(), strict=True))
    assert [items for items, turned in read if not turned] == rows
    assert [items[::-1] for items, turned in read if turned] == rows


def test_steps_of_sessions_read_backwards_are_marked() -> None:
    batches = session_parallel(sessions_of([[1, 2, 3], [3, 2, 1]]), 2, 2, np.array([False, True]))
    assert batches.backwards[0].tolist() == [[False, True], [False, True]]
