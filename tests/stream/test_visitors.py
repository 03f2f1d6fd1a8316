"""Users who clicked of late are not read again, and lists wait for clicks that are known to come; nobody can tell."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.settings import RedisSettings, WorkerSettings
from recsys.state import RecommendationList
from recsys.store import Store
from stream.dead_letter import Record
from stream.processor import Processor
from tests.stream.processing import World, record


class Reads:
    """A store that notes whose states are read."""

    def __init__(self, store: Store) -> None:
        self._store, self.save = store, store.save
        self.users: list[str] = []

    async def states_and_lists(self, users: Sequence[str]) -> tuple[list[bytes | None], list[bytes | None]]:
        self.users += users
        return await self._store.states_and_lists(users)


def watched(world: World, **worker: int) -> Reads:
    """Whom the world's processor reads from now on."""
    reads = Reads(world.store)
    world.processor = Processor(world.model, reads, WorkerSettings(**worker), world._keep)  # type: ignore[arg-type]
    return reads


def test_only_those_who_have_not_clicked_of_late_are_read(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        reads = watched(world, kept_users=2)
        for offset, user in enumerate("aababcac"):
            await world.process(record(user, f"item-{offset:03d}", offset, offset))
        assert reads.users == ["a", "b", "c", "a"]  # c took the place of a, who had clicked before b

    run(body)


def test_a_click_tests_the_list_that_memory_has(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        reads = watched(world)
        await world.process(record("u", "item-001", 0, 0))
        shown = await world.list("u")
        assert shown is not None
        outcome = await world.process(record("u", f"item-{shown.rows[2]:03d}", 1, 1))
        assert [trial.rank for trial in outcome.trials] == [3]
        assert reads.users == ["u"]

    run(body)


@pytest.mark.parametrize("lost", ["everything", "the last click"])
def test_what_the_store_has_lost_is_applied_anew(run: Callable[..., None], lost: str) -> None:
    """The store came back without its newest writes, and the clicks come again."""

    async def body(world: World) -> None:
        clicks = [record("u", f"item-{i:03d}", i, i) for i in range(4)]
        await world.process(*clicks[:3])
        key = world.store.key("s", "u")
        before = await world.store._redis.get(key)
        await world.process(clicks[3])
        expected = (await world.state("u")).pack()
        if lost == "everything":
            await world.store._redis.delete(key)
        else:
            await world.store._redis.set(key, before)
        outcome = await world.process(*clicks[2:] if lost == "the last click" else clicks)
        assert outcome.applied == (1 if lost == "the last click" else 4)
        assert (await world.state("u")).pack() == expected

    run(body)


def test_who_was_taken_out_of_the_store_begins_anew(run: Callable[..., None]) -> None:
    """Memory does not bring back what was forgotten."""

    async def body(world: World) -> None:
        await world.process(record("u", "item-001", 0, 0))
        assert await world.store.forget(["u"]) == 2
        await world.process(record("u", "item-002", 1, 1))
        assert [click.row for click in (await world.state("u")).recent] == [2]

    run(body)


@pytest.mark.parametrize("ahead", ["a click", "no click", "another's", "one that came before"])
def test_a_list_waits_only_for_a_click_that_is_known_to_come(run: Callable[..., None], ahead: str) -> None:
    async def body(world: World) -> None:
        clicks = [record("u", f"item-{i:03d}", i, i) for i in range(4)]
        coming = {
            "a click": clicks[3],
            "no click": Record(b"u", b"{", 0, 3, 0),
            "another's": replace(record("v", "item-003", 3, 3), key=b"u"),
            "one that came before": clicks[0],
        }[ahead]
        await world.process(*clicks[:2])
        outcome = await world.processor.process(clicks[2:3], ahead=[coming])
        waits = ahead == "a click"
        assert (outcome.applied, outcome.lists, len(outcome.visible)) == (1, 1 - waits, 1 - waits)
        found = await world.list("u")
        assert found is not None
        assert found.position.offset == (1 if waits else 2)
        assert (await world.state("u")).position.offset == 2
        shown = found.rows.tolist()
        again = record("u", f"item-{shown[4]:03d}", 3, 3)
        assert [trial.rank for trial in (await world.process(again)).trials] == [5]  # in the list that is there
        newest = await world.list("u")
        assert newest is not None
        assert newest.position.offset == 3

    run(body)


CLICKS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 2000)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clicks=CLICKS, sizes=st.lists(st.integers(1, 7), min_size=1), numbers=st.sampled_from(["float32", "int12"]))
def test_neither_memory_nor_waiting_leaves_a_trace(
    run: Callable[..., None], clicks: list[tuple[int, int, int]], sizes: list[int], numbers: str
) -> None:
    """Late clicks, repeats, new sessions and redelivered batches; by two workers in turn, as after rebalances."""
    records = [record(f"u{user}", f"item-{item:03d}", time, i) for i, (user, item, time) in enumerate(clicks)]
    users = [f"u{user}" for user in range(6)]

    async def left_by(world: World, kept: int, ahead: int) -> list[object]:
        world.store = Store(RedisSettings(url=world.redis.url, prefix=f"t-{uuid.uuid4().hex}"))
        options = WorkerSettings.model_validate({"kept_users": kept, "state_numbers": numbers})
        workers = [Processor(world.model, world.store, options, world._keep) for _ in range(2)]
        start, turn = 0, 0
        while start < len(records):
            end = start + sizes[turn % len(sizes)]
            again = max(0, start - turn % 2)
            await workers[turn // 3 % 2].process(records[again:end], records[end : end + ahead])
            start, turn = end, turn + 1
        lists = [each and RecommendationList.unpack(each) for each in await world.store.lists(users)]
        states = await world.store.states(users)
        await world.store.close()
        return [states, [each and (each.position, each.rows.tolist(), each.scores.tolist()) for each in lists]]

    async def body(world: World) -> None:
        expected = await left_by(world, kept=0, ahead=0)
        assert await left_by(world, kept=3, ahead=4) == expected

    run(body)
