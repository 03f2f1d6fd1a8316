"""Text files as blocks of numbered records, in memory that does not grow with the file or with a line.

A record is a line, or several where a quoted CSV field holds newlines. Records longer than the largest event are never
held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.events import MAX_EVENT_BYTES

BLOCK_BYTES = 8 << 20
KEPT_BYTES = 4096  # of a bad record's text
_NEWLINE = 10
_BLANK = (b"", b"\r")


@dataclass(frozen=True)
class Records:
    """Complete records of one file: record ``i`` is ``data[starts[i]:ends[i]]`` and begins on line ``lines[i]``."""

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    lines: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, record: int) -> bytes:
        return self.data[self.starts[record] : self.ends[record]]

    @classmethod
    def of(cls, texts: Sequence[bytes], lines: NDArray[np.int64]) -> Records:
        """Records of these texts, which began on these lines."""
        ends = np.cumsum([len(text) + 1 for text in texts]) - 1
        return cls(b"\n".join([*texts, b""]), np.concatenate(([0], ends[:-1] + 1)), ends, lines)

    def after(self, skipped: int) -> Records:
        """The records without the first few."""
        if len(self) <= skipped:
            return Records(b"", self.starts[:0], self.ends[:0], self.lines[:0])
        cut = int(self.starts[skipped])
        return Records(self.data[cut:], self.starts[skipped:] - cut, self.ends[skipped:] - cut, self.lines[skipped:])


@dataclass(frozen=True)
class Oversized:
    """A line too long to be an event: where it stands, its first bytes and its length."""

    line: int
    head: bytes
    size: int


Joiner = Callable[[bytes, NDArray[np.int64], NDArray[np.int64], bool], tuple[NDArray[np.int64], int]]
"""Says which lines of a block begin a record, and how many leading lines make complete records."""


def each_line(
    data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], final: bool
) -> tuple[NDArray[np.int64], int]:
    """The :data:`Joiner` of formats in which every line is a record."""
    return np.arange(len(starts)), len(starts)


def read_records(stream: pa.NativeFile, join: Joiner = each_line) -> Iterator[Records | Oversized]:
    """Blocks of records, in order; blank lines are none.

    Raises:
        OSError: the stream breaks off or cannot be decompressed.
    """
    line, rest, final = 1, b"", False
    while not final:
        chunk = stream.read(BLOCK_BYTES)
        final = not chunk
        if line == 1 and not rest:
            chunk = chunk.removeprefix(b"\xef\xbb\xbf")
        data = rest + chunk + (b"\n" if final and rest and not rest.endswith(b"\n") else b"")
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
        starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
        first, complete = join(data, starts, ends, final)
        consumed = int(ends[complete - 1]) + 1 if complete else 0
        if complete:
            last = np.append(first[1:], complete) - 1
            yield _without_blanks(Records(data[:consumed], starts[first], ends[last], first + line))
        line += complete
        rest = data[consumed:]
        if len(rest) > MAX_EVENT_BYTES and complete == len(ends):
            oversized, rest = _skip_line(stream, rest, line)
            yield oversized
            line += 1


def _skip_line(stream: pa.NativeFile, start: bytes, line: int) -> tuple[Oversized, bytes]:
    """Pass over the line that begins with ``start``; the bytes read after it come back too."""
    size = len(start)
    while chunk := stream.read(BLOCK_BYTES):
        before, newline, after = chunk.partition(b"\n")
        size += len(before)
        if newline:
            return Oversized(line, start[:KEPT_BYTES], size), after
    return Oversized(line, start[:KEPT_BYTES], size), b""


def _without_blanks(records: Records) -> Records:
    short = np.flatnonzero(records.ends - records.starts <= 1)
    blank = [record for record in short.tolist() if records[record] in _BLANK]
    if not blank:
        return records
    keep = np.ones(len(records), np.bool_)
    keep[blank] = False
    return Records(records.data, records.starts[keep], records.ends[keep], records.lines[keep])
