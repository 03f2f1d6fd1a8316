"""The published model that a long-running process serves, and the watch for a newer one."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Bundle, Bundles
from recsys.errors import RecsysError
from recsys.scorer import Scorer
from recsys.sessions import SessionRule
from recsys.state import OTHER_TYPE
from recsys.vocabulary import Vocabulary

log = logging.getLogger(__name__)

KEPT_VERSIONS = 4  # older ones are read again from their bundles
K = TypeVar("K")
V = TypeVar("V")


class Served:
    """A bundle made ready to serve."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.version = bundle.version
        self.digest = bundle.digest
        self.vocabulary: Vocabulary = bundle.model.vocabulary
        self.scorer = Scorer(bundle.model.weights)
        self.rule: SessionRule = bundle.model.description.sessions.rule
        self._kinds = {name: code for code, name in enumerate(bundle.model.description.event_types)}

    def kind(self, event_type: str) -> int:
        """The event type's code; types that training never saw share one."""
        return self._kinds.get(event_type, OTHER_TYPE)

    @cached_property
    def popular(self) -> NDArray[np.int32]:
        """int32 ``[items]``: rows from the most clicked item to the least, equal counts by row."""
        return np.argsort(-self.vocabulary.counts, kind="stable").astype(np.int32)


class CurrentModel:
    """The model a process serves now. :meth:`watch` replaces it when another version is published.

    Vocabularies of the last few versions are kept, by which older states and lists are read.
    """

    def __init__(self, bundles: Bundles) -> None:
        self.bundles = bundles
        self.served = Served(bundles.open())
        self._lock = threading.RLock()
        self._vocabularies: OrderedDict[int, Vocabulary | None] = OrderedDict()
        self._translations: OrderedDict[tuple[int, int], NDArray[np.int32] | None] = OrderedDict()
        self._refused: str | None = None

    def vocabulary(self, digest: int) -> Vocabulary | None:
        """The vocabulary of the served model or of an older one, None where that is no longer to be had."""
        if digest == self.served.digest:
            return self.served.vocabulary
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
        """Load the current bundle if it is another one than served; a bad one is refused, and said so once.

        Returns:
            Whether the served model changed.
        """
        version = "current"
        try:
            version = self.bundles.current()
            if version in (self.served.version, self._refused):
                return False
            served = Served(self.bundles.open(version))
        except (RecsysError, OSError) as error:
            if self._refused != version:
                log.error("bundle refused, %s stays: %s", self.served.version, error)
            self._refused = version
            return False
        log.info("model %s takes over from %s", served.version, self.served.version)
        with self._lock:
            for digest in [digest for digest, vocabulary in self._vocabularies.items() if vocabulary is None]:
                del self._vocabularies[digest]  # its bundle may be back
            _keep(self._vocabularies, self.served.digest, self.served.vocabulary)
        self.translation(self.served.digest, served)  # here rather than in the way of the next click
        self.served, self._refused = served, None
        return True

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
