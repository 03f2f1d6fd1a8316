"""Loss and gradients of a window of clicks, compiled.

All arithmetic of a step is one XLA function of gathered table rows. Gradients go back through the whole window; the
state before the window is taken as given.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import tensorflow as tf

from recsys.model.losses import bpr_max, sampled_cross_entropy
from recsys.model.network import forward
from recsys.settings import TrainingSettings


@cache
def compiled_gradients(settings: TrainingSettings) -> Any:
    """:func:`window_gradients` for these settings; compiled once a process for each shape of weights."""

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
    resets: Any,
    valid: Any,
    noise: Any,
) -> tuple[Any, Any, Any, Any]:
    """One window, with ``pairs = clicks * lanes`` predictions.

    Args:
        settings: loss and dropout.
        gru: the GRU's weights.
        rows: embeddings of the inputs ``[pairs, units]``, output rows of the candidates ``[candidates, units]`` and
            their biases ``[candidates]``.
        hidden: ``[lanes, layers * units]``, the states before the window.
        candidates: int ``[candidates]``, the items compared with: the window's ``pairs`` targets, then the samples.
        log_expected: ``[candidates]``, as :func:`recsys.model.losses.sampled_cross_entropy` wants it.
        resets: bool ``[clicks, lanes]``, where a session begins.
        valid: bool ``[clicks, lanes]``, where there is a click at all.
        noise: ``[1 + layers, clicks, lanes, units]``, uniform in [0, 1): what the dropout of the embeddings, then of
            each layer's states, goes by. (Drawn outside: XLA draws slowly on a CPU.)

    Returns:
        The loss summed over the window's predictions, the states after the window, and the gradients of the mean loss
        by ``rows`` and by ``gru``.
    """
    with tf.GradientTape() as tape:
        tape.watch([gru, rows])
        entering, scoring, bias = rows
        clicks, lanes = valid.shape
        pairs = clicks * lanes
        embedded = tf.reshape(entering, [clicks, lanes, -1])
        embedded = dropout(embedded, settings.embedding_dropout, noise[0])
        handed, states = forward(
            gru,
            embedded,
            resets,
            hidden,
            lambda states, layer: dropout(states, settings.hidden_dropout, noise[1 + layer]),
        )
        top = tf.reshape(handed, [pairs, -1])
        positive = tf.reduce_sum(top * scoring[:pairs], axis=1) + bias[:pairs]
        negatives = tf.matmul(top, scoring, transpose_b=True) + bias
        excluded = no_negatives(candidates, valid)
        if settings.loss == "cross-entropy":
            losses = sampled_cross_entropy(positive, negatives, log_expected, excluded)
        else:
            losses = bpr_max(positive, negatives, excluded, settings.score_penalty)
        counts = tf.reshape(valid, [-1]) & ~tf.reduce_all(excluded, axis=1)
        loss = tf.reduce_sum(tf.where(counts, losses, 0.0))
        mean = loss / tf.maximum(tf.reduce_sum(tf.cast(counts, loss.dtype)), 1.0)
    row_gradients, gru_gradients = tape.gradient(mean, (rows, gru))
    return loss, states[-1], row_gradients, gru_gradients


def no_negatives(candidates: Any, valid: Any) -> Any:
    """Bool ``[pairs, candidates]``: where a candidate is the target itself, a click of the same lane, or no click.

    The other clicks of a visitor are likelier in his window than popularity says; as negatives they would teach that
    what he wants is what he does not want.
    """
    clicks, lanes = valid.shape
    pairs = clicks * lanes
    hits = candidates[:pairs, None] == candidates[None, :]
    lane = tf.tile(tf.range(lanes), [clicks])
    own = (lane[:, None] == lane[None, :]) | ~tf.reshape(valid, [1, -1])
    return hits | tf.pad(own, [[0, 0], [0, candidates.shape[0] - pairs]])


def dropout(values: Any, rate: float, noise: Any) -> Any:
    """Inverted dropout, by noise uniform in [0, 1)."""
    return tf.where(noise >= rate, values / (1 - rate), 0.0) if rate else values
