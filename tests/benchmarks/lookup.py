"""How many lookups a second one API process answers, and how long they take.

    python tests/benchmarks/lookup.py --requests 20000 --connections 64

Starts a store with a list for each user and ``recsys api`` on a random model, both on loopback, and asks for users'
lists over keep-alive connections from this process. Client, API and store share the machine's cores; the processor time
of the API alone says what a request costs whatever else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop

from recsys.bundle import Model, digest_of
from recsys.position import Position, Progress
from recsys.settings import ModelSettings, RedisSettings
from recsys.state import RecommendationList, UserState
from recsys.store import Store, Write
from recsys.vocabulary import Vocabulary
from stream.embedded import embedded_store
from tests.conftest import publish, random_model


def model_of(items: int, units: int = 100) -> Model:
    """A model with random weights."""
    rng = np.random.default_rng(0)
    places = ModelSettings().followers
    base = random_model(1, units, followers=places)
    by_item = {
        "followers": 1 + (rng.integers(0, items, (items, 1)) + np.arange(places) * max(1, items // places)) % items,
        "surplus": rng.normal(0, 1, (items, places)),
        "embedding": rng.normal(0, 0.1, (items, units)),
        "bias": rng.normal(0, 1, items),
        "rise": np.zeros(items),
    }
    weights = {**base.weights, **{name: values.astype(np.float32) for name, values in by_item.items()}}
    vocabulary = Vocabulary([f"item-{row:09d}" for row in range(items)], np.arange(items, 0, -1, dtype=np.int64))
    return Model(weights, vocabulary, base.description)


async def load_lists(url: str, digest: int, users: int, items: int, length: int) -> None:
    """Store a list for each user."""
    rng = np.random.default_rng(0)
    state = UserState(digest, np.zeros(4, np.float32), Progress(Position(0, 0, 1))).pack()
    now_ms = time.time_ns() // 1_000_000
    store = Store(RedisSettings(url=url))
    for first in range(0, users, 1000):
        rows = rng.integers(0, items, (min(1000, users - first), length), dtype=np.int32)
        scores = np.sort(rng.normal(size=rows.shape).astype(np.float32))[:, ::-1]
        writes = [
            Write(
                f"user-{first + index}",
                None,
                state,
                RecommendationList(digest, Position(0, 0, 1), now_ms, now_ms, rows[index], scores[index]).pack(),
            )
            for index in range(len(rows))
        ]
        assert not await store.save(writes)
    await store.close()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(address: tuple[str, int], paths: list[bytes]) -> list[float]:
    """Request each path in turn on one connection; gives the seconds of each."""
    reader, writer = await asyncio.open_connection(*address)
    seconds = []
    for path in paths:
        start = time.perf_counter()
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: api\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert head.startswith(b"HTTP/1.1 200"), head
        assert length
        body = await reader.readexactly(int(length[1]))
        seconds.append(time.perf_counter() - start)
        assert b'"source":"user"' in body, body
    writer.close()
    return seconds


async def measure(address: tuple[str, int], requests: int, connections: int, users: int) -> dict[str, float]:
    """Ask ``requests`` times over ``connections``; gives requests/s and percentiles in ms."""
    rng = np.random.default_rng(1)
    paths = [b"/v1/recommendations?user_id=user-%d&limit=20" % user for user in rng.integers(0, users, requests)]
    start = time.perf_counter()
    parts = await asyncio.gather(*(ask(address, paths[index::connections]) for index in range(connections)))
    elapsed = time.perf_counter() - start
    p50, p99 = np.percentile(np.concatenate(parts) * 1000, [50, 99])
    return {"requests_per_s": round(requests / elapsed), "p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def main() -> None:
    """Run the benchmark and print one JSON line for each number of connections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=50_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, embedded_store() as store:
        bundles = Path(directory) / "bundles"
        digest = digest_of(publish(bundles, model_of(given.items)))
        asyncio.run(load_lists(store, digest, given.users, given.items, 20))
        command = [sys.executable, "-c", "from recsys.cli import main; main()", "api"]
        command += ["--bundles", str(bundles), "--port", "0", "--redis-url", store]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as api:
            assert api.stderr is not None
            url = next(found[1] for line in api.stderr if (found := re.search(r"(http://\S+?)/docs", line)))
            address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
            uvloop.run(measure(address, 1000, 8, given.users))  # the first requests build caches
            for connections in given.connections:
                before = cpu_seconds(api.pid)
                figures = uvloop.run(measure(address, given.requests, connections, given.users))
                api_cpu_us = round((cpu_seconds(api.pid) - before) / given.requests * 1e6)
                print(json.dumps({"connections": connections, **figures, "api_cpu_us_per_request": api_cpu_us}))
            api.terminate()


if __name__ == "__main__":
    main()
