"""What tests of the processor share: a processor over a store of its own, and records for it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from recsys.published import Bundles
from recsys.serving import CurrentModel
from recsys.settings import RedisSettings, WorkerSettings
from recsys.state import RecommendationList, UserState
from recsys.store import Store
from stream.dead_letter import DeadLetter, Record
from stream.outcome import Outcome
from stream.processor import Processor
from tests.conftest import STORES
from tests.servers.redis import client_of

# For tests that have to do with how the store keeps things.
on_one_server_and_a_cluster = pytest.mark.parametrize("run", STORES, indirect=True)

START = 1_700_000_000_000


def record(user: str, item: str, seconds: float, offset: int, partition: int = 0, **fields: Any) -> Record:
    event = {"user_id": user, "item_id": item, "timestamp": START + round(seconds * 1000), **fields}
    return Record(user.encode(), json.dumps(event).encode(), partition, offset, time.time_ns() // 1_000_000)


class World:
    """A processor over a store of its own, and what it sent to the dead letter."""

    def __init__(self, url: str, bundles: Path, **worker: Any) -> None:
        self.model = CurrentModel(Bundles(bundles))
        self.redis = RedisSettings(url=url, prefix=f"t-{uuid.uuid4().hex}")
        self.store = Store(self.redis)
        self.letters: list[DeadLetter] = []
        self.processor = Processor(self.model, self.store, WorkerSettings(**worker), self._keep)

    async def _keep(self, letters: Sequence[DeadLetter]) -> None:
        self.letters.extend(letters)

    async def process(self, *records: Record) -> Outcome:
        outcome = await self.processor.process(records)
        assert outcome.applied + outcome.skipped.total() + len(outcome.dead) == len(records)
        return outcome

    async def state(self, user: str) -> UserState:
        (packed,) = await self.store.states([user])
        assert packed is not None
        return UserState.unpack(packed)

    def life_ms(self, key: str) -> int:
        """How long the key will live."""
        return int(client_of(self.redis.url).pttl(key))

    async def list(self, user: str) -> RecommendationList | None:
        (packed,) = await self.store.lists([user])
        return None if packed is None else RecommendationList.unpack(packed)
