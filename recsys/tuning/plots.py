"""The plots of the tuning report, each as one inline SVG."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from recsys.page.look import BASELINE, BOUND, FAINT, INK, MODEL, STYLE, as_svg
from recsys.tuning.outcome import Outcome, Trial

ACROSS = 3  # plots side by side
_DOT: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 6}


def progress(outcome: Outcome, label: str) -> str:
    """The value of each trial, and the best so far."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.6, 3.4), layout="constrained")
        axes = figure.subplots()
        best = np.maximum.accumulate(
            [trial.value if trial.state == "complete" else -np.inf for trial in outcome.trials]
        )
        numbers = [trial.number for trial in outcome.trials]
        axes.step(numbers, best, where="post", color=MODEL, linewidth=1.6, label="best so far")
        axes.axhline(outcome.first.value, color=INK, linewidth=1, linestyle="--", label="settings in force")
        _dots(axes, outcome, lambda trial: trial.number)
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axes, outcome, label)
        _legend(figure, axes)
        return as_svg(figure)


def curves(outcome: Outcome, label: str) -> str:
    """The value after each epoch of each trial."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for trial in outcome.trials:
            if trial not in (outcome.first, outcome.best):
                pruned = trial.state == "pruned"
                axes.plot(
                    *_curve(trial),
                    color=BASELINE,
                    alpha=0.6,
                    linewidth=0.9,
                    marker="x" if pruned else "",
                    markevery=[-1],
                )
        axes.plot([], [], color=BASELINE, linewidth=0.9, marker="x", label="other trials (cross: pruned)")
        axes.plot(*_curve(outcome.first), color=INK, linestyle="--", linewidth=1.6, label="settings in force")
        axes.plot(*_curve(outcome.best), color=BOUND, linewidth=2.2, label="best")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axes, outcome, label)
        lowest = min([axes.get_ylim()[0], *outcome.first.curve.values(), *outcome.best.curve.values()])
        axes.set_ylim(bottom=0.98 * lowest)
        _legend(figure, axes)
        return as_svg(figure)


def importances(outcome: Outcome) -> str:
    """How much each setting matters, as bars."""
    with matplotlib.rc_context(STYLE):
        ordered = sorted(outcome.importances.items(), key=lambda item: item[1])
        figure = Figure(figsize=(10.6, 0.5 + 0.36 * len(ordered)), layout="constrained")
        axes = figure.subplots()
        axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=MODEL, height=0.66)
        for place, (_, share) in enumerate(ordered):
            axes.annotate(f"{share:.0%}", (share, place), (7, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, 1.1 * max(share for _, share in ordered) or 1)
        axes.set_xticks([])
        axes.spines[["bottom", "left"]].set_visible(False)
        return as_svg(figure)


def scatters(outcome: Outcome, label: str) -> str:
    """Each setting against the value: one dot a trial."""
    with matplotlib.rc_context(STYLE):
        rows = -(-len(outcome.space) // ACROSS)
        figure = Figure(figsize=(10.6, 2.7 * rows), layout="constrained")
        grid = figure.subplots(rows, ACROSS, squeeze=False, sharey=True)
        for axes in grid.flat[len(outcome.space) :]:
            axes.set_visible(False)
        for axes, (name, values) in zip(grid.flat, outcome.space.items(), strict=False):
            _dots(axes, outcome, lambda trial, name=name, values=values: _place(values, trial.values[name]))
            _scale(axes, values)
            _finish(axes, outcome, name)
        for row in grid:
            row[0].set_ylabel(label)
        _legend(figure, grid.flat[0])
        return as_svg(figure)


def _curve(trial: Trial) -> tuple[list[int], list[float]]:
    return list(trial.curve), list(trial.curve.values())


def _dots(axes: Axes, outcome: Outcome, place: Any) -> None:
    """One dot a trial; the first and the best stand out."""
    first, best = outcome.first, outcome.best
    rest = [trial for trial in outcome.trials if trial not in (first, best)]
    groups: list[tuple[list[Trial], dict[str, Any], str]] = [
        ([trial for trial in rest if trial.state == "pruned"], {"color": BASELINE, "fillstyle": "none"}, "pruned"),
        ([trial for trial in rest if trial.state == "complete"], {"color": MODEL, "alpha": 0.55, "mew": 0}, "complete"),
        ([first], {"color": INK, "marker": "D", "mew": 0}, "trial 1: settings in force"),
        ([best], {"color": BOUND, "marker": "*", "markersize": 13, "mew": 0}, "best"),
    ]
    for trials, look, label in groups:
        if trials and not (best is first and label == "best"):
            axes.plot(
                [place(trial) for trial in trials], [trial.value for trial in trials], **{**_DOT, **look}, label=label
            )


def _place(values: BaseDistribution, value: Any) -> float:
    """Where a value stands on its axis."""
    return float(values.choices.index(value) if isinstance(values, CategoricalDistribution) else value)


def _scale(axes: Axes, values: BaseDistribution) -> None:
    if isinstance(values, CategoricalDistribution):
        axes.set_xticks(range(len(values.choices)), list(map(str, values.choices)))
        axes.margins(x=0.2)
        return
    assert isinstance(values, (FloatDistribution, IntDistribution))
    if not values.log:  # all that was searched: a few trials side by side are no spread
        room = 0.04 * (values.high - values.low) or 0.5
        axes.set_xlim(values.low - room, values.high + room)
    else:
        axes.set_xscale("log")
        ticks = np.geomspace(values.low, values.high, 4)
        axes.set_xticks(ticks, [f"{tick:.2g}" if tick < 100 else f"{tick:.0f}" for tick in ticks])
        axes.minorticks_off()


def _finish(axes: Axes, outcome: Outcome, title: str) -> None:
    """Failures to learn would squeeze the rest: the axis ends a little below the worst complete trial."""
    values = [trial.value for trial in outcome.ranked]
    worst = np.percentile(values, 10) if len(values) > 5 else min(values)
    room = max(0.06 * values[0], 0.2 * (values[0] - worst))
    axes.set_ylim(max(0.0, float(worst) - 2 * room), values[0] + room)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.spines["left"].set_visible(False)
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=2.0)
