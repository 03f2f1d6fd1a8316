"""One micro-batch: clicks in, states and lists in the store, dead letters out.

Everything here may be done again after a failure, as often as needed, with the same result: a click that a state has
already applied is skipped by its offset, and the store refuses a state made from one that it no longer holds. The
clicks of such a user are then applied anew, to the state that another worker has written meanwhile.

Steps are cheap and lists are not. So a worker that lags makes one list a user and batch, and none for whom it knows a
later click: a click behind the batch that will surely be applied, here or, after a crash or a rebalance, elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from recsys.errors import EventError, UnavailableError
from recsys.events import ClickEvent, check_clock, decode
from recsys.position import Position
from recsys.serving import CurrentModel, Served
from recsys.settings import WorkerSettings
from recsys.state import Click, Placed, RecommendationList
from recsys.store import Store, Write
from stream.dead_letter import MAX_KEY_BYTES, DeadLetter, Record
from stream.keeping import Keeping
from stream.online import Examiner, Looks
from stream.outcome import Led, Outcome
from stream.visitors import Events, Visitor, Visitors

REDELIVERED = "redelivered"
ROUNDS = 10  # most attempts at a batch while another worker writes the same users

SendDeadLetters = Callable[[Sequence[DeadLetter]], Awaitable[None]]


class Processor:
    """Turns micro-batches of clicks into states and lists."""

    def __init__(
        self, model: CurrentModel, store: Store, settings: WorkerSettings, send_dead_letters: SendDeadLetters
    ) -> None:
        self._model = model
        self._store = store
        self._settings = settings
        self._send_dead_letters = send_dead_letters
        self._keeping = Keeping(settings)
        self._visitors = Visitors(model, store, settings)
        self._examiner = Examiner(model, settings)

    async def process(self, records: Sequence[Record], ahead: Sequence[Record] = ()) -> Outcome:
        """Apply records, which stand in the order of their offsets; ``ahead`` has some that come after them.

        Raises:
            UnavailableError: the store or the broker is away; nothing is lost, call again with the same records.
        """
        outcome = Outcome()
        watch = _Stopwatch(outcome.seconds)
        events = self._read(records, outcome)
        watch.lap("decode")
        if outcome.dead:  # before the states: a crash in between repeats a letter, but loses none
            await self._send_dead_letters(outcome.dead)
            watch.lap("dead_letter")
        lagging = len(records) > self._settings.batch_size
        looks: Looks = "off" if lagging else self._settings.online_metrics
        for served, mine in self._by_model(events):
            await self._take(mine, self._later(mine, ahead), served, outcome, watch, looks)
        return outcome

    async def renew(self, users: Sequence[str]) -> int:
        """Compute the states and lists that another model left anew, by the users' own; gives how many there were.

        Raises:
            UnavailableError: the store is away; call again.
        """
        renewed = 0
        for served, mine in self._by_model({user: [] for user in users}):
            visitors = await self._apply(mine, served, _Stopwatch({}))
            for visitor in visitors.values():
                visitor.touched = visitor.rebuilt
            self._keeping.advance([visitor.state for visitor in visitors.values() if visitor.touched], served)
            writes = self._writes(visitors, self._lists(visitors, served), served)
            renewed += len(writes) - len(await self._store.save(writes, keep_life=True))
        return renewed

    def _by_model(self, events: Events) -> list[tuple[Served, Events]]:
        """The users of each model that serves; a user has one model for the whole batch."""
        groups: dict[int, tuple[Served, Events]] = {}
        for user, mine in events.items():
            served = self._model.served_to(user)
            groups.setdefault(served.digest, (served, {}))[1][user] = mine
        return list(groups.values())

    async def _take(
        self,
        events: Events,
        later: Mapping[str, Position],
        served: Served,
        outcome: Outcome,
        watch: _Stopwatch,
        looks: Looks,
    ) -> None:
        """Apply the events of some users, all of one model; ``later`` has clicks of theirs that are known to come."""
        for _ in range(ROUNDS):
            visitors = await self._apply(events, served, watch, looks)
            for user, position in later.items():
                if user in visitors:
                    visitors[user].deferred = not visitors[user].state.progress.covers(position)
            self._keeping.advance([visitor.state for visitor in visitors.values() if visitor.touched], served)
            watch.lap("step")
            lists = self._lists(visitors, served)
            watch.lap("score")
            writes = self._writes(visitors, lists, served)
            watch.lap("pack")
            if letters := [letter for visitor in visitors.values() for letter in visitor.dead]:
                await self._send_dead_letters(letters)
                watch.lap("dead_letter")
            refused = await self._store.save(writes)
            self._visitors.keep(visitors, writes, refused)
            watch.lap("write")
            taken = [visitor for user, visitor in visitors.items() if user not in refused]
            for visitor in taken:
                visitor.settle(outcome, served.version)
            outcome.trials += self._examiner.examine([visitor.encounters for visitor in taken], served)
            watch.lap("examine")
            if not refused:
                return
            outcome.stale += len(refused)
            events = {user: events[user] for user in events if user in refused}
        raise UnavailableError(f"the store refused the states of {len(events)} users {ROUNDS} times: others write them")

    def _read(self, records: Sequence[Record], outcome: Outcome) -> Events:
        """Each user's events."""
        events: Events = {}
        now_ms = time.time_ns() // 1_000_000
        for record in records:
            try:
                event = self._decode(record, now_ms)
            except EventError as error:
                outcome.dead.append(DeadLetter(record, error.code, str(error)))
            else:
                events.setdefault(event.user_id, []).append((record, event))
        return events

    def _decode(self, record: Record, now_ms: int) -> ClickEvent:
        event = decode(record.value or b"")
        check_clock(event, now_ms, round(self._settings.max_future_seconds * 1000))
        if record.key != event.user_id.encode():
            key = None if record.key is None else record.key[:MAX_KEY_BYTES]
            raise EventError("key", "mismatch", f"is {key!r}, not the user id, so order is not kept")
        return event

    def _later(self, users: Iterable[str], ahead: Sequence[Record]) -> dict[str, Position]:
        """Where the newest usable click ahead of each user stands; of most there is none."""
        found: dict[str, Position] = {}
        sought = {user.encode(): user for user in users} if ahead else {}
        now_ms = time.time_ns() // 1_000_000
        for record in reversed(ahead):
            if record.key in sought:
                with suppress(EventError):
                    self._decode(record, now_ms)
                    found[sought.pop(record.key)] = self._visitors.position(record)
        return found

    async def _apply(
        self, events: Events, served: Served, watch: _Stopwatch, looks: Looks = "off"
    ) -> dict[str, Visitor]:
        """Each user, with the state that the events make of what the store holds."""
        visitors = await self._visitors.meet(events, served, looks)
        watch.lap("load")
        for visitor in visitors.values():
            self._place(visitor, served)
        watch.lap("step")
        return visitors

    def _place(self, visitor: Visitor, served: Served) -> None:
        state = visitor.state
        for record, event in visitor.events:
            position = self._visitors.position(record)
            if state.progress.covers(position):
                visitor.skipped[REDELIVERED] += 1
                continue
            state.progress.advance(position)
            visitor.touched = True
            click = Click.of(event, served.vocabulary.row(event.item_id), served.kind(event.event_type))
            moment = visitor.encounters.before(state, served)
            hidden = None if state.rebuild or state.pending else state.hidden
            placed = state.place(click, served.rule, self._settings.recent_items)
            if placed in {Placed.APPLIED, Placed.UNKNOWN_ITEM}:
                visitor.clicked.append(click.row)
            if placed is Placed.APPLIED:
                visitor.applied.append(record)
                visitor.encounters.applied(moment, event, click, state)
                if hidden is not None and state.leads_on(click) and served.scorer.has_begun(hidden):
                    visitor.led.append(Led(event.user_id, hidden, click.row, click.time))
            elif placed in {Placed.REPEATED, Placed.DUPLICATE}:
                visitor.skipped[placed.value] += 1
            else:
                visitor.dead.append(DeadLetter(record, placed.value, _why(placed, event)))

    def _lists(self, visitors: Mapping[str, Visitor], served: Served) -> dict[str, RecommendationList]:
        """The lists to be made, each of a state and the trend in force: how batches fell leaves no trace."""
        states = {user: each.state for user, each in visitors.items() if each.listed}
        if not states:
            return {}
        exclude = self._settings.exclude_seen
        seen = [np.array(state.seen(), np.int32) for state in states.values()] if exclude else None
        hidden = np.stack([state.hidden for state in states.values()])
        written = time.time_ns() // 1_000_000
        tops = served.scorer.top_k(hidden, self._settings.list_length, seen)
        return {
            user: RecommendationList(served.digest, state.position, state.recent[-1].time, written, rows, scores)
            for (user, state), (rows, scores) in zip(states.items(), tops, strict=True)
        }

    def _writes(
        self, visitors: Mapping[str, Visitor], lists: Mapping[str, RecommendationList], served: Served
    ) -> list[Write]:
        """Each touched user's state and list, packed."""
        return [
            Write(
                user,
                each.read,
                self._keeping.pack_state(each.state, served),
                None if each.deferred else self._keeping.pack_list(lists[user]) if user in lists else b"",
            )
            for user, each in visitors.items()
            if each.touched
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
