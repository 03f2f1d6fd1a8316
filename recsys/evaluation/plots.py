"""The plots of the report, each as one inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys.evaluation.comparison import Comparison, Group, Lead
from recsys.evaluation.protocol import Result
from recsys.page.look import BASELINE, BOUND, FAINT, FIXED, INK, LINES, MODEL, NAMES, STYLE, WIDTH, as_svg


def headline(comparison: Comparison, metric: str, title: str) -> str:
    """Everyone's ``metric`` as bars with intervals, the best on top."""
    with matplotlib.rc_context(STYLE):
        everyone = sorted(comparison.everyone, key=lambda result: result.as_dict()[metric])
        figure = Figure(figsize=(WIDTH, 0.5 + 0.42 * len(everyone)), layout="constrained")
        axes = figure.subplots()
        values = np.array([result.as_dict()[metric] for result in everyone])
        limits = np.array([result.intervals[metric] for result in everyone])
        own = _own_colours(comparison)
        colours = [own.get(id(result), BASELINE) for result in everyone]
        axes.barh([result.name for result in everyone], values, color=colours, height=0.66)
        axes.hlines(range(len(everyone)), limits[:, 0], limits[:, 1], color=INK, linewidth=1.2)
        for place, (value, high) in enumerate(zip(values, limits[:, 1], strict=True)):
            axes.annotate(f"{value:.3f}", (high, place), (7, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, 1.18 * limits.max())
        axes.set_xticks([])
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        return as_svg(figure)


def leads(found: Sequence[Lead], title: str) -> str:
    """How far the model is ahead of each baseline, with intervals; left of the line it is behind."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 0.42 * len(found)), layout="constrained")
        axes = figure.subplots()
        for place, lead in enumerate(reversed(found)):
            colour = MODEL if lead.verdict == "ahead" else INK
            axes.hlines(place, lead.low, lead.high, color=colour, linewidth=2.4)
            axes.plot(lead.difference, place, marker="o", color=colour, markersize=6)
            axes.annotate(
                f"{lead.difference:+.3f}", (lead.high, place), (7, 0), textcoords="offset points", va="center"
            )
        low, high = min(0.0, *(lead.low for lead in found)), max(0.0, *(lead.high for lead in found))
        axes.set_xlim(low - 0.04 * (high - low), high + 0.22 * (high - low))
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.set_yticks(range(len(found)), [lead.baseline for lead in reversed(found)])
        axes.axvline(0, color=INK, linewidth=1)
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        return as_svg(figure)


def breakdown(comparison: Comparison, groups: Sequence[Group], metric: str, title: str, axis: str) -> str:
    """``metric`` (``recall`` or ``mrr``) of everyone, group by group; a band shows the model's interval."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        axes = figure.subplots()
        places = range(len(groups))
        for result in comparison.everyone[::-1]:
            figures = [getattr(group, metric)[result.name] for group in groups]
            if result is comparison.model:
                limits = np.array([one.interval for one in figures])
                axes.fill_between(places, limits[:, 0], limits[:, 1], color=MODEL, alpha=0.18, lw=0)
            _line(axes, comparison, result, places, [one.value for one in figures])
        axes.set_xticks(places, [f"{group.label}\n{group.predictions:,}" for group in groups])
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        axes.set_xlabel(f"{axis} (and number of predictions)")
        return as_svg(figure)


def concentration(comparison: Comparison) -> str:
    """Which share of the recommendations goes to the most popular items, and which share of the clicks did."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        axes = figure.subplots()
        share = np.linspace(0, 100, len(comparison.counts) + 1)
        thin = np.unique(np.linspace(0, len(share) - 1, 400).astype(int))
        for result in comparison.everyone[::-1]:
            _line(axes, comparison, result, share[thin], 100 * comparison.concentration(result)[thin], "")
        axes.plot(share[thin], 100 * comparison.demand[thin], color=INK, linewidth=1.6, linestyle="--")
        axes.set_xlabel("% of items, most popular first")
        axes.set_ylabel("% of recommendations")
        axes.grid(color=FAINT, linewidth=0.8)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        return as_svg(figure)


def legend(comparison: Comparison) -> dict[str, str]:
    """The page's name of each recommender's colour."""
    return {result.name: NAMES[_colour(comparison, result)] for result in comparison.everyone}


def training_loss(history: Sequence[dict[str, Any]]) -> str:
    """Loss by epoch, of the search and of the final training."""
    lines = []
    for phase, label, colour in (("search", "search", MODEL), ("final", "final training", BOUND)):
        epochs = [epoch for epoch in history if epoch["phase"] == phase]
        lines.append((label, colour, [(epoch["number"], epoch["loss"]) for epoch in epochs]))
    return _curves(lines, "Training loss")


def validation_curves(history: Sequence[dict[str, Any]]) -> str:
    """Recall@20 and MRR@20 on validation sessions by epoch; empty without them."""
    validated = [epoch for epoch in history if epoch["validation"]]
    if not validated:
        return ""
    lines = []
    for metric, label, colour in (("recall@20", "Recall@20", MODEL), ("mrr@20", "MRR@20", BASELINE)):
        lines.append((label, colour, [(epoch["number"], epoch["validation"][metric]) for epoch in validated]))
    return _curves(lines, "On validation sessions", from_zero=True)


def _curves(lines: Sequence[tuple[str, str, list[tuple[int, float]]]], title: str, from_zero: bool = False) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        axes = figure.subplots()
        for label, colour, points in lines:
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", label=label)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.legend()
        return as_svg(figure)


def _colour(comparison: Comparison, result: Result) -> str:
    if (own := _own_colours(comparison).get(id(result))) is not None:
        return own
    number = next(number for number, other in enumerate(comparison.baselines) if other is result)
    return list(LINES)[number % len(LINES)]


def _own_colours(comparison: Comparison) -> dict[int, str]:
    """The colours of those that are no baselines, by their ``id``."""
    return {id(comparison.model): MODEL, id(comparison.fixed): FIXED, id(comparison.bound): BOUND}


def _line(axes: Axes, comparison: Comparison, result: Result, places: Any, values: Any, marker: str = "o") -> None:
    colour = _colour(comparison, result)
    main = colour not in LINES
    width, size = (2.4, 5) if main else (1.5, 3.5)
    axes.plot(places, values, color=colour, linewidth=width, marker=marker, markersize=size)
