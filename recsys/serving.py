"""The published model that a long-running process serves, and the watch for a newer one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Bundle, Bundles
from recsys.errors import RecsysError
from recsys.scorer import Scorer
from recsys.sessions import SessionRule
from recsys.state import OTHER_TYPE
from recsys.vocabulary import Vocabulary

log = logging.getLogger(__name__)


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
    """The model a process serves now. :meth:`watch` replaces it when another version is published."""

    def __init__(self, bundles: Bundles) -> None:
        self.bundles = bundles
        self.served = Served(bundles.open())
        self._translations: dict[tuple[int, int], NDArray[np.int32] | None] = {}
        self._vocabularies: dict[int, Vocabulary | None] = {}
        self._refused: str | None = None

    def vocabulary(self, digest: int) -> Vocabulary | None:
        """The vocabulary of the served model or of an older one, None where that is no longer on disk."""
        if digest == self.served.digest:
            return self.served.vocabulary
        if digest not in self._vocabularies:
            self._vocabularies[digest] = self.bundles.vocabulary_of(digest)
        return self._vocabularies[digest]

    def translation(self, older: int, served: Served) -> NDArray[np.int32] | None:
        """For each row of an older model the row of ``served``; None where the older model is no longer on disk."""
        key = (older, served.digest)
        if key not in self._translations:
            vocabulary = self.vocabulary(older)
            self._translations[key] = None if vocabulary is None else served.vocabulary.rows_from(vocabulary)
        return self._translations[key]

    def refresh(self) -> bool:
        """Load the current bundle if it is another one than served; a bad one is refused, and said so once.

        Returns:
            Whether the served model changed.
        """
        version = None
        try:
            version = self.bundles.current()
            if version in (self.served.version, self._refused):
                return False
            served = Served(self.bundles.open(version))
        except RecsysError as error:
            log.error("bundle refused, %s stays: %s", self.served.version, error)
            self._refused = version
            return False
        log.info("model %s takes over from %s", served.version, self.served.version)
        self._vocabularies[self.served.digest] = self.served.vocabulary
        self.served = served
        return True

    async def watch(self, seconds: float, changed: Callable[[Served], None]) -> None:
        """Look for a new version every ``seconds``, loading it beside the work; never returns."""
        while True:
            await asyncio.sleep(seconds)
            if await asyncio.to_thread(self.refresh):
                changed(self.served)
