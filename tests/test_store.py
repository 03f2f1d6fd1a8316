"""The store, as those who ask it see it."""

import asyncio
import random

import pytest

from recsys.settings import Settings
from recsys.store import Store
from tests.conftest import STORES


@pytest.mark.parametrize("fixture", STORES)
def test_who_is_cancelled_while_he_asks_ends(fixture: str, request: pytest.FixtureRequest) -> None:
    """A worker that stops waits for all its tasks."""
    url, chance = request.getfixturevalue(fixture), random.Random(1)

    async def body() -> None:
        store = Store(Settings().redis.model_copy(update={"url": url, "prefix": "cancelled"}))
        await store.ping()

        async def ask() -> None:
            while True:
                await store.states(["u-1", "u-2"])

        for _ in range(60):
            asking = asyncio.create_task(ask())
            await asyncio.sleep(chance.uniform(0, 0.01))
            asking.cancel()
            done, _ = await asyncio.wait([asking], timeout=2)
            assert done
            assert asking.cancelled()
        await store.close()

    asyncio.run(body())
