"""Users that click more than people do are left out whole, and listed.

Each shard says what its users do at their busiest, as a histogram; from the histograms of all shards the limits are
learnt. Clicks are those that count in sessions: an exact duplicate or a direct repeat makes nobody a bot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines import shards
from pipelines.counts import RangeCounts, counts_of
from pipelines.filters import first_filter
from pipelines.numbers import codes_of
from pipelines.pieces import from_bytes, to_bytes
from pipelines.places import Place
from pipelines.tally import Tally, report, total
from recsys.sessions import Sessions
from recsys.settings import SessionSettings

WINDOWS = {"minute": 60_000, "day": 86_400_000}  # of the clock, in UTC
USUAL, FAR = 0.95, 4  # a learnt limit lies so many times above what this share of the users stays below,
AT_LEAST = {"minute": 20, "day": 200}  # and never below what a busy person may do
HIGHEST = 10_000  # clicks in a window; histograms end here


@dataclass(frozen=True)
class Limits:
    """The most clicks that a person makes in any minute and on any day; ``None``: no limit."""

    minute: int | None
    day: int | None

    def exceeded(self, peaks: pa.Table) -> NDArray[np.bool_]:
        """Which users are bots: ``peaks`` is of :func:`peaks_of`."""
        over = np.zeros(len(peaks), np.bool_)
        for window, limit in vars(self).items():
            if limit is not None:
                over |= peaks[window].to_numpy() > limit
        return over


def limits_of(settings: SessionSettings, peaks: Tally) -> Limits:
    """The limits that are set, or learnt from what :func:`histograms` of all shards say."""
    chosen = {"minute": settings.bot_clicks_per_minute, "day": settings.bot_clicks_per_day}
    return Limits(**{window: _limit(limit, window, peaks) for window, limit in chosen.items()})


def _limit(chosen: int | Literal["learnt"], window: str, peaks: Tally) -> int | None:
    if chosen != "learnt":
        return chosen or None
    users = {int(clicks): n for clicks, n in peaks.group(f"peak/{window}").items()}
    ordered = sorted(users)
    below = np.cumsum([users[clicks] for clicks in ordered])
    usual = ordered[int(np.searchsorted(below, USUAL * below[-1]))]
    return max(FAR * usual, AT_LEAST[window])


def peaks_of(sessions: Sessions, users: pa.LargeStringArray) -> pa.Table:
    """A row for each user: all clicks, and the most in one ``minute`` and one ``day``; ``users`` is ``[sessions]``."""
    encoded = users.dictionary_encode()
    owner = encoded.indices.to_numpy()[sessions.owner]
    order = np.lexsort((sessions.times, owner))
    owner, times = owner[order], sessions.times[order]
    most = {window: _most(owner, times // length) for window, length in WINDOWS.items()}
    return pa.table({"user": encoded.dictionary, "clicks": np.bincount(owner), **most})


def _most(owner: NDArray[np.int32], window: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most clicks of each owner in one window; events are sorted by both, and every owner has some."""
    opens = np.flatnonzero((np.diff(owner, prepend=-1) != 0) | (np.diff(window, prepend=-1) != 0))
    clicks = np.diff(np.append(opens, len(owner)))
    firsts = np.flatnonzero(np.diff(owner[opens], prepend=-1))
    most: NDArray[np.int64] = np.maximum.reduceat(clicks, firsts)
    return most


def keep_peaks(work: Place, name: str, peaks: pa.Table) -> Counter[str]:
    """Keep the peaks of a shard for :func:`leave_out`; their histograms come back: how many users have which."""
    (work / "peaks" / name).write(to_bytes(peaks))
    counts: Counter[str] = Counter()
    for window in WINDOWS:
        users = np.bincount(np.minimum(peaks[window].to_numpy(), HIGHEST))
        counts.update({f"peak/{window}/{clicks}": int(users[clicks]) for clicks in np.flatnonzero(users).tolist()})
    return counts


def leave_out(shard: Place, work: Place, step: str, limits: Limits, settings: SessionSettings) -> Iterator[RangeCounts]:
    """Write a shard without its bots into ``work/people`` and the bots into ``work/bots``; what falls, by item.

    Then sessions fall that are too long or too short: a bot's were none of a person's.
    """
    name = shard.name
    sessions, users = shards.load(shard)
    codes = codes_of(work, name)
    peaks = from_bytes((work / "peaks" / name).read())
    bots = peaks.filter(pa.array(limits.exceeded(peaks)))
    theirs = pc.is_in(users, value_set=bots["user"]).to_numpy(zero_copy_only=False)
    stays, tally = ~theirs, Tally(Counter({"filtered/bot": int(sessions.lengths[theirs].sum())}))
    stays[stays], others = first_filter(sessions.keep_sessions(stays), settings)
    lost = sessions.keep_sessions(~stays)
    shards.save(work / "people" / name, sessions.keep_sessions(stays), users.filter(pa.array(stays)))
    if len(bots):
        (work / "bots" / name).write(b"".join(_line(row) for row in bots.to_pylist()))
    report(work, step, name, total([tally, others]))
    yield from counts_of("lost", codes, np.bincount(lost.items, minlength=len(codes)))


def _line(bot: dict[str, str | int]) -> bytes:
    named = {"user_id": bot["user"], "clicks": bot["clicks"]}
    return orjson.dumps(named | {f"most_in_a_{window}": bot[window] for window in WINDOWS}) + b"\n"


def settle(work: Place, listed: Path) -> None:
    """Delete the shards with bots, and list all bots in one file, by user id."""
    (work / "cut").delete()
    found = (lines.splitlines(keepends=True) for lines in (work / "bots").contents())
    with listed.open("wb") as file:
        file.writelines(sorted(chain.from_iterable(found)))
