"""Validation Recall@20 over time of training, beside a plain loop of one click a step.

The loops are those of :mod:`tests.benchmarks.training`. ``plain`` and ``windows`` learn the same sessions; ``both
ways`` is the default, which learns each session backwards too. They take turns, an epoch each, so that other work on
the machine hits all; seconds are those of learning alone, without compiling and without validation.

    python -m tests.benchmarks.recall dataset --epochs 6 --plot recall.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from recsys.dataset import Dataset
from recsys.model.batches import Batches, batches_of, session_parallel
from recsys.model.learner import Learner
from recsys.model.network import FITTED, REVISIT, initial_weights
from recsys.model.revisits import fit_revisits
from recsys.settings import ModelSettings, TrainingSettings
from recsys.validation import validation_on
from tests.benchmarks.training import PlainLoop

COLOURS = {"plain": "#888888", "windows": "#3b7dd8", "both ways": "#d8663b"}


def learn(loop: Learner | PlainLoop, batches: Batches, epoch: int) -> float:
    """Seconds of one epoch."""
    began = time.perf_counter()
    for _ in loop.learn(range(len(batches)), epoch * len(batches)):
        pass
    loop.loss_sum  # noqa: B018 (waits for the last step)
    return time.perf_counter() - began


def plot(curves: dict[str, list[tuple[float, float]]], rates: dict[str, float], path: Path) -> None:
    """Events per second of each loop, and a line each of seconds against Recall@20."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (speed, quality) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1, 2))
    speed.bar(list(rates), list(rates.values()), color=[COLOURS[name] for name in rates])
    speed.set(title="Events learnt per second")
    for name, points in curves.items():
        quality.plot(*zip(*points, strict=True), "o-", label=name, color=COLOURS[name])
    quality.set(title="Validation Recall@20 by seconds of training", xscale="log")
    for axis in (quality.xaxis.set_major_formatter, quality.xaxis.set_minor_formatter):
        axis("{x:g}")
    quality.legend(frameon=False)
    for panel in (speed, quality):
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def reached(curve: list[tuple[float, float]], recall: float) -> float:
    """Seconds until ``recall``, on the lines between the points of ``curve``; infinite where it is not reached."""
    before = (0.0, 0.0)
    for seconds, found in curve:
        if found >= recall > before[1]:
            return before[0] + (seconds - before[0]) * (recall - before[1]) / (found - before[1])
        before = seconds, found
    return float("inf")


def main() -> None:
    """Print each loop's seconds and metrics after each epoch, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    dataset, settings, model = Dataset.open(options.dataset), TrainingSettings(epochs=options.epochs), ModelSettings()
    sessions, items = dataset.training(), len(dataset.vocabulary)
    weights = initial_weights(items, model, settings.seed)
    validate = validation_on(dataset.validation(), dataset.vocabulary)
    forwards = session_parallel(sessions, settings.batch_size, settings.clicks_per_step)
    batches = {"plain": forwards, "windows": forwards, "both ways": batches_of(sessions, settings)}
    loops: dict[str, Learner | PlainLoop] = {
        name: (PlainLoop if name == "plain" else Learner)(weights, each, settings) for name, each in batches.items()
    }
    for loop in loops.values():  # compiled before it counts; the first window is learnt once more than others
        list(loop.learn(range(1), 0))
        loop.begin_epoch()
    seconds = dict.fromkeys(loops, 0.0)
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    for epoch in range(options.epochs):
        for name, loop in loops.items():
            seconds[name] += learn(loop, batches[name], epoch)
            learnt = loop.weights
            learnt = {**{name: weights[name] for name in FITTED}, **learnt}
            metrics = validate({**learnt, REVISIT: fit_revisits(learnt, sessions)})
            curves[name].append((seconds[name], metrics["recall@20"]))
            print(
                f"epoch {epoch + 1} {name:9}: {seconds[name]:6.1f} s, Recall@20 {metrics['recall@20']:.4f} "
                f"MRR@20 {metrics['mrr@20']:.4f}",
                flush=True,
            )
            loop.begin_epoch()
    rates = {name: sum(map(int, each.events)) * options.epochs / seconds[name] for name, each in batches.items()}
    least = curves["plain"][-1][1]
    for name, curve in curves.items():
        print(f"{name:9}: {rates[name]:6,.0f} events/s, Recall@20 {least:.4f} after {reached(curve, least):.1f} s")
    if options.plot:
        plot(curves, rates, options.plot)


if __name__ == "__main__":
    main()
