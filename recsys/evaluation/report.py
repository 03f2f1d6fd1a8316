"""The report: one HTML file that stands by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from recsys.evaluation import plots
from recsys.evaluation.comparison import FEWEST, MRR, RECALL, Comparison, Group
from recsys.evaluation.predictions import Predictions, Recommender
from recsys.evaluation.protocol import pessimistic_ranks
from recsys.page.template import template
from recsys.sessions import Sessions
from recsys.vocabulary import Vocabulary

SAMPLES, SHOWN, LISTED = 8, 8, 10  # sample sessions, items shown of each list, most and least predictable items
_SAMPLE_LENGTHS = (3, 7)
_TITLES = {RECALL: "Recall@20", MRR: "MRR@20"}


@dataclass(frozen=True)
class About:
    """What was evaluated, for the head of the report."""

    title: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Step:
    """One prediction of a sample session: the item clicked, the one that followed, its rank, and the list."""

    clicked: str
    following: str
    rank: int
    recommended: list[str]


@dataclass(frozen=True)
class Sample:
    """A test session and what was recommended after each of its events."""

    begin: datetime
    steps: list[Step]


def render(
    comparison: Comparison,
    model: Recommender,
    vocabulary: Vocabulary,
    history: Sequence[dict[str, Any]],
    about: About,
) -> str:
    """The report as HTML; ``history`` are the epochs of training, empty where they are not known."""
    best, worst = comparison.predictable(LISTED)
    leads = {metric: comparison.leads(metric) for metric in (RECALL, MRR)}
    return template("recsys.evaluation", "report.html").render(
        about=about,
        comparison=comparison,
        recall=RECALL,
        mrr=MRR,
        fewest=FEWEST,
        shown=SHOWN,
        lead={metric: found[0] for metric, found in leads.items()},
        colours=plots.legend(comparison),
        ids=vocabulary.ids,
        best=best,
        worst=worst,
        head_share=round(100 * float(comparison.concentration(comparison.model)[_tenth(comparison)])),
        head_demand=round(100 * float(comparison.demand[_tenth(comparison)])),
        validated=any(epoch["validation"] for epoch in history),
        narrowed=any(epoch.get("share", 1) < 1 for epoch in history),
        samples=samples(comparison.sessions, model, vocabulary),
        plots={
            "headline": [plots.headline(comparison, metric, title) for metric, title in _TITLES.items()],
            "leads": [plots.leads(leads[metric], f"Lead in {title}") for metric, title in _TITLES.items()],
            "position": _breakdown(comparison, comparison.by_position, "place of the click"),
            "popularity": _breakdown(comparison, comparison.by_popularity, "popularity of the item"),
            "length": _breakdown(comparison, comparison.by_length, "clicks in the session"),
            "concentration": plots.concentration(comparison),
            "learning": [plots.training_loss(history), plots.validation_curves(history)] if history else [],
        },
    )


def _breakdown(comparison: Comparison, groups: Sequence[Group], axis: str) -> list[str]:
    return [
        plots.breakdown(comparison, groups, metric, title, axis)
        for metric, title in (("recall", "Recall@20"), ("mrr", "MRR@20"))
    ]


def samples(sessions: Sessions, model: Recommender, vocabulary: Vocabulary) -> list[Sample]:
    """Some sessions of middling length, chosen by lot, with the model's lists."""
    shortest, longest = _SAMPLE_LENGTHS
    middling = np.flatnonzero((sessions.lengths >= shortest) & (sessions.lengths <= longest))
    chosen = np.zeros(len(sessions), np.bool_)
    chosen[np.random.default_rng(0).permutation(middling)[:SAMPLES]] = True
    sample = sessions.keep_sessions(chosen)
    if not len(sample):
        return []
    predictions, scores = Predictions.of(sample), np.concatenate(list(model.predict(sample)))
    ranks = pessimistic_ranks(scores, predictions.target)
    lists = np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]
    ids = vocabulary.ids
    found: list[Sample] = []
    for number, start in enumerate(sample.starts[:-1].tolist()):
        steps = [
            Step(
                ids[sample.items[predictions.event[index] - 1]],
                ids[predictions.target[index]],
                int(ranks[index]),
                [ids[row] for row in lists[index]],
            )
            for index in np.flatnonzero(predictions.session == number)
        ]
        found.append(Sample(datetime.fromtimestamp(int(sample.times[start]) / 1000, UTC), steps))
    return found


def _tenth(comparison: Comparison) -> int:
    return max(1, len(comparison.counts) // 10)
