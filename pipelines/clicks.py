"""From files to decoded clicks: the first step of the pipeline, and its dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from pipelines.boundaries import HOUR_MS
from pipelines.shards import write_whole
from pipelines.tally import Tally
from recsys.columns import Clock, EventColumns
from recsys.errors import InputError
from recsys.logs.blocks import Refused, decode_block, read_blocks
from recsys.logs.records import KEPT_BYTES
from recsys.logs.sources import Source


def read_clicks(source: Source, number: int, clock: Clock, work: Path) -> Iterator[tuple[EventColumns | None, Tally]]:
    """The clicks of a file, block by block, with what was counted; dead letters go to ``work/dead``.

    A file that breaks off ends with a tally that says so.
    """
    clicks = 0
    try:
        for index, block in enumerate(read_blocks(source)):
            events, refused = decode_block(block, clock)
            tally = _count(events, refused)
            clicks += tally.counts["read"]
            if refused:
                lines = b"".join(_letter(source.name, item) for item in refused)
                write_whole(work / "dead" / f"{number:06}-{index:08}.jsonl", lines)
            write_whole(work / "progress" / f"{number:06}", f"{block.position} {clicks}".encode())
            yield events, tally
    except InputError as error:
        yield None, Tally(damaged=[f"{error} (after {clicks:,} clicks)"])


def _letter(file: str, item: Refused) -> bytes:
    text = item.text[:KEPT_BYTES].decode(errors="backslashreplace").rstrip("\r")
    letter = {"file": file, "line": item.line, "reason": item.reason, "detail": item.detail, "text": text}
    return orjson.dumps(letter) + b"\n"


def _count(events: EventColumns | None, refused: list[Refused]) -> Tally:
    counts = Counter(f"rejected/{item.reason}" for item in refused)
    accepted = 0 if events is None else len(events)
    counts["read"] = accepted + len(refused)
    if events is None or not accepted:
        return Tally(counts)
    hours, clicks = np.unique(events.times // HOUR_MS, return_counts=True)
    counts.update({f"hour/{hour}": n for hour, n in zip(hours.tolist(), clicks.tolist(), strict=True)})
    return Tally(counts, int(events.times.min()), int(events.times.max()))
