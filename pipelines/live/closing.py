"""When a session can no longer change, it is closed: the rule of :mod:`recsys.sessions`, as far as time is known.

Time is known up to ``until_ms`` where no click before it is waited for any more. What one call closes another one never
opens: a click that comes before the time up to which its shard was closed is late.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines import shards
from pipelines.live.arrivals import CLICKS
from recsys.columns import hash_event_ids
from recsys.hashing import hash_texts, scramble
from recsys.sessions import NO_ID, SessionRule, starts_session

_CLAIMS = pa.schema([("claim", pa.uint64()), ("time", pa.int64())])


@dataclass(frozen=True)
class Standing:
    """What a shard remembers between two closings.

    Attributes:
        closed_ms: clicks before this (epoch milliseconds) are late.
        clicks: as :data:`pipelines.live.arrivals.CLICKS`, of sessions that may still grow.
        claims: a hash of user and event id, and the time of the click that bears it, for closed sessions.
    """

    closed_ms: int = 0
    clicks: pa.Table = field(default_factory=CLICKS.empty_table)
    claims: pa.Table = field(default_factory=_CLAIMS.empty_table)


@dataclass(frozen=True)
class Closing:
    """What one closing made of a shard; clicks are as :data:`pipelines.live.arrivals.CLICKS`.

    Attributes:
        clicks: those of the closed sessions, session by session and in their order, direct repeats among them.
        starts: int64 ``[clicks]``, when the session of each began.
        ends: int64 ``[clicks]``, when it ended.
        sessions: how many these are.
        late: clicks that came too late.
        duplicates: how many clicks count already.
        standing: what the shard remembers from now on.
        next_ms: nothing else can be closed until this time is known; none where nothing is open.
    """

    clicks: pa.Table
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    sessions: int
    late: pa.Table
    duplicates: int
    standing: Standing
    next_ms: int | None


def close(standing: Standing, arrived: pa.Table, until_ms: int, gap_ms: int, remember_ms: int) -> Closing:
    """Close the sessions that no click at or after ``until_ms`` can reach.

    An event id that a closed session holds is known for ``remember_ms`` longer; direct repeats stay in, since whoever
    reads the sessions may want their types.
    """
    until_ms = max(until_ms, standing.closed_ms)
    too_late = pc.less(arrived["time"], standing.closed_ms)
    late, in_time = arrived.filter(too_late), arrived.filter(pc.invert(too_late))
    waiting = pa.concat_tables([standing.clicks, in_time])
    clicks = waiting.filter(pa.array(~np.isin(_claims(waiting), standing.claims["claim"].to_numpy())))

    cut = shards.cut(_for_cut(clicks), SessionRule(gap_ms, collapse_repeats=False))
    sessions = cut.made.sessions
    starts, ends = sessions.times[sessions.starts[:-1]], sessions.times[sessions.starts[1:] - 1]
    final = starts_session(ends, until_ms, gap_ms)
    in_final = final[sessions.owner]
    closed = clicks.take(pa.array(cut.made.rows[in_final]))
    still = clicks.filter(pa.array(_stay(clicks, cut.users.filter(pa.array(~final)), starts[~final], until_ms)))
    last = pc.max(still["time"]).as_py() if final.all() else int(ends[~final].min())
    return Closing(
        clicks=closed,
        starts=starts[sessions.owner][in_final],
        ends=ends[sessions.owner][in_final],
        sessions=int(np.count_nonzero(final)),
        late=late,
        duplicates=len(waiting) - len(closed) - len(still),
        standing=Standing(until_ms, still, _remember(standing.claims, closed, until_ms - remember_ms)),
        next_ms=None if last is None else last + gap_ms + 1,
    )


def _for_cut(clicks: pa.Table) -> pa.Table:
    """The columns by which clicks are cut."""
    ids = pa.array(_event_ids(clicks))
    return clicks.select(["user", "item", "time", "type"]).append_column("event_id", ids)


def _stay(clicks: pa.Table, users: pa.Array, starts: NDArray[np.int64], until_ms: int) -> NDArray[np.bool_]:
    """Which clicks stay: those since the first open session of their user began (``users`` and ``starts`` are those of
    all open ones, in order), or where nothing is open, those that time has not reached."""
    firsts, places = np.unique(users.dictionary_encode().indices.to_numpy(), return_index=True)
    found = pc.index_in(clicks["user"], value_set=users.take(pa.array(places)))
    since = np.append(starts[places], until_ms)[pc.fill_null(found, len(firsts)).to_numpy()]
    stay: NDArray[np.bool_] = clicks["time"].to_numpy() >= since
    return stay


def _remember(claims: pa.Table, closed: pa.Table, since_ms: int) -> pa.Table:
    """The claims of now, without those before ``since_ms``."""
    bearing = pa.array(_event_ids(closed) != NO_ID)
    new = pa.table({"claim": _claims(closed), "time": closed["time"]}, schema=_CLAIMS).filter(bearing)
    together = pa.concat_tables([claims, new])
    return together.filter(pc.greater_equal(together["time"], since_ms)).combine_chunks()


def _claims(clicks: pa.Table) -> NDArray[np.uint64]:
    """A hash of user and event id: uint64 ``[clicks]``; 0 where there is no event id."""
    ids = _event_ids(clicks)
    users = hash_texts(clicks["user"].combine_chunks())
    return np.where(ids == NO_ID, np.uint64(0), np.maximum(scramble(scramble(users) ^ ids), np.uint64(1)))


def _event_ids(clicks: pa.Table) -> NDArray[np.uint64]:
    ids = clicks["event_id"].combine_chunks()
    return hash_event_ids(ids)
