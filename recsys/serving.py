"""The published models that a long-running process serves, and the watch for newer ones.

All users get the current version, but for a share of them while another one is on trial (a canary).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.errors import BundleError, RecsysError
from recsys.published import Bundles, Canary
from recsys.scoring.byte_table import fastest_table
from recsys.scoring.scorer import Scorer
from recsys.scoring.tables import TableOf
from recsys.scoring.trend import Trend
from recsys.sessions import SessionRule
from recsys.state import OTHER_TYPE
from recsys.vocabulary import Vocabulary, below_one

log = logging.getLogger(__name__)

KEPT_VERSIONS = 4  # older ones are read again from their bundles
LEAST_KNOWN = 0.5  # of the clicks that the served model learnt from, those on items that a new one must know
K = TypeVar("K")
V = TypeVar("V")


class Served:
    """A bundle made ready to serve.

    Attributes:
        scorer: steps and lists, with the trend.
        trend: what scores follow beside each visitor's own clicks; None while nothing is known of it.
    """

    def __init__(self, bundle: Bundle, table: TableOf = fastest_table) -> None:
        self.bundle = bundle
        self.version = bundle.version
        self.digest = bundle.digest
        self.vocabulary: Vocabulary = bundle.model.vocabulary
        self._table = table
        self.follow(None)
        self.rule: SessionRule = bundle.model.description.sessions.rule
        self._kinds = {name: code for code, name in enumerate(bundle.model.description.event_types)}

    def follow(self, trend: Trend | None) -> None:
        """Score by another trend from now on. Steps stay the same, so states do."""
        weights = self.bundle.model.weights
        scorer = Scorer(weights if trend is None else trend.on(weights), self._table)
        scorer.prepare()
        self.scorer, self.trend = scorer, trend

    def kind(self, event_type: str) -> int:
        """The event type's code; types that training never saw share one."""
        return self._kinds.get(event_type, OTHER_TYPE)

    def popular(self, count: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The most popular items: their rows, best first, equal ones by row; and how popular they are.

        That is their clicks in the training log; where there is a trend, their clicks of the last half hour, and less
        than one for those in training.
        """
        popularity = self.vocabulary.counts.astype(np.float32)
        if self.trend is not None:
            popularity = below_one(self.vocabulary.counts)
            popularity[self.trend.rows] += self.trend.clicks
        rows = np.argsort(-popularity, kind="stable")[:count].astype(np.int32)
        return rows, popularity[rows]


class CurrentModel:
    """The models a process serves now. :meth:`watch` replaces them when other versions are published.

    Vocabularies of the last few versions are kept, by which older states and lists are read.

    Attributes:
        served: the current version.
    """

    def __init__(self, bundles: Bundles, table: TableOf = fastest_table) -> None:
        """Of the versions in ``bundles``; ``table`` is what the items of lists are found by."""
        self.bundles = bundles
        self._table = table
        self.served = Served(bundles.open(), table)
        self._trial: tuple[Canary, Served] | None = None
        self._lock = threading.RLock()
        self._vocabularies: OrderedDict[int, Vocabulary | None] = OrderedDict()
        self._translations: OrderedDict[tuple[int, int], NDArray[np.int32] | None] = OrderedDict()
        self._refused: set[str] = set()
        self.refresh()

    @property
    def versions(self) -> list[str]:
        """The versions that serve: the current one, then the one on trial."""
        return [served.version for served in self.serving]

    @property
    def serving(self) -> list[Served]:
        """The current model, then the one on trial."""
        trial = self._trial
        return [self.served, *([trial[1]] if trial else [])]

    def served_to(self, user_id: str) -> Served:
        """The model for a user."""
        trial = self._trial
        return trial[1] if trial and trial[0].serves(user_id) else self.served

    def vocabulary(self, digest: int) -> Vocabulary | None:
        """The vocabulary of the served model or of an older one, None where that is no longer to be had."""
        for served in self.serving:
            if digest == served.digest:
                return served.vocabulary
        with self._lock:
            if digest not in self._vocabularies:
                _keep(self._vocabularies, digest, self._read_vocabulary(digest))
            return self._vocabularies[digest]

    def translation(self, older: int, served: Served) -> NDArray[np.int32] | None:
        """For each row of an older model the row of ``served``; None where the older model is no longer to be had."""
        key = (older, served.digest)
        with self._lock:
            if key not in self._translations:
                vocabulary = self.vocabulary(older)
                rows = None if vocabulary is None else served.vocabulary.rows_from(vocabulary)
                _keep(self._translations, key, rows)
            return self._translations[key]

    def refresh(self) -> bool:
        """Load what is published, if it is other than what is served; a bad bundle is refused, and said so once.

        Returns:
            Whether the served models changed.
        """
        before = self.versions
        served = self._load("current", self.bundles.current)
        if served is not None and served is not self.served:
            log.info("model %s takes over from %s", served.version, self.served.version)
            self._make_way_for(served)
            self.served = served
        self._refresh_trial()
        return self.versions != before

    def _refresh_trial(self) -> None:
        canary: Canary | None = None
        try:
            canary = self.bundles.canary()
        except (RecsysError, OSError) as error:
            self._refuse("canary", error)
        if canary is None or canary.version == self.served.version:
            self._trial = None
            return
        version = canary.version
        served = self._load(version, lambda: version)
        if served is not None and (self._trial is None or self._trial[0] != canary):
            log.info("model %s is on trial with %.1f%% of the users", version, 100 * canary.share)
            self._make_way_for(served)
            self._trial = canary, served

    def _load(self, name: str, wanted: Callable[[], str]) -> Served | None:
        """The version wanted, loaded if it does not serve yet; None where it is refused."""
        try:
            name = wanted()
            for served in self.serving:
                if name == served.version:
                    return served
            if name in self._refused:
                return None
            served = Served(self.bundles.open(name), self._table)
            if name > self.served.version:  # a rollback is somebody's decision
                self._check(served)
        except (RecsysError, OSError) as error:
            self._refuse(name, error)
            return None
        self._refused.clear()
        return served

    def _refuse(self, name: str, error: Exception) -> None:
        if name not in self._refused:
            log.error("bundle refused, %s stays: %s", self.served.version, error)
        self._refused.add(name)

    def _check(self, served: Served) -> None:
        """Refuse a bundle that would change what a session is, or that knows too little of what is clicked."""
        if served.rule != self.served.rule:
            raise BundleError(f"{served.bundle.path}: cuts sessions by {served.rule}, not by {self.served.rule}")
        counts = self.served.vocabulary.counts
        known = served.vocabulary.rows_from(self.served.vocabulary) >= 0
        share = counts[known].sum() / max(counts.sum(), 1)
        if share < LEAST_KNOWN:
            raise BundleError(
                f"{served.bundle.path}: its vocabulary has shrunk: it knows the items of {share:.0%} of the clicks "
                f"that {self.served.version} learnt from"
            )

    def _make_way_for(self, served: Served) -> None:
        """What the next click would have to wait for."""
        with self._lock:
            for digest in [digest for digest, vocabulary in self._vocabularies.items() if vocabulary is None]:
                del self._vocabularies[digest]  # its bundle may be back
            _keep(self._vocabularies, self.served.digest, self.served.vocabulary)
        self.translation(self.served.digest, served)

    async def watch(self, seconds: float, changed: Callable[[Served], Awaitable[None]]) -> None:
        """Look for a new version every ``seconds``, loading it beside the work; whatever happens, go on looking."""
        while True:
            await asyncio.sleep(seconds)
            try:
                if await asyncio.to_thread(self.refresh):
                    await changed(self.served)
            except Exception:
                log.exception("looking for a new bundle failed, %s stays", self.served.version)

    def _read_vocabulary(self, digest: int) -> Vocabulary | None:
        try:
            return self.bundles.vocabulary_of(digest)
        except (RecsysError, OSError) as error:
            log.warning("states and lists of an older model cannot be read: %s", error)
            return None


def _keep(cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    while len(cache) > KEPT_VERSIONS:
        cache.popitem(last=False)
