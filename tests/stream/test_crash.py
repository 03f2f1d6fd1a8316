"""Accidents under load, from a seed: whatever dies, hangs or is full, the store ends as after a clean run.

``TEST_KILLS=100`` in the environment kills the worker so often (on Kafka; the embedded broker forgets older records, so
there it is killed twice).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import redis

from recsys.state import UserState
from tests.servers.pairs import EmbeddedServers
from tests.servers.redis import Redis
from tests.stream.world import World, hostile_clicks, wait_until_dealt_with

KILLS = int(os.environ.get("TEST_KILLS", "3"))
EMBEDDED_KILLS = 2
MORE_KILLS = 9  # at most, until one has come between a state and its commit: two of three do


@contextmanager
def endless_clicks(world: World, seed: int) -> Iterator[None]:
    """Send hostile clicks beside the block, some hundred a second, until it ends."""
    stop = threading.Event()
    made = hostile_clicks(seed)

    def send() -> None:
        while not stop.is_set():
            world.produce([next(made) for _ in range(50)], pause=0.003)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        stop.set()
        sending.join()


def lag_soon(world: World) -> None:
    """Let workers catch up from a few clicks on, so that lists wait for clicks that come in a later batch."""
    world.commands.environment |= {"RECSYS_WORKER__BATCH_SIZE": "4", "RECSYS_WORKER__CATCH_UP_BATCH": "16"}


def assert_as_after_a_clean_run(world: World) -> None:
    """States and lists to the bit; and all that was dead-lettered, with its reasons."""
    expected, letters = world.clean_run_of(world.all_records())
    world.wait_for(expected, seconds=90)
    assert world.letters() == letters


def is_ahead(world: World, committed: dict[int, int]) -> bool:
    """Whether a state has applied a click whose offset is not committed."""
    states = [UserState.unpack(value) for name, value in world.contents().items() if name.startswith("s:")]
    return any(state.position.offset >= committed[state.position.partition] for state in states)


@pytest.mark.timeout(120 + 30 * (KILLS + MORE_KILLS))
def test_kill_minus_9_at_any_moment_changes_nothing(world: World) -> None:
    """Killed in its start, in a batch, before and after commits; no offset is ever committed ahead of the state."""
    world.commands.environment["RECSYS_KAFKA__COMMIT_SECONDS"] = "0.2"
    lag_soon(world)
    embedded = isinstance(world.servers, EmbeddedServers)
    chance = random.Random(3)
    kills = ahead = 0
    with endless_clicks(world, seed=3):
        while kills < (EMBEDDED_KILLS if embedded else KILLS) or not (ahead or embedded or kills >= KILLS + MORE_KILLS):
            with world.worker() as worker:
                if chance.random() < 0.8:
                    wait_until_dealt_with(worker, 1)
                time.sleep(chance.uniform(0, 0.6))
                worker.process.kill()
                worker.process.wait()
            kills += 1
            committed = world.offsets()[0]
            ahead += is_ahead(world, committed)
            world.assert_states_are_at_least(committed)
    assert ahead or embedded, "no kill came between a state and its commit"
    with world.worker():
        assert_as_after_a_clean_run(world)


@contextmanager
def dead(store: Redis) -> Iterator[None]:
    store.kill()
    yield
    store.start()


@contextmanager
def full(store: Redis) -> Iterator[None]:
    client = redis.Redis.from_url(store.url)
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


# What may happen to the store, and what the worker then says in its log; nothing, where the store is slow but in time.
ACCIDENTS: tuple[tuple[Callable[[Redis], AbstractContextManager[None]], str], ...] = (
    (dead, "does not answer"),
    (full, "refuses"),
    (Redis.frozen, "does not answer"),
    (Redis.frozen, ""),
)


def test_accidents_of_the_store_change_nothing(world: World, tmp_path: Path) -> None:
    """Its writes are on the disk before it answers, so that a kill costs none."""
    chance = random.Random(4)
    world.commands.environment["RECSYS_REDIS__TIMEOUT_SECONDS"] = "1"
    lag_soon(world)
    with world.servers.own_store(tmp_path / "store") as store:
        world.store = world.commands.environment["REDIS_URL"] = store.url
        with world.worker() as worker:
            with endless_clicks(world, seed=4):
                for accident, complaint in chance.sample(ACCIDENTS * 2, 2 * len(ACCIDENTS)):
                    said = worker.log.read_text().count(complaint)
                    with accident(store):
                        time.sleep(chance.uniform(0.1, 0.4))
                        deadline = time.monotonic() + 30
                        while complaint and worker.log.read_text().count(complaint) == said:
                            assert time.monotonic() < deadline
                            worker.check()
                            time.sleep(0.05)
            assert_as_after_a_clean_run(world)
