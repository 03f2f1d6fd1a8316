"""How much longer clicks wait while another model takes over and while it is rolled back, and how soon either is done.

    python -m tests.benchmarks.swap --rate 500

Clicks are sent and waited for as in :mod:`tests.benchmarks.freshness`. All the while the names of all lists are read
every half second: none that was there may be missing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import redis

from recsys.bundle import digest_of, save_model
from recsys.published import Bundles
from tests.benchmarks.freshness import WARM_SECONDS, Clicks, Lists, produce
from tests.benchmarks.traffic import PARTITIONS, Bench, shop_model


class Names:
    """Reads the names of all lists, again and again, and keeps those that went missing."""

    def __init__(self, url: str, prefix: str) -> None:
        self._store, self._pattern = redis.Redis.from_url(url), f"{prefix}:l:*"
        self.there: set[bytes] = set()
        self.missing: set[bytes] = set()

    def read(self) -> None:
        """Once."""
        names = set(self._store.scan_iter(self._pattern, count=5000))
        self.missing |= self.there - names
        self.there |= names

    def watch(self, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.wait(0.5):
            self.read()


def figures(clicks: Clicks, since: float, until: float) -> dict[str, float]:
    """Percentiles of the waiting of clicks sent in this time."""
    waits = np.array([click.waited for click in clicks.visible if since <= click.sent < until]) * 1000
    p50, p99, longest = np.percentile(waits, [50, 99, 100]).round(1).tolist()
    return {"clicks": len(waits), "p50_ms": p50, "p99_ms": p99, "longest_ms": longest}


def done_after(clicks: Clicks, since: float, until: float, digest: int) -> float:
    """Seconds after which all lists that came for clicks were of this model."""
    others = [
        click.sent + click.waited for click in clicks.visible if since <= click.sent < until and click.model != digest
    ]
    return round(max(others, default=since) - since, 2)


def measure(bench: Bench, rate: float, seconds: float, cores: str) -> dict[str, object]:
    """Publish, and roll back, beneath a steady load; each time so many seconds are looked at."""
    bench.kafka.create_topic("swap", PARTITIONS)
    clicks, lists = Clicks(), Lists(bench.redis.url, "swap")
    names, stop = Names(bench.redis.url, "swap"), threading.Event()
    bundles = Bundles(bench.directory / "bundles")
    source = bench.directory / "next"
    source.mkdir()
    save_model(source, shop_model(bench.items, bench.units, seed=1))
    old = bundles.current()
    acts: list[Callable[[], str]] = [lambda: old, lambda: bundles.publish(source), bundles.rollback]
    found: dict[str, object] = {"clicks_per_s": rate}
    with bench.worker("swap", "swap", cores, {}) as worker:
        worker.wait_for_line("worker: reading partitions [0")
        args = (bench, "swap", clicks, rate, 2 * WARM_SECONDS + len(acts) * seconds)
        threads = [threading.Thread(target=produce, args=args), threading.Thread(target=names.watch, args=(stop,))]
        for thread in threads:
            thread.start()
        lists.look_until(clicks, time.perf_counter() + WARM_SECONDS)
        for name, act in zip(("before", "swap", "rollback"), acts, strict=True):
            began = time.perf_counter()
            version = act()
            assert (name == "swap") == (version != old)
            digest = digest_of(version)
            lists.look_until(clicks, began + seconds)
            found[name] = figures(clicks, began, began + seconds - 1) | {
                "done_after_s": done_after(clicks, began, began + seconds, digest)
            }
        threads[0].join()
        stop.set()
        threads[1].join()
    return found | {"lists": len(names.there), "lists_that_went_missing": len(names.missing)}


def main() -> None:
    """Run the benchmark and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=15, help="before, after the swap, after the rollback")
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--length", type=int, default=100, help="items in a list")
    given = parser.parse_args()
    os.sched_setaffinity(0, {int(core) for core in given.cores.split(",")})  # servers inherit it
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        bench = Bench(Path(directory), stack, given.items, given.units, given.length)
        print(json.dumps(measure(bench, given.rate, given.seconds, given.cores)), flush=True)


if __name__ == "__main__":
    main()
