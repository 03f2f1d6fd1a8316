"""Where sessions end: golden cases worked out by hand, and the rule event by event against the rule over whole logs."""

from __future__ import annotations

from itertools import groupby, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.sessions import NO_ID, Assembled, SessionRule, Sessions, assemble, is_repeat, starts_session
from recsys.state import Click as StateClick
from recsys.state import Placed, UserState, sequence

Click = tuple[int, int, int, int, int]  # user, item, time, type, event id

GAP = 100
RULE = SessionRule(gap_ms=GAP)


def run(clicks: list[Click], rule: SessionRule = RULE) -> Assembled:
    columns = list(zip(*clicks, strict=True)) or [()] * 5
    kinds = (np.int64, np.int32, np.int64, np.int8, np.uint64)
    users, items, times, types, event_ids = (np.array(c, k) for c, k in zip(columns, kinds, strict=True))
    return assemble(users, items, times, types, event_ids, rule)


def as_lists(made: Assembled) -> list[tuple[int, list[tuple[int, int, int]]]]:
    """Sessions as (user, [(item, time, type), …])."""
    part = made.sessions
    events = list(zip(part.items.tolist(), part.times.tolist(), part.types.tolist(), strict=True))
    bounds = zip(part.starts[:-1].tolist(), part.starts[1:].tolist(), strict=True)
    return [(int(user), events[start:end]) for user, (start, end) in zip(made.users, bounds, strict=True)]


def one_by_one(clicks: list[Click], rule: SessionRule) -> tuple[list[tuple[int, list[tuple[int, int, int]]]], int, int]:
    """The rule as its words say it, event by event, as the stream applies it."""
    sessions: list[tuple[int, list[tuple[int, int, int]]]] = []
    duplicates = repeats = 0
    for user, group in groupby(
        sorted(clicks, key=lambda click: (click[0], click[2], click[1], click[3], click[4])), lambda c: c[0]
    ):
        seen: set[tuple[int, ...]] = set()
        seen_ids: set[int] = set()
        last: tuple[int, int] | None = None  # time and item of the event before
        for _, item, time, kind, event_id in group:
            duplicate = (item, time, kind) in seen or event_id in seen_ids
            if duplicate:
                duplicates += 1
                continue
            seen.add((item, time, kind))
            if event_id != NO_ID:
                seen_ids.add(event_id)
            if last is None or starts_session(last[0], time, rule.gap_ms):
                sessions.append((user, [(item, time, kind)]))
            elif rule.collapse_repeats and is_repeat(last[1], item):
                repeats += 1
            else:
                sessions[-1][1].append((item, time, kind))
            last = (time, item)
    return sessions, duplicates, repeats


def test_a_gap_of_just_the_limit_stays_and_one_longer_cuts() -> None:
    made = run([(1, 5, 0, 0, 0), (1, 6, GAP, 0, 0), (1, 7, 2 * GAP + 1, 0, 0)])
    assert as_lists(made) == [(1, [(5, 0, 0), (6, GAP, 0)]), (1, [(7, 2 * GAP + 1, 0)])]


def test_users_do_not_mix() -> None:
    made = run([(2, 5, 0, 0, 0), (1, 6, 1, 0, 0), (2, 7, 2, 0, 0)])
    assert as_lists(made) == [(1, [(6, 1, 0)]), (2, [(5, 0, 0), (7, 2, 0)])]


def test_ties_of_time_stand_in_the_order_of_items() -> None:
    assert as_lists(run([(1, 9, 5, 0, 0), (1, 3, 5, 0, 0)])) == [(1, [(3, 5, 0), (9, 5, 0)])]


def test_item_codes_in_no_order_are_ranked_where_times_are_equal() -> None:
    columns = (np.array([9, 3, 4, 5]), np.array([5, 5, 5, 4]))
    items, times = columns[0].astype(np.int32), columns[1].astype(np.int64)
    users, types = np.zeros(4, np.int64), np.zeros(4, np.int8)
    made = assemble(users, items, times, types, None, RULE, rank=lambda codes: np.int32(100) - codes)
    assert made.sessions.items.tolist() == [5, 9, 4, 3]


def test_an_exact_duplicate_counts_once_but_another_type_or_time_is_no_duplicate() -> None:
    made = run([(1, 3, 5, 0, 0), (1, 3, 5, 0, 0), (1, 3, 5, 1, 0), (1, 3, 6, 0, 0)], SessionRule(GAP, False))
    assert made.duplicates == 1
    assert as_lists(made) == [(1, [(3, 5, 0), (3, 5, 1), (3, 6, 0)])]


def test_an_event_id_counts_once_for_its_user() -> None:
    made = run([(1, 3, 5, 0, 77), (1, 4, 9, 0, 77), (2, 4, 9, 0, 77), (1, 5, 10, 0, NO_ID), (1, 6, 11, 0, NO_ID)])
    assert made.duplicates == 1
    assert as_lists(made) == [(1, [(3, 5, 0), (5, 10, 0), (6, 11, 0)]), (2, [(4, 9, 0)])]


def test_a_click_counts_though_its_twin_bears_an_id_that_is_used() -> None:
    first, click, twin = (1, 9, 0, 0, 2), (1, 3, 5, 0, 1), (1, 3, 5, 0, 2)
    for log in permutations([first, click, twin]):
        made = run(list(log))
        assert as_lists(made) == [(1, [(9, 0, 0), (3, 5, 0)])]
        assert made.duplicates == 1


def test_the_id_of_a_skipped_twin_is_not_used() -> None:
    for log in permutations([(1, 3, 5, 0, 1), (1, 3, 5, 0, 2), (1, 4, 9, 0, 2)]):
        assert as_lists(run(list(log))) == [(1, [(3, 5, 0), (4, 9, 0)])]


def test_a_direct_repeat_adds_nothing_but_keeps_the_session_open() -> None:
    made = run([(1, 3, 0, 0, 0), (1, 3, 90, 0, 0), (1, 4, 180, 0, 0)])
    assert made.repeats == 1
    assert as_lists(made) == [(1, [(3, 0, 0), (4, 180, 0)])]


def test_a_repeat_after_the_gap_opens_a_session() -> None:
    made = run([(1, 3, 0, 0, 0), (1, 3, 101, 0, 0)])
    assert made.repeats == 0
    assert as_lists(made) == [(1, [(3, 0, 0)]), (1, [(3, 101, 0)])]


def test_repeats_stay_when_they_are_wanted() -> None:
    made = run([(1, 3, 0, 0, 0), (1, 3, 1, 0, 0)], SessionRule(GAP, collapse_repeats=False))
    assert as_lists(made) == [(1, [(3, 0, 0), (3, 1, 0)])]


def test_no_clicks_make_no_sessions() -> None:
    made = run([])
    assert len(made.sessions) == made.sessions.events == made.duplicates == made.repeats == 0


clicks = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 500),
        st.integers(0, 1),
        st.sampled_from([NO_ID, NO_ID, 7, 8]),
    ),
    max_size=40,
)
rules = st.builds(SessionRule, gap_ms=st.sampled_from([0, 10, 50, 1000]), collapse_repeats=st.booleans())


@given(clicks, rules)
def test_whole_logs_are_cut_as_events_are_one_by_one(log: list[Click], rule: SessionRule) -> None:
    made = run(log, rule)
    sessions, duplicates, repeats = one_by_one(log, rule)
    assert as_lists(made) == sessions
    assert (made.duplicates, made.repeats) == (duplicates, repeats)
    assert made.sessions.events + made.duplicates + made.repeats == len(log)


@given(clicks.flatmap(lambda log: st.tuples(st.just(log), st.permutations(log))), rules)
def test_the_order_of_arrival_does_not_matter(logs: tuple[list[Click], list[Click]], rule: SessionRule) -> None:
    log, shuffled = (run(part, rule) for part in logs)
    assert as_lists(log) == as_lists(shuffled)
    assert (log.duplicates, log.repeats) == (shuffled.duplicates, shuffled.repeats)


@given(clicks, rules)
def test_users_and_times_too_wide_for_one_word_are_cut_alike(log: list[Click], rule: SessionRule) -> None:
    wide = [(user << 60, *click) for user, *click in log]
    assert [clicks for _, clicks in as_lists(run(wide, rule))] == [clicks for _, clicks in as_lists(run(log, rule))]


@given(clicks, st.booleans())
def test_the_stream_skips_the_same_duplicates(log: list[Click], collapse: bool) -> None:
    rule = SessionRule(1000, collapse)  # all of a user's clicks make one session, which the state carries whole
    for user, session in as_lists(run(log, rule)):
        state = UserState(0, np.zeros(0, np.float32))
        mine = sorted((time, item, kind, event_id) for owner, item, time, kind, event_id in log if owner == user)
        placed = [state.place(StateClick(*each), rule, len(mine)) for each in mine]
        assert sequence(state.recent, rule) == [item for item, _, _ in session]
        assert placed.count(Placed.DUPLICATE) == run([each for each in log if each[0] == user], rule).duplicates


@given(clicks, rules)
def test_inside_a_session_no_gap_is_too_long_and_between_sessions_none_is_shorter(
    log: list[Click], rule: SessionRule
) -> None:
    rule = SessionRule(rule.gap_ms, collapse_repeats=False)
    sessions = as_lists(run(log, rule))
    for _, events in sessions:
        times = [time for _, time, _ in events]
        assert all(0 <= later - time <= rule.gap_ms for time, later in pairwise(times))
    for (user, before), (next_user, after) in pairwise(sessions):
        assert user != next_user or after[0][1] - before[-1][1] > rule.gap_ms


@pytest.fixture
def three() -> Sessions:
    """Sessions [10, 11], [12] and [13, 14, 15]."""
    items = np.arange(10, 16, dtype=np.int32)
    return Sessions(items, np.arange(6, dtype=np.int64), np.zeros(6, np.int8), np.array([0, 2, 3, 6]))


def test_lengths_owners_and_iteration(three: Sessions) -> None:
    assert three.lengths.tolist() == [2, 1, 3]
    assert three.owner.tolist() == [0, 0, 1, 2, 2, 2]
    assert [session.tolist() for session in three] == [[10, 11], [12], [13, 14, 15]]


def test_events_and_sessions_can_be_left_out(three: Sessions) -> None:
    fewer = three.keep_events(np.array([True, False, False, True, True, False]))
    assert [session.tolist() for session in fewer] == [[10], [], [13, 14]]
    assert [s.tolist() for s in fewer.keep_sessions(fewer.lengths > 0)] == [[10], [13, 14]]


def test_sessions_are_taken_in_the_order_asked_for(three: Sessions) -> None:
    assert [session.tolist() for session in three.take(np.array([2, 0, 2]))] == [[13, 14, 15], [10, 11], [13, 14, 15]]
    assert len(three.take(np.zeros(0, np.int64))) == 0
