"""Shoppers walk through the process; what they do becomes rows in the order in which a log would receive them.

Time goes in rounds of three hours, and memory holds one round. In each round a shopper has at most one session, which
begins in the round's first half (each shopper's rounds are shifted by an own phase, so that the whole has a smooth
daily rhythm) and lasts at most 45 minutes. So a shopper's sessions are more than 30 minutes apart and the events of a
session less than 6: every session gap between these finds the same sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from recsys.errors import SettingsError
from recsys.generator.process import (
    CART,
    CONTINUE,
    DAY,
    HOUR,
    LOOK_AGAIN,
    PURCHASE,
    TO_CART,
    TO_PURCHASE,
    VIEW,
    Parameters,
    Process,
)

ROUND = 3 * HOUR
LONGEST_SESSION = 45 * 60_000
LONGEST_PAUSE = 5 * 60_000
LONGEST_DELAY = 2 * HOUR
FAULTS = ("", "no user", "no item", "negative time", "time in microseconds", "time is text", "cut off")
_LOOKS = 1 / (1 - LOOK_AGAIN)
EVENTS_PER_SESSION = _LOOKS * (1 + TO_CART * (1 + TO_PURCHASE)) / (1 - CONTINUE)
CROWDED = 0.6  # largest share of all shoppers that a round's sessions may need


@dataclass(frozen=True)
class Rows:
    """Rows of a click log in columns ``[rows]``.

    ``number`` tells events apart (duplicates and broken copies share it), ``fault`` is an index into :data:`FAULTS`,
    ``arrival`` the time (epoch milliseconds) by which the log is ordered.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.int64]
    type: NDArray[np.int64]
    number: NDArray[np.int64]
    fault: NDArray[np.int64]
    arrival: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Rows:
        """The rows that an index, a mask or a slice selects."""
        return Rows(*(getattr(self, column.name)[which] for column in fields(self)))

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        """All rows of ``parts``, in order."""
        return Rows(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Rows)))


_NO_ROWS = Rows(*(np.zeros(0, np.int64) for _ in fields(Rows)))


def generate(process: Process) -> Iterator[Rows]:
    """All rows of shoppers, in chunks, ordered by arrival.

    Raises:
        SettingsError: too few users for so many events in so few days.
    """
    parameters = process.parameters
    random = np.random.default_rng([parameters.seed, 1])
    cumulative = np.cumsum(_quotas(parameters, parameters.shopping))
    shopping = _Shopping(process, random)
    pending: list[Rows] = []
    made = 0

    def share(total: int, before: int, after: int) -> int:
        return total * after // int(cumulative[-1]) - total * before // int(cumulative[-1])

    for number, due in enumerate(cumulative):
        rows = shopping.round(number, int(due) - made, made)
        before, made = made, made + len(rows)
        if made == before:
            continue
        rows = _delay(rows, share(parameters.late, before, made), random)
        rows = Rows.join(
            [
                rows,
                _duplicates(rows, share(parameters.duplicates, before, made), random),
                _broken(rows, share(parameters.bad, before, made), random),
            ]
        )
        pending = [Rows.join([*pending, rows])]
        order = np.lexsort((pending[0].fault, pending[0].number, pending[0].arrival))
        arrived = pending[0].take(order)
        cut = np.searchsorted(arrived.arrival, shopping.horizon(number + 1))
        yield arrived.take(slice(0, int(cut)))
        pending = [arrived.take(slice(int(cut), None))]
    if made < cumulative[-1]:
        raise _too_few_users(parameters)
    yield from pending


def rhythm(times: NDArray[np.int64] | NDArray[np.float64], start: int, days: int) -> NDArray[np.float64]:
    """How busy the shop is at each time (epoch milliseconds): most at 20:00, least at 4:00 UTC; 0 outside the log."""
    hour = (times % DAY) / HOUR
    busy = 1 + 0.75 * np.cos((hour - 20) * 2 * np.pi / 24) + 0.2 * np.cos((hour - 12.5) * 4 * np.pi / 24)
    within: NDArray[np.bool_] = (times >= start) & (times < start + days * DAY)
    return np.where(within, busy, 0.0)


class _Shopping:
    """Draws the sessions of one round after another."""

    def __init__(self, process: Process, random: np.random.Generator) -> None:
        self.process, self.random = process, random
        parameters = process.parameters
        self.start, self.days = parameters.start_ms, parameters.days
        self.phase = random.integers(ROUND, size=parameters.users)
        self.activity = np.exp(random.normal(0, 1, parameters.users))

    def horizon(self, number: int) -> int:
        """No session of round ``number`` or later begins before this time."""
        return self.start + (number - 1) * ROUND

    def round(self, number: int, events: int, first_number: int) -> Rows:
        """``events`` good rows of the sessions of one round, fewer if shoppers do not suffice, ordered by time."""
        begin = self.horizon(number) + self.phase + self.random.integers(ROUND // 2, size=len(self.phase))
        chance = self.activity * rhythm(begin, self.start, self.days)
        # The largest of log weight + Gumbel noise are a weighted draw without replacement.
        with np.errstate(divide="ignore"):
            keys = np.log(chance) + self.random.gumbel(size=len(chance))
        shoppers = np.argsort(-keys, kind="stable")[: np.count_nonzero(chance)]
        parts: list[Rows] = []
        used = have = 0
        while have < events and used < len(shoppers):
            wanted = (events - have) / EVENTS_PER_SESSION
            some = shoppers[used : used + int(wanted + 3 * np.sqrt(wanted)) + 1]
            parts.append(self._sessions(some, begin[some]))
            used, have = used + len(some), have + len(parts[-1])
        rows = Rows.join(parts) if parts else _NO_ROWS
        rows = rows.take(slice(0, events))
        rows = rows.take(np.lexsort((rows.user, rows.time)))
        return replace(rows, number=first_number + np.arange(len(rows)))

    def _sessions(self, users: NDArray[np.int64], begin: NDArray[np.int64]) -> Rows:
        """One session for each user, session after session."""
        process, random = self.process, self.random
        walker, time = np.arange(len(users)), begin.copy()
        item, kind = process.explore(time, random), np.zeros(len(users), np.int64)
        columns: list[tuple[NDArray[np.int64], ...]] = []
        while len(walker):
            columns.append((walker, item, time, kind))
            kind = _next_kind(kind, random.random(len(walker)))
            stays = kind >= 0
            goes_on = stays | (random.random(len(walker)) < CONTINUE)
            pause = np.exp(random.normal(np.where(stays, 9.2, 10.4), 0.8))  # medians 10 s and 33 s
            later = time + np.clip(pause, 1000, LONGEST_PAUSE).astype(np.int64)
            goes_on &= later <= begin[walker] + LONGEST_SESSION
            moves = np.flatnonzero(goes_on & ~stays)
            item = item.copy()
            item[moves] = process.next(item[moves], time[moves], random)
            kind = np.where(stays, kind, VIEW)
            walker, item, time, kind = walker[goes_on], item[goes_on], later[goes_on], kind[goes_on]
        walker, item, time, kind = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.argsort(walker, kind="stable")
        walker, item, time, kind = walker[order], item[order], time[order], kind[order]
        nothing = np.zeros(len(walker), np.int64)
        return Rows(users[walker], item, time, kind, nothing, nothing, time)


def _next_kind(kind: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """What each shopper does next on the same item; -1 for leaving it."""
    after_view = np.where(draw < TO_CART, CART, np.where(draw < TO_CART + LOOK_AGAIN, VIEW, -1))
    after_cart = np.where(draw < TO_PURCHASE, PURCHASE, -1)
    chosen: NDArray[np.int64] = np.where(kind == VIEW, after_view, np.where(kind == CART, after_cart, -1))
    return chosen


def _quotas(parameters: Parameters, events: int) -> NDArray[np.int64]:
    """Good rows of each round, by the rhythm of the day."""
    rounds = parameters.days * DAY // ROUND + 1
    grid = np.linspace(0, 1.5 * ROUND, 37)  # a session begins up to one and a half rounds after the round does
    weight = np.interp(grid, [0, ROUND / 2, ROUND, 1.5 * ROUND], [0, 1, 1, 0])
    times = parameters.start_ms + (np.arange(rounds)[:, None] - 1) * ROUND + grid
    busy = (rhythm(times, parameters.start_ms, parameters.days) * weight).sum(axis=1)
    due = np.round(np.cumsum(busy) / busy.sum() * events).astype(np.int64)
    quotas: NDArray[np.int64] = np.diff(due, prepend=0)
    if quotas.max() / EVENTS_PER_SESSION > CROWDED * parameters.users:
        raise _too_few_users(parameters)
    return quotas


def _too_few_users(parameters: Parameters) -> SettingsError:
    enough = round(parameters.events / parameters.days / 15) + 10
    return SettingsError(
        f"{parameters.users} users are too few for {parameters.events} events in {parameters.days} days: "
        f"take about {enough} users or more, or more days"
    )


def _delay(rows: Rows, count: int, random: np.random.Generator) -> Rows:
    arrival = rows.time.copy()
    which = random.permutation(len(rows))[:count]
    delay = np.clip(random.exponential(10 * 60_000, len(which)), 60_000, LONGEST_DELAY)
    arrival[which] += delay.astype(np.int64)
    return replace(rows, arrival=arrival)


def _duplicates(rows: Rows, count: int, random: np.random.Generator) -> Rows:
    copies = rows.take(random.integers(len(rows), size=count))
    return replace(copies, arrival=copies.arrival + random.exponential(20_000, count).astype(np.int64))


def _broken(rows: Rows, count: int, random: np.random.Generator) -> Rows:
    """Broken copies, so that no good row is lost and the process stays the true one."""
    copies = rows.take(random.integers(len(rows), size=count))
    return replace(copies, fault=random.integers(1, len(FAULTS), size=count))
