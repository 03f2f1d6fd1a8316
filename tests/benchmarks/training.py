"""Events per second of training, beside a plain loop of one click a step.

The plain loop is what the papers describe: session-parallel batches, one ``tf.function`` call and one gradient step a
click, by automatic gradients. Loss, logQ correction, dropout, optimiser and samples a step are the same. So the plain
loop draws samples for each click, where ours draws once for all clicks of a window: that is part of the difference.
Both run in turns, so that other work on the machine hits both.

    python -m tests.benchmarks.training
    python -m tests.benchmarks.training --units 480 --batch-size 48
    python -m tests.benchmarks.training --dataset dataset
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from recsys.model.batches import Batches, session_parallel
from recsys.model.gradients import no_negatives
from recsys.model.gru import step
from recsys.model.learner import Learner
from recsys.model.losses import sampled_cross_entropy
from recsys.model.network import FITTED, Weights, initial_weights
from recsys.model.optimizer import Optimizer, Rows, rule
from recsys.model.sampling import Negatives
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, TrainingSettings

import tensorflow as tf  # isort: skip (after recsys.model, which loads it quietly)


class PlainLoop:
    """One GRU layer, tied embeddings, cross-entropy; a gradient step after each click."""

    def __init__(self, weights: Weights, batches: Batches, settings: TrainingSettings) -> None:
        items, units = weights["embedding"].shape
        self._settings = settings
        self._negatives = Negatives(batches, items, settings)
        self._weights = {name: tf.Variable(weight) for name, weight in weights.items() if name not in FITTED}
        self._optimizer = Optimizer(self._weights, rule(settings), compiled=False)
        self._columns = batches.inputs, batches.targets, batches.resets, batches.valid
        self._clicks = batches.inputs.shape[1]
        self._hidden = tf.Variable(tf.zeros([settings.batch_size, units]))
        self._loss_sum = tf.Variable(0.0)
        self._call = tf.function(self._click)

    @property
    def loss_sum(self) -> float:
        """Sum of the loss over the events so far; to ask for it waits for the steps under way."""
        return float(self._loss_sum.numpy())

    @property
    def weights(self) -> Weights:
        """A copy of the weights as they stand."""
        return {name: variable.numpy() for name, variable in self._weights.items()}

    def begin_epoch(self) -> None:
        """Lanes start empty."""
        self._hidden.assign(tf.zeros_like(self._hidden))
        self._loss_sum.assign(0.0)

    def learn(self, windows: range, number: int) -> Iterator[int]:
        """Learn from windows, click by click, each with samples and dropout of its own."""
        for window in windows:
            for click in range(self._clicks):
                self._call(
                    *(tf.constant(column[window, click]) for column in self._columns),
                    tf.constant(number * self._clicks + click),
                )
            number += 1
            yield window

    def _click(self, inputs: Any, targets: Any, resets: Any, valid: Any, number: Any) -> None:
        seeds = tf.random.split(tf.stack([self._settings.seed, number]), 3)
        candidates = self._negatives.candidates(targets, seeds[0])
        expected = self._negatives.expected_counts(candidates, valid[None, :])
        log_expected = self._settings.logq * tf.math.log(tf.maximum(expected, 1e-30))
        with tf.GradientTape() as tape:
            embedded = tf.gather(self._weights["embedding"], inputs)
            embedded = self._dropout(embedded, self._settings.embedding_dropout, seeds[1])
            before = tf.where(resets[:, None], 0.0, self._hidden)
            projected = embedded @ self._weights["gru.0.kernel"] + self._weights["gru.0.bias"]
            after = step(projected, before, self._weights["gru.0.recurrent"])
            top = self._dropout(after, self._settings.hidden_dropout, seeds[2])
            scores = tf.matmul(top, tf.gather(self._weights["embedding"], candidates), transpose_b=True)
            scores += tf.gather(self._weights["bias"], candidates)
            excluded = no_negatives(candidates, valid[None, :], inputs[None, :])
            losses = sampled_cross_entropy(tf.linalg.diag_part(scores), scores, log_expected, excluded)
            counts = valid & ~tf.reduce_all(excluded, axis=1)
            loss = tf.reduce_sum(tf.where(counts, losses, 0.0))
            mean = loss / tf.maximum(tf.reduce_sum(tf.cast(counts, tf.float32)), 1.0)
        self._hidden.assign(after)
        self._loss_sum.assign_add(loss)
        gradients = tape.gradient(mean, self._weights)
        for name, gradient in gradients.items():
            if isinstance(gradient, tf.IndexedSlices):
                (gradients[name],) = Rows.once(gradient.indices, gradient.values)
        self._optimizer.apply(gradients, self._settings.learning_rate)

    @staticmethod
    def _dropout(values: Any, rate: float, seed: Any) -> Any:
        return tf.nn.experimental.stateless_dropout(values, rate, seed, rng_alg="philox") if rate else values


def zipf_log(items: int, sessions: int, seed: int = 1) -> Sessions:
    """Sessions of three clicks on average, popularity by Zipf's law."""
    random = np.random.default_rng(seed)
    lengths = 1 + random.geometric(0.4, sessions)
    chance = 1 / np.arange(1, items + 1)
    clicked = random.choice(items, int(lengths.sum()), p=chance / chance.sum()).astype(np.int32)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Sessions(clicked, np.arange(len(clicked), dtype=np.int64), np.zeros(len(clicked), np.int8), starts)


def rates(loop: Learner | PlainLoop, batches: Batches, windows: int) -> Iterator[float]:
    """Events a second over so many windows, and over the next ones, up to the end of each last step, epoch by epoch."""
    number = 0
    while True:
        learnt = loop.learn(range(len(batches)), number)
        for _ in range(len(batches) // windows):
            began = time.perf_counter()
            events = int(batches.events[list(islice(learnt, windows))].sum())
            assert np.isfinite(loop.loss_sum)
            yield events / (time.perf_counter() - began)
        number += len(batches)


def main() -> None:
    """Print both rates, round by round, and the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="a session dataset instead of a Zipf log")
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--clicks-per-step", type=int, default=TrainingSettings().clicks_per_step)
    parser.add_argument("--precision", default=TrainingSettings().precision)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--windows", type=int, default=20, help="windows of each loop in a round")
    options = parser.parse_args()
    if options.dataset:
        from recsys.dataset import Dataset

        dataset = Dataset.open(options.dataset)
        sessions, items = dataset.development(), len(dataset.vocabulary)
    else:
        sessions, items = zipf_log(options.items, 50_000), options.items
    settings = TrainingSettings(
        batch_size=options.batch_size,
        clicks_per_step=options.clicks_per_step,
        samples=options.samples,
        precision=options.precision,
    )
    batches = session_parallel(sessions, settings.batch_size, settings.clicks_per_step)
    weights = initial_weights(items, ModelSettings(units=options.units), settings.seed)
    loops: dict[str, Learner | PlainLoop] = {
        "ours": Learner(weights, batches, settings),
        "plain": PlainLoop(weights, batches, settings),
    }
    running = {name: rates(loop, batches, options.windows) for name, loop in loops.items()}
    for rate in running.values():
        next(rate)  # compiled before it counts
    rounds = [{name: next(rate) for name, rate in running.items()} for _ in track(range(options.rounds))]
    medians = {name: float(np.median([each[name] for each in rounds])) for name in loops}
    low, ratio, high = np.quantile([each["ours"] / each["plain"] for each in rounds], [0.25, 0.5, 0.75])
    print(
        f"median of {options.rounds} rounds: ours {medians['ours']:,.0f} plain {medians['plain']:,.0f} events/s, "
        f"ratio {ratio:.2f} (middle half of the rounds: {low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
