"""Events per second of training, beside a plain loop of one click a step.

The plain loop is what the papers describe: session-parallel batches, one ``tf.function`` call a click, automatic
gradients, the same loss, samples and sparse optimiser. Both run in turns, so that other work on the machine hits both.

    python -m tests.benchmarks.training
    python -m tests.benchmarks.training --units 480 --batch-size 48
    python -m tests.benchmarks.training --dataset dataset
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from recsys.model.batches import Batches, session_parallel
from recsys.model.gru import step
from recsys.model.learner import Learner
from recsys.model.losses import sampled_cross_entropy
from recsys.model.network import Weights, initial_weights
from recsys.model.optimizer import AdagradMomentum
from recsys.model.sampling import NegativeSampler
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, TrainingSettings


class PlainLoop:
    """One GRU layer, tied embeddings, cross-entropy; a gradient step after each click."""

    def __init__(self, weights: Weights, batches: Batches, settings: TrainingSettings) -> None:
        items, units = weights["embedding"].shape
        self._settings = settings
        counts = np.bincount(batches.targets[batches.valid], minlength=items)
        self._sampler = NegativeSampler(counts, settings.alpha)
        self._log_q = tf.constant(np.log(np.maximum(settings.samples * self._sampler.probability, 1e-30)), tf.float32)
        self._weights = {name: tf.Variable(weight) for name, weight in weights.items()}
        self._optimizer = AdagradMomentum(self._weights, settings.learning_rate, settings.momentum)
        self._hidden = tf.Variable(tf.zeros([settings.batch_size, units]))
        self._call = tf.function(self._click)

    def step(self, batches: Batches, window: int, number: int) -> None:
        """Learn from a window, click by click."""
        for click in range(batches.inputs.shape[1]):
            columns = (batches.inputs, batches.targets, batches.resets)
            self._call(*(tf.constant(column[window, click]) for column in columns), tf.constant(number))

    def _click(self, inputs: Any, targets: Any, resets: Any, number: Any) -> None:
        sampled = self._sampler.draw(self._settings.samples, tf.stack([self._settings.seed, number]))
        candidates = tf.concat([targets, sampled], 0)
        dropout = self._settings.hidden_dropout
        with tf.GradientTape() as tape:
            embedded = tf.gather(self._weights["embedding"], inputs)
            before = tf.where(resets[:, None], 0.0, self._hidden)
            projected = embedded @ self._weights["gru.0.kernel"] + self._weights["gru.0.bias"]
            after = step(projected, before, self._weights["gru.0.recurrent"])
            top = tf.nn.dropout(after, dropout) if dropout else after
            scores = tf.matmul(top, tf.gather(self._weights["embedding"], candidates), transpose_b=True)
            scores += tf.gather(self._weights["bias"], candidates)
            positive = tf.linalg.diag_part(scores)
            hits = targets[:, None] == candidates[None, :]
            losses = sampled_cross_entropy(positive, scores, tf.gather(self._log_q, candidates), hits)
            loss = tf.reduce_mean(losses)
        self._hidden.assign(after)
        for (name, _), gradient in zip(
            self._weights.items(), tape.gradient(loss, list(self._weights.values())), strict=True
        ):
            if isinstance(gradient, tf.IndexedSlices):
                self._optimizer.apply_rows(name, gradient.indices, gradient.values)
            else:
                self._optimizer.apply(name, gradient)


def zipf_log(items: int, sessions: int, seed: int = 1) -> Sessions:
    """Sessions of three clicks on average, popularity by Zipf's law."""
    random = np.random.default_rng(seed)
    lengths = 1 + random.geometric(0.4, sessions)
    chance = 1 / np.arange(1, items + 1)
    clicked = random.choice(items, int(lengths.sum()), p=chance / chance.sum()).astype(np.int32)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Sessions(clicked, np.arange(len(clicked), dtype=np.int64), np.zeros(len(clicked), np.int8), starts)


def events_per_second(learn: Callable[[Batches, int, int], None], batches: Batches, windows: range) -> float:
    """Events a second over some windows."""
    began = time.perf_counter()
    for window in windows:
        learn(batches, window % len(batches), window)
    return float(batches.events[[window % len(batches) for window in windows]].sum()) / (time.perf_counter() - began)


def main() -> None:
    """Print both rates, round by round, and the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="a session dataset instead of a Zipf log")
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--clicks-per-step", type=int, default=TrainingSettings().clicks_per_step)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--windows", type=int, default=100, help="windows of each loop in a round")
    options = parser.parse_args()
    if options.dataset:
        from recsys.dataset import Dataset

        dataset = Dataset.open(options.dataset)
        sessions, items = dataset.development(), len(dataset.vocabulary)
    else:
        sessions, items = zipf_log(options.items, 50_000), options.items
    settings = TrainingSettings(
        batch_size=options.batch_size, clicks_per_step=options.clicks_per_step, samples=options.samples
    )
    batches = session_parallel(sessions, settings.batch_size, settings.clicks_per_step)
    weights = initial_weights(items, ModelSettings(units=options.units), settings.seed)
    loops = {"ours": Learner(weights, batches, settings), "plain": PlainLoop(weights, batches, settings)}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        events_per_second(loop.step, batches, range(3))
    for number in range(options.rounds):
        windows = range(number * options.windows, (number + 1) * options.windows)
        for name, loop in loops.items():
            rates[name].append(events_per_second(loop.step, batches, windows))
        print(f"round {number + 1}: ours {rates['ours'][-1]:,.0f} plain {rates['plain'][-1]:,.0f} events/s", flush=True)
    ours, plain = (float(np.median(rates[name])) for name in ("ours", "plain"))
    print(f"median: ours {ours:,.0f} plain {plain:,.0f} events/s, ratio {ours / plain:.2f}")


if __name__ == "__main__":
    main()
