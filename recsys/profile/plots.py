"""The plots of a profile, each as one inline SVG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from recsys.manifest import Split
from recsys.page.look import BASELINE, FAINT, INK, MODEL, STYLE, WIDTH, as_svg
from recsys.profile.measures import GAP_BINS, HOUR_MS, Profile
from recsys.reasons import in_words

_BARS = 400  # at most in a plot over time
_SPANS = {"1 s": 1e3, "10 s": 1e4, "1 min": 6e4, "10 min": 6e5, "1 h": 3.6e6, "1 day": 8.64e7, "1 week": 6.048e8}


def over_time(profile: Profile, split: Split) -> str:
    """Clicks by hour, or by so many hours that the bars can be told apart, with the splits' boundaries."""
    first, last = min(profile.hours), max(profile.hours)
    each = next((hours for hours in (1, 3, 6, 12, 24) if (last - first) // hours < _BARS), (last - first) // _BARS + 1)
    first -= first % each
    counts = np.zeros((last - first) // each + 1)
    np.add.at(counts, [(hour - first) // each for hour in profile.hours], list(profile.hours.values()))
    title = "Clicks an hour" if each == 1 else f"Clicks in {each:,} hours"
    with _plot(title) as (figure, axes):
        axes.stairs(counts, first + each * np.arange(len(counts) + 1), fill=True, color=MODEL)
        for name, boundary in (("validation", split.validation_from), ("test", split.test_from)):
            if boundary is not None and first <= boundary / HOUR_MS <= last + 1:
                _mark(axes, boundary / HOUR_MS, name)
        ticks = _moments(first, last + 1)
        axes.set_xticks(list(ticks), list(ticks.values()))
        return as_svg(figure)


def by_hour_of_day(profile: Profile) -> str:
    """Clicks by hour of the day."""
    with _plot("By hour of the day (UTC)") as (figure, axes):
        axes.bar(np.arange(24) + 0.5, profile.by_hour_of_day, width=0.82, color=MODEL)
        axes.set_xticks(range(0, 25, 3))
        return as_svg(figure)


def lengths(profile: Profile) -> str:
    """Sessions by length; the few longest are not in the picture."""
    reached = np.cumsum(list(profile.lengths.values())) / profile.sessions
    longest = list(profile.lengths)[int(np.searchsorted(reached, 0.995))]
    with _plot("Sessions by clicks") as (figure, axes):
        shown = {length: n for length, n in profile.lengths.items() if length <= longest}
        axes.bar(list(shown), list(shown.values()), width=0.82, color=MODEL)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("clicks in the session")
        return as_svg(figure)


def popularity(counts: NDArray[np.int64]) -> str:
    """Clicks of each item, the most popular first, both on logarithmic scales."""
    ordered = np.sort(counts)[::-1]
    ranks = np.unique(np.geomspace(1, len(ordered), 300).astype(int))
    with _plot("Clicks of an item by its rank") as (figure, axes):
        axes.plot(ranks, ordered[ranks - 1], color=MODEL, linewidth=2.4)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.minorticks_off()
        axes.set_xlim(0.9, 1.1 * len(ordered))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("rank of the item")
        return as_svg(figure)


def gaps(profile: Profile, gap_minutes: float | None) -> str:
    """Gaps within sessions and between a user's sessions, and where a session ends by the gap rule (``None``: it was
    not in force)."""
    with _plot("Gaps between a user's clicks") as (figure, axes):
        axes.set_xscale("log")
        axes.stairs(profile.gaps_within, GAP_BINS, fill=True, color=MODEL, label="within a session")
        total, base = profile.gaps_within + profile.gaps_between, profile.gaps_within
        axes.stairs(total, GAP_BINS, baseline=base, fill=True, color=BASELINE, label="to the next session")
        axes.minorticks_off()
        axes.set_xticks(list(_SPANS.values()), list(_SPANS))
        axes.set_xlim(GAP_BINS[0], GAP_BINS[-1])
        if gap_minutes is not None:
            place = float(np.clip(60_000 * gap_minutes, GAP_BINS[0], GAP_BINS[-1]))
            _mark(axes, place, f"session gap, {gap_minutes:g} min")
        figure.legend(loc="outside lower center", ncols=2)
        return as_svg(figure)


def reasons(rejected: dict[str, int]) -> str:
    """Rejected lines by reason, the most frequent on top."""
    ordered = sorted(rejected.items(), key=lambda reason: (reason[1], reason[0]))
    with _plot("", height=0.4 + 0.36 * len(ordered)) as (figure, axes):
        codes, counts = zip(*ordered, strict=True)
        axes.barh([in_words(code) for code in codes], counts, color=MODEL, height=0.66)
        for place, count in enumerate(counts):
            axes.annotate(f"{count:,}", (count, place), (7, 0), textcoords="offset points", va="center")
        axes.grid(visible=False)
        axes.set_xlim(0, 1.25 * max(counts))
        axes.set_xticks([])
        axes.spines[["bottom", "left"]].set_visible(False)
        return as_svg(figure)


def _moments(first: int, last: int) -> dict[int, str]:
    """Some whole hours or days between two hours since 1970, in words."""
    span = last - first
    step = next((hours for hours in (1, 3, 6, 12) if span <= 6 * hours), 24 * -(-span // 144))
    form = "%d %b\n%Y" if step >= 24 else "%H:%M\n%d %b"
    places = range(-(-first // step) * step, last + 1, step)
    return {hour: f"{datetime.fromtimestamp(hour * 3600, UTC):{form}}" for hour in places}


@contextmanager
def _plot(title: str, height: float = 3.0) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        if title:
            axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        yield figure, axes


def _mark(axes: Axes, place: float, words: str) -> None:
    """An upright dashed line with words beside its upper end, above what is drawn so far."""
    axes.set_ylim(top=max(axes.get_ylim()[1], 1.12 * axes.dataLim.ymax))
    axes.axvline(place, color=INK, linewidth=1.2, linestyle="--")
    axes.annotate(
        words,
        (place, 1),
        (-4, -3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
    )
