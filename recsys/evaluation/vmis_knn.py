"""VMIS-kNN: what the most similar recent sessions went on to.

After Kersbergen, Sprangers and Schelter, "Serenade: Low-Latency Session-Based Recommendation in e-Commerce at Scale",
SIGMOD 2022. The weights below are one reading of the method and have not been compared with the authors' program. Two
things are ours: the current item is not recommended, and ``recent`` and ``k`` were chosen in this baseline's favour, by
Recall@20 on the test day of a shop's log.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.item_knn import expand
from recsys.evaluation.protocol import Predictions
from recsys.sessions import Sessions

Column = NDArray[np.int64]


class VMISKNN:
    """Scores an item by the similar sessions that hold it.

    The evolving session counts each of its items once, at its last place; place p of n has the weight p / n (linear
    decay). Candidates are the ``recent`` most recent training sessions that share an item; a candidate's similarity is
    the sum of the weights of the items it shares. The ``k`` most similar (the more recent among equals) vote::

        score(i) = sum over neighbours n with i of  match(n) * similarity(n) * log(sessions / sessions with i)

    where match(n) is 1 - 0.1 * b and the newest shared item is the b-th from the end of the evolving session (1 for
    the current item), 0 from the tenth on. The current item itself is not recommended.

    Args:
        recent: candidates, at most.
        k: neighbours that vote.
        longest: how many last events of the evolving session are looked at.
    """

    name = "VMIS-kNN"

    def __init__(self, recent: int = 1000, k: int = 200, longest: int = 20) -> None:
        self.recent, self.k, self.longest = recent, k, longest

    def fit(self, sessions: Sessions, items: int) -> None:
        """Index the sessions of each of ``items`` items, the most recent first."""
        last = sessions.times[sessions.starts[1:] - 1]
        age = np.empty(len(sessions), np.int64)
        age[np.lexsort((np.arange(len(sessions)), last))[::-1]] = np.arange(len(sessions))
        self._sessions, self._items = len(sessions), items
        by_session = np.unique(age[sessions.owner] * items + sessions.items)
        session, self._item = np.divmod(by_session, items)
        self._session_first = np.searchsorted(session, np.arange(len(sessions) + 1))
        order = np.argsort(self._item, kind="stable")  # by item, and then by age
        item, session = self._item[order], session[order]
        support = np.bincount(item, minlength=items)
        self._idf = np.log(len(sessions) / np.maximum(support, 1)).astype(np.float32)
        first = np.cumsum(support) - support
        kept = np.arange(len(item)) - first[item] < self.recent
        self._session = session[kept]
        self._item_first = np.searchsorted(item[kept], np.arange(items + 1))

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Chunks ``[n, items]``; items of no neighbour are never recommended."""
        for chunk in Predictions.of(sessions).chunks(self._items):
            prediction, session, vote = self._neighbours(*self._evolving(chunk, sessions))
            row, at = expand(self._session_first[session], self._session_first[session + 1])
            where = prediction[row] * self._items + self._item[at]
            votes = np.bincount(where, vote[row], len(chunk) * self._items).astype(np.float32)
            scores = votes.reshape(len(chunk), self._items) * self._idf
            scores[np.arange(len(chunk)), sessions.items[chunk.event - 1]] = 0
            scores[scores == 0] = -np.inf
            yield scores

    def _evolving(self, chunk: Predictions, sessions: Sessions) -> tuple[Column, Column, Column, Column]:
        """Distinct items of each evolving session: prediction, item, place from the end, and from the beginning."""
        prediction, event, _ = chunk.histories(self.longest)
        item = sessions.items[event].astype(np.int64)
        _, newest = np.unique(prediction * self._items + item, return_index=True)
        newest.sort()
        prediction, item = prediction[newest], item[newest]
        count = np.bincount(prediction, minlength=len(chunk))
        from_end = np.arange(len(item)) - (np.cumsum(count) - count)[prediction] + 1
        return prediction, item, from_end, count[prediction] - from_end + 1

    def _neighbours(
        self, prediction: Column, item: Column, from_end: Column, place: Column
    ) -> tuple[Column, Column, NDArray[np.float64]]:
        """The sessions that vote: prediction, session, and match times similarity (up to a factor per prediction)."""
        row, at = expand(self._item_first[item], self._item_first[item + 1])
        key = prediction[row] * self._sessions + self._session[at]
        order = np.argsort(key)
        key, row = key[order], row[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        prediction, session = np.divmod(key[first], self._sessions)
        if not len(first):
            return prediction, session, np.zeros(0)
        similarity, newest = np.add.reduceat(place[row], first), np.minimum.reduceat(from_end[row], first)
        recent = np.flatnonzero(_place_in_group(prediction) < self.recent)
        order = recent[np.lexsort((-similarity[recent], prediction[recent]))]  # stable: the more recent stay ahead
        order = order[_place_in_group(prediction[order]) < self.k]
        vote: NDArray[np.float64] = np.maximum(0, 1 - 0.1 * newest[order]) * similarity[order]
        return prediction[order], session[order], vote


def _place_in_group(group: Column) -> Column:
    """For ascending ``group`` numbers, how many of the same number stand before each."""
    return np.arange(len(group)) - np.searchsorted(group, group)
