"""A running API over a real socket, and what tests put into its store."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from recsys.api.app import create_app
from recsys.api.services import Services
from recsys.position import Position, Progress
from recsys.published import Bundles
from recsys.serving import CurrentModel
from recsys.settings import RedisSettings, Settings
from recsys.state import RecommendationList, UserState
from recsys.store import Store, Write

NOWHERE = "127.0.0.1:1"  # nothing listens there


@dataclass
class Api:
    """The server's client, its inside, and its store."""

    client: httpx.Client
    services: Services

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON of a GET that succeeds."""
        answer = self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def recommend(self, *items: str, limit: int = 5) -> Any:
        """The JSON for an anonymous session without times."""
        body = {"session": [{"item_id": item} for item in items], "limit": limit}
        answer = self.client.post("/v1/recommendations", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put_list(self, user: str, rows: Sequence[int], model: int | None = None, age_ms: int = 0) -> RecommendationList:
        """Store a user's list as the worker does."""
        written = time.time_ns() // 1_000_000 - age_ms
        digest = self.services.model.served.digest if model is None else model
        scores = np.linspace(9, 1, len(rows)).astype(np.float32)
        stored = RecommendationList(digest, Position(0, 0, 7), written - 40, written, np.array(rows, np.int32), scores)
        self.put_bytes(user, stored.pack())
        return stored

    def put_bytes(self, user: str, packed: bytes) -> None:
        """Store anything in the place of a user's list."""
        state = UserState(1, np.zeros(2, np.float32), Progress(Position(0, 0, time.time_ns())))

        async def put() -> None:
            store = Store(self.services.settings.redis)
            (read,) = await store.states([user])
            assert not await store.save([Write(user, read, state.pack(), packed)])
            await store.close()

        asyncio.run(put())

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric now, 0 where it has none."""
        return self.services.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running_api(
    bundles: Path,
    redis_url: str,
    broker: str = NOWHERE,
    *,
    exclude_seen: bool = False,
    trend_seconds: float = 300,
    **api: Any,
) -> Iterator[Api]:
    """Serve on a free port while the block lasts."""
    settings = Settings(
        redis=RedisSettings(url=redis_url, prefix=f"api-{time.time_ns()}", timeout_seconds=0.5),
        kafka={"bootstrap_servers": broker, "topic": f"clicks-{time.time_ns()}"},
        worker={"exclude_seen": exclude_seen},
        trend={"seconds": trend_seconds},
        api={"bundle_poll_seconds": 0.05, "broker_timeout_seconds": 2.0, **api},
    )
    app = create_app(settings, CurrentModel(Bundles(bundles)))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", loop="uvloop", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=20) as client:
            eventually(lambda: server.started)
            yield Api(client, app.state.services)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.02)


def ids(answer: Any) -> list[str]:
    """The items of an answer, in order."""
    return [item["item_id"] for item in answer["items"]]


def named(rows: Sequence[int]) -> list[str]:
    """The items that ``random_model`` has in these rows."""
    return [f"item-{row:03d}" for row in rows]
