"""Users who clicked of late are not read from the store again, and nobody can tell."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.settings import RedisSettings, WorkerSettings
from recsys.store import Store
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


CLICKS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 2000)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clicks=CLICKS, sizes=st.lists(st.integers(1, 7), min_size=1), numbers=st.sampled_from(["float32", "int12"]))
def test_memory_leaves_no_trace(
    run: Callable[..., None], clicks: list[tuple[int, int, int]], sizes: list[int], numbers: str
) -> None:
    """Late clicks, repeats, new sessions and redelivered batches; by two workers in turn, as after rebalances."""
    records = [record(f"u{user}", f"item-{item:03d}", time, i) for i, (user, item, time) in enumerate(clicks)]

    async def body(world: World) -> None:
        left = []
        for kept in (0, 3):
            world.store = Store(RedisSettings(url=world.redis.url, prefix=f"t-{uuid.uuid4().hex}"))
            options = WorkerSettings(kept_users=kept, state_numbers=numbers)  # type: ignore[arg-type]
            workers = [Processor(world.model, world.store, options, world._keep) for _ in range(2)]
            start = 0
            for turn, size in enumerate(sizes * len(records)):
                await workers[turn // 3 % 2].process(records[max(0, start - turn % 2) : start + size])
                start += size
                if start >= len(records):
                    break
            users = [f"u{user}" for user in range(6)]
            left.append(await world.store.states(users))
            await world.store.close()
        assert left[0] == left[1]

    run(body)
