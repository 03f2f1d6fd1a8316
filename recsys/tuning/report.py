"""The report of a search: one HTML file that stands by itself."""

from __future__ import annotations

from typing import Any

from recsys.page.template import template
from recsys.tuning import plots
from recsys.tuning.outcome import FEWEST, Outcome
from recsys.tuning.space import describe


def render(outcome: Outcome, facts: dict[str, str], best_file: str) -> str:
    """The report as HTML.

    Args:
        facts: what was tuned, for the head of the report.
        best_file: name of the settings file with the best settings.
    """
    label = metric_name(outcome.metric)
    page = template("recsys.tuning", "tuning.html", metric=metric_name, value=value_text)
    return page.render(
        outcome=outcome,
        metric=label,
        facts=facts,
        best_file=best_file,
        fewest=FEWEST,
        searched={name: describe(values) for name, values in outcome.space.items()},
        plots={
            "progress": plots.progress(outcome, label),
            "curves": plots.curves(outcome, label),
            "importances": plots.importances(outcome) if outcome.importances else "",
            "scatters": plots.scatters(outcome, label),
        },
    )


def metric_name(metric: str) -> str:
    """A metric as people write it."""
    return metric.replace("recall", "Recall").replace("mrr", "MRR").replace("+", " + ")


def value_text(value: Any) -> str:
    """A setting's value, short."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
