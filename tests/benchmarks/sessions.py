"""Clicks per second of ``recsys sessions``, beside Polars and beside a Beam pipeline of one element a click.

::

    python -m tests.benchmarks.sessions                                 # 20 million clicks, from CSV and from Parquet
    python -m tests.benchmarks.sessions --millions 1 5 20 100 --alone --plot sessions.png
    python -m tests.benchmarks.sessions --millions 50 --alone --many    # ten million users and as many items

Each command runs in a process of its own, one after the other in turns; seconds are those of the whole command, and of
several rounds the fastest counts. What the others do is said in :mod:`tests.benchmarks.sessions_others`. The pipeline
of one element a click gets only a slice, since it would take an hour for the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

OTHERS = "tests.benchmarks.sessions_others"
WEEK_MS = 7 * 86_400_000
CHUNK = 5_000_000  # clicks made at a time


@dataclass(frozen=True)
class Result:
    """What a command did to a log of so many clicks: seconds, MiB at most, and seconds of CPU."""

    name: str
    clicks: int
    seconds: float
    mebibytes: float
    cpu: float

    @property
    def rate(self) -> float:
        """Clicks per second."""
        return self.clicks / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.name:32} {self.clicks:>12,} clicks {self.seconds:8.1f} s {self.rate:>12,.0f} clicks/s "
            f"{self.mebibytes:>7,.0f} MiB {self.cpu:7.1f} s of CPU"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, nargs="+", default=[20], help="clicks of the logs")
    parser.add_argument("--formats", nargs="+", default=["csv", "parquet"], choices=["csv", "parquet"])
    parser.add_argument("--alone", action="store_true", help="leave the others out")
    parser.add_argument("--many", action="store_true", help="a user and an item, all alike, for every five clicks")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--slice", type=int, default=50_000, help="clicks for the pipeline of one element a click")
    parser.add_argument("--memory-mib", type=int, default=2048, help="as in recsys sessions")
    parser.add_argument("--plot", type=Path, help="draw clicks per second and memory by size of the log (PNG)")
    parser.add_argument("--folder", type=Path, help="for logs and datasets; logs found there are used again")
    options = parser.parse_args()
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        for millions in options.millions:
            for suffix in options.formats:
                name = f"{'many' if options.many else 'clicks'}-{millions}.{suffix}"
                log = log_of(folder / name, millions * 1_000_000, options.many)
                found += compare(log, options.rounds, options.alone, options.memory_mib)
        if not options.alone:
            part = log_of(folder / f"slice-{options.slice}.csv", options.slice)
            found.append(measure("one element a click", options.slice, [OTHERS, "one-element-a-click"], part))
    for result in found:
        print(result)
    if not options.alone:
        print(f"{'ratio to one element a click':32} {found[0].rate / found[-1].rate:>12.1f}")
    if options.plot:
        draw([result for result in found if result.name.startswith("recsys")], options.plot)


def compare(log: Path, rounds: int, alone: bool, memory_mib: int) -> list[Result]:
    """Ours and Polars on one log, in turns; the fastest run of each."""
    clicks = int(log.stem.partition("-")[2]) * 1_000_000
    ways = {f"recsys sessions, {log.suffix[1:]}": ["recsys", "sessions", f"--memory-mib={memory_mib}"]}
    if not alone:
        ways[f"Polars, {log.suffix[1:]}"] = [OTHERS, "polars"]
    runs = [[measure(name, clicks, command, log) for name, command in ways.items()] for _ in range(rounds)]
    best = [min(results, key=lambda result: result.seconds) for results in zip(*runs, strict=True)]
    if not alone:
        print(f"{'ratio to Polars, ' + log.suffix[1:]:32} {best[0].rate / best[1].rate:>12.2f}", flush=True)
    return best


def measure(name: str, clicks: int, command: list[str], log: Path) -> Result:
    """Run a command on a log, and check that it read all clicks."""
    out = log.with_name("dataset")
    shutil.rmtree(out, ignore_errors=True)
    result = run(name, clicks, [*command, str(log), "--out", str(out)])
    if command[0] == "recsys":
        read = json.loads((out / "manifest.json").read_text())["counts"]["read"]
        assert read == clicks, f"{read} clicks were read of {clicks}"
    shutil.rmtree(out, ignore_errors=True)
    return result


def run(name: str, clicks: int, command: list[str]) -> Result:
    """Run a command, which is about so many clicks."""
    began = time.monotonic()
    arguments = [sys.executable, "-m", *command]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        status, usage = wait(process)
        if status:
            sys.exit(f"{' '.join(arguments)} ended with {status}")
    return Result(name, clicks, time.monotonic() - began, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def wait(process: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
    """The process's end, with what it used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return status, usage


def log_of(path: Path, clicks: int, many: bool = False) -> Path:
    """The log at ``path``, which is made if it is not there.

    By another process: the memory of this one would count for the commands that it starts.
    """
    if not path.exists():
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(make_log, path, clicks, many).result()
    return path


def make_log(path: Path, clicks: int, many: bool) -> None:
    """Write a log of a week in the order of time: ten clicks a user in sessions of five, items by Zipf.

    With ``many``, five clicks a user, and an item gets five.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    items = _words("sku-{:05}", clicks // 5 if many else 50_000)
    users = _words("user-{:08}", clicks // 5 if many else clicks // 10)
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    random = np.random.default_rng(1)
    writer: pa_csv.CSVWriter | pq.ParquetWriter
    if path.suffix == ".csv":
        writer = pa_csv.CSVWriter(path, schema, write_options=pa_csv.WriteOptions(quoting_style="none"))
    else:
        writer = pq.ParquetWriter(path, schema)
    with writer:
        for first in range(0, clicks, CHUNK):
            size = min(CHUNK, clicks - first)
            begin, end = (1_704_067_200_000 + WEEK_MS * place // clicks for place in (first, first + size))
            starts = random.integers(begin, end, size // 5)
            times = (starts[:, None] + np.cumsum(random.integers(1, 120_000, (size // 5, 5)), axis=1)).ravel()
            order = np.argsort(times)
            columns = [
                users.take(pa.array(np.repeat(random.integers(0, len(users), size // 5), 5)[order])),
                items.take(
                    pa.array(random.integers(0, len(items), size) if many else _by_zipf(random, size, len(items)))
                ),
                pa.array(times[order]),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _by_zipf(random: np.random.Generator, size: int, items: int) -> NDArray[np.int64]:
    return np.minimum(random.zipf(1.3, size), items) - 1


def _words(pattern: str, count: int) -> pa.StringArray:
    return pa.array([pattern.format(number) for number in range(count)])


def draw(results: list[Result], path: Path) -> None:
    """Clicks per second and memory by size of the log."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels: list[tuple[str, Callable[[Result], float]]] = [
        ("million clicks per second", lambda result: result.rate / 1e6),
        ("GiB at most", lambda result: result.mebibytes / 1024),
    ]
    for axes, (title, value) in zip(figure.subplots(1, 2), panels, strict=True):
        for name in dict.fromkeys(result.name for result in results):
            own = [result for result in results if result.name == name]
            axes.plot([result.clicks / 1e6 for result in own], [value(result) for result in own], "o-", label=name)
        axes.set(title=title, xlabel="million clicks", xscale="log")
        axes.set_ylim(bottom=0)
        axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
