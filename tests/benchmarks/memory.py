"""How much of a Redis each user takes, by how exact states and lists are kept.

    python -m tests.benchmarks.memory --users 100000
    python -m tests.benchmarks.memory --users 1000000 --only int12

Fills ``redis-server`` with users through the product's own packing and store: states of 100 units and a trail of six
clicks, lists of 20, sessions of four events on average, some of them no views, among 100 thousand items.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis

from recsys.packing import Numbers
from recsys.position import Position, Progress
from recsys.sessions import NO_ID, SessionRule
from recsys.settings import RedisSettings
from recsys.state import NEVER, Click, RecommendationList, UserState, sequence
from recsys.store import Store, Write
from recsys.trail import trail_of
from tests.servers.redis import Redis

UNITS, PLACES, LENGTH, ITEMS = 100, 6, 20, 100_000
MEAN_EVENTS = 4
NOW = 1_760_000_000_000
BATCH = 500  # users of one write


@dataclass(frozen=True)
class Keep:
    """How exact states and lists are kept."""

    numbers: Numbers
    compact_lists: bool


DEFAULT = Keep(Numbers.FLOAT32, False)
OPTIONS = (DEFAULT, Keep(Numbers.FLOAT16, True), Keep(Numbers.INT12, True))


def visitors(count: int, seed: int = 0) -> Iterator[tuple[UserState, RecommendationList]]:
    """Users as a shop has them; half of them have been there before."""
    random = np.random.default_rng(seed)
    for number in range(count):
        events = int(random.geometric(1 / MEAN_EVENTS))
        gaps = random.lognormal(np.log(40_000), 1.2, events).clip(1000, 1_799_000).astype(np.int64)
        rows, kinds = random.integers(0, ITEMS, events), random.random(events) < 0.1
        times = NOW + number - gaps.cumsum()[::-1]
        recent = [
            Click(*each, NO_ID) for each in zip(times.tolist(), rows.tolist(), kinds.astype(int).tolist(), strict=True)
        ]
        trail = trail_of(sequence(recent, SessionRule()), PLACES)
        hidden = np.concatenate((random.uniform(-1, 1, UNITS), trail)).astype(np.float32)
        position = Position(1, number % 12, 10_000_000 + number)
        before = recent[0].time - int(random.integers(3_600_000, 6 * 86_400_000)) if number % 2 else NEVER
        state = UserState(0x9E3779B97F4A7C15, hidden, Progress(position), recent, events, before)
        best = random.integers(0, ITEMS, LENGTH, np.int32)
        scores = np.sort(random.normal(8, 2, LENGTH).astype(np.float32))[::-1]
        yield state, RecommendationList(state.model, position, recent[-1].time, recent[-1].time + 400, best, scores)


async def fill(url: str, users: int, keep: Keep) -> None:
    """Store the users, as the worker would."""
    store = Store(RedisSettings(url=url))
    writes: list[Write] = []
    for number, (state, ranked) in enumerate(visitors(users)):
        packed = state.pack(keep.numbers, 0 if keep.numbers is Numbers.FLOAT32 else PLACES)
        writes.append(Write(f"user-{number:07d}", None, packed, ranked.pack(compact=keep.compact_lists)))
        if len(writes) == BATCH or number == users - 1:
            assert not await store.save(writes)
            writes.clear()
    await store.close()


def bytes_per_user(url: str, users: int, keep: Keep) -> float:
    """What a user takes of the memory that the store at this address has in use; the store is emptied first."""
    client = redis.Redis.from_url(url)
    client.flushall()
    before = client.info("memory")["used_memory"]
    asyncio.run(fill(url, users, keep))
    after = client.info("memory")["used_memory"]
    client.close()
    return float(after - before) / users


def main() -> None:
    """Print a JSON line for each way to keep states and lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--only", choices=[*Numbers], help="Measure this kind of numbers alone.")
    given = parser.parse_args()
    for keep in OPTIONS:
        if given.only in (None, keep.numbers):
            with tempfile.TemporaryDirectory() as directory, Redis(Path(directory)) as server:
                used = bytes_per_user(server.url, given.users, keep)
            figures = {
                "state_numbers": keep.numbers,
                "compact_lists": keep.compact_lists,
                "users": given.users,
                "bytes_per_user": round(used, 1),
                "mib_per_million": round(used * 1e6 / 2**20, 1),
            }
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
