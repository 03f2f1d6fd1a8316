"""One optimiser step: negatives drawn, gradients of a window of clicks, sparse updates.

Only the rows that a step touches are read and written, so that its cost does not depend on the catalogue.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from recsys.errors import SettingsError
from recsys.model.batches import Batches
from recsys.model.gradients import compiled_gradients
from recsys.model.network import Weights, layers, output_table
from recsys.model.optimizer import AdagradMomentum
from recsys.model.sampling import Negatives
from recsys.settings import TrainingSettings


class Learner:
    """The weights as they learn.

    Args:
        weights: where to begin.
        batches: what will be learnt from; the negatives' expected counts follow from its targets and clicks.
        settings: loss, samples, dropout, optimiser.
    """

    def __init__(self, weights: Weights, batches: Batches, settings: TrainingSettings) -> None:
        self._settings = settings
        self._clicks, self._lanes = batches.inputs.shape[1:]
        if self._lanes == 1 and settings.samples == 0:
            raise SettingsError("batch_size 1 with samples 0 leaves nothing to compare the next click with")
        self._negatives = Negatives(batches, len(weights["bias"]), settings)
        self._variables = {name: tf.Variable(weight, name=name) for name, weight in weights.items()}
        self._optimizer = AdagradMomentum(self._variables, settings.learning_rate, settings.momentum)
        width = layers(weights) * weights["embedding"].shape[1]
        self._hidden = tf.Variable(tf.zeros([self._lanes, width]), name="hidden")
        self._noise = [1 + layers(weights), self._clicks, self._lanes, weights["embedding"].shape[1]]
        self._loss_sum = tf.Variable(0.0, dtype=tf.float64)
        self._step = tf.function(self._learn)
        self._compiled = compiled_gradients(settings)

    @property
    def weights(self) -> Weights:
        """A copy of the weights as they stand."""
        return {name: variable.numpy() for name, variable in self._variables.items()}

    @property
    def state(self) -> dict[str, tf.Variable]:
        """Everything that a step changes, by name."""
        prefixed = {f"weight.{name}": variable for name, variable in self._variables.items()}
        return {**prefixed, **self._optimizer.slots, "hidden": self._hidden, "loss_sum": self._loss_sum}

    def begin_epoch(self) -> None:
        """Lanes start empty."""
        self._hidden.assign(tf.zeros_like(self._hidden))
        self._loss_sum.assign(0.0)

    @property
    def loss_sum(self) -> float:
        """Sum of the loss over the events of this epoch so far."""
        return float(self._loss_sum.numpy())

    def step(self, batches: Batches, window: int, number: int) -> None:
        """Learn from one window; chance is seeded by the step's ``number``, which tells it from all others of a run."""
        columns = (batches.inputs, batches.targets, batches.resets, batches.valid)
        self._step(*(tf.constant(column[window]) for column in columns), tf.constant(number))

    def _learn(self, inputs: Any, targets: Any, resets: Any, valid: Any, number: Any) -> None:
        seeds = tf.random.split(tf.stack([self._settings.seed, number]), 2)
        inputs, targets = tf.reshape(inputs, [-1]), tf.reshape(targets, [-1])
        candidates = self._negatives.candidates(targets, seeds[0])
        noise = tf.random.stateless_uniform(self._noise, seeds[1], alg="philox")
        expected = self._negatives.expected_counts(candidates, valid)
        log_expected = self._settings.logq * tf.math.log(tf.maximum(expected, 1e-30))
        output = output_table(self._variables)
        gru = {name: tf.convert_to_tensor(self._variables[name]) for name in self._variables if name.startswith("gru.")}
        rows = (
            tf.gather(self._variables["embedding"], inputs),
            tf.gather(self._variables[output], candidates),
            tf.gather(self._variables["bias"], candidates),
        )
        loss, states, row_gradients, gru_gradients = self._compiled(
            gru, rows, self._hidden, candidates, log_expected, resets, valid, noise
        )
        self._hidden.assign(states)
        self._loss_sum.assign_add(tf.cast(loss, tf.float64))
        for name, gradient in gru_gradients.items():
            self._optimizer.apply(name, gradient)
        entering, scoring, bias = row_gradients
        if output == "embedding":
            both = tf.concat([inputs, candidates], 0), tf.concat([entering, scoring], 0)
            self._optimizer.apply_rows("embedding", *both)
        else:
            self._optimizer.apply_rows("embedding", inputs, entering)
            self._optimizer.apply_rows("output", candidates, scoring)
        self._optimizer.apply_rows("bias", candidates, bias)
