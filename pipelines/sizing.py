"""How many shards users are spread over: so many that the memory of a run does not grow with the log."""

from __future__ import annotations

import math
from collections.abc import Sequence

from recsys.logs.sources import Source

SHARD_BYTES = 48 << 20  # of log, decompressed, that a shard holds if users are spread evenly: larger ones sort slower
WORKING_BYTES = 6  # of memory that a shard takes at its most for each byte of its log
BASE_BYTES = 512 << 20  # of memory that a process takes without any shard
CLICK_BYTES = 40  # of log, for a click that is kept
MIN_SHARDS, MAX_SHARDS = 8, 1 << 16
COMPRESSION = 6  # how much smaller a compressed log is, roughly


def shards_for(size: int, memory_mib: int, workers: int) -> int:
    """So many shards that ``workers`` of them fit the memory, for ``size`` bytes of log, if users are spread evenly."""
    return min(max(MIN_SHARDS, _needed(size, SHARD_BYTES, memory_mib, workers)), MAX_SHARDS)


def more_shards(before: int, size: int, memory_mib: int, workers: int) -> int:
    """As many as ``before`` if these suffice; else twice as many, or twice that, each with users of one of them.

    They suffice until they hold twice what is best, if the memory allows: to divide them is to write all clicks anew.
    """
    shards = before
    while shards < min(_needed(size, 2 * SHARD_BYTES, memory_mib, workers), MAX_SHARDS // 2):
        shards *= 2
    return shards


def _needed(size: int, best: int, memory_mib: int, workers: int) -> int:
    fitting = ((memory_mib << 20) - BASE_BYTES) // workers // WORKING_BYTES
    return math.ceil(size / min(fitting, best))


def bytes_of(sources: Sequence[Source]) -> int:
    """How much log there is, decompressed, roughly."""
    return sum(
        source.size * (COMPRESSION if source.compression or source.format in ("parquet", "avro") else 1)
        for source in sources
    )
