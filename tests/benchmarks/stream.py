"""How many clicks a second a worker takes in, where the time goes, and how fast it catches up.

    python -m tests.benchmarks.stream --clicks 300000
    python -m tests.benchmarks.stream --clicks 100000 --backlog 5000000

Kafka, Redis and a random model, on loopback. A backlog of a shop's clicks is read several times, each time into keys of
their own, which must end the same: by one worker in small batches, so that nearly each click is followed by a list
(*steady*); by one that catches up, a list for each user of a batch of whom it sees no later click; and both by two
workers, each on a core. One worker is pinned to the last core; Kafka and Redis run where they like. Shares are of the
time from the first batch to the last: those of ``load`` and ``write`` are waiting for Redis, with the packing of
states; ``rest`` is Kafka's client and Faust.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from recsys.demo.commands import Service
from recsys.scoring.byte_table import ByteTable, multiplies_bytes
from tests.benchmarks.traffic import Bench, Mix, cpu, metrics, reading

CORES = ("1", "0")
_PART = re.compile(r'^recsys_batch_part_seconds_sum\{part="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What reading a backlog took: seconds on the clock, of processor time, and of each part of the batches."""

    clicks: int
    seconds: float
    cpu: float
    lists: float
    parts: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Clicks a second."""
        return self.clicks / self.seconds

    def figures(self) -> dict[str, object]:
        """For printing."""
        shares = {name: round(seconds / self.seconds, 3) for name, seconds in self.parts.items()}
        shares["rest"] = round(1 - sum(self.parts.values()) / self.seconds, 3)
        return {
            "clicks_per_s": round(self.rate),
            "cpu_us_per_click": round(self.cpu / self.clicks * 1e6, 1),
            "clicks_per_list": round(self.clicks / self.lists, 2),
            "share_of_time": shares,
        }


def measure(workers: list[Service], clicks: int) -> Run:
    """Wait until all clicks are dealt with; from when a twentieth of them were."""
    before, start, cpu_before = 0, 0.0, 0.0
    parts_before: dict[str, float] = {}
    while True:
        done = sum(reading(worker).dealt_with for worker in workers)
        now, parts = time.perf_counter(), _parts(workers)
        if not before and done >= clicks / 20:
            before, start, cpu_before, parts_before = done, now, sum(map(cpu, workers)), parts
        if done >= clicks:
            spent = sum(map(cpu, workers)) - cpu_before
            lists = parts.pop("lists") - parts_before.pop("lists")
            return Run(
                done - before, now - start, spent, lists, {name: parts[name] - parts_before[name] for name in parts}
            )
        time.sleep(0.2)


def _parts(workers: list[Service]) -> dict[str, float]:
    texts = [metrics(worker) for worker in workers]
    found: dict[str, float] = {"lists": 0.0}
    for text in texts:
        for name, seconds in _PART.findall(text):
            found[name] = found.get(name, 0.0) + float(seconds)
        lists = re.search(r"^recsys_lists_written_total (\S+)$", text, re.MULTILINE)
        found["lists"] += float(lists[1]) if lists else 0.0
    return found


def bounds(items: int, units: int) -> dict[str, float]:
    """What this core could do if scores were all: lists a second at its matrix throughput and memory bandwidth."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(units, items)).astype(np.float32)
    big = rng.normal(size=(1024, 1024)).astype(np.float32)
    copy = np.empty_like(table := np.concatenate([table] * max(1, 2**26 // table.size), axis=1))
    with threadpool_limits(1):
        flops = 2 * 1024**3 / _best(lambda: big @ big)
        bytes_per_s = 2 * table.nbytes / _best(lambda: np.copyto(copy, table))
    found: dict[str, float] = {
        "matrix_gflops": round(flops / 1e9),
        "memory_gb_per_s": round(bytes_per_s / 1e9),
        "lists_per_s_by_matrix": round(flops / (2 * items * units)),
        "lone_lists_per_s_by_memory": round(bytes_per_s / (4 * items * units)),
    }
    if multiplies_bytes():
        query = ByteTable(big, big[0]).ask(big)
        operations = 2 * 1024**3 / _best(lambda: query.scores(0))
        found["matrix_gops_in_bytes"] = round(operations / 1e9)
        found["lists_per_s_by_matrix_in_bytes"] = round(operations / (2 * items * units))
        found["lone_lists_per_s_by_memory_in_bytes"] = round(bytes_per_s / (items * units))
    return found


def _best(work: object) -> float:
    assert callable(work)
    found = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def read(bench: Bench, topic: str, run: str, clicks: int, catch_up: int, workers: int = 1) -> Run:
    """Read a topic with so many workers, each on a core of its own."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(bench.worker(topic, run, cores, {"catch_up_batch": catch_up}))
            for cores in CORES[:workers]
        ]
        result = measure(started, clicks)
    print(json.dumps({"run": run, "workers": workers, **result.figures()}), flush=True)
    return result


def main() -> None:
    """Run the benchmark and print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=300_000)
    parser.add_argument("--backlog", type=int, default=0, help="catch up after so many clicks, too")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--length", type=int, default=100, help="items in a list")
    parser.add_argument("--batch", type=int, default=100_000, help="clicks in a batch while catching up")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print(json.dumps({"bounds": bounds(given.items, given.units)}), flush=True)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        bench = Bench(Path(directory), stack, given.items, given.units, given.length)
        bench.load("clicks", Mix().clicks(given.clicks, given.items)[2])
        steady = read(bench, "clicks", "steady", given.clicks, 256)
        one = read(bench, "clicks", "catch-up", given.clicks, given.batch)
        ratios = {"catch_up_over_steady": round(one.rate / steady.rate, 2)}
        expected = bench.lists("steady")
        assert bench.lists("catch-up") == expected
        for run, batch, alone in (("steady", 256, steady), ("catch-up", given.batch, one)):
            if given.workers > 1:
                several = read(bench, "clicks", f"{run}-by-{given.workers}", given.clicks, batch, given.workers)
                ratios[f"{run}_by_{given.workers}_over_one"] = round(several.rate / alone.rate, 2)
                assert bench.lists(f"{run}-by-{given.workers}") == expected
        print(json.dumps({"keys_identical_in_all_runs": len(expected), **ratios}), flush=True)
        if given.backlog:
            bench.load("backlog", Mix().clicks(given.backlog, given.items, seed=2)[2])
            read(bench, "backlog", "after-backlog", given.backlog, given.batch)


if __name__ == "__main__":
    main()
