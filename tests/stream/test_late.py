"""Clicks that come late, twice or in any order: what a state can mend it mends, the rest is dead-lettered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.position import Progress
from recsys.state import UserState
from stream.dead_letter import Record
from stream.outcome import Outcome
from tests.stream.processing import World, record

GAP = 1800  # seconds, as in the sessions of random models
DELAY = 600  # how long a click may be under way
CAPACITY = 12
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Click = tuple[float, int]  # seconds, item


def to_record(click: Click, offset: int, **fields: str) -> Record:
    return record("u", f"item-{click[1]:03d}", click[0], offset, **fields)


@st.composite
def logs(draw: st.DrawFn) -> list[Click]:
    """A user's clicks in order: steps that stay clear of the gap by the delay, sessions that a state carries whole."""
    now, length, made = 0.0, 0, []
    for _ in range(draw(st.integers(1, 40))):
        ends = length == CAPACITY or draw(st.integers(0, 7)) == 0
        now += GAP + DELAY + 1 if ends else draw(st.integers(0, GAP - DELAY))
        length = 1 if ends else length + 1
        made.append((now, draw(st.integers(0, 9))))
    return made


@st.composite
def batches(draw: st.DrawFn, records: Sequence[Record]) -> list[Sequence[Record]]:
    """The records in runs of any length."""
    cuts = sorted(draw(st.sets(st.integers(1, len(records)), max_size=6)) | {0, len(records)})
    return [records[start:end] for start, end in pairwise(cuts)]


async def state_after(world: World, pieces: Sequence[Sequence[Record]]) -> tuple[UserState, Outcome]:
    """The user's state after the batches, in an empty store, and what became of the clicks, added up."""
    await world.store._redis.delete(world.store.key("s", "u"), world.store.key("l", "u"))
    total = Outcome()
    for piece in pieces:
        outcome = await world.process(*piece)  # asserts that the counts add up
        total.applied += outcome.applied
        total.skipped += outcome.skipped
        total.dead += outcome.dead
    return await world.state("u"), total


def content(state: UserState) -> bytes:
    """The state to the bit, but for where in the topic its last click stood."""
    state.progress = Progress()
    return state.pack()


@SETTINGS
@given(st.data())
def test_clicks_within_the_delay_leave_what_the_ordered_log_leaves(
    run: Callable[..., None], data: st.DataObject
) -> None:
    """Each click is up to ten minutes under way, may come two or three times, and may have an id."""
    log = data.draw(logs())
    sent = []
    for number, click in enumerate(log):
        fields = {"event_id": f"e-{number}"} if data.draw(st.booleans()) else {}
        copies = data.draw(st.sampled_from([1, 1, 2, 3]))
        sent += [(click[0] + data.draw(st.integers(0, DELAY)), click, fields) for _ in range(copies)]
    sent.sort(key=lambda each: each[0])
    arrived = [to_record(click, offset, **fields) for offset, (_, click, fields) in enumerate(sent)]
    in_order = [to_record(click, offset) for offset, click in enumerate(log)]

    async def body(world: World) -> None:
        expected, _ = await state_after(world, [in_order])
        found, outcome = await state_after(world, data.draw(batches(arrived)))
        assert [click.key for click in found.recent] == [click.key for click in expected.recent]
        assert found.hidden.tobytes() == expected.hidden.tobytes()
        assert not outcome.dead

    run(body, recent_items=CAPACITY)


@SETTINGS
@given(st.data())
def test_clicks_in_any_order_are_used_or_dead_lettered(run: Callable[..., None], data: st.DataObject) -> None:
    """The state is that of the clicks that were not too late, as if the others had never been."""
    times = data.draw(st.lists(st.integers(0, 20_000), min_size=1, max_size=40, unique=True))
    arrived = [to_record((time, time % 10), offset) for offset, time in enumerate(times)]

    async def body(world: World) -> None:
        found, outcome = await state_after(world, data.draw(batches(arrived)))
        late = {letter.record.offset for letter in outcome.dead}
        assert {letter.reason for letter in outcome.dead} <= {"late"}
        used = sorted(time for offset, time in enumerate(times) if offset not in late)
        expected, _ = await state_after(world, [[to_record((time, time % 10), n) for n, time in enumerate(used)]])
        assert content(found) == content(expected)

    run(body, recent_items=data.draw(st.sampled_from([5, 40])))
