"""From files to decoded clicks: the first step of the pipeline, and its dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipelines.boundaries import HOUR_MS
from pipelines.shards import write_whole
from pipelines.tally import Tally
from recsys.columns import Clock, EventColumns, decode_columns
from recsys.events import MAX_EVENT_BYTES
from recsys.logs.blocks import Block, read_blocks
from recsys.logs.parsed import Parsed
from recsys.logs.records import KEPT_BYTES, Oversized
from recsys.logs.sources import Source


def read_clicks(source: Source, number: int, clock: Clock, work: Path) -> Iterator[tuple[EventColumns | None, Tally]]:
    """The clicks of a file, block by block, with what was counted; dead letters go to ``work/dead``.

    A file that breaks off ends with a tally that says so.
    """
    clicks, rows = 0, 0
    try:
        for index, block in enumerate(read_blocks(source)):
            events, letters = _decode(block, clock, rows)
            if isinstance(block.parsed, Parsed):
                rows += len(block.parsed.records)
            tally = _count(events, letters)
            clicks += tally.counts["read"]
            if letters:
                lines = [orjson.dumps({"file": source.name, **letter}) for letter in letters]
                write_whole(work / "dead" / f"{number:06}-{index:08}.jsonl", b"\n".join(lines) + b"\n")
            write_whole(work / "progress" / f"{number:06}", f"{block.position} {clicks}".encode())
            yield events, tally
    except (OSError, pa.ArrowException) as error:
        yield None, Tally(damaged=[f"{source.name}: is damaged after {clicks} clicks: {error}"])


def _decode(block: Block, clock: Clock, rows_before: int) -> tuple[EventColumns | None, list[dict[str, Any]]]:
    """The events of a block and its dead letters, in the order of the file."""
    parsed, records = block.parsed, block.records
    if isinstance(parsed, Oversized):
        detail = f"has {parsed.size} bytes, at most {MAX_EVENT_BYTES} are allowed"
        return None, [_letter(parsed.line, "too_large", detail, parsed.head)]
    events, rejections = decode_columns(parsed.columns, parsed.fields_of, clock, parsed.doubtful)
    letters = []
    if records is None:
        for rejection in rejections:
            raw = orjson.dumps(parsed.fields_of(rejection.row), default=str)
            letters.append(_letter(rows_before + rejection.row + 1, rejection.error.code, str(rejection.error), raw))
        return events, letters
    found = [(item.record, item.reason, item.detail) for item in parsed.bad]
    found += [(int(parsed.records[item.row]), item.error.code, str(item.error)) for item in rejections]
    for record, reason, detail in sorted(found):
        letters.append(_letter(int(records.lines[record]), reason, detail, records[record]))
    return events, letters


def _letter(line: int, reason: str, detail: str, raw: bytes) -> dict[str, Any]:
    text = raw[:KEPT_BYTES].decode(errors="backslashreplace").rstrip("\r")
    return {"line": line, "reason": reason, "detail": detail, "text": text}


def _count(events: EventColumns | None, letters: list[dict[str, Any]]) -> Tally:
    counts = Counter(f"rejected/{letter['reason']}" for letter in letters)
    accepted = 0 if events is None else len(events)
    counts["read"] = accepted + len(letters)
    if events is None or not accepted:
        return Tally(counts)
    hours, clicks = np.unique(events.times // HOUR_MS, return_counts=True)
    counts.update({f"hour/{hour}": n for hour, n in zip(hours.tolist(), clicks.tolist(), strict=True)})
    return Tally(counts, int(events.times.min()), int(events.times.max()))
