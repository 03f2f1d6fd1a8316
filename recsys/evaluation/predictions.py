"""What sessions ask of a recommender, and what a recommender is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.sessions import Sessions

# One chunk has at most so many scores (16 MiB) and predictions, which bounds the memory of an evaluation.
CHUNK_SCORES, CHUNK_ROWS = 1 << 22, 2048


class Recommender(Protocol):
    """What can be evaluated."""

    name: str

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Scores over all items for each prediction in order, in chunks ``[n, items]``.

        A prediction is each event but the first of its session, given all events before it in the session: its scores
        must be the same, to the bit, whatever comes later and whatever other sessions there are. ``-inf`` says that
        an item is never recommended.
        """
        ...


class Baseline(Recommender, Protocol):
    """A recommender that learns from sessions at once."""

    def fit(self, sessions: Sessions, items: int) -> None:
        """Learn from training sessions over ``items`` items."""
        ...


@dataclass(frozen=True)
class Predictions:
    """The predictions that sessions ask for, in order.

    Attributes:
        event: int64 ``[predictions]``, index of the target among the sessions' events.
        target: int32 ``[predictions]``, row of the item to predict.
        session: int64 ``[predictions]``, index of the session.
        position: int64 ``[predictions]``, events of the session that stand before the target (1 or more).
    """

    event: NDArray[np.int64]
    target: NDArray[np.int32]
    session: NDArray[np.int64]
    position: NDArray[np.int64]

    @classmethod
    def of(cls, sessions: Sessions) -> Predictions:
        """All predictions of ``sessions``."""
        owner = sessions.owner
        position = np.arange(sessions.events) - sessions.starts[owner]
        event = np.flatnonzero(position)
        return cls(event, sessions.items[event], owner[event], position[event])

    def __len__(self) -> int:
        return len(self.event)

    def chunks(self, items: int) -> Iterator[Predictions]:
        """Runs of predictions short enough that a chunk of scores over ``items`` items stays within its bound."""
        size = max(1, min(CHUNK_SCORES // items, CHUNK_ROWS))
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Predictions(self.event[part], self.target[part], self.session[part], self.position[part])

    def histories(self, longest: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The events before each target: what a recommender may look at.

        Returns:
            Three columns ``[pairs]``: the prediction (index into this object), the event (index among the sessions'
            events), and its distance back from the target (1 for the event directly before). At most the ``longest``
            last events of a history are given; within a prediction the order is from the last event to the first.
        """
        lengths = self.position if longest is None else np.minimum(self.position, longest)
        prediction = np.repeat(np.arange(len(self)), lengths)
        back = np.arange(len(prediction)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
        return prediction, self.event[prediction] - back, back
