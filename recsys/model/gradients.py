"""Loss and gradients of a window of clicks.

The arithmetic of the GRU and of the loss is compiled by XLA, each with its gradient; the large products between them,
of states and candidates, are left to TensorFlow, whose kernels for them are faster on a CPU. Gradients go back through
the whole window; the state before the window is taken as given.

Compiling takes seconds. What is compiled depends on shapes, precision and which loss it is, and on no other setting. So
learners of a process share it: those of the search and of the final training, and of a tuning's trials of one shape.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from recsys.model.devices import multiplies_bfloat16
from recsys.model.feed import Prepared
from recsys.model.losses import bpr_max, sampled_cross_entropy, top1_max
from recsys.model.network import forward, layers
from recsys.settings import TrainingSettings


class WindowGradients:
    """Loss and gradients of one window after the other.

    Args:
        settings: loss, dropout, precision.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self._rates = settings.embedding_dropout, settings.hidden_dropout
        self._loss, self._penalty = settings.loss, settings.score_penalty
        self._halved = multiplies_bfloat16(settings)

    def __call__(
        self, gru: dict[str, Any], rows: tuple[Any, Any, Any], hidden: Any, step: Prepared, first: int = 0
    ) -> tuple[Any, Any, Any, Any]:
        """One window, with ``pairs = clicks * lanes`` predictions; a device does those of its ``share`` of lanes.

        Args:
            gru: the GRU's weights.
            rows: input rows of the items clicked ``[clicks, share, width]``, output rows of the candidates
                ``[candidates, units]`` and their biases ``[candidates]``.
            hidden: ``[share, layers * units]``, the states before the window.
            step: the window.
            first: the first lane of the share.

        Returns:
            The loss summed over the share's predictions, its states after the window, and the gradients of the whole
            window's mean loss by ``rows`` and by ``gru``, as far as the share adds to them.
        """
        lanes = slice(first, first + hidden.shape[0])
        entering, scoring, bias = rows
        with tf.GradientTape() as tape:
            tape.watch([gru, rows])
            chance = step.noise[:, lanes], *(tf.constant(rate, step.noise.dtype) for rate in self._rates)
            top, states = _entered(gru, entering, hidden, chance, step.resets[:, lanes], step.backwards[:, lanes])
            products = tf.matmul(self._low(top), self._low(scoring), transpose_b=True)
            loss, mean = _compared(products, bias, step, first, self._loss, tf.constant(self._penalty, bias.dtype))
        row_gradients, gru_gradients = tape.gradient(mean, (rows, gru))
        return loss, states, row_gradients, gru_gradients

    def _low(self, values: Any) -> Any:
        """As products take them."""
        return tf.cast(values, tf.bfloat16) if self._halved else values


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
def _entered(
    gru: dict[str, Any], entering: Any, hidden: Any, chance: tuple[Any, Any, Any], resets: Any, backwards: Any
) -> tuple[Any, Any]:
    """What each prediction goes by, ``[clicks * share, units]``, and the states after the window.

    ``chance`` is the noise, and the rates of dropout of what enters and of states.
    """
    width = entering.shape[-1]
    noise, of_entering, of_states = map(tf.stop_gradient, chance)
    above = tf.split(noise[:, :, width:], layers(gru), axis=-1)
    handed, states = forward(
        gru,
        dropout(entering, of_entering, noise[:, :, :width]),
        resets,
        hidden,
        backwards,
        lambda states, layer: dropout(states, of_states, above[layer]),
    )
    return tf.reshape(handed, [-1, handed.shape[-1]]), states[-1]


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
def _compared(products: Any, bias: Any, step: Prepared, first: int, loss: str, penalty: Any) -> tuple[Any, Any]:
    """The loss summed over the share's predictions, and its part in the window's mean."""
    share = products.shape[0] // step.valid.shape[0]

    def own(values: Any) -> Any:
        """Of ``values [pairs or more, ...]``, the rows of the share's predictions."""
        shape = [*step.valid.shape, *values.shape[1:]]
        by_lane = tf.reshape(values[: shape[0] * shape[1]], shape)[:, first : first + share]
        return tf.reshape(by_lane, [-1, *shape[2:]])

    excluded = no_negatives(step.candidates, step.valid, step.barred)
    counts = tf.reshape(step.valid, [-1]) & ~tf.reduce_all(excluded, axis=1)
    scores = tf.cast(products, bias.dtype) + bias
    pairs = tf.range(counts.shape[0])
    of_target = own(pairs)[:, None] == tf.range(scores.shape[1])[None, :]  # a mask, as XLA gathers slowly
    positive = tf.reduce_sum(tf.where(of_target, scores, 0.0), axis=1)
    if loss == "bpr-max":
        losses = bpr_max(positive, scores, own(excluded), tf.stop_gradient(penalty))
    elif loss == "top1-max":
        losses = top1_max(positive, scores, own(excluded))
    else:
        losses = sampled_cross_entropy(positive, scores, step.log_expected, own(excluded))
    total = tf.reduce_sum(tf.where(own(counts), losses, 0.0))
    return total, total / tf.maximum(tf.reduce_sum(tf.cast(counts, total.dtype)), 1.0)


def no_negatives(candidates: Any, valid: Any, barred: Any) -> Any:
    """Bool ``[pairs, candidates]``: where a candidate is the target, barred, a click of the same lane, or no click.

    The other clicks of a visitor are likelier in his window than popularity says; as negatives they would teach that
    what he wants is what he does not want.
    """
    clicks, lanes = valid.shape
    pairs = clicks * lanes
    hits = candidates[:pairs, None] == candidates[None, :]
    hits |= tf.reshape(barred, [pairs, 1]) == candidates[None, :]
    lane = tf.tile(tf.range(lanes), [clicks])
    own = (lane[:, None] == lane[None, :]) | ~tf.reshape(valid, [1, -1])
    return hits | tf.pad(own, [[0, 0], [0, candidates.shape[0] - pairs]])


def dropout(values: Any, rate: Any, noise: Any) -> Any:
    """Inverted dropout, by noise uniform in [0, 1)."""
    return tf.where(noise >= rate, values / (1 - rate), 0.0)
