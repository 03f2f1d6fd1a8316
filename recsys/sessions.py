"""What a session is: the one rule by which batch and stream cut a user's clicks.

A user's events stand in the order of (time, item row, type, event id). A gap longer than ``gap_ms`` starts a new
session. An event counts once: it is a duplicate where an event before it that counts has the same user, item, time and
type, or the same user and event id. With ``collapse_repeats``, an
event on the same item as the event directly before it in its session adds nothing to the sequence, but its time still
counts for the gap.

The two predicates below take scalars or arrays: the stream calls them on one event, :func:`arrange` on whole logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_ID = 0  # the event id hash of an event that carries no id


@dataclass(frozen=True, slots=True)
class SessionRule:
    """Where sessions end (``gap_ms``, milliseconds) and whether direct repeats collapse."""

    gap_ms: int = 30 * 60 * 1000
    collapse_repeats: bool = True


def starts_session(previous_ms: Any, time_ms: Any, gap_ms: int) -> Any:
    """Whether an event at ``time_ms`` opens a new session after one at ``previous_ms`` (scalars or arrays)."""
    return time_ms - previous_ms > gap_ms


def is_repeat(previous_item: Any, item: Any) -> Any:
    """Whether an event on ``item`` directly after one on ``previous_item`` collapses (scalars or arrays)."""
    return item == previous_item


@dataclass(frozen=True)
class Sessions:
    """Many sessions in columns.

    Attributes:
        items: int32 ``[events]``, vocabulary rows.
        times: int64 ``[events]``, epoch milliseconds.
        types: int8 ``[events]``, event type codes.
        starts: int64 ``[sessions + 1]``; session ``i`` is ``items[starts[i]:starts[i + 1]]``.
    """

    items: NDArray[np.int32]
    times: NDArray[np.int64]
    types: NDArray[np.int8]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        """The items of each session in turn."""
        for start, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            yield self.items[start:end]

    @property
    def events(self) -> int:
        """How many events all sessions hold together."""
        return len(self.items)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 ``[sessions]``: events in each session."""
        return np.diff(self.starts)

    @property
    def owner(self) -> NDArray[np.int64]:
        """int64 ``[events]``: the session each event belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def keep_events(self, keep: NDArray[np.bool_]) -> Sessions:
        """The sessions with only the events where ``keep`` holds; sessions left empty remain, with length 0."""
        starts = np.concatenate(([0], np.cumsum(keep)))[self.starts]
        return Sessions(self.items[keep], self.times[keep], self.types[keep], starts.astype(np.int64))

    def take(self, rows: NDArray[np.int64]) -> Sessions:
        """The sessions of these numbers, in this order."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        events = np.repeat(self.starts[rows] - starts[:-1], lengths)
        events += np.arange(len(events))
        return Sessions(self.items[events], self.times[events], self.types[events], starts)

    def keep_sessions(self, keep: NDArray[np.bool_]) -> Sessions:
        """Only the sessions where ``keep`` holds."""
        return self.take(np.flatnonzero(keep))


@dataclass(frozen=True)
class Assembled:
    """What :func:`join` made: the sessions, whose they are, and what it left out.

    ``users`` is int64 ``[sessions]``, the user code of each session; ``rows`` is int64 ``[events]``, where each
    event of the sessions stood in the columns. Events in equals ``sessions.events + duplicates + repeats``.
    """

    sessions: Sessions
    users: NDArray[np.int64]
    rows: NDArray[np.int64]
    duplicates: int
    repeats: int


def assemble(
    users: NDArray[np.int64],
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    types: NDArray[np.int8],
    event_ids: NDArray[np.uint64] | None,
    rule: SessionRule,
    rank: Callable[[NDArray[np.int32]], NDArray[np.int32]] | None = None,
) -> Assembled:
    """Cut the clicks of many users, in any order, into sessions.

    Takes what :func:`arrange` takes. Sessions come out ordered by (user, time).
    """
    order, fates = arrange(users, items, times, types, event_ids, rule, rank)
    made = join(users[order], items[order], times[order], types[order], fates)
    return replace(made, rows=order[made.rows])


OPENS, GOES_ON, REPEAT, DUPLICATE = range(4)  # what becomes of a click: it opens a session, goes on with it, or neither


def arrange(
    users: NDArray[np.int64],
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    types: NDArray[np.int8],
    event_ids: NDArray[np.uint64] | None,
    rule: SessionRule,
    rank: Callable[[NDArray[np.int32]], NDArray[np.int32]] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """The order of the clicks of many users by the rule, and what becomes of each click in that order.

    All columns have shape ``[events]``. Item codes must ascend with the ids they stand for, or else ``rank`` gives
    numbers that do for a few codes; ``event_ids`` are hashes, :data:`NO_ID` where an event carries none.
    """
    order = _order(users, items, times, types, event_ids, rank)
    users, items, times, types = users[order], items[order], times[order], types[order]
    duplicate = _duplicates(users, items, times, types, None if event_ids is None else event_ids[order])
    if duplicate.any():
        users, items, times = users[~duplicate], items[~duplicate], times[~duplicate]

    opens = np.ones(len(items), np.bool_)
    opens[1:] = (users[1:] != users[:-1]) | starts_session(times[:-1], times[1:], rule.gap_ms)
    counted = np.full(len(items), GOES_ON, np.int8)
    if rule.collapse_repeats:
        counted[1:][is_repeat(items[:-1], items[1:])] = REPEAT
    counted[opens] = OPENS
    fates = np.full(len(order), DUPLICATE, np.int8)
    fates[~duplicate] = counted
    return order, fates


def join(
    users: NDArray[np.int64],
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    types: NDArray[np.int8],
    fates: NDArray[np.int8],
) -> Assembled:
    """The sessions of clicks that stand in the order, and have the fates, that :func:`arrange` says."""
    counts = fates <= GOES_ON
    starts = np.append(np.flatnonzero(fates[counts] == OPENS), np.count_nonzero(counts)).astype(np.int64)
    return Assembled(
        Sessions(items[counts], times[counts], types[counts], starts),
        users[fates == OPENS],
        np.flatnonzero(counts),
        int(np.count_nonzero(fates == DUPLICATE)),
        int(np.count_nonzero(fates == REPEAT)),
    )


def _order(
    users: NDArray[np.int64],
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    types: NDArray[np.int8],
    event_ids: NDArray[np.uint64] | None,
    rank: Callable[[NDArray[np.int32]], NDArray[np.int32]] | None,
) -> NDArray[np.int64]:
    """The order of (user, time, item, type, event id): by the first two, and where these are equal by the rest."""
    order = np.arange(len(users))
    if (times[1:] < times[:-1]).any():
        order = _by_digits(times, order)
    order = _by_digits(users, order)
    opens = np.ones(len(order) + 1, np.bool_)
    opens[1:-1] = (np.diff(users[order]) != 0) | (np.diff(times[order]) != 0)
    tied = np.flatnonzero(~(opens[1:] & opens[:-1]))
    rows = order[tied]
    ids = () if event_ids is None else (event_ids[rows],)
    ranks = items[rows] if rank is None else rank(items[rows])
    order[tied] = rows[np.lexsort((*ids, types[rows], ranks, np.cumsum(opens)[tied]))]
    return order


def _by_digits(column: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """``order``, sorted by the column and otherwise as it was.

    Digits of 16 bits, the last first: NumPy sorts these by counting, several times faster than it compares words.
    """
    span = (column - column.min(initial=np.iinfo(np.int64).max)).astype(np.uint64)
    for shift in range(0, int(span.max(initial=0)).bit_length(), 16):
        digits = (span >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digits[order], kind="stable")]
    return order


def _duplicates(
    users: NDArray[np.int64],
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    types: NDArray[np.int8],
    event_ids: NDArray[np.uint64] | None,
) -> NDArray[np.bool_]:
    """Where an event of the sorted columns is one that counts already."""
    clicks = (users, items, times, types)
    same_click = _equals_previous(*clicks)
    if event_ids is None or not event_ids.any():
        return same_click
    same_id = _repeated_ids(users, event_ids)
    # A click whose twin was skipped for its id, or an id whose event was skipped as a twin, may count after all. For
    # that a user must have both kinds of duplicates (twins that share an id are alike), so the walk below is short.
    alike = _equals_previous(*clicks, event_ids)
    mixed = np.intersect1d(users[same_click & ~alike], users[same_id & ~alike])
    duplicate = same_click | same_id
    last, held = -1, set[tuple[int, int]]()
    for row in np.flatnonzero(np.isin(users, mixed)).tolist():
        owned_id = (int(users[row]), int(event_ids[row]))
        same = last >= 0 and all(column[row] == column[last] for column in clicks)
        duplicate[row] = same or owned_id in held
        if not duplicate[row]:
            last = row
            if owned_id[1] != NO_ID:
                held.add(owned_id)
    return duplicate


def _equals_previous(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a row of sorted columns equals the row before it."""
    same = np.zeros(len(columns[0]), np.bool_)
    same[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return same


def _repeated_ids(users: NDArray[np.int64], event_ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Where a user's event id has stood on an earlier event (events in time order)."""
    order = np.lexsort((np.arange(len(users)), event_ids, users))
    repeated = np.zeros(len(users), np.bool_)
    repeated[order] = _equals_previous(users[order], event_ids[order])
    repeated &= event_ids != NO_ID
    return repeated
