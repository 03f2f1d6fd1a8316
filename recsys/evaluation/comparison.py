"""Recommenders side by side on the same predictions: figures, intervals, and where they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.metrics import Interval, bootstrap, hits, interval, reciprocal_ranks
from recsys.evaluation.oracle import Oracle
from recsys.evaluation.predictions import Predictions, Recommender
from recsys.evaluation.protocol import LIST_LENGTH, Result, evaluate
from recsys.sessions import Sessions

RECALL, MRR = f"recall@{LIST_LENGTH}", f"mrr@{LIST_LENGTH}"
_POSITIONS = {"2nd": (1, 1), "3rd": (2, 2), "4th": (3, 3), "5th to 7th": (4, 6), "8th or later": (7, None)}
_LENGTHS = {"2": (2, 2), "3": (3, 3), "4 or 5": (4, 5), "6 to 9": (6, 9), "10 or more": (10, None)}
_POPULARITY = {"top 1%": 0.01, "1 to 5%": 0.05, "5 to 20%": 0.2, "20 to 50%": 0.5, "lower half": 1.0}
FEWEST = 10  # predictions of an item before it is called predictable or not


@dataclass(frozen=True)
class Figure:
    """A metric with its interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Group:
    """Some of the predictions, with each recommender's Recall@20 and MRR@20 on them."""

    label: str
    predictions: int
    recall: dict[str, Figure]
    mrr: dict[str, Figure]


@dataclass(frozen=True)
class ItemFigure:
    """How often the model foresaw an item."""

    row: int
    predictions: int
    recall: float


@dataclass(frozen=True)
class Lead:
    """How far the model is ahead of a baseline in a metric: the difference with its paired 95% interval.

    ``base`` is the baseline's own figure.
    """

    baseline: str
    base: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["ahead", "level", "behind"]:
        """Level where the interval holds 0."""
        return "ahead" if self.low > 0 else "behind" if self.high < 0 else "level"

    def relative(self, difference: float) -> float:
        """A difference in percent of the baseline's figure."""
        return 100 * difference / self.base if self.base else float("nan")


@dataclass(frozen=True)
class Comparison:
    """What several recommenders did on the same sessions.

    Attributes:
        results: the model's first, then the baselines'.
        fixed: the result of the same model without its live trend, where it has one.
        bound: the result of the best possible recommender, where the log's process is known.
        expected: Recall@20 that the process itself leads one to expect of ``bound`` on these sessions.
        sessions: what was predicted.
        counts: int64 ``[items]``, training events of each item.
    """

    results: Sequence[Result]
    fixed: Result | None
    bound: Result | None
    expected: float | None
    sessions: Sessions
    counts: NDArray[np.int64]

    @property
    def model(self) -> Result:
        """The model under evaluation."""
        return self.results[0]

    @property
    def baselines(self) -> Sequence[Result]:
        """What it has to beat."""
        return self.results[1:]

    @property
    def everyone(self) -> list[Result]:
        """All results: the model's, without its live trend, the baselines', the bound."""
        each = (self.model, self.fixed, *self.baselines, self.bound)
        return [result for result in each if result is not None]

    @property
    def predictions(self) -> Predictions:
        """What everyone was asked."""
        return self.model.predictions

    def leads(self, metric: str) -> list[Lead]:
        """The model's lead over each baseline, the best baseline first."""
        found = []
        for other in self.baselines:
            base, low_high = other.as_dict()[metric], self.model.difference(other, metric)
            found.append(Lead(other.name, base, self.model.as_dict()[metric] - base, *low_high))
        return sorted(found, key=lambda lead: -lead.base)

    @cached_property
    def by_position(self) -> list[Group]:
        """By the place of the target in its session."""
        position = self.predictions.position
        return self._groups({label: _between(position, *bounds) for label, bounds in _POSITIONS.items()})

    @cached_property
    def by_length(self) -> list[Group]:
        """By the number of events in the session."""
        length = self.sessions.lengths[self.predictions.session]
        return self._groups({label: _between(length, *bounds) for label, bounds in _LENGTHS.items()})

    @cached_property
    def by_popularity(self) -> list[Group]:
        """By where the target stands among all items, the most popular in training first."""
        place = np.empty(len(self.counts))
        place[np.argsort(-self.counts, kind="stable")] = (np.arange(len(self.counts)) + 1) / len(self.counts)
        band = np.searchsorted(list(_POPULARITY.values()), place)[self.predictions.target]
        return self._groups({label: band == number for number, label in enumerate(_POPULARITY)})

    def concentration(self, result: Result) -> NDArray[np.float64]:
        """``[items + 1]``: share of all recommendations that go to the 0, 1, 2, … most popular items."""
        return _cumulative_share(result.recommended[np.argsort(-self.counts, kind="stable")])

    @property
    def demand(self) -> NDArray[np.float64]:
        """``[items + 1]``: share of all targets that are among the 0, 1, 2, … most popular items."""
        wanted = np.bincount(self.predictions.target, minlength=len(self.counts))
        return _cumulative_share(wanted[np.argsort(-self.counts, kind="stable")])

    def predictable(self, count: int) -> tuple[list[ItemFigure], list[ItemFigure]]:
        """The ``count`` items that the model foresees most and least often, of those with enough predictions."""
        target = self.predictions.target
        asked = np.bincount(target, minlength=len(self.counts))
        found = np.bincount(target, hits(self.model.ranks, LIST_LENGTH), len(self.counts))
        rows = np.flatnonzero(asked >= FEWEST)
        recall = found[rows] / asked[rows]
        best, worst = np.lexsort((-asked[rows], -recall)), np.lexsort((-asked[rows], recall))
        figures = [ItemFigure(int(row), int(asked[row]), float(found[row] / asked[row])) for row in rows]
        count = min(count, len(rows) // 2)
        return [figures[index] for index in best[:count]], [figures[index] for index in worst[:count]]

    def as_dict(self) -> dict[str, Any]:
        """All figures, as plain values."""
        best = {metric: self.leads(metric)[0] for metric in (RECALL, MRR)}
        return {
            "sessions": len(self.sessions),
            "predictions": len(self.predictions),
            "items": len(self.counts),
            "model": self.model.name,
            "recommenders": [
                {
                    "name": result.name,
                    "metrics": result.as_dict(),
                    "intervals": {metric: list(limits) for metric, limits in result.intervals.items()},
                }
                for result in self.everyone
            ],
            "ahead_of_best_baseline": {
                metric: {
                    "baseline": lead.baseline,
                    "difference": lead.difference,
                    "interval": [lead.low, lead.high],
                    "verdict": lead.verdict,
                }
                for metric, lead in best.items()
            },
            "best_possible_expected": None if self.expected is None else {RECALL: self.expected},
            "by_position": [_group_as_dict(group) for group in self.by_position],
            "by_item_popularity": [_group_as_dict(group) for group in self.by_popularity],
            "by_session_length": [_group_as_dict(group) for group in self.by_length],
        }

    def _groups(self, masks: dict[str, NDArray[np.bool_]]) -> list[Group]:
        return [self._group(label, mask) for label, mask in masks.items() if mask.any()]

    def _group(self, label: str, mask: NDArray[np.bool_]) -> Group:
        names = [result.name for result in self.everyone]
        ranks = [result.ranks[mask] for result in self.everyone]
        columns = [hits(some, LIST_LENGTH) for some in ranks] + [reciprocal_ranks(some, LIST_LENGTH) for some in ranks]
        means = bootstrap(np.stack(columns, axis=1), self.predictions.session[mask])
        figures = [
            Figure(float(column.mean()), interval(resampled))
            for column, resampled in zip(columns, means.T, strict=True)
        ]
        recall, mrr = figures[: len(names)], figures[len(names) :]
        return Group(label, int(mask.sum()), dict(zip(names, recall, strict=True)), dict(zip(names, mrr, strict=True)))


Advance = Callable[[str, int], object]


def compare(
    model: Recommender,
    baselines: Sequence[Recommender],
    bound: Oracle | None,
    sessions: Sessions,
    counts: NDArray[np.int64],
    advance: Advance = lambda _name, _predictions: None,
    fixed: Recommender | None = None,
) -> Comparison:
    """Evaluate everyone on ``sessions``; ``advance`` is told who has made how many further predictions.

    ``fixed`` is the model without its live trend, None where it has none.

    Raises:
        InputError: there is nothing to predict, or a recommender breaks its contract.
    """

    def result(recommender: Recommender) -> Result:
        return evaluate(recommender, sessions, counts, advance=lambda done: advance(recommender.name, done))

    results = [result(recommender) for recommender in (model, *baselines)]
    of_fixed, of_bound = (None if each is None else result(each) for each in (fixed, bound))
    expected = None if bound is None else bound.expected_recall(sessions, LIST_LENGTH)
    return Comparison(results, of_fixed, of_bound, expected, sessions, counts)


def _between(values: NDArray[np.int64], low: int, high: int | None) -> NDArray[np.bool_]:
    within: NDArray[np.bool_] = values >= low
    return within if high is None else within & (values <= high)


def _cumulative_share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.concatenate(([0.0], np.cumsum(counts) / max(1, counts.sum())))


def _group_as_dict(group: Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "predictions": group.predictions,
        RECALL: {name: figure.value for name, figure in group.recall.items()},
        MRR: {name: figure.value for name, figure in group.mrr.items()},
    }
