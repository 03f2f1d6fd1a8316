"""The plots of the report, each as one inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys.evaluation.comparison import Comparison, Group
from recsys.evaluation.protocol import Result

INK, FAINT, MODEL, BOUND, BASELINE = "#1c2430", "#dfe4ea", "#2459d3", "#12805c", "#9aa5b4"
_DASHES = ["-", "--", "-.", ":"]
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recsys",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def headline(comparison: Comparison, metric: str, title: str) -> str:
    """Everyone's ``metric`` as bars with intervals."""
    with matplotlib.rc_context(_STYLE):
        everyone = comparison.everyone[::-1]
        figure = Figure(figsize=(5.2, 0.5 + 0.42 * len(everyone)), layout="constrained")
        axes = figure.subplots()
        values = np.array([result.as_dict()[metric] for result in everyone])
        limits = np.array([result.intervals[metric] for result in everyone])
        colours = [_colour(comparison, result) for result in everyone]
        axes.barh([result.name for result in everyone], values, color=colours, height=0.66)
        axes.hlines(range(len(everyone)), limits[:, 0], limits[:, 1], color=INK, linewidth=1.2)
        for place, (value, high) in enumerate(zip(values, limits[:, 1], strict=True)):
            axes.annotate(f"{value:.3f}", (high, place), (7, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, 1.18 * limits.max())
        axes.set_xticks([])
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        return _svg(figure)


def breakdown(comparison: Comparison, groups: Sequence[Group], axis: str) -> str:
    """Recall@20 and MRR@20 of everyone, group by group; a band shows the model's interval."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10.6, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes, metric, title in ((left, "recall", "Recall@20"), (right, "mrr", "MRR@20")):
            for number, result in enumerate(comparison.everyone):
                figures = [getattr(group, metric)[result.name] for group in groups]
                values = [one.value for one in figures]
                if result is comparison.model:
                    limits = np.array([one.interval for one in figures])
                    axes.fill_between(range(len(groups)), limits[:, 0], limits[:, 1], color=MODEL, alpha=0.15, lw=0)
                _line(axes, comparison, result, number, range(len(groups)), values)
            axes.set_xticks(range(len(groups)), [f"{group.label}\n{group.predictions:,}" for group in groups])
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", color=FAINT, linewidth=0.8)
            axes.spines["left"].set_visible(False)
            axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
            axes.set_xlabel(f"{axis} (and number of predictions)")
        _legend(figure, left)
        return _svg(figure)


def concentration(comparison: Comparison) -> str:
    """Which share of the recommendations goes to the most popular items, and which share of the clicks did."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.3, 3.6), layout="constrained")
        axes = figure.subplots()
        share = np.linspace(0, 100, len(comparison.counts) + 1)
        thin = np.unique(np.linspace(0, len(share) - 1, 400).astype(int))
        for number, result in enumerate(comparison.results):
            _line(axes, comparison, result, number, share[thin], 100 * comparison.concentration(result)[thin], "")
        axes.plot(share[thin], 100 * comparison.demand[thin], color="#d9822b", linewidth=2.2, label="what was clicked")
        axes.set_xlabel("% of items, most popular first")
        axes.set_ylabel("% of recommendations")
        axes.grid(color=FAINT, linewidth=0.8)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.legend(loc="lower right", fontsize=9)
        return _svg(figure)


def learning_curves(history: Sequence[dict[str, Any]]) -> str:
    """Loss and validation Recall@20 by epoch."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10.6, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        for phase, label, colour in (("search", "search", MODEL), ("final", "final training", BOUND)):
            epochs = [epoch for epoch in history if epoch["phase"] == phase]
            if epochs:
                numbers = [epoch["number"] for epoch in epochs]
                left.plot(numbers, [epoch["loss"] for epoch in epochs], color=colour, marker="o", label=label)
        validated = [epoch for epoch in history if epoch["validation"]]
        for metric, label, colour in (("recall@20", "Recall@20", MODEL), ("mrr@20", "MRR@20", BASELINE)):
            numbers, values = [e["number"] for e in validated], [e["validation"][metric] for e in validated]
            right.plot(numbers, values, color=colour, marker="o", label=label)
        for axes, title in ((left, "Training loss"), (right, "On validation sessions")):
            axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
            axes.grid(axis="y", color=FAINT, linewidth=0.8)
            axes.spines["left"].set_visible(False)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("epoch")
        right.set_ylim(bottom=0)
        left.legend()
        if validated:
            right.legend(loc="center right")
        else:
            right.text(0.5, 0.5, "no validation split", transform=right.transAxes, ha="center", color=BASELINE)
        return _svg(figure)


def _colour(comparison: Comparison, result: Result) -> str:
    return MODEL if result is comparison.model else BOUND if result is comparison.bound else BASELINE


def _line(
    axes: Axes, comparison: Comparison, result: Result, number: int, places: Any, values: Any, marker: str = "o"
) -> None:
    colour = _colour(comparison, result)
    baseline = colour == BASELINE
    axes.plot(
        places,
        values,
        color=colour,
        linewidth=1.4 if baseline else 2.2,
        linestyle=_DASHES[(number - 1) % len(_DASHES)] if baseline else "-",
        marker=marker,
        markersize=3 if baseline else 5,
        label=result.name,
    )


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=2.6)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
