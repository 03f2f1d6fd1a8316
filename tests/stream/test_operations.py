"""What those who run the worker see and do: probes, lag, logs, and servers that want passwords and encryption."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys.demo.commands import Service, get_text
from tests.stream.world import World, clicks, on_embedded_servers, wait_until_dealt_with


def wait_until(true: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def probe(worker: Service, path: str) -> tuple[int, Any]:
    """Status and JSON of ``/ready`` or ``/live``."""
    url = worker.wait_for_line("worker: metrics on ")[0].removesuffix("/metrics") + path
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def all_metrics(worker: Service) -> str:
    return get_text(worker.wait_for_line("worker: metrics on ")[0])


def lag(worker: Service) -> dict[str, float]:
    """Records by partition."""
    lines = all_metrics(worker).splitlines()
    found = [line.removeprefix('recsys_lag_records{partition="') for line in lines if line.startswith("recsys_lag")]
    return {partition: float(value) for partition, value in (each.split('"} ') for each in found)}


@on_embedded_servers
def test_readiness_names_the_server_that_is_away(world: World, tmp_path: Path) -> None:
    with world.servers.own_store(tmp_path / "store") as store:
        world.commands.environment["REDIS_URL"] = store.url
        with world.servers.own_broker(world.commands, (world.topic, world.dead_letter_topic)) as (address, stop):
            world.commands.environment["KAFKA_BOOTSTRAP_SERVERS"] = address
            with world.worker("--retry-seconds", "120") as worker:
                ready = (200, {"status": "ready", "checks": {"broker": "ok", "store": "ok"}})
                wait_until(lambda: probe(worker, "/ready") == ready)
                assert "recsys_ready 1.0" in all_metrics(worker)
                store.stop()
                without_store = {"broker": "ok", "store": "does not answer"}
                wait_until(lambda: probe(worker, "/ready") == (503, {"status": "not ready", "checks": without_store}))
                assert "recsys_ready 0.0" in all_metrics(worker)
                store.start()
                wait_until(lambda: probe(worker, "/ready") == ready)
                stop()
                without_broker = {"broker": "does not answer", "store": "ok"}
                wait_until(lambda: probe(worker, "/ready") == (503, {"status": "not ready", "checks": without_broker}))
                assert probe(worker, "/live") == (200, {"status": "live"})


@on_embedded_servers
def test_the_lag_counts_the_records_that_wait(world: World, tmp_path: Path) -> None:
    with world.servers.own_store(tmp_path / "store") as store:
        world.commands.environment["REDIS_URL"] = store.url
        with world.worker("--retry-seconds", "120") as worker:
            wait_until(lambda: len(lag(worker)) == world.partitions)
            world.produce(clicks(40, seed=1))
            wait_until_dealt_with(worker, 40)
            wait_until(lambda: set(lag(worker).values()) == {0})
            store.stop()
            world.produce(clicks(60, seed=2))
            wait_until(lambda: sum(lag(worker).values()) == 60)
            store.start()
            wait_until(lambda: set(lag(worker).values()) == {0})
