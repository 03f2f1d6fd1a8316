"""The best possible recommender on a generated log: it knows the true transition probabilities.

Where the dataset holds the process's own sequence, no recommender has a higher expected Recall@k: the k items of
highest probability are those that the target is among most often, and what is reached on given sessions differs from
that by chance only. Two steps on the way to a dataset blur the sequence a little. Where rare items are filtered, the
event before may not be the one that the process went on from. Where repeats are collapsed, the time of an event is that
of the first of its run, so that taste may be read an hour too early. The figures are then close to the best, no bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.evaluation.predictions import Predictions
from recsys.generator.process import (
    CART,
    CONTINUE,
    EVENT_TYPES,
    EXPLORE,
    LOOK_AGAIN,
    PURCHASE,
    TO_CART,
    TO_PURCHASE,
    VIEW,
    Process,
)
from recsys.sessions import Sessions
from recsys.vocabulary import Vocabulary


class Oracle:
    """Scores each item by its true probability of being next, among the items of a dataset.

    Args:
        process: what generated the log.
        vocabulary: the dataset's, to tell which row is which item.
        event_types: name of each event type code of the dataset.
        collapsed: whether direct repeats were collapsed, so that the current item cannot be next.

    Raises:
        InputError: the dataset is not of this process.
    """

    name = "best possible"

    def __init__(self, process: Process, vocabulary: Vocabulary, event_types: Sequence[str], collapsed: bool) -> None:
        self.process, self.collapsed = process, collapsed
        number = {item: index for index, item in enumerate(process.item_ids)}
        unknown = [item for item in vocabulary.ids if item not in number]
        if unknown or not set(event_types) <= set(EVENT_TYPES):
            what = f"item {unknown[0]!r}" if unknown else f"event types {sorted(set(event_types) - set(EVENT_TYPES))}"
            raise InputError(f"the dataset is not of this process, which has no {what}")
        self._item = np.array([number[item] for item in vocabulary.ids], np.int64)
        self._row = np.full(len(process.item_ids), -1, np.int64)
        self._row[self._item] = np.arange(len(vocabulary))
        self._stay = np.array([_CHANCE_TO_STAY[EVENT_TYPES.index(name)] for name in event_types])

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Chunks ``[n, items]`` of probabilities; each row sums to 1."""
        for chunk in Predictions.of(sessions).chunks(len(self._item)):
            before = chunk.event - 1
            yield self._chances(sessions.items[before], sessions.times[before], sessions.types[before])

    def expected_recall(self, sessions: Sessions, k: int = 20) -> float:
        """Recall@k on average over all that could have come next at each step of ``sessions``, by this process."""
        mass = [np.partition(chances, -k, axis=1)[:, -k:].sum(axis=1) for chances in self.predict(sessions)]
        return float(np.concatenate(mass).mean())

    def _chances(
        self, rows: NDArray[np.int32], times: NDArray[np.int64], types: NDArray[np.int8]
    ) -> NDArray[np.float32]:
        process, item = self.process, self._item[rows]
        index = np.arange(len(rows))
        by_category = EXPLORE * process.taste[process.hour(times)]
        spread = by_category[:, process.category[self._item]] * process.popularity[self._item]
        chances: NDArray[np.float32] = spread.astype(np.float32)
        near = self._row[process.near[item]]
        known = near >= 0
        chances[np.repeat(index, known.sum(axis=1)), near[known]] += process.near_chance[item][known]
        if self.collapsed:
            chances[index, rows] = 0
        else:
            stay = self._stay[types]
            chances *= (1 - stay)[:, None]
            chances[index, rows] += stay
        chances /= chances.sum(axis=1, keepdims=True)
        return chances


def _chance_to_stay(repeat: float) -> float:
    """The chance that the next event is a further one on the same item, given that there is a next event."""
    return repeat / (repeat + (1 - repeat) * CONTINUE)


_CHANCE_TO_STAY = {
    VIEW: _chance_to_stay(LOOK_AGAIN + TO_CART),
    CART: _chance_to_stay(TO_PURCHASE),
    PURCHASE: _chance_to_stay(0.0),
}
