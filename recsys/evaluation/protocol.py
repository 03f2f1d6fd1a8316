"""How recommenders are compared: the next item, ranked among all items, ties counted against the recommender.

Every event of a test session but its first is one prediction, made from all events before it in the session. There is
no sampling of candidates, and no case is left out: a recommender that yields fewer rows than there are predictions, or
a score that is not a number, is refused, and so is one whose scores depend on what comes later (see
:mod:`recsys.evaluation.peeking`). The split is by time only and is not made here: it is the dataset's.

The rank of the target is the number of items with a score at least as high, itself included. So a recommender that
gives every item the same score ranks every target last, and a target that is never recommended counts as missed however
few items there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.evaluation.metrics import Interval, bootstrap, hits, interval, reciprocal_ranks
from recsys.evaluation.peeking import PeekingCheck
from recsys.evaluation.predictions import Predictions, Recommender
from recsys.sessions import Sessions

KS = (1, 5, 10, 20)
LIST_LENGTH = 20  # items in a recommendation list, for coverage
NEVER = int(np.iinfo(np.int32).max)  # the rank of a target that is not recommended at all


@dataclass(frozen=True)
class Result:
    """What a recommender did on each prediction.

    Attributes:
        name: the recommender's.
        ranks: int32 ``[predictions]``, pessimistic rank of each target, from 1.
        recommended: int64 ``[items]``, how many of the top-20 lists hold each item.
        predictions: what was asked.
        ks: cut-offs that :meth:`as_dict` reports.
    """

    name: str
    ranks: NDArray[np.int32]
    recommended: NDArray[np.int64]
    predictions: Predictions
    ks: tuple[int, ...] = KS

    def recall(self, k: int) -> float:
        """Share of predictions whose target is among the first ``k``."""
        return float(hits(self.ranks, k).mean())

    def mrr(self, k: int) -> float:
        """Mean reciprocal rank, 0 for targets beyond ``k``."""
        return float(reciprocal_ranks(self.ranks, k).mean())

    @property
    def coverage(self) -> float:
        """Share of all items that stand in at least one top-20 list."""
        return float(np.count_nonzero(self.recommended) / len(self.recommended))

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95% bootstrap intervals over sessions of each Recall@k and MRR@k, by name as in :meth:`as_dict`."""
        means = bootstrap(np.stack(list(self._columns().values()), axis=1), self.predictions.session)
        return {name: interval(column) for name, column in zip(self._columns(), means.T, strict=True)}

    def difference(self, other: Result, metric: str) -> Interval:
        """95% paired bootstrap interval of ``metric`` of this result minus that of ``other``.

        Raises:
            InputError: the two were not asked the same predictions.
        """
        if not np.array_equal(self.predictions.event, other.predictions.event):
            raise InputError(f"{self.name} and {other.name} were not evaluated on the same predictions")
        paired = self._columns()[metric] - other._columns()[metric]
        return interval(bootstrap(paired, self.predictions.session))

    def as_dict(self) -> dict[str, float]:
        """``recall@k`` and ``mrr@k`` for each k, and ``coverage@20``."""
        values = {name: float(column.mean()) for name, column in self._columns().items()}
        return {**values, f"coverage@{LIST_LENGTH}": self.coverage}

    def _columns(self) -> dict[str, NDArray[np.float64]]:
        recalls = {f"recall@{k}": hits(self.ranks, k) for k in self.ks}
        return recalls | {f"mrr@{k}": reciprocal_ranks(self.ranks, k) for k in self.ks}


def evaluate(
    recommender: Recommender,
    sessions: Sessions,
    counts: NDArray[np.int64],
    ks: Sequence[int] = KS,
    advance: Callable[[int], object] = lambda _: None,
) -> Result:
    """Rank the target of every prediction that ``sessions`` ask for.

    Args:
        recommender: what to evaluate.
        sessions: test sessions, of length 2 or more where they shall count.
        counts: ``[items]``, training events of each item; its length says how many items there are.
        ks: cut-offs to report.
        advance: called with the number of predictions in each chunk, to show progress.

    Raises:
        InputError: there is nothing to predict, or the recommender breaks its contract: wrong shape, a NaN,
            another number of rows than there are predictions, or scores that depend on what comes later.
    """
    predictions, items = Predictions.of(sessions), len(counts)
    if not len(predictions):
        raise InputError("nothing to evaluate: no session has a second event")
    ranks = np.zeros(len(predictions), np.int32)
    recommended = np.zeros(items, np.int64)
    check = PeekingCheck(predictions, sessions, items)
    done = 0
    for chunk in recommender.predict(sessions):
        scores = np.asarray(chunk, np.float32)
        if scores.ndim != 2 or scores.shape[1] != items:
            raise InputError(f"{recommender.name} gave scores of shape {scores.shape}, not [n, {items}]")
        target = predictions.target[done : done + len(scores)]
        if len(target) < len(scores):
            raise InputError(f"{recommender.name} gave more rows of scores than the {len(predictions)} predictions")
        ranks[done : done + len(scores)] = pessimistic_ranks(scores, target, recommender.name)
        recommended += np.bincount(top_items(scores), minlength=items)
        check.keep(done, scores)
        done += len(scores)
        advance(len(scores))
    if done < len(predictions):
        raise InputError(f"{recommender.name} gave {done} rows of scores for {len(predictions)} predictions")
    check.verify(recommender)
    return Result(recommender.name, ranks, recommended, predictions, tuple(ks))


def pessimistic_ranks(
    scores: NDArray[np.float32], target: NDArray[np.int32], name: str = "the recommender"
) -> NDArray[np.int64]:
    """``[n]``: how many items of ``scores`` ``[n, items]`` score at least as high as the target, itself included.

    :data:`NEVER` where the target scores ``-inf``.

    Raises:
        InputError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise InputError(f"{name} gave a score that is not a number")
    own = scores[np.arange(len(target)), target]
    ranks: NDArray[np.int64] = np.count_nonzero(scores >= own[:, None], axis=1)
    ranks[own == -np.inf] = NEVER
    return ranks


def top_items(scores: NDArray[np.float32], k: int = LIST_LENGTH) -> NDArray[np.int64]:
    """The rows that stand in the top-``k`` lists of ``scores`` ``[n, items]``, all lists together in no order.

    Items scored ``-inf`` are in no list.
    """
    k = min(k, scores.shape[1])
    top = np.argpartition(scores, -k, axis=1)[:, -k:]
    return top[np.take_along_axis(scores, top, axis=1) > -np.inf]
