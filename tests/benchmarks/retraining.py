"""Retraining every day, or every hour, on a news log: anew each time, or from the model before.

Each morning there is a day of new clicks. *Full* trains from scratch on all days so far; *warm* goes on from
yesterday's warm-started model with what is new (``recsys train --warm-start``). Both are evaluated on the sessions that
begin on the day that follows, then the week goes on. The first of the warm models goes on from a model trained in full
on the days before. ``--hours 1`` makes hours of the days.

With ``--fixed`` the first full model that is evaluated goes on to be, as it is; all are asked only for what it knows.

Full training finds its number of epochs, and how far trend and followers hold, on the sessions of the last period, as
``recsys train`` does; or it is given ``--epochs`` and spends no time on that. Seconds are those of training, without
those of compiling (which both would pay once a process, and which would hide the ratio on a small sample).

    python -m tests.benchmarks.retraining clicks.csv.gz
    python -m tests.benchmarks.retraining clicks.csv.gz --sample 0.1 --times 2 --epochs 3
    python -m tests.benchmarks.retraining clicks.csv.gz --hours 1 --times 6 --fixed --since 2017-10-16T00:00:00+00:00
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow.csv
from numpy.typing import NDArray

from recsys.evaluation.metrics import hits, reciprocal_ranks
from recsys.evaluation.protocol import evaluate
from recsys.hashing import scramble
from recsys.model.network import Weights
from recsys.model.training import fit
from recsys.model.warm_start import warm_start
from recsys.scoring.scorer import Scorer
from recsys.sessions import SessionRule, Sessions, assemble
from recsys.settings import ModelSettings, SessionSettings, TrainingSettings
from recsys.validation import validation_on
from recsys.vocabulary import Vocabulary

HOUR_MS = 3_600_000
TARGETS = 0.99, 0.20  # of full retraining's Recall@20, and of its time


@dataclass(frozen=True)
class Morning:
    """What there is to learn at a time, and the sessions that begin in the period that follows.

    ``earlier`` and ``later`` are what is learnt without the sessions of the last period, and these: for validation.
    """

    vocabulary: Vocabulary
    learnt: Sessions
    earlier: Sessions
    later: Sessions
    following: Sessions

    @classmethod
    def at(cls, log: Sessions, boundary: int, period: int, settings: SessionSettings, asked: Vocabulary | None) -> Self:
        """Filter what came before ``boundary`` as a session dataset is filtered; of what follows, keep known items.

        Of these only those ``asked`` for, if any are named.
        """
        learnt = log.keep_events(log.times < boundary)
        items, events = int(log.items.max()) + 1, -1
        while learnt.events != events:
            events = learnt.events
            support = np.bincount(learnt.items, minlength=items)
            learnt = learnt.keep_events(support[learnt.items] >= settings.min_item_support)
            learnt = learnt.keep_sessions(learnt.lengths >= settings.min_length)
        counts = np.bincount(learnt.items, minlength=items)
        known = np.flatnonzero(counts)
        rows = np.full(items, -1, np.int32)
        rows[known] = np.arange(len(known))
        vocabulary = Vocabulary([f"{item:08}" for item in known], counts[known])
        learnt = replace(learnt, items=rows[learnt.items])
        begins = learnt.times[learnt.starts[:-1]]
        earlier, later = (
            learnt.keep_sessions(old) for old in (begins < boundary - period, begins >= boundary - period)
        )
        seen = np.bincount(earlier.items, minlength=len(known)) > 0
        begins = log.times[log.starts[:-1]]
        following = log.keep_sessions((begins >= boundary) & (begins < boundary + period))
        following = replace(following, items=rows[following.items])
        wanted = np.ones(len(known), np.bool_)
        if asked is not None:
            wanted[:] = False
            wanted[(found := vocabulary.rows_from(asked))[found >= 0]] = True
        return cls(vocabulary, learnt, earlier, _of(later, seen), _of(following, np.append(wanted, False)))


def _of(sessions: Sessions, wanted: NDArray[np.bool_]) -> Sessions:
    """The sessions with the items that are wanted alone, where two are left."""
    sessions = sessions.keep_events(wanted[sessions.items])
    return sessions.keep_sessions(sessions.lengths >= 2)


@dataclass(frozen=True)
class Outcome:
    """A model, how long it took and where it ranked what was clicked."""

    weights: Weights
    seconds: float
    ranks: NDArray[np.int32]

    @property
    def quality(self) -> tuple[float, float]:
        """Recall@20 and MRR@20."""
        return quality([self])


class Period(NamedTuple):
    """A morning, and the models made for what follows: anew, from the one before, and long ago."""

    morning: Morning
    full: Outcome
    warm: Outcome
    fixed: Outcome | None


def quality(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Recall@20 and MRR@20 of all predictions together."""
    ranks = np.concatenate([each.ranks for each in outcomes])
    return float(hits(ranks, 20).mean()), float(reciprocal_ranks(ranks, 20).mean())


def read(path: Path, share: float, since: int, until: int) -> Sessions:
    """The log's own sessions that begin since then, of a share of its users, in the order in which they begin."""
    names = ["user_id", "session_id", "click_article_id", "click_timestamp"]
    table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(include_columns=names))
    chosen = scramble(table["user_id"].to_numpy().astype(np.uint64)) <= np.uint64(share * (2**64 - 2**11))
    chosen &= table["click_timestamp"].to_numpy() < until
    table = table.filter(chosen).sort_by("click_timestamp")
    sessions, items, times = (table[name].to_numpy() for name in names[1:])
    _, first, codes = np.unique(sessions, return_index=True, return_inverse=True)
    by_begin = np.argsort(np.argsort(first))[codes]
    types = np.zeros(len(items), np.int8)
    rule = SessionRule(gap_ms=1 << 60)
    found = assemble(by_begin, items.astype(np.int32), times, types, None, rule).sessions
    return found.keep_sessions(found.times[found.starts[:-1]] >= since)


class Retraining:
    """Trains and evaluates with the same settings all along; with ``searches``, as ``recsys train`` does."""

    def __init__(self, settings: TrainingSettings, searches: bool) -> None:
        self._model, self._settings, self._searches = ModelSettings(), settings, searches

    def fully(self, morning: Morning) -> Outcome:
        """Learn anew from everything so far."""
        began = time.perf_counter()
        items, later = len(morning.vocabulary), morning.later
        if self._searches:
            validate = validation_on(later, morning.vocabulary)
            fitted = fit(
                morning.earlier, morning.learnt, items, self._model, self._settings, validate=validate, later=later
            )
        else:
            fitted = fit(morning.learnt, morning.learnt, items, self._model, self._settings)
        seconds = time.perf_counter() - began
        return Outcome(fitted.weights, seconds, ranks_of(fitted.weights, morning.following, morning.vocabulary))

    def warmly(self, morning: Morning, before: Morning, weights: Weights) -> Outcome:
        """Go on from the model of before."""
        began = time.perf_counter()
        until = int(before.learnt.times.max())
        start = warm_start(weights, before.vocabulary, morning.vocabulary, morning.learnt, until, self._settings)
        settings = self._settings.model_copy(update={"epochs": self._settings.warm_epochs})
        items = len(morning.vocabulary)
        fitted = fit(start.sessions, start.sessions, items, self._model, settings, start=start.weights)
        seconds = time.perf_counter() - began
        return Outcome(fitted.weights, seconds, ranks_of(fitted.weights, morning.following, morning.vocabulary))

    def compile(self, morning: Morning) -> None:
        """Train on a little in each way, so that no training measured has to compile."""
        few = np.arange(len(morning.learnt)) < 4 * self._settings.batch_size
        little = morning.learnt.keep_sessions(few)
        for epochs in (self._settings.epochs, self._settings.warm_epochs):
            settings = self._settings.model_copy(update={"epochs": epochs})
            fit(little, little, len(morning.vocabulary), self._model, settings)


def ranks_of(weights: Weights, sessions: Sessions, vocabulary: Vocabulary) -> NDArray[np.int32]:
    """Where the items clicked stand."""
    return evaluate(Scorer(weights), sessions, vocabulary.counts).ranks


def periods(log: Sessions, boundaries: Sequence[int], retraining: Retraining, keeps_first: bool) -> Iterator[Period]:
    """Each morning but the first, and what came of it; with ``keeps_first``, beside the first model evaluated."""
    length = boundaries[1] - boundaries[0]
    before = Morning.at(log, boundaries[0], length, SessionSettings(), None)
    retraining.compile(before)
    weights = retraining.fully(before).weights
    first: tuple[Vocabulary, Weights] | None = None
    for boundary in boundaries[1:]:
        morning = Morning.at(log, boundary, length, SessionSettings(), first[0] if first else None)
        full, warm = retraining.fully(morning), retraining.warmly(morning, before, weights)
        if keeps_first and first is None:
            first = morning.vocabulary, full.weights
        yield Period(morning, full, warm, as_it_was(*first, morning) if first else None)
        before, weights = morning, warm.weights


def as_it_was(known: Vocabulary, weights: Weights, morning: Morning) -> Outcome:
    """What an older model makes of the clicks that follow, all on items that it knows."""
    rows = known.rows_from(morning.vocabulary)[morning.following.items]
    return Outcome(weights, 0.0, ranks_of(weights, replace(morning.following, items=rows), known))


def draw(path: Path, names: Sequence[str], found: Sequence[Period]) -> None:
    """Recall@20 and seconds, period by period."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    kinds = {"full retraining": ("full", "#888888"), "warm start": ("warm", "#0b6e99"), "fixed": ("fixed", "#c05621")}
    for name, (kind, colour) in kinds.items():
        outcomes = [outcome for each in found if (outcome := getattr(each, kind)) is not None]
        if outcomes:
            panels[0].plot(names, [each.quality[0] for each in outcomes], "o-", label=name, color=colour)
        if any(each.seconds for each in outcomes):
            panels[1].plot(names, [each.seconds for each in outcomes], "o-", label=name, color=colour)
    panels[0].set(title="Recall@20 on what follows", ylim=(0, None))
    panels[1].set(title="Seconds of training before it", yscale="log")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.tick_params(axis="x", rotation=30)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def show(name: str, period: Period) -> None:
    """A row of the table."""
    models = [each for each in period[1:] if each is not None]
    recall, mrr = (" / ".join(f"{each.quality[which]:.4f}" for each in models) for which in (0, 1))
    ratio = period.warm.seconds / period.full.seconds
    print(
        f"{name}  {period.morning.learnt.events:12,}{len(period.full.ranks):9,}  {recall:>24}  {mrr:>24}"
        f"{period.full.seconds:11.1f} / {period.warm.seconds:5.1f}{ratio:8.1%}",
        flush=True,
    )


def sum_up(found: Sequence[Period]) -> None:
    """Of all predictions together."""
    full, warm = [each.full for each in found], [each.warm for each in found]
    fixed = [each.fixed for each in found if each.fixed is not None]
    for name, outcomes in (("full retraining", full), ("warm start", warm), ("fixed", fixed)):
        if outcomes:
            print("{}: Recall@20 {:.4f}, MRR@20 {:.4f}".format(name, *quality(outcomes)))
    recall = quality(warm)[0] / quality(full)[0]
    seconds = sum(each.seconds for each in warm) / sum(each.seconds for each in full)
    reached = recall >= TARGETS[0] and seconds <= TARGETS[1]
    print(
        f"warm start: {recall:.1%} of full retraining's Recall@20 in {seconds:.1%} of its time, "
        f"{'as' if reached else 'NOT as'} wanted (at least {TARGETS[0]:.0%} in {TARGETS[1]:.0%})"
    )


def main() -> None:
    """Print a row a period and what it comes to; write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "log", type=Path, help="CSV of a news portal's clicks, with columns as Globo.com published them"
    )
    parser.add_argument("--since", default="2017-10-01T00:00:00+00:00", help="sessions before are left out")
    parser.add_argument("--until", default="2017-10-17T03:00:00+00:00", help="end of the last period evaluated on")
    parser.add_argument("--hours", type=int, default=24, help="length of a period")
    parser.add_argument("--times", type=int, default=7, help="mornings on which both train")
    parser.add_argument("--sample", type=float, default=1.0, help="share of users")
    parser.add_argument("--epochs", type=int, help="of full training, instead of a search for their number")
    parser.add_argument("--fixed", action="store_true", help="evaluate the first full model all along, too")
    for name in ("warm_epochs", "replay"):
        default = getattr(TrainingSettings(), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--plot", type=Path, default=Path("retraining.png"))
    options = parser.parse_args()
    settings = TrainingSettings(warm_epochs=options.warm_epochs, replay=options.replay)
    if options.epochs:
        settings = settings.model_copy(update={"epochs": options.epochs})
    since, end = (int(datetime.fromisoformat(each).timestamp() * 1000) for each in (options.since, options.until))
    boundaries = [end - (options.times + 1 - number) * options.hours * HOUR_MS for number in range(options.times + 1)]
    names = [f"{datetime.fromtimestamp(boundary / 1000, UTC):%m-%d %H:%M}" for boundary in boundaries[1:]]
    models = "full / warm / fixed" if options.fixed else "full / warm"
    print(f"               learnt clicks    asked   Recall@20, MRR@20 {models:>19}   seconds full / warm   ratio")
    found: list[Period] = []
    log = read(options.log, options.sample, since, end)
    retraining = Retraining(settings, searches=options.epochs is None)
    for name, period in zip(names, periods(log, boundaries, retraining, options.fixed), strict=True):
        found.append(period)
        show(name, period)
    sum_up(found)
    draw(options.plot, names, found)


if __name__ == "__main__":
    main()
