"""Lookups that wait together travel together."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis import Redis

from recsys.api.lookups import BATCH, Lookups
from recsys.errors import UnavailableError
from recsys.settings import RedisSettings
from recsys.store import Store
from tests.api.running import NOWHERE


def test_lookups_of_one_tick_are_one_command(store_url: str) -> None:
    redis = Redis.from_url(store_url)
    prefix = f"lookups-{time.time_ns()}"

    async def ask(users: list[str]) -> list[bytes | None]:
        store = Store(RedisSettings(url=store_url, prefix=prefix))
        lookups = Lookups(store)
        try:
            return list(await asyncio.gather(*(lookups.packed_list(user) for user in users)))
        finally:
            await store.close()

    for user in range(BATCH + 10):
        redis.set(f"{prefix}:l:{{{user}}}", user, px=60_000)
    redis.config_resetstat()
    users = [str(user) for user in range(0, BATCH, 2)] * 2  # two of each, and no more than a batch
    assert asyncio.run(ask(users)) == [user.encode() for user in users]
    assert redis.info("commandstats")["cmdstat_mget"]["calls"] == 1
    assert asyncio.run(ask([str(user) for user in range(BATCH + 10)]))[-1] == str(BATCH + 9).encode()
    assert redis.info("commandstats")["cmdstat_mget"]["calls"] == 3


def test_all_that_wait_are_told_when_the_store_is_away() -> None:
    async def ask() -> list[bytes | BaseException | None]:
        lookups = Lookups(Store(RedisSettings(url=f"redis://{NOWHERE}/0", timeout_seconds=0.5)))
        return await asyncio.gather(*(lookups.packed_list("u") for _ in range(BATCH + 10)), return_exceptions=True)

    assert {type(answer) for answer in asyncio.run(ask())} == {UnavailableError}


def test_a_client_that_leaves_does_not_disturb_the_others(store_url: str) -> None:
    async def ask() -> None:
        store = Store(RedisSettings(url=store_url, prefix="lookups-none"))
        lookups = Lookups(store)
        waiting = [asyncio.create_task(lookups.packed_list(user)) for user in "abc"]
        await asyncio.sleep(0)
        waiting[1].cancel()
        assert await waiting[0] is None
        assert await waiting[2] is None
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        assert await lookups.packed_list("d") is None
        await store.close()

    asyncio.run(ask())
