"""One micro-batch: clicks in, states and lists in the store, dead letters out.

Everything here may be done again after a failure, as often as needed, with the same result: a click that a state has
already applied is skipped by its offset, and the store refuses what is not newer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.errors import EventError, InputError
from recsys.events import ClickEvent, check_clock, decode
from recsys.serving import CurrentModel, Served
from recsys.settings import WorkerSettings
from recsys.state import Click, Placed, Position, RecommendationList, UserState
from recsys.store import Store, Write
from stream.dead_letter import MAX_KEY_BYTES, DeadLetter, Record

REDELIVERED = "redelivered"

SendDeadLetters = Callable[[Sequence[DeadLetter]], Awaitable[None]]


@dataclass
class Outcome:
    """What became of a micro-batch. The counts of ``applied``, ``skipped`` and ``dead`` add up to its records.

    ``seconds`` has the time of each part of the work; ``visible`` the records whose lists the batch brought up to date.
    """

    applied: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dead: list[DeadLetter] = field(default_factory=list)
    lists: int = 0
    rebuilt: int = 0
    lost_states: int = 0
    stale: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    visible: list[Record] = field(default_factory=list)


@dataclass
class _Visitor:
    """A user of the batch: the state, and the events that lead it on, in topic order."""

    state: UserState
    events: list[tuple[Record, ClickEvent]]
    touched: bool = False
    applied: list[Record] = field(default_factory=list)


class Processor:
    """Turns micro-batches of clicks into states and lists."""

    def __init__(
        self, model: CurrentModel, store: Store, settings: WorkerSettings, send_dead_letters: SendDeadLetters
    ) -> None:
        self._model = model
        self._store = store
        self._settings = settings
        self._send_dead_letters = send_dead_letters

    async def process(self, records: Sequence[Record]) -> Outcome:
        """Apply records, which stand in the order of their offsets.

        Raises:
            UnavailableError: the store or the broker is away; nothing is lost, call again with the same records.
        """
        served = self._model.served  # one model for the whole batch
        outcome = Outcome()
        watch = _Stopwatch(outcome.seconds)
        events = self._read(records, outcome)
        watch.lap("decode")
        visitors = await self._load(events, served, outcome)
        watch.lap("load")
        for visitor in visitors.values():
            self._place(visitor, served, outcome)
        touched = {user: visitor for user, visitor in visitors.items() if visitor.touched}
        self._advance([visitor.state for visitor in touched.values()], served)
        watch.lap("step")
        writes = self._recommend(touched, served, outcome)
        watch.lap("score")
        if outcome.dead:  # before the states: a crash in between repeats a letter, but loses none
            await self._send_dead_letters(outcome.dead)
        watch.lap("dead_letter")
        outcome.stale = len(await self._store.save(writes))
        watch.lap("write")
        return outcome

    def _read(self, records: Sequence[Record], outcome: Outcome) -> dict[str, list[tuple[Record, ClickEvent]]]:
        """Each user's events."""
        events: dict[str, list[tuple[Record, ClickEvent]]] = {}
        now_ms = time.time_ns() // 1_000_000
        for record in records:
            try:
                event = decode(record.value or b"")
                check_clock(event, now_ms, round(self._settings.max_future_seconds * 1000))
                if record.key != event.user_id.encode():
                    key = None if record.key is None else record.key[:MAX_KEY_BYTES]
                    raise EventError("key", "mismatch", f"is {key!r}, not the user id, so order is not kept")
            except EventError as error:
                outcome.dead.append(DeadLetter(record, error.code, str(error)))
            else:
                events.setdefault(event.user_id, []).append((record, event))
        return events

    async def _load(
        self, events: dict[str, list[tuple[Record, ClickEvent]]], served: Served, outcome: Outcome
    ) -> dict[str, _Visitor]:
        packed = await self._store.states(list(events))
        return {
            user: _Visitor(self._unpack(data, served, outcome), mine)
            for (user, mine), data in zip(events.items(), packed, strict=True)
        }

    def _unpack(self, data: bytes | None, served: Served, outcome: Outcome) -> UserState:
        width = served.scorer.width
        fresh = UserState(served.digest, np.zeros(width, np.float32))
        if data is None:
            return fresh
        try:
            state = UserState.unpack(data)
        except InputError:
            outcome.lost_states += 1
            return fresh
        if state.model != served.digest:
            rows = self._model.translation(state.model, served)
            state.translate(served.digest, rows, width, served.rule)
            outcome.rebuilt += 1
            outcome.lost_states += rows is None
        return state

    def _place(self, visitor: _Visitor, served: Served, outcome: Outcome) -> None:
        state = visitor.state
        for record, event in visitor.events:
            position = Position(self._settings.epoch, record.partition, record.offset)
            if not position.is_after(state.position):
                outcome.skipped[REDELIVERED] += 1
                continue
            state.position, visitor.touched = position, True
            click = Click.of(event, served.vocabulary.row(event.item_id), served.kind(event.event_type))
            placed = state.place(click, served.rule, self._settings.recent_items)
            if placed is Placed.APPLIED:
                outcome.applied += 1
                visitor.applied.append(record)
            elif placed in {Placed.REPEATED, Placed.DUPLICATE}:
                outcome.skipped[placed.value] += 1
            else:
                outcome.dead.append(DeadLetter(record, placed.value, _why(placed, event)))

    def _advance(self, states: Sequence[UserState], served: Served) -> None:
        if not states:
            return
        hidden = np.stack([np.zeros_like(state.hidden) if state.rebuild else state.hidden for state in states])
        advanced = served.scorer.advance(hidden, [state.pending for state in states])
        for state, row in zip(states, advanced, strict=True):
            state.hidden = row

    def _recommend(self, touched: dict[str, _Visitor], served: Served, outcome: Outcome) -> list[Write]:
        """Each touched user's state, and the list that is a function of it alone: how batches fell leaves no trace."""
        states = [visitor.state for visitor in touched.values()]
        knowing = [state for state in states if state.seen()]
        lists = iter(self._lists(knowing, served))
        outcome.lists = len(knowing)
        for visitor in touched.values():
            outcome.visible.extend(visitor.applied)
        return [
            Write(user, state.pack(), next(lists).pack() if state.seen() else b"")
            for user, state in zip(touched, states, strict=True)
        ]

    def _lists(self, states: Sequence[UserState], served: Served) -> list[RecommendationList]:
        if not states:
            return []
        seen = [np.array(state.seen(), np.int32) for state in states] if self._settings.exclude_seen else None
        hidden = np.stack([state.hidden for state in states])
        written = time.time_ns() // 1_000_000
        tops = served.scorer.top_k(hidden, self._settings.list_length, seen)
        return [
            RecommendationList(served.digest, state.position, state.recent[-1].time, written, rows, scores)
            for state, (rows, scores) in zip(states, tops, strict=True)
        ]


def _why(placed: Placed, event: ClickEvent) -> str:
    if placed is Placed.UNKNOWN_ITEM:
        return f"item_id: {event.item_id!r} is not in the model's vocabulary; its time counts for the session"
    return f"timestamp: {event.timestamp} came after its session had ended, or had grown too long to be computed anew"


class _Stopwatch:
    """Adds up the time since the last lap under a name."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now
