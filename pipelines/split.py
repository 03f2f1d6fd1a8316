"""Sessions are divided by time, and what each part is made of is counted and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.counts import RangeCounts, counts_of
from pipelines.filters import settled
from pipelines.pieces import from_bytes
from pipelines.tally import Tally, report
from recsys.dataset import MIN_EVENTS, fingerprint, write_sessions
from recsys.manifest import Split
from recsys.sessions import Sessions
from recsys.settings import SessionSettings

Part = tuple[Sessions, pa.Array]  # sessions and their users


def divide(sessions: Sessions, users: pa.Array, split: Split) -> tuple[dict[str, Part], Tally]:
    """The sessions of each part, by when they begin, each cut at the test boundary, and what fell to the cuts."""
    never = np.iinfo(np.int64).max
    test_from = never if split.test_from is None else split.test_from
    validation_from = test_from if split.validation_from is None else split.validation_from
    begins = sessions.times[sessions.starts[:-1]]
    ends = sessions.times[sessions.starts[1:] - 1]
    crossing = (begins < test_from) & (ends >= test_from)
    late = np.repeat(crossing, sessions.lengths) & (sessions.times >= test_from)
    before = sessions.keep_events(~late) if crossing.any() else sessions
    counts = Counter({"cut/after_test_boundary": int(np.count_nonzero(late))})
    chosen = {
        "train": begins < validation_from,
        "validation": (begins >= validation_from) & (begins < test_from),
        "test": begins >= test_from,
    }
    parts = {}
    for name, choice in chosen.items():
        long = choice & (before.lengths >= MIN_EVENTS)
        counts["cut/too_short"] += int(before.lengths[choice & ~long].sum())
        parts[name] = before.keep_sessions(long), users.filter(pa.array(long))
    return parts, Tally(counts)


def count_items(path: str, work: Path, step: str, split: Split, settings: SessionSettings) -> Iterator[RangeCounts]:
    """Count the items of training and validation sessions."""
    sessions, users, codes = settled(path, work, settings)
    parts, _ = divide(sessions, users, split)
    for name in ("train", "validation"):
        yield from counts_of(name, codes, np.bincount(parts[name][0].items, minlength=len(codes)))
    report(work, step, Path(path).name, Tally())


def write_parts(
    path: str, work: Path, step: str, split: Split, settings: SessionSettings, directory: Path
) -> Iterator[RangeCounts]:
    """Write the sessions of each part into ``directory``, and count the items of test sessions by vocabulary row.

    ``work/rows`` has the vocabulary row of each item code.
    """
    name = Path(path).name
    sessions, users, codes = settled(path, work, settings)
    rows = np.fromfile(work / "rows", np.int32)[codes]
    types = _type_codes(work, name)
    parts, tally = divide(sessions, users, split)
    for part, (coded, owners) in parts.items():
        sessions, users = Sessions(rows[coded.items], coded.times, types[coded.types], coded.starts), owners
        if part == "test":
            known = sessions.items >= 0
            tally.counts["cut/unknown_item"] += int(np.count_nonzero(~known))
            sessions = sessions.keep_events(known)
            long = sessions.lengths >= MIN_EVENTS
            tally.counts["cut/too_short"] += int(sessions.lengths[~long].sum())
            sessions, users = sessions.keep_sessions(long), users.filter(pa.array(long))
            found, counts = np.unique(sessions.items, return_counts=True)
            yield from counts_of(part, found, counts)
        if len(sessions):
            write_sessions(directory / part / f"{name}.parquet", sessions, users)
        tally.counts[f"events/{part}"] += sessions.events
        tally.counts[f"sessions/{part}"] += len(sessions)
        tally.fingerprints[part] = fingerprint(sessions, users)
    report(work, step, name, tally)


def _type_codes(work: Path, shard: str) -> NDArray[np.int8]:
    """The code of each event type of a shard among those of the log."""
    own, of_log = (from_bytes(path.read_bytes())["id"] for path in (work / "types" / shard, work / "types.arrow"))
    codes: NDArray[np.int8] = pc.index_in(own, of_log).to_numpy().astype(np.int8)
    return codes
