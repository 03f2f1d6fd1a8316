"""Popularity: the items most people looked at, the same for everybody."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.predictions import Predictions
from recsys.sessions import Sessions


class Popularity:
    """Scores an item by its number of training events."""

    name = "popularity"

    def fit(self, sessions: Sessions, items: int) -> None:
        """Count the events of each of ``items`` items."""
        self._counts = np.bincount(sessions.items, minlength=items).astype(np.float32)

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Chunks ``[n, items]``; every row is the same."""
        items = len(self._counts)
        for chunk in Predictions.of(sessions).chunks(items):
            yield np.broadcast_to(self._counts, (len(chunk), items))
