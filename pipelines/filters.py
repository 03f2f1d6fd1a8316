"""Rare items and short sessions leave until nothing changes.

The session files stay as they were cut. What is known after each pass is which items are rare and since which pass;
from that a shard sees which sessions a pass touches, and counts only what these lose. Each pass costs a look at the
item of every click and little more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines import shards
from pipelines.counts import Counts, RangeCounts, counts_of
from pipelines.numbers import codes_of
from pipelines.places import Place
from pipelines.tally import Tally, report
from recsys.sessions import Sessions
from recsys.settings import SessionSettings

STAYS = np.iinfo(np.int32).max  # the pass in which an item leaves that never does

Passes = NDArray[np.int32]  # for each item code, the pass in which it leaves


def first_filter(sessions: Sessions, settings: SessionSettings) -> tuple[NDArray[np.bool_], Tally]:
    """Which sessions are neither too long nor too short, and the tally of those that are."""
    lengths = sessions.lengths
    long, short = lengths > settings.max_length, lengths < settings.min_length
    counts = Counter({"filtered/too_long": int(lengths[long].sum()), "filtered/too_short": int(lengths[short].sum())})
    return ~(long | short), Tally(counts)


def newly_rare(support: Counts, leaves: Passes, settings: SessionSettings) -> NDArray[np.bool_]:
    """Which items have become rare: bool ``[codes]``."""
    rare: NDArray[np.bool_] = (support > 0) & (support < settings.min_item_support) & (leaves == STAYS)
    return rare


def write_leaves(work: Place, leaves: Passes) -> None:
    """Let all workers know which items leave when."""
    (work / "leaves").write(leaves.tobytes())


def drop_rare(shard: Place, work: Place, step: str, number: int, settings: SessionSettings) -> Iterator[RangeCounts]:
    """Drop the items that leave in pass ``number``; what sessions lose that fall short by it, by item."""
    sessions, _ = shards.load(shard)
    codes = codes_of(work, shard.name)
    leaves = _read_leaves(work)[codes]
    dropped = np.flatnonzero((leaves == number)[sessions.items])
    touched = sessions.take(np.unique(np.searchsorted(sessions.starts, dropped, side="right") - 1))
    before = touched.keep_events(leaves[touched.items] >= number)
    before = before.keep_sessions(before.lengths >= settings.min_length)
    after = before.keep_events(leaves[before.items] > number)
    lost = after.keep_sessions(after.lengths < settings.min_length)
    counts = {"filtered/rare_item": before.events - after.events, "filtered/too_short": lost.events}
    report(work, step, shard.name, Tally(Counter(counts)))
    yield from counts_of("lost", codes, np.bincount(lost.items, minlength=len(codes)))


def settled(shard: Place, work: Place, settings: SessionSettings) -> tuple[Sessions, pa.Array, NDArray[np.int32]]:
    """The sessions of a shard when all passes are through, their users, and the code of each of the shard's items."""
    sessions, users = shards.load(shard)
    codes = codes_of(work, shard.name)
    stays = _read_leaves(work)[codes] == STAYS
    if not stays.all():
        sessions = sessions.keep_events(stays[sessions.items])
        long = sessions.lengths >= settings.min_length
        sessions, users = sessions.keep_sessions(long), users.filter(pa.array(long))
    return sessions, users, codes


def _read_leaves(work: Place) -> Passes:
    return np.frombuffer((work / "leaves").read(), np.int32)
