"""Sessions are divided by time, and what each part is made of is counted and written."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.counts import RangeCounts, counts_of
from pipelines.filters import settled
from pipelines.pieces import from_bytes
from pipelines.places import Place
from pipelines.tally import Tally, report
from recsys.dataset import MIN_EVENTS, SPLITS, session_file
from recsys.fingerprint import fingerprint
from recsys.manifest import Split
from recsys.sessions import Sessions
from recsys.settings import SessionSettings

NOWHERE = -1  # the part of a session that is in none


def place(sessions: Sessions, split: Split) -> tuple[Sessions, NDArray[np.int8], Tally]:
    """The part of each session, by when it begins, and what fell to the cuts.

    Sessions are cut at the test boundary; the part is a place in :data:`recsys.dataset.SPLITS`, or :data:`NOWHERE` for
    those that are too short then.
    """
    never = np.iinfo(np.int64).max
    test_from = never if split.test_from is None else split.test_from
    validation_from = test_from if split.validation_from is None else split.validation_from
    begins, ends = sessions.times[sessions.starts[:-1]], sessions.times[sessions.starts[1:] - 1]
    events = sessions.events
    crossing = (begins < test_from) & (ends >= test_from)
    if crossing.any():
        sessions = sessions.keep_events(~np.repeat(crossing, sessions.lengths) | (sessions.times < test_from))
    parts = np.add(begins >= validation_from, begins >= test_from, dtype=np.int8)
    short = sessions.lengths < MIN_EVENTS
    parts[short] = NOWHERE
    counts = {"cut/after_test_boundary": events - sessions.events, "cut/too_short": int(sessions.lengths[short].sum())}
    return sessions, parts, Tally(Counter(counts))


def count_items(shard: Place, work: Place, step: str, split: Split, settings: SessionSettings) -> Iterator[RangeCounts]:
    """Count the items of training and validation sessions."""
    sessions, _, codes = settled(shard, work, settings)
    sessions, parts, _ = place(sessions, split)
    for part, name in enumerate(SPLITS[:2]):
        items = sessions.items[np.repeat(parts == part, sessions.lengths)]
        yield from counts_of(name, codes, np.bincount(items, minlength=len(codes)))
    report(work, step, shard.name, Tally())


def write_parts(
    shard: Place, work: Place, step: str, split: Split, settings: SessionSettings, directory: Place
) -> Iterator[RangeCounts]:
    """Write the sessions of each part into ``directory``, and count the items of test sessions by vocabulary row.

    ``work/rows`` has the vocabulary row of each item code.
    """
    name = shard.name
    sessions, users, codes = settled(shard, work, settings)
    rows = np.frombuffer((work / "rows").read(), np.int32)[codes]
    types = _type_codes(work, name)
    sessions, parts, tally = place(sessions, split)
    for number, part in enumerate(SPLITS):
        chosen = parts == number
        coded, owners = sessions.keep_sessions(chosen), users.filter(pa.array(chosen))
        written = Sessions(rows[coded.items], coded.times, types[coded.types], coded.starts)
        if part == "test":
            known = written.items >= 0
            tally.counts["cut/unknown_item"] += int(np.count_nonzero(~known))
            written = written.keep_events(known)
            long = written.lengths >= MIN_EVENTS
            tally.counts["cut/too_short"] += int(written.lengths[~long].sum())
            written, owners = written.keep_sessions(long), owners.filter(pa.array(long))
            yield from counts_of(part, *np.unique(written.items, return_counts=True))
        if len(written):
            data = session_file(written, owners)
            (directory / part / f"{name}.parquet").write(data)
            tally.files[f"{part}/{name}.parquet"] = len(written), hashlib.sha256(data).hexdigest()
        tally.counts[f"events/{part}"] += written.events
        tally.counts[f"sessions/{part}"] += len(written)
        tally.fingerprints[part] = fingerprint(written, owners)
    report(work, step, name, tally)


def _type_codes(work: Place, shard: str) -> NDArray[np.int8]:
    """The code of each event type of a shard among those of the log."""
    own, of_log = (from_bytes(place.read())["id"] for place in (work / "types" / shard, work / "types.arrow"))
    codes: NDArray[np.int8] = pc.index_in(own, of_log).to_numpy().astype(np.int8)
    return codes
