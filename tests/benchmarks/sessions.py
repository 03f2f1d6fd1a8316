"""Clicks per second of ``recsys sessions``, beside a Beam pipeline of one element a click.

::

    python tests/benchmarks/sessions.py                    # 2 million clicks of our own making
    python tests/benchmarks/sessions.py --log clicks.csv.gz --column user=visitor

Each runs in a process of its own, one after the other; seconds are those of the whole command. The pipeline of one
element a click is the one that Beam's documentation teaches (session windows, GroupByKey on the user). It does less (no
filters, no split) and gets only a slice, since it would take minutes for the whole.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="a CSV log; without it, one is made")
    parser.add_argument("--clicks", type=int, default=2_000_000, help="clicks of the log that is made")
    parser.add_argument("--column", action="append", default=[], metavar="FIELD=COLUMN", help="as in recsys sessions")
    parser.add_argument("--slice", type=int, default=50_000, help="clicks for the pipeline of one element a click")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        log = options.log or make_log(folder / "clicks.csv", options.clicks)
        columns = [part for column in options.column for part in ("--column", column)]
        out = folder / "dataset"
        command = [sys.executable, "-c", "import recsys.cli; recsys.cli.main()", "sessions", str(log), *columns]
        ours = timed([*command, "--out", str(out)])
        clicks = json.loads((out / "manifest.json").read_text())["counts"]["read"]
        part = cut_slice(log, folder / "slice.csv", options.slice, dict(name.split("=", 1) for name in options.column))
        theirs = timed([sys.executable, __file__, "one-element-a-click", str(part)])
    rate, slow_rate = clicks / ours[0], options.slice / theirs[0]
    for name, count, (seconds, mebibytes), speed in (
        ("recsys sessions", clicks, ours, rate),
        ("one element a click", options.slice, theirs, slow_rate),
    ):
        print(f"{name:20} {count:>12,} clicks {seconds:8.1f} s {speed:>12,.0f} clicks/s {mebibytes:>7,.0f} MiB")
    print(f"{'ratio':20} {rate / slow_rate:>12.1f}")


def make_log(path: Path, clicks: int) -> Path:
    """A CSV log of Zipf items and random users over a week."""
    rng = np.random.default_rng(1)
    users = rng.integers(0, clicks // 10, clicks)
    items = np.minimum(rng.zipf(1.3, clicks), 50_000)
    times = (
        1_704_067_200_000 + rng.integers(0, 7 * 86_400_000, clicks // 10)[users] + rng.integers(0, 3_600_000, clicks)
    )
    np.savetxt(
        path, np.stack((users, items, times), axis=1), "%d", ",", header="user_id,item_id,timestamp", comments=""
    )
    return path


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a command."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = wait(process)
        if status:
            sys.exit(f"{command[1:]} ended with {status}")
    return time.monotonic() - began, usage.ru_maxrss / 1024


def wait(process: subprocess.Popen[bytes]) -> tuple[int, int, resource.struct_rusage]:
    """The process's end, with what it used."""
    pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return pid, status, usage


def cut_slice(log: Path, path: Path, clicks: int, mapping: dict[str, str]) -> Path:
    """The first clicks of the log, with user, item and time under the usual names."""
    with (gzip.open if log.suffix == ".gz" else open)(log, "rt") as source, path.open("w") as target:
        rows = csv.DictReader(source)
        names = [
            mapping.get("user", mapping.get("session", "user_id")),
            mapping.get("item", "item_id"),
            mapping.get("timestamp", "timestamp"),
        ]
        for row in itertools.islice(rows, clicks):
            target.write(",".join(row[name] for name in names) + "\n")
    return path


def one_element_a_click(path: Path) -> None:
    """Sessions by the textbook: parse each line, window by gaps, group by user, sort."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms import window

    from pipelines.build import LOCAL_RUNNER

    def parse(line: str) -> Iterator[Any]:
        user, item, moment = line.split(",")
        yield window.TimestampedValue((user, (int(moment), item)), int(moment) / 1000)

    def session(user: str, clicks: Iterable[tuple[int, str]]) -> str:
        return json.dumps({"user_id": user, "clicks": sorted(clicks)})

    with beam.Pipeline(options=PipelineOptions([f"--runner={LOCAL_RUNNER}"])) as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(str(path))
            | beam.FlatMap(parse)
            | beam.WindowInto(window.Sessions(30 * 60))
            | beam.GroupByKey()
            | beam.MapTuple(session)
            | beam.io.WriteToText(str(path.with_suffix(".sessions")))
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["one-element-a-click"]:
        one_element_a_click(Path(sys.argv[2]))
    else:
        main()
