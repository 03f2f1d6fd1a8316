"""A week of daily retraining on a news log: anew each day, or from yesterday's model.

Each morning there is a day of new clicks. *Full* trains from scratch on all days so far; *warm* goes on from
yesterday's warm-started model with what is new (``recsys train --warm-start``). Both are evaluated on the day that
follows, then the week goes on. The first of the warm models goes on from a model trained in full on the days before.

Seconds are those of training, without those of compiling (which both would pay once a process, and which would hide
the ratio on a small sample). Full training is given its number of epochs: it spends no time on early stopping.

    python -m tests.benchmarks.retraining clicks.csv.gz
    python -m tests.benchmarks.retraining clicks.csv.gz --sample 0.1 --days 2 --epochs 3
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.csv

from recsys.evaluation.protocol import evaluate
from recsys.hashing import scramble
from recsys.model.network import Weights
from recsys.model.training import fit
from recsys.model.warm_start import warm_start
from recsys.scoring.scorer import Scorer
from recsys.sessions import SessionRule, Sessions, assemble
from recsys.settings import ModelSettings, SessionSettings, TrainingSettings
from recsys.vocabulary import Vocabulary

DAY_MS = 86_400_000
TARGETS = 0.99, 0.20  # of full retraining's Recall@20, and of its time


@dataclass(frozen=True)
class Morning:
    """What there is to learn at a time, and the sessions of the day that follows."""

    vocabulary: Vocabulary
    learnt: Sessions
    following: Sessions

    @classmethod
    def at(cls, log: Sessions, boundary: int, settings: SessionSettings) -> Morning:
        """Filter what came before ``boundary`` as a session dataset is filtered; of the day after, keep known items."""
        learnt = log.keep_events(log.times < boundary)
        events = -1
        while learnt.events != events:
            events = learnt.events
            support = np.bincount(learnt.items, minlength=int(log.items.max()) + 1)
            learnt = learnt.keep_events(support[learnt.items] >= settings.min_item_support)
            learnt = learnt.keep_sessions(learnt.lengths >= settings.min_length)
        counts = np.bincount(learnt.items, minlength=int(log.items.max()) + 1)
        items = np.flatnonzero(counts)
        rows = np.full(len(counts), -1, np.int32)
        rows[items] = np.arange(len(items))
        begins = log.times[log.starts[:-1]]
        following = log.keep_sessions((begins >= boundary) & (begins < boundary + DAY_MS))
        following = following.keep_events((rows[following.items] >= 0) & (following.times < boundary + DAY_MS))
        vocabulary = Vocabulary([f"{item:08}" for item in items], counts[items])
        parts = (learnt, following.keep_sessions(following.lengths >= settings.min_length))
        return cls(vocabulary, *(Sessions(rows[part.items], part.times, part.types, part.starts) for part in parts))


@dataclass(frozen=True)
class Outcome:
    """A model, how long it took and how good it is."""

    weights: Weights
    seconds: float
    recall: float
    mrr: float


def read(path: Path, share: float) -> Sessions:
    """The log's own sessions, of a share of its users, in the order in which they begin."""
    names = ["user_id", "session_id", "click_article_id", "click_timestamp"]
    table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(include_columns=names))
    chosen = scramble(table["user_id"].to_numpy().astype(np.uint64)) <= np.uint64(share * (2**64 - 2**11))
    table = table.filter(chosen).sort_by("click_timestamp")
    sessions, items, times = (table[name].to_numpy() for name in names[1:])
    _, first, codes = np.unique(sessions, return_index=True, return_inverse=True)
    by_begin = np.argsort(np.argsort(first))[codes]
    types = np.zeros(len(items), np.int8)
    return assemble(by_begin, items.astype(np.int32), times, types, None, SessionRule(gap_ms=1 << 60)).sessions


def train_fully(morning: Morning, model: ModelSettings, settings: TrainingSettings) -> Outcome:
    """Learn anew from everything so far."""
    began = time.perf_counter()
    fitted = fit(morning.learnt, morning.learnt, len(morning.vocabulary), model, settings)
    return judged(morning, fitted.weights, time.perf_counter() - began)


def train_warmly(
    morning: Morning, model: ModelSettings, settings: TrainingSettings, yesterday: Morning, weights: Weights
) -> Outcome:
    """Go on from yesterday's model."""
    began = time.perf_counter()
    until = int(yesterday.learnt.times.max())
    start = warm_start(weights, yesterday.vocabulary, morning.vocabulary, morning.learnt, until, settings)
    settings = settings.model_copy(update={"epochs": settings.warm_epochs})
    items = len(morning.vocabulary)
    fitted = fit(start.sessions, start.sessions, items, model, settings, start=start.weights)
    return judged(morning, fitted.weights, time.perf_counter() - began)


def judged(morning: Morning, weights: Weights, seconds: float) -> Outcome:
    """The outcome on the day that follows."""
    result = evaluate(Scorer(weights), morning.following, morning.vocabulary.counts)
    return Outcome(weights, seconds, result.recall(20), result.mrr(20))


def compile_first(morning: Morning, model: ModelSettings, settings: TrainingSettings) -> None:
    """Train on a little with each of the settings, so that no training measured has to compile."""
    little = morning.learnt.keep_sessions(np.arange(len(morning.learnt)) < 4 * settings.batch_size)
    for epochs in (settings.epochs, settings.warm_epochs):
        fit(little, little, len(morning.vocabulary), model, settings.model_copy(update={"epochs": epochs}))


def draw(path: Path, days: Sequence[str], full: Sequence[Outcome], warm: Sequence[Outcome]) -> None:
    """Recall@20 and seconds of both, day by day."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, outcomes, colour in (("full retraining", full, "#888888"), ("warm start", warm, "#0b6e99")):
        panels[0].plot(days, [each.recall for each in outcomes], "o-", label=name, color=colour)
        panels[1].plot(days, [each.seconds for each in outcomes], "o-", label=name, color=colour)
    panels[0].set(title="Recall@20 on the day", ylim=(0, None))
    panels[1].set(title="Seconds of training before it", yscale="log")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.tick_params(axis="x", rotation=30)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def week(
    log: Sessions, boundaries: Sequence[int], model: ModelSettings, settings: TrainingSettings
) -> Iterator[tuple[Morning, Outcome, Outcome]]:
    """Each morning but the first, with what full and warm training made of it."""
    yesterday = Morning.at(log, boundaries[0], SessionSettings())
    compile_first(yesterday, model, settings)
    weights = train_fully(yesterday, model, settings).weights
    for boundary in boundaries[1:]:
        morning = Morning.at(log, boundary, SessionSettings())
        full = train_fully(morning, model, settings)
        warm = train_warmly(morning, model, settings, yesterday, weights)
        yield morning, full, warm
        yesterday, weights = morning, warm.weights


def show(day: str, morning: Morning, full: Outcome, warm: Outcome) -> None:
    """A row of the table."""
    asked = morning.following.events - len(morning.following)
    ratio = warm.seconds / full.seconds
    print(
        f"{day}  {morning.learnt.events:12,}{asked:9,}{full.recall:10.4f} / {warm.recall:.4f}"
        f"{full.mrr:12.4f} / {warm.mrr:.4f}{full.seconds:11.1f} / {warm.seconds:5.1f}{ratio:8.1%}",
        flush=True,
    )


def main() -> None:
    """Print a row a day and the means; write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "log", type=Path, help="CSV of a news portal's clicks, with columns as Globo.com published them"
    )
    parser.add_argument("--until", default="2017-10-17T03:00:00+00:00", help="end of the last day evaluated on")
    parser.add_argument("--days", type=int, default=7, help="mornings on which both train")
    parser.add_argument("--sample", type=float, default=1.0, help="share of users")
    for name in ("epochs", "warm_epochs", "replay"):
        default = getattr(TrainingSettings(), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--plot", type=Path, default=Path("retraining.png"))
    options = parser.parse_args()
    settings = TrainingSettings(epochs=options.epochs, warm_epochs=options.warm_epochs, replay=options.replay)
    end = int(datetime.fromisoformat(options.until).timestamp() * 1000)
    boundaries = [end - (options.days + 1 - day) * DAY_MS for day in range(options.days + 1)]
    print("         learnt clicks    asked   Recall@20 full / warm  MRR@20 full / warm  seconds full / warm   ratio")
    full: list[Outcome] = []
    warm: list[Outcome] = []
    days = [f"{datetime.fromtimestamp(boundary / 1000, UTC):%m-%d}" for boundary in boundaries[1:]]
    outcomes = week(read(options.log, options.sample), boundaries, ModelSettings(), settings)
    for day, (morning, from_scratch, gone_on) in zip(days, outcomes, strict=True):
        full.append(from_scratch)
        warm.append(gone_on)
        show(day, morning, from_scratch, gone_on)
    recall = np.mean([each.recall for each in warm]) / np.mean([each.recall for each in full])
    seconds = sum(each.seconds for each in warm) / sum(each.seconds for each in full)
    reached = recall >= TARGETS[0] and seconds <= TARGETS[1]
    print(
        f"warm start: {recall:.1%} of full retraining's mean Recall@20 in {seconds:.1%} of its time, "
        f"{'as' if reached else 'NOT as'} wanted (at least {TARGETS[0]:.0%} in {TARGETS[1]:.0%})"
    )
    draw(options.plot, days, full, warm)


if __name__ == "__main__":
    main()
