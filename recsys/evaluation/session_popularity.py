"""Session popularity: the items of the session so far, the most frequent first, then the popular ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.predictions import Predictions
from recsys.sessions import Sessions
from recsys.vocabulary import below_one


class SessionPopularity:
    """Scores an item by its events in the session, equals by their training events (Hidasi et al. 2016, "S-POP")."""

    name = "session popularity"

    def fit(self, sessions: Sessions, items: int) -> None:
        """Count the events of each of ``items`` items."""
        self._below_one = below_one(np.bincount(sessions.items, minlength=items))

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Chunks ``[n, items]``."""
        for chunk in Predictions.of(sessions).chunks(len(self._below_one)):
            scores = np.tile(self._below_one, (len(chunk), 1))
            prediction, event, _ = chunk.histories()
            np.add.at(scores, (prediction, sessions.items[event]), np.float32(1))
            yield scores
