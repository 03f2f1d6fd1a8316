"""Whether a recommender looks ahead: the same questions again, with another future.

A recommender is handed whole sessions, so nothing but its word keeps it from reading the answers. Some predictions are
therefore asked a second time, in sessions that are the same up to the target and go on otherwise, among other sessions
than before: other items, at other times, of other types, and another number of them. Whoever looks only at what came
before gives the same scores, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.evaluation.predictions import Predictions, Recommender
from recsys.sessions import Sessions

SAMPLED = 32  # predictions asked again
SAMPLED_SCORES = 1 << 23  # and at most so many scores kept for that (32 MiB)


class PeekingCheck:
    """Keeps the scores of some predictions, chosen by lot, and compares them with those for another future."""

    def __init__(self, predictions: Predictions, sessions: Sessions, items: int) -> None:
        random = np.random.default_rng(0)
        count = min(SAMPLED, max(1, SAMPLED_SCORES // items), len(predictions))
        self._asked = np.sort(random.choice(len(predictions), count, replace=False))
        self._kept = np.zeros((count, items), np.float32)
        self._position = predictions.position[self._asked]
        self._other = _with_another_future(sessions, predictions, self._asked, items, random)

    def keep(self, first: int, scores: NDArray[np.float32]) -> None:
        """Take what is needed of the ``scores`` ``[n, items]`` of the predictions from number ``first`` on."""
        here = (self._asked >= first) & (self._asked < first + len(scores))
        self._kept[here] = scores[self._asked[here] - first]

    def verify(self, recommender: Recommender) -> None:
        """Ask again.

        Raises:
            InputError: the recommender's scores depend on more than the events before the target.
        """
        wanted = self._other.starts[:-1] - np.arange(len(self._other)) + self._position - 1
        again = _rows(recommender.predict(self._other), wanted)
        if not np.array_equal(self._kept, np.array(again, np.float32)):
            raise InputError(
                f"{recommender.name} looks ahead: its scores change with what follows in a session, or with what other "
                "sessions there are; they may depend on the events before the target only"
            )


def _with_another_future(
    sessions: Sessions, predictions: Predictions, asked: NDArray[np.int64], items: int, random: np.random.Generator
) -> Sessions:
    """A session for each prediction ``asked``: its own up to the target, then strangers."""
    parts: list[tuple[NDArray[np.int64], ...]] = []
    types = int(sessions.types.max(initial=0)) + 1
    for event, owner in zip(predictions.event[asked].tolist(), predictions.session[asked].tolist(), strict=True):
        start, end = int(sessions.starts[owner]), int(sessions.starts[owner + 1])
        future = np.full(1 if end - event > 1 else 2, event)
        shift = random.integers(1, max(2, items), len(future))
        gaps = random.integers(1, 60_000, len(future)).cumsum()
        history = slice(start, event)
        parts.append(
            (
                np.concatenate([sessions.items[history], (sessions.items[future] + shift) % items]),
                np.concatenate([sessions.times[history], sessions.times[event - 1] + gaps]),
                np.concatenate([sessions.types[history], (sessions.types[future] + 1) % types]),
            )
        )
    rows, times, kinds = (np.concatenate(column) for column in zip(*parts, strict=True))
    starts = np.cumsum([0, *(len(part[0]) for part in parts)])
    return Sessions(rows.astype(np.int32), times, kinds.astype(np.int8), starts.astype(np.int64))


def _rows(chunks: Iterator[NDArray[np.float32]], wanted: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """The rows with the ascending numbers ``wanted`` of all ``chunks`` together; what is not there is left out."""
    rows: list[NDArray[np.float32]] = []
    first = 0
    for chunk in chunks:
        here = wanted[(wanted >= first) & (wanted < first + len(chunk))]
        rows.extend(chunk[here - first])
        first += len(chunk)
    return rows
