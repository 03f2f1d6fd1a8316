"""Which recommendations a request gets: the chain of fallbacks from a user's own list down to popular items."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.api.lookups import Lookups
from recsys.api.metrics import Metrics
from recsys.api.requests import SessionClick
from recsys.bundle import digest_of
from recsys.errors import InputError, RecsysError, UnavailableError
from recsys.serving import CurrentModel, Served
from recsys.settings import ApiSettings
from recsys.state import RecommendationList, session_at_once
from recsys.vocabulary import UNKNOWN, Vocabulary

log = logging.getLogger(__name__)

Scored = tuple[str, np.float32 | None]  # an item's score is the model's, or tells how popular it is
Source = Literal["user", "item", "session", "popular"]


@dataclass(frozen=True)
class Ranking:
    """Items, best first, and the score of each."""

    ids: Sequence[str]
    scores: Sequence[np.float32]


@dataclass(frozen=True)
class Basis:
    """What an answer rests on: its source, the ranking, the model that made it, and how old it is."""

    source: Source
    ranking: Ranking
    model_version: str | None
    age_ms: int | None = None
    event_time: int | None = None


@dataclass(frozen=True)
class Answer:
    """An answered request. The last ``filled`` of ``items`` are popular ones that carry no score."""

    basis: Basis
    items: list[Scored]
    filled: int
    unknown_items: int
    degraded: bool


class Edition:
    """A model version with what the API keeps for it: its popular items and its answers to one click."""

    def __init__(self, served: Served, settings: ApiSettings) -> None:
        self.served = served
        self._length = settings.max_limit
        self._capacity = settings.item_cache
        self._items: OrderedDict[int, asyncio.Task[Ranking]] = OrderedDict()
        # Enough to fill any answer after leaving out the items it holds and the one of the page.
        self._popular = _ranking(served.vocabulary, *served.popular(2 * settings.max_limit + 1))

    def popular(self) -> Basis:
        """The items clicked most, of late or else in the training log, scored by their clicks."""
        return Basis("popular", self._popular, self.served.version)

    async def after_item(self, row: int) -> Basis:
        """The model's answer to one click on the item, without that item; kept for the items asked for last."""
        task = self._items.get(row)
        if task is None:
            task = self._items[row] = asyncio.create_task(self._compute(row))
            if len(self._items) > self._capacity:
                self._items.popitem(last=False)
        self._items.move_to_end(row)
        return Basis("item", await asyncio.shield(task), self.served.version)

    async def after_session(self, clicks: Sequence[SessionClick], exclude_seen: bool) -> Basis | None:
        """The model's answer to a session, cut and stepped by the rule of the stream; None if it knows no item."""
        ranking = await asyncio.to_thread(self._rank_session, clicks, exclude_seen)
        return None if ranking is None else Basis("session", ranking, self.served.version)

    async def _compute(self, row: int) -> Ranking:
        try:
            return await asyncio.to_thread(self._rank, [row], [row])
        except BaseException:
            self._items.pop(row, None)
            raise

    def _rank_session(self, clicks: Sequence[SessionClick], exclude_seen: bool) -> Ranking | None:
        known = self.served.vocabulary.rows([click.item_id for click in clicks]).tolist()
        times = [click.timestamp for click in clicks]
        rows = session_at_once(list(zip(times, known, strict=True)), self.served.rule)
        return self._rank(rows, rows if exclude_seen else []) if rows else None

    def _rank(self, rows: Sequence[int], exclude: Sequence[int]) -> Ranking:
        scorer = self.served.scorer
        hidden = scorer.advance(scorer.start(1), [rows])
        [(best, scores)] = scorer.top_k(hidden, self._length, [np.array(exclude, np.int32)])
        return _ranking(self.served.vocabulary, best, scores)


class Recommender:
    """Answers requests by the model that :attr:`edition` holds; :meth:`adopt` replaces it."""

    def __init__(
        self, model: CurrentModel, lookups: Lookups, settings: ApiSettings, exclude_seen: bool, metrics: Metrics
    ) -> None:
        self._model = model
        self._lookups = lookups
        self._settings = settings
        self._exclude_seen = exclude_seen
        self._metrics = metrics
        self.edition = Edition(model.served, settings)
        metrics.serves(model.served.version)

    async def adopt(self, served: Served) -> None:
        """Answer by another model, or another trend, from now on, unless yet another has come."""
        edition = await asyncio.to_thread(Edition, served, self._settings)
        if served is self._model.served:
            self.edition = edition
            self._metrics.serves(served.version)

    async def for_visitor(self, user_id: str | None, item_id: str | None, limit: int) -> Answer:
        """The user's list; else what follows a click on the item of the page; else popular items.

        The item of the page is never in the answer.
        """
        edition = self.edition
        row = UNKNOWN if item_id is None else edition.served.vocabulary.row(item_id)
        degraded = False
        basis: Basis | None = None
        if user_id is not None:
            try:
                packed = await self._lookups.packed_list(user_id)
            except UnavailableError:
                degraded = True
            else:
                basis = None if packed is None else await self._stored(packed, edition.served)
        if basis is None:
            basis = edition.popular() if row == UNKNOWN else await edition.after_item(row)
        without = () if item_id is None else (item_id,)
        return self._answer(edition, basis, limit, without, int(item_id is not None and row == UNKNOWN), degraded)

    async def for_session(self, clicks: Sequence[SessionClick], limit: int) -> Answer:
        """What follows an anonymous session; else popular items."""
        edition = self.edition
        unknown = sum(edition.served.vocabulary.row(click.item_id) == UNKNOWN for click in clicks)
        basis = await edition.after_session(clicks, self._exclude_seen) or edition.popular()
        return self._answer(edition, basis, limit, (), unknown, degraded=False)

    def popular(self, limit: int) -> Answer:
        """Popular items."""
        return self._answer(self.edition, self.edition.popular(), limit, (), 0, degraded=False)

    async def _stored(self, packed: bytes, served: Served) -> Basis | None:
        """A list as the worker stored it, None where it is empty, damaged, or of a model that is gone."""
        try:
            stored = RecommendationList.unpack(packed)
            version, vocabulary = await self._origin(stored.model, served)
            if vocabulary is None:
                raise InputError(f"no bundle here has the digest {stored.model:016x}")
            if len(stored.rows) and not 0 <= stored.rows.min() <= stored.rows.max() < len(vocabulary):
                raise InputError("a recommendation list names rows that its model does not have")
        except RecsysError as error:
            self._metrics.unusable.inc()
            log.warning("stored list left aside: %s", error)
            return None
        if not len(stored.rows):
            return None
        age_ms = max(0, time.time_ns() // 1_000_000 - stored.written)
        return Basis("user", _ranking(vocabulary, stored.rows, stored.scores), version, age_ms, stored.event_time)

    async def _origin(self, digest: int, served: Served) -> tuple[str | None, Vocabulary | None]:
        """Name (None where unknown) and vocabulary of the model with this digest."""
        if digest == served.digest:
            return served.version, served.vocabulary
        return await asyncio.to_thread(self._find_origin, digest)

    def _find_origin(self, digest: int) -> tuple[str | None, Vocabulary | None]:
        names = (name for name in self._model.bundles.versions() if digest_of(name) == digest)
        return next(names, None), self._model.vocabulary(digest)

    def _answer(
        self, edition: Edition, basis: Basis, limit: int, without: Container[str], unknown_items: int, degraded: bool
    ) -> Answer:
        ranked = zip(basis.ranking.ids, basis.ranking.scores, strict=True)
        items: list[Scored] = list(islice((pair for pair in ranked if pair[0] not in without), limit))
        found = len(items)
        if found < limit:
            held = {item for item, _ in items}
            more = (item for item in edition.popular().ranking.ids if item not in held and item not in without)
            items.extend((item, None) for item in islice(more, limit - found))
        self._metrics.answers.labels(basis.source).inc()
        if degraded:
            self._metrics.degraded.inc()
        return Answer(basis, items, len(items) - found, unknown_items, degraded)


def _ranking(vocabulary: Vocabulary, rows: NDArray[np.int32], scores: NDArray[np.float32]) -> Ranking:
    return Ranking([vocabulary.ids[row] for row in rows.tolist()], list(scores))
