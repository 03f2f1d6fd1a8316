"""One optimiser step: gradients of a window of clicks, sparse updates.

Only the rows that a step touches are read and written, so that its cost does not depend on the catalogue.

With several devices, each holds all variables and goes through its share of the lanes, compared with the candidates of
all lanes. Gradients are summed, and each device changes its own copy of the variables in the same way: the result is
that of one device, but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from recsys.errors import SettingsError
from recsys.model.batches import Batches
from recsys.model.devices import strategy
from recsys.model.feed import Feed, Prepared
from recsys.model.gradients import WindowGradients
from recsys.model.network import BACKWARDS, FITTED, Weights, gru_weights, input_table, layers, output_table, width
from recsys.model.optimizer import Optimizer, Rows, clipped, rule
from recsys.model.schedule import learning_rate
from recsys.settings import TrainingSettings


class Learner:
    """The weights as they learn.

    Args:
        weights: where to begin.
        batches: what will be learnt from.
        settings: loss, samples, dropout, optimiser.
    """

    def __init__(self, weights: Weights, batches: Batches, settings: TrainingSettings) -> None:
        self._settings = settings
        self._clicks, self._lanes = batches.inputs.shape[1:]
        if self._lanes == 1 and settings.samples == 0:
            raise SettingsError("batch_size 1 with samples 0 leaves nothing to compare the next click with")
        learnt = {name: weight for name, weight in weights.items() if name not in FITTED}
        self._kept = {name: weights[name] for name in FITTED}
        if batches.backwards.any():
            learnt[BACKWARDS] = np.zeros(3 * width(weights), np.float32)
        self._input, self._output = input_table(weights), output_table(weights)
        self._steps = settings.epochs * len(batches)
        state = layers(weights) * width(weights)
        self._numbers = weights[self._input].shape[1] + state
        self._feed = Feed(batches, len(weights["bias"]), self._numbers, settings)
        self._strategy = strategy(settings.devices)
        with self._strategy.scope():
            self._variables = {name: tf.Variable(weight, name=name) for name, weight in learnt.items()}
            self._optimizer = Optimizer(self._variables, rule(settings))
            self._hidden = tf.Variable(tf.zeros([self._lanes, state]), name="hidden")
            self._loss_sum = tf.Variable(0.0, dtype=tf.float64)
        self._step = tf.function(self._learn)
        self._gradients = WindowGradients(settings)

    @property
    def weights(self) -> Weights:
        """A copy of the weights as they stand, without what only learning needs."""
        learnt = {name: weight for name, weight in self.learnt.items() if name != BACKWARDS}
        return learnt | {name: value.copy() for name, value in self._kept.items()}

    @property
    def learnt(self) -> Weights:
        """A copy of all that is learnt."""
        return {name: variable.numpy() for name, variable in self._variables.items()}

    @property
    def state(self) -> dict[str, tf.Variable]:
        """Everything that a step changes, by name."""
        prefixed = {f"weight.{name}": variable for name, variable in self._variables.items()}
        return {**prefixed, **self._optimizer.slots, "hidden": self._hidden, "loss_sum": self._loss_sum}

    def turn_to(self, batches: Batches) -> None:
        """Learn from other batches, of the same shape, from now on."""
        self._feed = Feed(batches, self._variables["bias"].shape[0], self._numbers, self._settings)

    def start_over(self, weights: Weights) -> None:
        """The next step is as if it were the first, from where the learner stands but for the ``weights`` given."""
        for name, weight in weights.items():
            self._variables[name].assign(weight)
        self._optimizer.restart()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Lanes start empty."""
        self._hidden.assign(tf.zeros(self._hidden.shape))
        self._loss_sum.assign(0.0)

    @property
    def loss_sum(self) -> float:
        """Sum of the loss over the events of this epoch so far."""
        return float(self._loss_sum.numpy())

    def learn(self, windows: range, number: int) -> Iterator[int]:
        """Learn from ``windows``, one after the other, and say each when it is done; ``number`` is the first step's."""
        for window, prepared in zip(windows, self._feed.steps(windows, number), strict=True):
            self._step(prepared)
            yield window

    def _learn(self, step: Prepared) -> None:
        """On every device."""
        self._strategy.run(self._share, (step,))

    def _share(self, step: Prepared) -> None:
        """The gradients of one device's share of the lanes, and the update, which all devices do alike."""
        device = tf.distribute.get_replica_context()
        share = self._lanes // device.num_replicas_in_sync
        first = share * int(tf.get_static_value(device.replica_id_in_sync_group))
        lanes = slice(first, first + share)
        rows = (
            tf.gather(self._variables[self._input], step.inputs[:, lanes]),
            tf.gather(self._variables[self._output], step.candidates),
            tf.gather(self._variables["bias"], step.candidates),
        )
        gru = {name: tf.convert_to_tensor(variable) for name, variable in gru_weights(self._variables).items()}
        loss, states, (entering, scoring, bias), gru_gradients = self._gradients(
            gru, rows, self._hidden[lanes], step, first
        )
        if device.num_replicas_in_sync > 1:  # TensorFlow keeps, for good, the variables of a step that exchanges
            loss, scoring, bias, gru_gradients = device.all_reduce("sum", (loss, scoring, bias, gru_gradients))
            entering, states = device.all_gather(entering, axis=1), device.all_gather(states, axis=0)
        self._hidden.assign(states)
        self._loss_sum.assign_add(tf.cast(loss, tf.float64))
        entered = tf.reshape(step.inputs, [-1]), tf.reshape(entering, [-1, self._variables[self._input].shape[1]])
        self._update({**gru_gradients, **self._by_table(entered, (step.candidates, scoring), bias)}, step.number)

    def _by_table(self, entered: tuple[Any, Any], scored: tuple[Any, Any], bias: Any) -> dict[str, Any]:
        """Gradients of each table, from those of the rows of each role: ``(rows [n], gradients [n, ...])``.

        ``bias [n]`` belongs to the rows that scored.
        """
        by_rows = {}
        if self._input == self._output:
            scored = tuple(tf.concat(parts, 0) for parts in zip(scored, entered, strict=True))
        else:
            by_rows[self._input] = Rows.once(*entered)[0]
        by_rows[self._output], by_rows["bias"] = Rows.once(*scored, bias)
        return by_rows

    def _update(self, gradients: dict[str, Any], number: Any) -> None:
        if self._settings.clip_norm:
            gradients = clipped(gradients, self._settings.clip_norm)
        self._optimizer.apply(gradients, learning_rate(self._settings, number, self._steps))
