"""What :mod:`tests.benchmarks.sessions` compares with: the same job by Polars, and Beam with one element a click.

::

    python -m tests.benchmarks.sessions_others polars clicks.parquet --out dataset
    python -m tests.benchmarks.sessions_others one-element-a-click clicks.csv --out dataset

Polars (``pip install polars``) parses and checks, leaves duplicates and direct repeats out, cuts sessions, filters to a
fixed point, counts the vocabulary, splits by time and writes the three parts, all in memory. It keeps no bad lines and
writes no hashes. The pipeline of one element a click is the one that Beam's documentation teaches: session windows,
GroupByKey on the user. It does less: no filters, no split.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

DAY_MS = 86_400_000


def by_polars(log: Path, out: Path) -> None:
    """Sessions by Polars, with the settings that ``recsys sessions`` has by default."""
    import polars as pl

    user, item, time = pl.col("user_id"), pl.col("item_id"), pl.col("timestamp")
    names = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    clicks = pl.scan_parquet(log) if log.suffix == ".parquet" else pl.scan_csv(log, schema=names)
    control = r"[\x00-\x1f\x7f]"
    right = time.is_between(100_000_000_000, 4_102_444_800_000)
    for column in (user, item):
        right &= column.str.len_bytes().is_between(1, 256) & ~column.str.contains(control)
    follows = (user == user.shift()).fill_null(False)
    same_item = item == item.shift()
    sessions = (
        clicks.filter(right)
        .sort("user_id", "timestamp", "item_id")
        .filter(~(follows & same_item & (time == time.shift())).fill_null(False))
        .with_columns(opens=~follows | (time - time.shift() > 30 * 60 * 1000))
        .with_columns(session=pl.col("opens").cum_sum())
        .filter(pl.col("opens") | ~same_item)
        .select(pl.col("session").set_sorted(), user, item.cast(pl.Categorical), time)
        .collect()
    )
    last = sessions["timestamp"].max()
    assert isinstance(last, int)
    length, support = pl.len().over("session"), pl.len().over("item_id")
    sessions = sessions.filter(length.is_between(2, 1000))
    before = 0
    while before != len(sessions):
        before = len(sessions)
        sessions = sessions.filter(support >= 5).filter(length >= 2)
    test = last - DAY_MS
    sessions = sessions.with_columns(begin=time.min().over("session"))
    early = sessions.filter(pl.col("begin") < test, time < test).filter(length >= 2)
    vocabulary = early.group_by("item_id").len().sort(item.cast(pl.String)).with_row_index("row")
    out.mkdir(parents=True)
    vocabulary.with_columns(item.cast(pl.String)).write_json(out / "vocabulary.json")
    rows = vocabulary.select("item_id", pl.col("row").cast(pl.Int32))
    late = sessions.filter(pl.col("begin") >= test).join(rows, on="item_id", how="semi").filter(length >= 2)
    validation = pl.col("begin") >= test - DAY_MS
    for name, part in (("train", early.filter(~validation)), ("validation", early.filter(validation)), ("test", late)):
        known = part.join(rows, on="item_id", maintain_order="left")
        known.group_by("session", maintain_order=True).agg(user.first(), "row", "timestamp").drop(
            "session"
        ).write_parquet(out / f"{name}.parquet")


def one_element_a_click(log: Path, out: Path) -> None:
    """Sessions by the textbook: parse each line, window by gaps, group by user, sort."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms import window

    from pipelines.runner import LOCAL_RUNNER

    def parse(line: str) -> Iterator[Any]:
        user, item, moment = line.split(",")
        yield window.TimestampedValue((user, (int(moment), item)), int(moment) / 1000)

    def session(user: str, clicks: Iterable[tuple[int, str]]) -> str:
        return json.dumps({"user_id": user, "clicks": sorted(clicks)})

    with beam.Pipeline(options=PipelineOptions([f"--runner={LOCAL_RUNNER}"])) as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(str(log), skip_header_lines=1)
            | beam.FlatMap(parse)
            | beam.WindowInto(window.Sessions(30 * 60))
            | beam.GroupByKey()
            | beam.MapTuple(session)
            | beam.io.WriteToText(str(out / "sessions"))
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=["polars", "one-element-a-click"])
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    {"polars": by_polars, "one-element-a-click": one_element_a_click}[options.way](options.log, options.out)
