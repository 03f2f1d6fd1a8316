"""How long after a click its visitor's list can be read from the store, by load.

    python -m tests.benchmarks.freshness --rates 500 --seconds 300
    python -m tests.benchmarks.freshness --rates 100 500 1000 2000 4000 8000 --seconds 20 --plot freshness.png

Kafka, Redis, the worker and this process, which produces the clicks and looks at the lists, share the cores given
(``--cores``, the first two by default). A click is counted from before it is given to the producer until a read of the
store has shown a list that follows from it. Redis tells when a list is written, and it is read then, so a figure is too
high by the time of a read rather than too low. Past saturation clicks wait for clicks, and a figure says how long the
run was rather than how fast the worker is.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import hiredis
import numpy as np
import redis
from confluent_kafka import Message

from recsys.state import RecommendationList
from tests.benchmarks.traffic import PARTITIONS, Bench, Mix, cpu, producer_to, reading

WAIT_SECONDS = 0.05  # for the next list
END_SECONDS = 30.0  # for the last lists to come
WARM_SECONDS = 3.0  # not counted: the first clicks meet a process that has just started


class Visible(NamedTuple):
    """A click whose list has been seen: when it was sent, how many seconds before, and which model's the list is."""

    sent: float
    waited: float
    model: int


class Shown(NamedTuple):
    """A list that has been seen: the offset of the click it follows from, when, and which model's it is."""

    offset: int
    when: float
    model: int


@dataclass
class Clicks:
    """Clicks under way: by user, the offset and time of each; and the newest list of each user that has been seen."""

    sent: dict[str, deque[tuple[int, float]]] = field(default_factory=lambda: defaultdict(deque))
    shown: dict[str, Shown] = field(default_factory=dict)
    visible: list[Visible] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledged(self, user: str, sent: float, error: object, message: Message) -> None:
        """The broker has the click, and says where; its list may have been seen already."""
        assert error is None, error
        offset = message.offset()
        assert offset is not None
        with self.lock:
            self.sent[user].append((offset, sent))
            self._settle(user)

    def show(self, user: str, shown: Shown) -> None:
        """A user's list has been seen."""
        with self.lock:
            self.shown[user] = shown
            self._settle(user)

    def _settle(self, user: str) -> None:
        mine, shown = self.sent[user], self.shown.get(user)
        while shown and mine and mine[0][0] <= shown.offset:  # a user's clicks are in one partition
            sent = mine.popleft()[1]
            self.visible.append(Visible(sent, shown.when - sent, shown.model))
        if not mine:
            del self.sent[user]


class Lists:
    """Reads the lists of a run as they are written, at little cost to the cores that all share."""

    def __init__(self, url: str, prefix: str) -> None:
        self._store = redis.Redis.from_url(url)
        self._store.config_set("notify-keyspace-events", "K$")
        at = urlsplit(url)
        self._written = socket.create_connection((at.hostname, at.port), timeout=WAIT_SECONDS)
        self._written.sendall(f"PSUBSCRIBE __keyspace@0__:{prefix}:l:*\r\n".encode())
        self._reader = hiredis.Reader()

    def look_until(self, clicks: Clicks, end: float, wanted: Callable[[], bool] = lambda: True) -> None:
        """Tell ``clicks`` of lists until then, as long as that is wanted."""
        while time.perf_counter() < end and wanted():
            with suppress(TimeoutError):
                self._reader.feed(self._written.recv(1 << 20))
            keys = set()
            while message := self._reader.gets():
                if message[0] == b"pmessage":
                    keys.add(message[2].partition(b":")[2])
            if keys:
                self._read(clicks, list(keys))

    def _read(self, clicks: Clicks, keys: list[bytes]) -> None:
        values: Any = self._store.mget(keys)
        now = time.perf_counter()
        for key, value in zip(keys, values, strict=True):
            found = RecommendationList.unpack(value)
            user = key[key.index(b"{") + 1 : -1].decode()
            clicks.show(user, Shown(found.position.offset, now, found.model))


def produce(bench: Bench, topic: str, clicks: Clicks, rate: float, seconds: float) -> None:
    """Send clicks at a steady rate, each at its time."""
    users, _, values = Mix(rate=rate).clicks(round(rate * seconds), bench.items)
    producer = producer_to(bench.kafka.address)
    start = time.perf_counter()
    for index, (user, value) in enumerate(zip(users.tolist(), values, strict=True)):
        while (ahead := start + index / rate - time.perf_counter()) > 0:
            producer.poll(0)
            time.sleep(min(ahead, 0.001))  # poll itself waits for whole milliseconds, and not at all for less
        name, sent = f"u-{user}", time.perf_counter()

        def delivered(error: object, message: Message, name: str = name, sent: float = sent) -> None:
            clicks.acknowledged(name, sent, error, message)

        producer.produce(topic, key=name.encode(), value=value, on_delivery=delivered)
        producer.poll(0)
    producer.flush(END_SECONDS)


def measure(bench: Bench, rate: float, seconds: float, cores: str) -> dict[str, float]:
    """Run a worker at a rate; gives percentiles in milliseconds."""
    name = f"rate-{rate:g}"
    bench.kafka.create_topic(name, PARTITIONS)
    clicks, lists = Clicks(), Lists(bench.redis.url, name)
    with bench.worker(name, name, cores, {}) as worker:
        worker.wait_for_line("worker: reading partitions [0")
        sending = threading.Thread(target=produce, args=(bench, name, clicks, rate, seconds + WARM_SECONDS))
        sending.start()
        start = time.perf_counter() + WARM_SECONDS
        lists.look_until(clicks, start)
        cpu_before, said_before = cpu(worker), reading(worker)
        lists.look_until(clicks, start + seconds)
        used = (cpu(worker) - cpu_before) / (time.perf_counter() - start)
        lists.look_until(clicks, start + seconds + END_SECONDS, lambda: sending.is_alive() or bool(clicks.sent))
        said = reading(worker) - said_before
        sending.join()
    found = [click.waited for click in clicks.visible if click.sent > start]
    unseen = sum(map(len, clicks.sent.values()))
    p50, p90, p99, longest = np.percentile(np.array(found) * 1000, [50, 90, 99, 100]).round(1).tolist()
    figures = {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": longest, "worker_cpu": round(used, 2)}
    figures |= {f"worker_says_p{share}_ms": round(1000 * (said.quantile(share / 100) or 0), 1) for share in (50, 99)}
    return {"clicks_per_s": rate, "clicks": len(found), "unseen": unseen, **figures}


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Freshness against load."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in ("p50_ms", "p90_ms", "p99_ms"):
        axes.plot([row["clicks_per_s"] for row in rows], [row[name] for row in rows], marker="o", label=name[:3])
    axes.set(xscale="log", yscale="log", xlabel="clicks a second", ylabel="from click to list in the store, ms")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the benchmark and print one JSON line for each rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 500, 1000, 2000, 4000, 8000])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--length", type=int, default=100, help="items in a list")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    os.sched_setaffinity(0, {int(core) for core in given.cores.split(",")})  # servers inherit it
    rows = []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        bench = Bench(Path(directory), stack, given.items, given.units, given.length)
        for rate in given.rates:
            rows.append(measure(bench, rate, given.seconds, given.cores))
            print(json.dumps(rows[-1]), flush=True)
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
