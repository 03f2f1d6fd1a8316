"""Seconds of ``recsys sessions --append`` for the last part of a log, beside building the dataset again from the whole.

::

    python -m tests.benchmarks.append                            # 20 million clicks, a twentieth of them appended
    python -m tests.benchmarks.append --millions 5 --parts 5

Each command runs in a process of its own, one after the other in turns, and their datasets are compared. The whole is
built without keeping its clicks too, for what that costs. Of several rounds the fastest counts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from tests.benchmarks.sessions import Result, log_of, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=20, help="clicks of the whole log")
    parser.add_argument("--parts", type=int, default=20, help="so many are appended to, by the last of them")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    clicks = options.millions * 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        whole = log_of(Path(folder) / "whole.csv", clicks)
        earlier, last = split(whole, clicks * (options.parts - 1) // options.parts)
        before, out = Path(folder) / "before", Path(folder) / "dataset"
        run("", 0, build(earlier, before))
        runs = [round_of(clicks, whole, last, before, out) for _ in range(options.rounds)]
    bare, kept, appended = (min(results, key=lambda result: result.seconds) for results in zip(*runs, strict=True))
    print(bare, kept, appended, sep="\n")
    print(f"keeping takes {kept.seconds / bare.seconds:.2f} of the time, {kept.cpu / bare.cpu:.2f} of the CPU")
    print(
        f"appending takes {appended.seconds / kept.seconds:.2f} of the time, {appended.cpu / kept.cpu:.2f} of the CPU"
    )


def round_of(clicks: int, whole: Path, last: Path, before: Path, out: Path) -> list[Result]:
    """The whole without and with its clicks kept, and its last part appended to the dataset ``before``."""
    shutil.rmtree(out, ignore_errors=True)
    results = [run("whole, clicks not kept", clicks, [*build(whole, out), "--no-keep-clicks"])]
    results.append(run("whole", clicks, [*build(whole, out), "--overwrite"]))
    expected = content(out)
    shutil.rmtree(out)
    shutil.copytree(before, out)
    results.append(run("last part appended", clicks, [*build(last, out), "--append"]))
    assert content(out) == expected, "the appended dataset is not that of the whole"
    return results


def build(log: Path, out: Path) -> list[str]:
    return ["recsys", "sessions", str(log), "--out", str(out)]


def content(dataset: Path) -> object:
    """What two datasets of the same clicks agree on."""
    manifest = json.loads((dataset / "manifest.json").read_text())
    return manifest["content_hash"], manifest["counts"]


def split(log: Path, clicks: int) -> tuple[Path, Path]:
    """The first so many clicks of a CSV log, and the others."""
    first, rest = log.with_name("first.csv"), log.with_name("rest.csv")
    with log.open("rb") as lines, first.open("wb") as earlier, rest.open("wb") as last:
        header = next(lines)
        earlier.write(header)
        last.write(header)
        for number, line in enumerate(lines):
            (earlier if number < clicks else last).write(line)
    return first, rest


if __name__ == "__main__":
    main()
