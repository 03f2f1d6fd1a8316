"""The directory of closed sessions: what streaming leaves for those that read by the day.

::

    closed/
        2026-11-20/00007-….parquet   clicks of the sessions that ended on that day (UTC), session by session
        2026-11-20/_00007-….jsonl    records that are no clicks, and clicks that came too late, with the reason
        _counts/_00007-….json        what became of all records of a shard so far
        _begun.json                  settings that cannot change

A Parquet row is a click: ``user_id``, ``session_id`` (epoch milliseconds of its first click), ``item_id``,
``timestamp`` (epoch milliseconds), ``event_type``, ``event_id``. Names that begin with ``_`` are no logs.

Each writing of a shard has a number, which the runner keeps with the shard's state. Where it goes back to an older
state, it comes to a number again and may write otherwise than the first time; so what has this number or a higher one
is deleted first. That is how each session is there once, though a runner repeats its work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.boundaries import DAY_MS
from pipelines.live.closing import Closing
from pipelines.places import Local
from recsys.archive import metadata_of
from recsys.errors import DatasetError

FATES = ("clicks", "duplicates", "late", "rejected", "open")  # of all records; clicks are those of closed sessions


@dataclass(frozen=True)
class Book:
    """What the state of a shard says of its files.

    Attributes:
        run: names the run that the state began in.
        number: of the next writing.
        closed_ms: the time up to which the shard is closed.
        counts: what became of all records so far.
    """

    run: str
    number: int = 0
    closed_ms: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """For :meth:`from_json`."""
        return orjson.dumps(vars(self))

    @classmethod
    def from_json(cls, data: bytes) -> Book:
        """What :meth:`to_json` wrote."""
        return cls(**orjson.loads(data))

    def add(self, counts: Mapping[str, int], closing: Closing) -> Book:
        """The book after a closing.

        Raises:
            DatasetError: a record is lost, or counted twice.
        """
        total = {name: self.counts.get(name, 0) + count for name, count in counts.items()}
        total["open"] = len(closing.standing.clicks)
        fates = sum(total[name] for name in FATES)
        if fates != total["records"]:
            raise DatasetError(f"counts do not add up: {total['records']} records, {fates} accounted for: {total}")
        return Book(self.run, self.number + 1, closing.standing.closed_ms, total)


@dataclass(frozen=True)
class ClosedFiles:
    """Where the closings of one shard are written.

    ``run`` names the run that the shard's state began in, ``key`` the one by which user ids are hashed, if they are.
    """

    directory: Path
    run: str
    shard: int
    key: str | None = None

    def write(self, number: int, since_ms: int, closing: Closing, letters: list[dict[str, Any]]) -> None:
        """Write what a closing gave; no session in it, or in any later one, ended before ``since_ms``."""
        self._take_back(number, _day(since_ms))
        name = f"{self._name}-{number:08}"
        days = closing.ends // DAY_MS
        for day in np.unique(days).tolist():
            table = _table(closing).filter(pa.array(days == day)).replace_schema_metadata(metadata_of(self.key))
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            self._write(f"{_day(day * DAY_MS)}/{name}.parquet", sink.getvalue().to_pybytes())
        if letters:
            lines = b"".join(orjson.dumps(letter) + b"\n" for letter in letters)
            now_ms = time.time_ns() // 1_000_000  # the end of all time is closed to when a topic ends
            self._write(f"{_day(max(since_ms, min(closing.standing.closed_ms, now_ms)))}/_{name}.jsonl", lines)

    def count(self, counts: Mapping[str, int]) -> None:
        """Write what became of all records of the shard so far."""
        self._write(f"_counts/_{self._name}.json", orjson.dumps(counts))

    def _write(self, name: str, data: bytes) -> None:
        (Local(self.directory) / name).write(data)

    @property
    def _name(self) -> str:
        return f"{self.shard:05}-{self.run}"

    def _take_back(self, number: int, first_day: str) -> None:
        """Delete what was written from a state that does not hold any more."""
        for day in self.directory.glob("[0-9]*"):
            if day.name >= first_day:
                for path in day.glob(f"*{self._name}-*"):
                    if int(path.stem.rpartition("-")[2]) >= number:
                        path.unlink()


def read_counts(directory: Path) -> dict[str, int]:
    """What became of all records, of all shards together."""
    total: dict[str, int] = {}
    for path in (directory / "_counts").glob("[!.]*"):
        for name, count in orjson.loads(path.read_bytes()).items():
            total[name] = total.get(name, 0) + count
    return total


def _table(closing: Closing) -> pa.Table:
    clicks = closing.clicks
    return pa.table(
        {
            "user_id": clicks["user"],
            "session_id": closing.starts,
            "item_id": clicks["item"],
            "timestamp": clicks["time"],
            "event_type": clicks["type"],
            "event_id": pc.if_else(pc.equal(clicks["event_id"], ""), None, clicks["event_id"]),
        }
    )


def _day(ms: int) -> str:
    return datetime.fromtimestamp(max(ms, 0) / 1000, UTC).date().isoformat()
