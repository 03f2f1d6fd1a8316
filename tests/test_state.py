"""The online session rule: a state must be what batch makes of the same events, in whatever order they came."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.packing import Numbers
from recsys.position import BEGINNING, Position, Progress
from recsys.scoring.scorer import Scorer
from recsys.sessions import NO_ID, SessionRule, assemble
from recsys.state import (
    NEVER,
    Click,
    Placed,
    RecommendationList,
    UserState,
    hash_id,
    sequence,
)
from recsys.trail import trail_of
from recsys.vocabulary import UNKNOWN
from tests.conftest import random_model

GAP = 1000
RULE = SessionRule(gap_ms=GAP)
KEEP_ALL = SessionRule(gap_ms=GAP, collapse_repeats=False)


def click(time: int, row: int, kind: int = 0, event_id: int = NO_ID) -> Click:
    return Click(time, row, kind, event_id)


def fresh() -> UserState:
    return UserState(7, np.zeros(4, np.float32))


def place_all(clicks: list[Click], rule: SessionRule = RULE, capacity: int = 50) -> tuple[UserState, list[Placed]]:
    state = fresh()
    return state, [state.place(each, rule, capacity) for each in clicks]


def test_clicks_in_order_are_appended_and_a_gap_starts_a_session_anew() -> None:
    state, placed = place_all([click(0, 1), click(GAP, 2), click(2 * GAP + 1, 3)])
    assert placed == [Placed.APPLIED] * 3
    assert [each.row for each in state.recent] == [3]
    assert state.pending == [3]
    assert state.rebuild
    assert state.previous_end == GAP


def test_a_direct_repeat_moves_the_clock_but_not_the_sequence() -> None:
    state, placed = place_all([click(0, 1), click(900, 1), click(1800, 2)])
    assert placed == [Placed.APPLIED, Placed.REPEATED, Placed.APPLIED]
    assert state.pending == [1, 2]  # one session: 1800 is within the gap of the repeat at 900


def test_a_repeat_counts_where_the_rule_keeps_repeats() -> None:
    state, placed = place_all([click(0, 1), click(900, 1)], KEEP_ALL)
    assert placed == [Placed.APPLIED] * 2
    assert state.pending == [1, 1]


def test_an_exact_duplicate_changes_nothing() -> None:
    state, placed = place_all([click(0, 1), click(10, 2), click(0, 1)])
    assert placed[-1] is Placed.DUPLICATE
    assert sequence(state.recent, RULE) == [1, 2]


def test_an_event_id_seen_before_is_a_duplicate() -> None:
    seen = hash_id("e-1")
    _, placed = place_all(
        [click(0, 1, event_id=seen), click(5, 2, event_id=hash_id("e-2")), click(9, 3, event_id=seen)]
    )
    assert placed == [Placed.APPLIED, Placed.APPLIED, Placed.DUPLICATE]


def test_a_late_click_is_put_in_its_place_and_the_state_computed_anew() -> None:
    state, placed = place_all([click(0, 1), click(500, 3), click(200, 2)])
    assert placed[-1] is Placed.APPLIED
    assert state.rebuild
    assert state.pending == [1, 2, 3]


def test_a_late_click_between_two_collapsed_repeats_parts_them_again() -> None:
    state, _ = place_all([click(0, 1), click(500, 1), click(200, 2)])
    assert state.pending == [1, 2, 1]


def test_a_click_of_an_earlier_session_is_late() -> None:
    _, placed = place_all([click(0, 1), click(5000, 2), click(100, 3)])
    assert placed[-1] is Placed.LATE


def test_a_click_that_would_join_two_sessions_is_late() -> None:
    _, placed = place_all([click(0, 1), click(1500, 2), click(800, 3)])
    assert placed[-1] is Placed.LATE


def test_a_late_click_in_a_session_no_longer_whole_is_late() -> None:
    state, placed = place_all([click(0, 1), click(100, 2), click(200, 3), click(150, 4)], capacity=2)
    assert placed[-1] is Placed.LATE
    assert [each.row for each in state.recent] == [2, 3]


def test_an_unknown_item_holds_the_session_open_without_a_step() -> None:
    state, placed = place_all([click(0, 1), click(900, UNKNOWN), click(1800, 2)])
    assert placed[1] is Placed.UNKNOWN_ITEM
    assert state.pending == [1, 2]


EVENTS = st.lists(
    st.builds(click, st.integers(0, 12_000), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=40
)


@given(EVENTS, st.booleans())
def test_any_order_gives_the_last_session_of_batch(events: list[Click], collapse: bool) -> None:
    """What is late aside, the state carries exactly what batch makes of the same events."""
    rule = SessionRule(GAP, collapse)
    state, placed = place_all(events, rule)
    used = [each for each, outcome in zip(events, placed, strict=True) if outcome is not Placed.LATE]
    columns = np.array([(each.row, each.time, each.kind) for each in used])
    batch = assemble(
        np.zeros(len(used), np.int64),
        columns[:, 0].astype(np.int32),
        columns[:, 1].astype(np.int64),
        columns[:, 2].astype(np.int8),
        None,
        rule,
    )
    last_session = list(batch.sessions)[-1].tolist()
    assert sequence(state.recent, rule) == last_session
    assert placed.count(Placed.DUPLICATE) == batch.duplicates


@given(EVENTS)
def test_stepping_click_by_click_is_replaying_the_session(events: list[Click]) -> None:
    """The hidden state advanced event by event, with a store in between, is that of the sequence from its start."""
    scorer = Scorer(random_model(items=6, units=4).weights)
    packed = UserState(7, scorer.start(1)[0]).pack()
    for each in events:
        state = UserState.unpack(packed)
        state.place(each, RULE, 50)
        before = scorer.start(1) if state.rebuild else state.hidden[None]
        state.hidden = scorer.advance(before, [state.pending])[0]
        packed = state.pack()
    state = UserState.unpack(packed)
    whole = scorer.advance(scorer.start(1), [sequence(state.recent, RULE)])[0]
    np.testing.assert_array_equal(state.hidden, whole)


@given(EVENTS, st.booleans(), st.dictionaries(st.integers(3, 9), st.integers(0, 1 << 62), max_size=3))
def test_packing_keeps_everything(events: list[Click], with_ids: bool, moves: dict[int, int]) -> None:
    if with_ids:
        events = [each._replace(event_id=index + 1) for index, each in enumerate(events)]
    state, _ = place_all(events)
    state.progress, state.hidden = Progress(Position(3, 2, 1 << 40), moves), np.arange(4, dtype=np.float32)
    again = UserState.unpack(state.pack())
    assert (again.model, again.progress, again.recent) == (7, state.progress, state.recent)
    assert (again.session_events, again.previous_end) == (state.session_events, state.previous_end)
    np.testing.assert_array_equal(again.hidden, state.hidden)


@given(EVENTS, st.booleans(), st.integers(1, 40), st.sampled_from(Numbers), st.integers(0, 6))
def test_fewer_bits_change_no_more_than_the_hidden_state(
    events: list[Click], collapse: bool, capacity: int, numbers: Numbers, places: int
) -> None:
    """The trail stays exact, be it that the carried events tell it or that they are too few or repeat each other."""
    rule = SessionRule(GAP, collapse)
    state, _ = place_all(events, rule, capacity)
    whole, _ = place_all(events, rule)
    layers = np.linspace(-1, 1, 7, dtype=np.float32)
    trail = trail_of(sequence(whole.recent, rule), places)
    state.hidden = np.concatenate((layers, np.array(trail, np.float32)))
    again = UserState.unpack(state.pack(numbers, places))
    assert (again.recent, again.session_events) == (state.recent, state.session_events)
    assert again.previous_end == state.previous_end
    np.testing.assert_array_equal(again.hidden[:7], numbers.rounded(layers))
    assert again.hidden[7:].tolist() == trail


def test_a_trail_that_the_events_tell_takes_no_bytes() -> None:
    state, _ = place_all([click(0, 1), click(1, 2), click(2, 1)])
    sizes = []
    for trail in ([2, 3, 0], [2, 3, 4]):
        state.hidden = np.array([0.5, *trail], np.float32)
        sizes.append(len(state.pack(Numbers.INT12, 3)))
    assert sizes[1] == sizes[0] + 1 + 3


def test_a_new_state_packs_too() -> None:
    again = UserState.unpack(fresh().pack())
    assert (again.position, again.recent, again.previous_end) == (BEGINNING, [], NEVER)


def test_another_model_carries_the_items_over() -> None:
    state, _ = place_all([click(0, 0), click(1, 1), click(2, 2)])
    state.translate(8, np.array([4, UNKNOWN, 5], np.int32), 6, RULE)
    assert state.pending == [4, 5]
    assert state.hidden.shape == (6,)
    assert [each.row for each in state.recent] == [4, UNKNOWN, 5]


def test_a_session_of_a_lost_model_begins_anew() -> None:
    state, _ = place_all([click(0, 0), click(1, 1)])
    state.translate(8, None, 6, RULE)
    assert state.pending == []
    assert state.place(click(2, 3), RULE, 50) is Placed.APPLIED


PACKED = [place_all([click(0, 1), click(1, 2)])[0].pack(numbers) for numbers in Numbers]


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 200, b"\xa0" + b"\xff" * 200, b"\xa2" + b"\x7f" * 99])
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not a user state"):
        UserState.unpack(data)


@pytest.mark.parametrize("packed", PACKED)
def test_a_state_that_is_cut_off_is_refused(packed: bytes) -> None:
    for length in range(len(packed)):
        with pytest.raises(InputError, match="not a user state"):
            UserState.unpack(packed[:length])


@given(st.sampled_from([0xA0, 0xA1, 0xA2, 0xB0, 0xB1]), st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(form: int, data: bytes) -> None:
    for kind in (UserState, RecommendationList):
        with suppress(InputError):
            kind.unpack(bytes((form,)) + data)


LIST = RecommendationList(
    9, Position(0, 1, 2), 3, 4, np.array([5, 70_000], np.int32), np.array([1 / 3, -1e6], np.float32)
)


def test_a_list_survives_packing_and_half_a_list_does_not() -> None:
    again = RecommendationList.unpack(LIST.pack())
    assert (again.model, again.position, again.event_time, again.written) == (9, Position(0, 1, 2), 3, 4)
    np.testing.assert_array_equal(again.rows, LIST.rows)
    np.testing.assert_array_equal(again.scores, LIST.scores)
    for compact in (False, True):
        packed = LIST.pack(compact=compact)
        for length in range(len(packed)):
            with pytest.raises(InputError, match="not a recommendation list"):
                RecommendationList.unpack(packed[:length])


def test_a_compact_list_keeps_its_items_and_rounds_their_scores() -> None:
    again = RecommendationList.unpack(LIST.pack(compact=True))
    assert (again.model, again.position, again.event_time, again.written) == (9, BEGINNING, 3, 4)
    np.testing.assert_array_equal(again.rows, LIST.rows)
    assert again.scores.tolist() == [float(np.float16(1 / 3)), -65504.0]  # the least that a float16 says
