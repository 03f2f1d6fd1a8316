"""Counts of items, added up over shards: a range of item codes an element, and only codes that occur."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.places import Place

RANGE = 1 << 18  # item codes that one element speaks of

Counts = NDArray[np.int64]
RangeCounts = tuple[tuple[str, int], bytes]  # (name, number of the range), int64 [2, codes]: places in it and counts


def counts_of(name: str, codes: NDArray[np.int32], counts: Counts) -> Iterator[RangeCounts]:
    """How often each of ``codes``, all different, occurs; none are left out but those that do not."""
    found = np.flatnonzero(counts)
    codes, counts = codes[found], counts[found]
    ranges = codes // RANGE
    for number in np.unique(ranges).tolist():
        inside = ranges == number
        yield (name, number), np.stack((codes[inside] % RANGE, counts[inside])).astype(np.int64).tobytes()


def add_counts(parts: Iterable[bytes]) -> Counts:
    """The sum of what :func:`counts_of` gave for one range: int64 ``[RANGE]``."""
    total = np.zeros(RANGE, np.int64)
    for part in parts:
        places, counts = np.frombuffer(part, np.int64).reshape(2, -1)
        total[places] += counts
    return total


def write_counts(summed: tuple[tuple[str, int], Iterable[bytes]], directory: Place) -> None:
    """Add up and write one range, for :func:`read_counts`."""
    (name, number), parts = summed
    (directory / name / f"{number:05}").write(add_counts(parts).tobytes())


def read_counts(directory: Place, name: str, codes: int) -> Counts:
    """The counts called ``name`` of all item codes: int64 ``[codes]``."""
    counts = np.zeros(codes, np.int64)
    for place in (directory / name).children():
        first = int(place.name) * RANGE
        part = np.frombuffer(place.read(), np.int64)[: codes - first]
        counts[first : first + len(part)] = part
    return counts
