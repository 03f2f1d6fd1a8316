"""The past sessions most similar to the one at hand vote: what V-SKNN and VMIS-kNN have in common.

A session counts each of its items once. In the evolving session an item stands at its last place, and place p of n has
the weight p / n: the linear decay of Ludewig and Jannach 2018. Candidates are the ``recent`` most recent training
sessions that share an item; a candidate's similarity is the sum of the weights of the items it shares. The ``k`` most
similar (the more recent among equals) vote::

    score(i) = sum over neighbours with i of  decay(b) * similarity * log(sessions / sessions with i)

where the newest item that a neighbour shares is the b-th from the end of the evolving session (1 for the current item).
How votes decay is what tells the methods apart. The current item itself is not recommended. ``recent`` and ``k`` were
chosen by Recall@20 on validation sessions of a shop's log, where they serve both methods best.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.item_knn import expand
from recsys.evaluation.predictions import Predictions
from recsys.sessions import Sessions

Column = NDArray[np.int64]


class SessionKNN(ABC):
    """Scores an item by the similar sessions that hold it.

    Args:
        recent: candidates, at most.
        k: neighbours that vote.
        longest: how many last events of the evolving session are looked at.
    """

    name: str

    def __init__(self, recent: int = 1000, k: int = 500, longest: int = 20) -> None:
        self.recent, self.k, self.longest = recent, k, longest

    @abstractmethod
    def decay(self, newest: Column) -> NDArray[np.float64]:
        """Weight of the votes ``[pairs]`` of neighbours whose newest shared item is the ``newest``-th from the end."""

    def fit(self, sessions: Sessions, items: int) -> None:
        """Index the sessions of each of ``items`` items, the most recent first."""
        self._past, self._items = PastSessions(sessions, items, self.recent, self.k, self.longest), items

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """Chunks ``[n, items]``; items of no neighbour are never recommended."""
        for chunk in Predictions.of(sessions).chunks(self._items):
            near = self._past.near(chunk, sessions)
            scores = self._past.scores(near, self.decay(near.newest) * near.similarity, len(chunk))
            scores[np.arange(len(chunk)), sessions.items[chunk.event - 1]] = 0
            scores[scores == 0] = -np.inf
            yield scores


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of some predictions, in columns ``[pairs]``.

    Attributes:
        prediction: index into the predictions asked for, ascending.
        session: age of the neighbour, 0 for the most recent session.
        similarity: up to a factor for each prediction, which changes no ranking.
        newest: place from the end, in the evolving session, of the newest shared item.
    """

    prediction: Column
    session: Column
    similarity: Column
    newest: Column


class PastSessions:
    """Training sessions in the order of their age, searched by the items they hold."""

    def __init__(self, sessions: Sessions, items: int, recent: int, k: int, longest: int) -> None:
        self._sessions, self._items = len(sessions), items
        self._recent, self._k, self._longest = recent, k, longest
        last = sessions.times[sessions.starts[1:] - 1]
        age = np.empty(len(sessions), np.int64)
        age[np.lexsort((np.arange(len(sessions)), last))[::-1]] = np.arange(len(sessions))
        session, self._item = np.divmod(np.unique(age[sessions.owner] * items + sessions.items), items)
        self._session_first = np.searchsorted(session, np.arange(len(sessions) + 1))
        order = np.argsort(self._item, kind="stable")  # by item, and then by age
        item, session = self._item[order], session[order]
        support = np.bincount(item, minlength=items)
        self._rarity = np.log(len(sessions) / np.maximum(support, 1)).astype(np.float32)
        first = np.cumsum(support) - support
        kept = np.arange(len(item)) - first[item] < recent
        self._session = session[kept]
        self._item_first = np.searchsorted(item[kept], np.arange(items + 1))

    def near(self, chunk: Predictions, sessions: Sessions) -> Neighbours:
        """The neighbours of each prediction of ``chunk``."""
        prediction, item, from_end, place = self._evolving(chunk, sessions)
        row, at = expand(self._item_first[item], self._item_first[item + 1])
        key = prediction[row] * self._sessions + self._session[at]
        order = np.argsort(key)
        key, row = key[order], row[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        prediction, session = np.divmod(key[first], self._sessions)
        if not len(first):
            return Neighbours(prediction, session, prediction, prediction)
        similarity, newest = np.add.reduceat(place[row], first), np.minimum.reduceat(from_end[row], first)
        recent = np.flatnonzero(_place_in_group(prediction) < self._recent)
        order = recent[np.lexsort((-similarity[recent], prediction[recent]))]  # stable: the more recent stay ahead
        order = order[_place_in_group(prediction[order]) < self._k]
        return Neighbours(prediction[order], session[order], similarity[order], newest[order])

    def scores(self, neighbours: Neighbours, votes: NDArray[np.float64], count: int) -> NDArray[np.float32]:
        """``[count, items]`` for as many predictions: the ``votes`` ``[pairs]`` for each item times its rarity."""
        row, at = expand(self._session_first[neighbours.session], self._session_first[neighbours.session + 1])
        where = neighbours.prediction[row] * self._items + self._item[at]
        summed = np.bincount(where, votes[row], count * self._items).astype(np.float32)
        scores: NDArray[np.float32] = summed.reshape(count, self._items) * self._rarity
        return scores

    def _evolving(self, chunk: Predictions, sessions: Sessions) -> tuple[Column, Column, Column, Column]:
        """Distinct items of each evolving session: prediction, item, place from the end, and from the beginning."""
        prediction, event, _ = chunk.histories(self._longest)
        item = sessions.items[event].astype(np.int64)
        _, newest = np.unique(prediction * self._items + item, return_index=True)
        newest.sort()
        prediction, item = prediction[newest], item[newest]
        count = np.bincount(prediction, minlength=len(chunk))
        from_end = np.arange(len(item)) - (np.cumsum(count) - count)[prediction] + 1
        return prediction, item, from_end, count[prediction] - from_end + 1


def _place_in_group(group: Column) -> Column:
    """For ascending ``group`` numbers, how many of the same number stand before each."""
    return np.arange(len(group)) - np.searchsorted(group, group)
