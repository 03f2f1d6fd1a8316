"""What the stream remembers of a user, and where a new click belongs in it.

A state carries the events of the user's current session (the newest ``recent_items`` of them), the hidden state after
them, and the position in the topic up to which clicks have been applied. :meth:`UserState.place` is the online form of
the session rule in :mod:`recsys.sessions`: placing a user's events one by one, in any order that the carried events can
mend, leaves the state that :func:`recsys.sessions.assemble` and a replay of the last session give.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.events import ClickEvent
from recsys.packing import FORMS, Numbers, Reader, array, column, digest, number, signed, unsigned
from recsys.position import BEGINNING, Position, Progress
from recsys.sessions import NO_ID, SessionRule, is_repeat, starts_session
from recsys.trail import trail_of
from recsys.vocabulary import UNKNOWN

OTHER_TYPE = 255  # code of an event type that the training log did not have
NEVER = -(1 << 62)  # the end of the session before a user's first

# So many bytes from its beginning tell a state from any other of the user: position and model stand there. The store's
# script compares them.
PREFIX = 64
_FULL_LIST, _COMPACT_LIST = 0xB0, 0xB1  # how a list begins


class Click(NamedTuple):
    """An event as the state keeps it. Compares by (time, row), the order of events in a session."""

    time: int
    row: int
    kind: int
    event_id: int

    @classmethod
    def of(cls, event: ClickEvent, row: int, kind: int) -> Click:
        """The event with its item's row and its type's code."""
        return cls(event.timestamp, row, kind, hash_id(event.event_id))

    @property
    def key(self) -> tuple[int, int, int]:
        """What orders events, and what two exact duplicates share."""
        return self[:3]


class Placed(Enum):
    """What became of an event."""

    APPLIED = "applied"
    REPEATED = "repeat"
    DUPLICATE = "duplicate"
    UNKNOWN_ITEM = "unknown_item"
    LATE = "late"


@dataclass
class UserState:
    """One user's state; ``hidden`` is float32 ``[width]``, the hidden state after the carried events.

    ``session_events`` counts the current session's events, carried or not; ``previous_end`` is the time of the last
    event of the session before (epoch milliseconds). A state does not carry the events of earlier sessions, so a
    duplicate of one of them is late, not a duplicate.
    """

    model: int
    hidden: NDArray[np.float32]
    progress: Progress = field(default_factory=Progress)
    recent: list[Click] = field(default_factory=list)
    session_events: int = 0
    previous_end: int = NEVER
    rebuild: bool = False
    pending: list[int] = field(default_factory=list)

    @property
    def position(self) -> Position:
        """Where the last event stood that was applied."""
        return self.progress.last

    def place(self, click: Click, rule: SessionRule, capacity: int) -> Placed:
        """Put a click where it belongs among the recent events.

        Afterwards ``pending`` holds the rows by which the hidden state must advance, from zeros where ``rebuild`` is
        set. The state is unchanged where the outcome is ``DUPLICATE`` or ``LATE``.
        """
        if self._holds(click):
            return Placed.DUPLICATE
        newest = self.recent[-1] if self.recent else None
        if newest is None or starts_session(newest.time, click.time, rule.gap_ms):
            self._open(click, newest)
        elif click.key > newest.key:
            self.recent.append(click)
            self.session_events += 1
            if rule.collapse_repeats and is_repeat(newest.row, click.row):
                self._trim(capacity)
                return Placed.UNKNOWN_ITEM if click.row == UNKNOWN else Placed.REPEATED
            if click.row != UNKNOWN:
                self.pending.append(click.row)
        elif self._mends(click, rule):
            self.recent.insert(bisect_left(self.recent, click.key, key=lambda event: event.key), click)
            self.session_events += 1
            self.start_over(rule)
        else:
            return Placed.LATE
        self._trim(capacity)
        return Placed.UNKNOWN_ITEM if click.row == UNKNOWN else Placed.APPLIED

    def leads_on(self, click: Click) -> bool:
        """Whether a click that was just placed is its session's newest and not its first."""
        return self.session_events > 1 and self.recent[-1] == click

    def start_over(self, rule: SessionRule) -> None:
        """Ask for the hidden state to be computed anew from the carried events."""
        self.rebuild = True
        self.pending = sequence(self.recent, rule)

    def translate(self, model: int, rows: NDArray[np.int32] | None, width: int, rule: SessionRule) -> None:
        """Carry the state over to another model: ``rows`` has the new row for each old one, None if that is lost."""
        if rows is None:
            self.recent, self.session_events = [], 0
        else:
            for place, click in enumerate(self.recent):
                if click.row != UNKNOWN:
                    self.recent[place] = click._replace(row=int(rows[click.row]))
        self.model = model
        self.hidden = np.zeros(width, np.float32)
        self.start_over(rule)

    def seen(self) -> list[int]:
        """The known items of the current session."""
        return [click.row for click in self.recent if click.row != UNKNOWN]

    def _holds(self, click: Click) -> bool:
        late = bool(self.recent) and click.key <= self.recent[-1].key  # hardly ever; no other can be there already
        if late and click.row != UNKNOWN and any(click.key == event.key for event in self.recent):
            return True
        return click.event_id != NO_ID and any(click.event_id == event.event_id for event in self.recent)

    def _open(self, click: Click, newest: Click | None) -> None:
        self.previous_end = newest.time if newest else self.previous_end
        self.recent = [click]
        self.session_events = 1
        self.rebuild = True
        self.pending = [] if click.row == UNKNOWN else [click.row]

    def _mends(self, click: Click, rule: SessionRule) -> bool:
        """Whether a late click falls into the current session, and all of that session is at hand."""
        whole = self.session_events == len(self.recent)
        joins_earlier = not starts_session(self.previous_end, click.time, rule.gap_ms)
        return whole and not joins_earlier and not starts_session(click.time, self.recent[0].time, rule.gap_ms)

    def _trim(self, capacity: int) -> None:
        """Keep the newest events, as many as a state carries."""
        del self.recent[: max(0, len(self.recent) - capacity)]

    def pack(self, numbers: Numbers = Numbers.FLOAT32, places: int = 0) -> bytes:
        """The state as bytes, about 30 and those of the hidden state, and 6 an event (14 where ids are given).

        The last ``places`` numbers of the hidden state are its trail: they take no bytes where the carried events say
        the same. A user who has moved between partitions costs twelve bytes more for each of them.
        """
        times, rows, kinds, ids = zip(*self.recent, strict=True) if self.recent else ((), (), (), ())
        newest = times[-1] if times else 0
        width = len(self.hidden) - places
        trail = self.hidden[width:].astype(np.int32).tolist() if places else []
        told = trail == _told_trail(self.recent, places)
        earlier = 0 if self.previous_end == NEVER else 1 + signed(newest - self.previous_end)
        dropped = self.session_events - len(self.recent)
        parts = [
            bytes((FORMS[numbers],)),
            self.position.pack(),
            digest(self.model),
            *map(number, (newest, earlier, dropped, len(self.recent), width, places, told)),
            numbers.pack(self.hidden[:width]),
            b"" if told else column(trail),
            column([row + 1 for row in rows]),
            column([later - earlier for earlier, later in pairwise(times)]),
            column(kinds),
            column(ids),
            self.progress.pack_elsewhere(),
        ]
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes) -> UserState:
        """Read what :meth:`pack` wrote.

        Raises:
            InputError: the bytes are no user state.
        """
        try:
            reader = Reader(data)
            numbers = reader.form()
            position, model = Position.read(reader), reader.digest()
            newest, earlier, dropped, count, width, places, told = reader.numbers(7)
            hidden = numbers.unpack(reader.take(numbers.size(width)), width)
            trail = [] if told else reader.column(places)
            rows = [row - 1 for row in reader.column(count)]
            gaps, kinds, ids = reader.column(max(count - 1, 0)), reader.column(count), reader.column(count)
            progress = Progress.unpack(position, reader.rest())
        except (struct.error, ValueError) as error:
            raise InputError(f"not a user state ({len(data)} bytes): {error}") from None
        times = list(accumulate(gaps, initial=newest - sum(gaps)))[:count]
        recent = list(map(Click._make, zip(times, rows, kinds, ids, strict=True)))
        state = cls(model, hidden, progress, recent, count + dropped)
        state.previous_end = NEVER if earlier == 0 else newest - unsigned(earlier - 1)
        if places:
            state.hidden = np.concatenate([hidden, np.array(trail or _told_trail(recent, places), np.float32)])
        return state


@dataclass(frozen=True)
class RecommendationList:
    """Ranked items for a user: ``rows`` int32 ``[count]`` and ``scores`` float32 ``[count]``, best first.

    ``position`` and ``event_time`` (epoch milliseconds) name the event the list follows from; ``written`` is the time
    of the write (epoch milliseconds). A compact list does not carry the position.
    """

    model: int
    position: Position
    event_time: int
    written: int
    rows: NDArray[np.int32]
    scores: NDArray[np.float32]

    def pack(self, *, compact: bool = False) -> bytes:
        """The list as bytes: about 30 and 7 an item; compact ones, whose scores are float16, 23 and 5."""
        scores = np.clip(self.scores, -65504, 65504) if compact else self.scores  # what a float16 says
        parts = [
            bytes((_COMPACT_LIST,)) if compact else bytes((_FULL_LIST,)) + self.position.pack(),
            digest(self.model),
            *map(number, (self.event_time, signed(self.written - self.event_time), len(self.rows))),
            array(self.rows + 1),
            scores.astype("<f2" if compact else "<f4").tobytes(),
        ]
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes) -> RecommendationList:
        """Read what :meth:`pack` wrote.

        Raises:
            InputError: the bytes are no recommendation list.
        """
        try:
            reader = Reader(data)
            compact = {_FULL_LIST: False, _COMPACT_LIST: True}[reader.byte()]
            position = BEGINNING if compact else Position.read(reader)
            model = reader.digest()
            event_time, age, count = reader.numbers(3)
            rows = reader.array(count) - np.int32(1)
            scores = np.frombuffer(reader.rest(), "<f2" if compact else "<f4").astype(np.float32)
            if len(scores) != count:
                raise ValueError(f"{len(scores)} scores of {count} items")
        except (KeyError, ValueError, OverflowError) as error:
            raise InputError(f"not a recommendation list ({len(data)} bytes): {error}") from None
        return cls(model, position, event_time, event_time + unsigned(age), rows, scores)


def sequence(clicks: Sequence[Click], rule: SessionRule) -> list[int]:
    """The rows by which a session's clicks advance the model: repeats collapsed, then unknown items left out."""
    rows = [click.row for click in clicks]
    if rule.collapse_repeats:
        rows = rows[:1] + [row for before, row in pairwise(rows) if not is_repeat(before, row)]
    return [row for row in rows if row != UNKNOWN]


def _told_trail(clicks: Sequence[Click], places: int) -> list[int]:
    """The trail that the carried clicks tell where repeats collapse."""
    return trail_of(sequence(clicks, SessionRule()), places) if places else []


def session_at_once(clicks: Sequence[tuple[int | None, int]], rule: SessionRule) -> list[int]:
    """The rows by which a session given whole advances the model: its last session, cut as the stream would cut it.

    Each click is (epoch milliseconds, row). Clicks without times stand in the order given, close together.
    """
    state = UserState(0, np.zeros(0, np.float32))
    timed = sorted((index if time is None else time, row) for index, (time, row) in enumerate(clicks))
    for time, row in timed:
        state.place(Click(time, row, 0, NO_ID), rule, len(timed))
    return sequence(state.recent, rule)


def hash_id(event_id: str | None) -> int:
    """64 bits of an event id; :data:`recsys.sessions.NO_ID` for none."""
    if event_id is None:
        return NO_ID
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "little") or 1
