"""From files to decoded clicks: the first step of the pipeline, and its dead letters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pipelines.boundaries import HOUR_MS
from pipelines.pieces import Piece, PieceWriter, partition
from pipelines.places import Place
from pipelines.tally import Tally, report, total
from pipelines.threads import in_threads
from recsys.columns import Clock, EventColumns, with_pseudonyms
from recsys.errors import InputError
from recsys.logs.blocks import Block, Refused, decode_block, read_blocks
from recsys.logs.letters import Letters, read_mended, to_json
from recsys.logs.sources import Source
from recsys.pseudonyms import Pseudonyms

PROGRESS_SECONDS = 0.5

Decoded = tuple[int, list[tuple[int, bytes]], list[Refused], Tally]


def read_clicks(
    numbered: tuple[int, Source],
    clock: Clock,
    letters: Mapping[str, Letters],
    work: Place,
    step: str,
    shards: int,
    threads: int,
    pseudonyms: Pseudonyms | None,
) -> Iterator[tuple[int, Piece]]:
    """The clicks of a file as pieces for the shards; dead letters go to ``work/dead``.

    Lines of which there are ``letters``, by file, are read from there. User ids become ``pseudonyms``, where there are
    any and the file does not have them already.
    A file that breaks off is reported as damaged.
    """
    number, source = numbered

    def decode(part: tuple[Block, Clock]) -> Decoded:
        block, clock = part
        events, refused = decode_block(block, clock)
        if events is not None and pseudonyms is not None and source.key is None:
            events = with_pseudonyms(events, pseudonyms)
        return block.position, [] if events is None else partition(events, shards), refused, _count(events, refused)

    tallies = []
    clicks, told = 0, 0.0
    with PieceWriter(work / "pieces", number) as writer:
        try:
            if source.name in letters:
                blocks = read_mended(source, clock, letters[source.name])
            else:
                blocks = ((block, clock) for block in read_blocks(source))
            decoded = in_threads(decode, blocks, threads)
            for index, (position, parts, refused, tally) in enumerate(decoded):
                yield from ((shard, writer.write(index, data)) for shard, data in parts)
                tallies.append(tally)
                clicks += tally.counts["read"]
                if refused:
                    lines = b"".join(to_json(source.name, item, nameless=pseudonyms is not None) for item in refused)
                    (work / "dead" / f"{number:06}-{index:08}.jsonl").write(lines)
                if time.monotonic() - told > PROGRESS_SECONDS:
                    (work / "progress" / f"{number:06}").write(f"{position} {clicks}".encode())
                    told = time.monotonic()
        except InputError as error:
            tallies.append(Tally(damaged=[f"{error} (after {clicks:,} clicks)"]))
    report(work, step, f"file-{number:06}", total(tallies))


def _count(events: EventColumns | None, refused: list[Refused]) -> Tally:
    counts = Counter(f"rejected/{item.reason}" for item in refused)
    accepted = 0 if events is None else len(events)
    counts["read"] = accepted + len(refused)
    return total([Tally(counts), count_times(np.zeros(0, np.int64) if events is None else events.times)])


def count_times(times: NDArray[np.int64]) -> Tally:
    """The first and the last of the clicks' times, and how many clicks each hour has: what the time split rests on."""
    if not len(times):
        return Tally()
    hours = np.bincount(times // HOUR_MS)  # a hundred years have a million hours
    counts = Counter({f"hour/{hour}": int(hours[hour]) for hour in np.flatnonzero(hours).tolist()})
    return Tally(counts, int(times.min()), int(times.max()))
