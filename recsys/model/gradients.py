"""Loss and gradients of a window of clicks, compiled.

All arithmetic of a step is one XLA function of gathered table rows. Gradients go back through the whole window; the
state before the window is taken as given.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import tensorflow as tf

from recsys.model.losses import bpr_max, sampled_cross_entropy, top1_max
from recsys.model.network import forward, layers
from recsys.settings import TrainingSettings


@lru_cache(maxsize=1)  # what is kept here keeps the variables of the run that compiled it
def compiled_gradients(settings: TrainingSettings) -> Any:
    """:func:`window_gradients` for these settings, compiled once for runs in a row with them and the same shapes."""

    def gradients(*arguments: Any) -> Any:
        return window_gradients(settings, *arguments)

    return tf.function(gradients, jit_compile=True)


def window_gradients(
    settings: TrainingSettings,
    gru: dict[str, Any],
    rows: tuple[Any, Any, Any],
    hidden: Any,
    candidates: Any,
    log_expected: Any,
    barred: Any,
    resets: Any,
    valid: Any,
    backwards: Any,
    noise: Any,
    first: int = 0,
) -> tuple[Any, Any, Any, Any]:
    """One window, with ``pairs = clicks * lanes`` predictions, of which a device does those of its ``share`` of lanes.

    Args:
        settings: loss, dropout, precision.
        gru: the GRU's weights.
        rows: input rows of the items clicked ``[clicks, share, width]``, output rows of the candidates
            ``[candidates, units]`` and their biases ``[candidates]``.
        hidden: ``[share, layers * units]``, the states before the window.
        candidates: int ``[candidates]``, the items compared with: the window's ``pairs`` targets, then the samples.
        log_expected: ``[candidates]``, as :func:`recsys.model.losses.sampled_cross_entropy` wants it.
        barred: int ``[clicks, lanes]``, an item that cannot be clicked next, -1 for none.
        resets: bool ``[clicks, lanes]``, where a session begins.
        valid: bool ``[clicks, lanes]``, where there is a click at all.
        backwards: bool ``[clicks, lanes]``, where a session is read backwards.
        noise: ``[clicks, lanes, width + layers * units]``, uniform in [0, 1): what the dropout of the input rows, then
            of each layer's states, goes by. (Drawn outside: XLA draws slowly on a CPU.)
        first: the first lane of the share.

    Returns:
        The loss summed over the share's predictions, its states after the window, and the gradients of the whole
        window's mean loss by ``rows`` and by ``gru``, as far as the share adds to them.
    """
    lanes = slice(first, first + hidden.shape[0])
    noise = noise[:, lanes]
    with tf.GradientTape() as tape:
        tape.watch([gru, rows])
        entering, scoring, bias = rows
        width = entering.shape[-1]
        above = tf.split(noise[:, :, width:], layers(gru), axis=-1)
        low = tf.bfloat16 if settings.precision == "bfloat16" else entering.dtype
        handed, states = forward(
            {name: tf.cast(weight, low) for name, weight in gru.items()},
            tf.cast(dropout(entering, settings.embedding_dropout, noise[:, :, :width]), low),
            resets[:, lanes],
            tf.cast(hidden, low),
            backwards[:, lanes],
            lambda states, layer: dropout(states, settings.hidden_dropout, above[layer]),
        )
        excluded = no_negatives(candidates, valid, barred)
        counts = tf.reshape(valid, [-1]) & ~tf.reduce_all(excluded, axis=1)
        top = tf.reshape(handed, [-1, handed.shape[-1]])
        of_targets = tf.cast(top, bias.dtype) * _of_lanes(scoring, valid, lanes)
        positive = tf.reduce_sum(of_targets, axis=1) + _of_lanes(bias, valid, lanes)
        negatives = tf.cast(tf.matmul(top, tf.cast(scoring, low), transpose_b=True), bias.dtype) + bias
        losses = compared(settings, positive, negatives, log_expected, _of_lanes(excluded, valid, lanes))
        loss = tf.reduce_sum(tf.where(_of_lanes(counts, valid, lanes), losses, 0.0))
        mean = loss / tf.maximum(tf.reduce_sum(tf.cast(counts, loss.dtype)), 1.0)
    row_gradients, gru_gradients = tape.gradient(mean, (rows, gru))
    return loss, tf.cast(states[-1], hidden.dtype), row_gradients, gru_gradients


def _of_lanes(values: Any, valid: Any, lanes: slice) -> Any:
    """Of ``values [pairs or more, ...]``, the rows of these lanes' predictions."""
    rest = values.shape[1:]
    by_lane = tf.reshape(values[: valid.shape[0] * valid.shape[1]], [*valid.shape, *rest])
    return tf.reshape(by_lane[:, lanes], [-1, *rest])


def compared(settings: TrainingSettings, positive: Any, negatives: Any, log_expected: Any, excluded: Any) -> Any:
    """``[rows]``: the loss that ``settings`` name, of the arguments of :mod:`recsys.model.losses`."""
    if settings.loss == "bpr-max":
        return bpr_max(positive, negatives, excluded, settings.score_penalty)
    if settings.loss == "top1-max":
        return top1_max(positive, negatives, excluded)
    return sampled_cross_entropy(positive, negatives, log_expected, excluded)


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


def dropout(values: Any, rate: float, noise: Any) -> Any:
    """Inverted dropout, by noise uniform in [0, 1)."""
    return tf.where(noise >= rate, values / (1 - rate), 0.0) if rate else values
