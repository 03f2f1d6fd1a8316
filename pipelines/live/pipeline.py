"""Sessions are closed while clicks come in: a Beam streaming pipeline that watermarks drive.

The watermark says up to which time clicks have come. When it is the gap and the allowed lateness past the last click of
a session, the session is closed. A shard of users is one key: its clicks wait in the runner's state, all sessions that
are due are cut and closed together, every ``tick_ms`` of the watermark at most, and what time a shard was closed up to
is what tells late clicks from others. So state is bounded by the clicks of open sessions, for any number of users.
"""

# mypy: disable-error-code="no-untyped-call,misc"
# ruff: noqa: B008 (Beam learns from the defaults what a method wants)
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.compute as pc
from apache_beam.coders import BytesCoder, VarIntCoder
from apache_beam.metrics.metric import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from pipelines.live.arrivals import Arrival, late_letters, sort
from pipelines.live.closed_files import Book, ClosedFiles
from pipelines.live.closing import Closing, Standing, close
from pipelines.pieces import from_bytes, to_bytes


@dataclass(frozen=True)
class Streaming:
    """How sessions are closed and where they go, as :class:`ClosedFiles` says; times in milliseconds.

    A shard looks for sessions to close every ``tick_ms`` of the watermark, at most.
    """

    out: Path
    run: str
    gap_ms: int
    lateness_ms: int
    remember_ms: int
    tick_ms: int
    key: str | None = None


def keyed(arrival: Arrival, now_ms: int) -> TimestampedValue[tuple[int, bytes]]:
    """The element that a record is: a line for a shard, at the time of the click, or now where it is none."""
    time_ms = now_ms if arrival.time_ms is None else arrival.time_ms
    return TimestampedValue((arrival.shard, arrival.line), Timestamp(micros=time_ms * 1000))


def close_sessions(arrivals: Any, streaming: Streaming) -> Any:
    """Write the sessions of a collection of :func:`keyed` elements as they are closed."""
    return (
        arrivals
        | "Shards" >> beam.Map(lambda pair: pair).with_output_types(tuple[int, bytes])
        | "Close" >> beam.ParDo(CloseSessions(streaming))
    )


class CloseSessions(beam.DoFn):
    """Gathers the lines of a shard, and closes its sessions whenever some are due."""

    ARRIVED = BagStateSpec("arrived", BytesCoder())
    CLICKS = ReadModifyWriteStateSpec("clicks", BytesCoder())
    CLAIMS = ReadModifyWriteStateSpec("claims", BytesCoder())
    BOOK = ReadModifyWriteStateSpec("book", BytesCoder())
    WAKE = ReadModifyWriteStateSpec("wake", VarIntCoder())
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, streaming: Streaming) -> None:
        self._streaming = streaming

    def process(
        self,
        element: tuple[int, bytes],
        time: Any = beam.DoFn.TimestampParam,
        arrived: Any = beam.DoFn.StateParam(ARRIVED),
        wake: Any = beam.DoFn.StateParam(WAKE),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> None:
        """Keep a line until its session can be closed, if nothing of the shard is due before."""
        arrived.add(element[1])
        when = self._tick(time.micros // 1000 + self._streaming.gap_ms + 1)
        earlier = wake.read()
        if earlier is None or when < earlier:
            wake.write(when)
            due.set(Timestamp(micros=when * 1000))

    @on_timer(DUE)
    def on_due(
        self,
        shard: Any = beam.DoFn.KeyParam,
        arrived: Any = beam.DoFn.StateParam(ARRIVED),
        clicks: Any = beam.DoFn.StateParam(CLICKS),
        claims: Any = beam.DoFn.StateParam(CLAIMS),
        book: Any = beam.DoFn.StateParam(BOOK),
        wake: Any = beam.DoFn.StateParam(WAKE),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> None:
        """Close what is due, write it down, and wait for what is due next."""
        watermark_ms = wake.read()
        if watermark_ms is None:
            return
        known = Book.from_json(book.read()) if book.read() else Book(self._streaming.run)
        standing = Standing(known.closed_ms)
        if known.number:
            standing = Standing(known.closed_ms, from_bytes(clicks.read()), from_bytes(claims.read()))
        closing, written = self._close(shard, known, standing, list(arrived.read()), watermark_ms)
        arrived.clear()
        clicks.write(to_bytes(closing.standing.clicks))
        claims.write(to_bytes(closing.standing.claims))
        book.write(written.to_json())
        wake.clear()
        if closing.next_ms is not None:
            # Where much waits, as after a stop, it is not gone through tick by tick: the watermark will soon be there.
            newest = pc.max(closing.standing.clicks["time"]).as_py()
            when = self._tick(max(closing.next_ms, newest - self._streaming.lateness_ms))
            wake.write(when)
            due.set(Timestamp(micros=when * 1000))

    def _close(
        self, shard: int, book: Book, standing: Standing, lines: list[bytes], watermark_ms: int
    ) -> tuple[Closing, Book]:
        """Close and write what is due; with the book as it is then."""
        streaming = self._streaming
        arrived, letters = sort(lines)
        until_ms = watermark_ms - streaming.lateness_ms
        closing = close(standing, arrived, until_ms, streaming.gap_ms, streaming.remember_ms)
        counts = {
            "records": len(lines),
            "sessions": closing.sessions,
            "clicks": len(closing.clicks),
            "duplicates": closing.duplicates,
            "late": len(closing.late),
            "rejected": len(letters),
        }
        written = book.add(counts, closing)
        files = ClosedFiles(streaming.out, book.run, shard, streaming.key)
        files.write(
            book.number, standing.closed_ms - streaming.gap_ms, closing, [*letters, *late_letters(closing.late)]
        )
        files.count(written.counts)
        for name, count in counts.items():
            Metrics.counter("sessions", name).inc(count)
        return closing, written

    def _tick(self, known_ms: int) -> int:
        """The watermark (epoch milliseconds) at which that time is known for sure, as a full tick."""
        tick_ms = self._streaming.tick_ms
        return -(-(known_ms + self._streaming.lateness_ms) // tick_ms) * tick_ms
