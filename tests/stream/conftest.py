"""Brokers and stores for the worker: the embedded ones, and Apache Kafka and Redis where they can run."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys.demo.commands import Commands
from tests.servers.kafka import Kafka
from tests.servers.pairs import EmbeddedServers, RealServers, Servers
from tests.servers.presence import where_present
from tests.servers.redis import Redis
from tests.stream import processing
from tests.stream.world import World


@pytest.fixture(scope="session")
def embedded_servers(broker: str, store_url: str) -> Servers:
    """The embedded broker and store, shared by a test process."""
    return EmbeddedServers(broker, store_url)


@pytest.fixture(scope="session")
def real_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServers]:
    """Kafka and Redis, shared by a test process."""
    directory = tmp_path_factory.mktemp("servers")
    with where_present():
        kafka, redis = Kafka(directory / "kafka"), Redis(directory / "redis")
    with kafka, redis:
        yield RealServers(kafka, redis)


@pytest.fixture(params=["embedded", "real"])
def servers(request: pytest.FixtureRequest) -> Servers:
    """Either kind, one after the other."""
    chosen: Servers = request.getfixturevalue(f"{request.param}_servers")
    return chosen


@pytest.fixture
def world(servers: Servers, bundles: Path, tmp_path: Path) -> World:
    """Topics and keys of a test's own on either kind of servers."""
    return make_world(servers, bundles, tmp_path)


@pytest.fixture
def real_world(real_servers: RealServers, bundles: Path, tmp_path: Path) -> World:
    """Topics and keys of a test's own on Kafka and Redis."""
    return make_world(real_servers, bundles, tmp_path)


def make_world(servers: Servers, bundles: Path, directory: Path) -> World:
    """A world with a new name on these servers."""
    name = uuid.uuid4().hex
    environment = dict(os.environ) | {
        "KAFKA_BOOTSTRAP_SERVERS": servers.broker,
        "REDIS_URL": servers.store,
        "RECSYS_KAFKA__TOPIC": f"clicks-{name}",
        "RECSYS_KAFKA__DEAD_LETTER_TOPIC": f"dead-{name}",
        "RECSYS_KAFKA__GROUP": f"group-{name}",
        "RECSYS_KAFKA__SESSION_TIMEOUT_SECONDS": "3",
        "RECSYS_REDIS__PREFIX": name,
    }
    world = World(servers, bundles, Commands(directory, environment), name)
    for topic in (world.topic, world.dead_letter_topic):
        servers.create_topic(topic)
    return world


@pytest.fixture
def run(request: pytest.FixtureRequest, bundles: Path) -> Callable[..., None]:
    """Runs a test's coroutine with a world, whose store is one server unless the test says otherwise."""
    url = request.getfixturevalue(getattr(request, "param", "store_url"))

    def runner(body: Callable[[processing.World], Awaitable[None]], **worker: Any) -> None:
        async def inside() -> None:
            world = processing.World(url, bundles, **worker)
            try:
                await body(world)
            finally:
                await world.store.close()

        asyncio.run(inside())

    return runner
