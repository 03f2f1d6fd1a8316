"""Each click as a test of the list it meets: the protocol of offline evaluation, as clicks come in.

A click is a test where it leads its session on: the item is known, no direct repeat, and not the first known one of the
session (:mod:`recsys.evaluation.protocol`). The list it meets is the one in the store or, where the user has clicked
before in the same micro-batch, the one that would have been there. Its rank is pessimistic: the items of the list that
score at least as high. An item that is not in the list is missed, so lists shorter than 20 show in the figures, and so
does ``worker.exclude_seen``. A tie with items below the end of the list is not seen; scores stored in fewer bits tie
more often. A click that comes late, and is sorted in before others, is no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import digest_of
from recsys.errors import InputError
from recsys.evaluation.protocol import NEVER
from recsys.events import ClickEvent
from recsys.serving import CurrentModel, Served
from recsys.settings import WorkerSettings
from recsys.state import Click, RecommendationList, UserState, sequence
from recsys.vocabulary import UNKNOWN

Looks = Literal["off", "stored", "all"]


class Trial(NamedTuple):
    """One test: which model's list, how many known clicks of the session came before, where it was, and the rank."""

    version: str
    position: int
    surface: str
    rank: int


class Stored(NamedTuple):
    """A user's session just before a click that meets the list in the store, ``packed``."""

    position: int
    packed: bytes


class Unstored(NamedTuple):
    """A user's session just before a click that meets a list which another click of the batch would have left."""

    position: int
    hidden: NDArray[np.float32]
    rebuild: bool
    pending: list[int]
    seen: list[int]


Moment = Stored | Unstored


class Encounters:
    """What the clicks of one user in one micro-batch meet; ``packed`` is the list in the store, None for none.

    Attributes:
        met: moments before clicks that are tests, and those clicks.
        unexamined: clicks that lead a session on and are not looked at.
    """

    __slots__ = ("_fresh", "_looks", "_packed", "met", "unexamined")

    def __init__(self, looks: Looks = "off", packed: bytes | None = None) -> None:
        self._looks, self._packed = looks, packed
        self._fresh = True
        self.met: list[tuple[Moment, ClickEvent]] = []
        self.unexamined = 0

    def before(self, state: UserState, served: Served) -> Moment | None:
        """The moment before a click; None where the click will not be looked at, or meets no list."""
        if self._fresh and self._looks != "off":
            packed = self._packed
            return None if packed is None else Stored(len(sequence(state.recent, served.rule)), packed)
        if self._looks == "all":
            position = len(sequence(state.recent, served.rule))
            return Unstored(position, state.hidden, state.rebuild, list(state.pending), state.seen())
        return None

    def applied(self, moment: Moment | None, event: ClickEvent, click: Click, state: UserState) -> None:
        """A click was applied to ``state``, and this was the moment before it."""
        self._fresh = False
        if not state.leads_on(click):
            return
        if moment is None:
            self.unexamined += 1
        elif moment.position:
            self.met.append((moment, event))


class Examiner:
    """Finds the rank of each click in the list it met."""

    def __init__(self, model: CurrentModel, settings: WorkerSettings) -> None:
        self._model, self._settings = model, settings
        self._versions: dict[int, str] = {}

    def examine(self, encounters: Sequence[Encounters], served: Served) -> list[Trial]:
        """The tests, all of users of one model."""
        met = [pair for each in encounters for pair in each.met]
        made = iter(self._lists([moment for moment, _ in met if isinstance(moment, Unstored)], served))
        trials = []
        for moment, event in met:
            if isinstance(moment, Unstored):
                model, (rows, scores) = served.digest, next(made)
            else:
                try:
                    shown = RecommendationList.unpack(moment.packed)
                except InputError:  # the visitor has seen none
                    continue
                model, rows, scores = shown.model, shown.rows, shown.scores
            vocabulary = self._model.vocabulary(model)
            row = UNKNOWN if vocabulary is None else vocabulary.row(event.item_id)
            if row != UNKNOWN:  # an older model that does not know the item was not asked for it
                trials.append(Trial(self._version(model), moment.position, _surface(event), rank(rows, scores, row)))
        return trials

    def _lists(
        self, moments: Sequence[Unstored], served: Served
    ) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """The lists that would have been shown."""
        if not moments:
            return []
        hidden = np.stack([np.zeros_like(each.hidden) if each.rebuild else each.hidden for each in moments])
        hidden = served.scorer.advance(hidden, [each.pending for each in moments])
        seen = [np.array(each.seen, np.int32) for each in moments] if self._settings.exclude_seen else None
        return served.scorer.top_k(hidden, self._settings.list_length, seen)

    def _version(self, digest: int) -> str:
        if digest not in self._versions:
            self._versions = {digest_of(version): version for version in self._model.bundles.versions()}
        return self._versions.setdefault(digest, f"{digest:016x}")


def rank(rows: NDArray[np.int32], scores: NDArray[np.float32], row: int) -> int:
    """The pessimistic rank of an item in a list ``[count]``; :data:`recsys.evaluation.protocol.NEVER` if not in it."""
    places = (rows == row).nonzero()[0]
    return int(np.count_nonzero(scores >= scores[places[0]])) if len(places) else NEVER


def _surface(event: ClickEvent) -> str:
    """Where the click was made: ``context.surface`` where producers say so, else the event's type."""
    surface = (event.context or {}).get("surface")
    return surface if isinstance(surface, str) and surface else event.event_type
