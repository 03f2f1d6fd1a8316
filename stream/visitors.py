"""The users of a micro-batch, with their states: those who clicked of late from memory, all others from the store.

Whoever works on a user takes him out of the memory, and puts him back when the store has taken what was written: a
failure in between leaves nothing half done here. What the store holds may have changed meanwhile, by another worker or
because it was lost; then it refuses the write, and the user is read anew. A click that has been applied already, as far
as memory knows, would lead to no write: so there, too, the store is asked.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from recsys.errors import InputError
from recsys.events import ClickEvent
from recsys.position import Position
from recsys.serving import CurrentModel, Served
from recsys.settings import WorkerSettings
from recsys.state import PREFIX, UserState
from recsys.store import Store, Write
from stream.dead_letter import DeadLetter, Record
from stream.online import Encounters, Looks
from stream.outcome import Led, Outcome

Events = dict[str, list[tuple[Record, ClickEvent]]]  # of each user, in topic order


@dataclass
class Visitor:
    """A user of the batch: the state as ``read`` and as it becomes, the events that lead it on, and what they came to.

    ``read`` is how the packed state in the store begins, None where there is none. The outcomes count only when the
    store has taken the state. The list of one who is deferred waits for a click of his that is known to come.
    """

    read: bytes | None
    state: UserState
    events: list[tuple[Record, ClickEvent]]
    encounters: Encounters
    touched: bool = False
    deferred: bool = False
    rebuilt: bool = False
    lost: bool = False
    applied: list[Record] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    dead: list[DeadLetter] = field(default_factory=list)
    clicked: list[int] = field(default_factory=list)
    led: list[Led] = field(default_factory=list)

    @property
    def listed(self) -> bool:
        """Whether there is a list to be made; there is none while no item of the session is known."""
        return self.touched and not self.deferred and bool(self.state.seen())

    def settle(self, outcome: Outcome, version: str) -> None:
        """Count the user's part."""
        outcome.applied += len(self.applied)
        outcome.visible += [] if self.deferred else self.applied
        outcome.skipped.update(self.skipped)
        outcome.dead += self.dead
        outcome.lists += self.listed
        outcome.rebuilt += self.touched and self.rebuilt
        outcome.lost_states += self.touched and self.lost
        outcome.clicked.setdefault(version, []).extend(self.clicked)
        outcome.led.setdefault(self.state.model, []).extend(self.led)
        outcome.unexamined += self.encounters.unexamined


class _Known(NamedTuple):
    """What the store has of a user: how the packed state begins, the state, and the packed list; None for what is not.

    A state that is ``lost`` cannot be read; of a list that was ``left`` as it was, nothing is known.
    """

    read: bytes | None
    state: UserState
    shown: bytes | None
    lost: bool = False
    left: bool = False


class Visitors:
    """Finds users' states.

    Args:
        model: serves.
        store: has all states and lists.
        settings: say of how many users memory has them, too.
    """

    def __init__(self, model: CurrentModel, store: Store, settings: WorkerSettings) -> None:
        self._model, self._store, self._settings = model, store, settings
        self._known: OrderedDict[str, _Known] = OrderedDict()  # who clicked last stands last

    async def meet(self, events: Events, served: Served, looks: Looks = "off") -> dict[str, Visitor]:
        """The users of ``events``, all of one model, as they are before them.

        Raises:
            UnavailableError: the store is away.
        """
        known = {user: each for user, mine in events.items() if (each := self._recall(user, mine, looks))}
        unknown = [user for user in events if user not in known]
        lists: list[bytes | None] = [None] * len(unknown)
        if looks == "off":
            states = await self._store.states(unknown)
        else:
            states, lists = await self._store.states_and_lists(unknown)
        for user, state, shown in zip(unknown, states, lists, strict=True):
            known[user] = self._read(state, shown, served)
        return {user: self._visitor(known[user], mine, served, looks) for user, mine in events.items()}

    def keep(self, visitors: Mapping[str, Visitor], writes: Sequence[Write], refused: Container[str]) -> None:
        """Keep what the store has taken."""
        for write in writes:
            if write.user_id not in refused:
                state, shown = visitors[write.user_id].state, write.recommendations
                self._known[write.user_id] = _Known(write.state[:PREFIX], state, shown or None, left=shown is None)
        while len(self._known) > self._settings.kept_users:
            self._known.popitem(last=False)

    def _recall(self, user: str, events: list[tuple[Record, ClickEvent]], looks: Looks) -> _Known | None:
        known = self._known.pop(user, None)
        if known is None or (known.left and looks != "off"):
            return None
        repeated = any(known.state.progress.covers(self.position(record)) for record, _ in events)
        return None if repeated else known

    def position(self, record: Record) -> Position:
        """Where the record stands."""
        return Position(self._settings.epoch, record.partition, record.offset)

    def _read(self, data: bytes | None, shown: bytes | None, served: Served) -> _Known:
        fresh = UserState(served.digest, np.zeros(served.scorer.width, np.float32))
        if data is None:
            return _Known(None, fresh, shown)
        try:
            return _Known(data[:PREFIX], UserState.unpack(data), shown)
        except InputError:
            return _Known(data[:PREFIX], fresh, shown, lost=True)

    def _visitor(self, known: _Known, events: list[tuple[Record, ClickEvent]], served: Served, looks: Looks) -> Visitor:
        visitor = Visitor(known.read, known.state, events, Encounters(looks, known.shown), lost=known.lost)
        if visitor.state.model != served.digest:
            rows = self._model.translation(visitor.state.model, served)
            visitor.state.translate(served.digest, rows, served.scorer.width, served.rule)
            visitor.rebuilt, visitor.lost = True, rows is None
        return visitor
