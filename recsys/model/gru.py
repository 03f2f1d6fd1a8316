"""The GRU layer, as in Cho et al. 2014 and Hidasi et al. 2016: the reset gate acts before the recurrent product.

For input ``x`` and previous state ``h``::

    z  = sigmoid(x Wz + h Uz + bz)          update gate
    r  = sigmoid(x Wr + h Ur + br)          reset gate
    c  = tanh(x Wc + (r * h) Uc + bc)       candidate
    h' = (1 - z) h + z c

Keras's ``GRU(reset_after=False)`` is the same layer with ``1 - z`` in the place of ``z``. Gates stand in the order
z, r, c in ``kernel [in, 3 * units]``, ``recurrent [units, 3 * units]`` and ``bias [3 * units]``.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


@tf.custom_gradient  # type: ignore[untyped-decorator]
def layer(projected: Any, keep: Any, hidden: Any, recurrent: Any) -> Any:
    """A window of clicks through one layer.

    The gradient is written out, so that what the recurrent weights get from all clicks is one product and not a sum of
    one a click.

    Args:
        projected: ``[clicks, lanes, 3 * units]``, ``x kernel + bias``.
        keep: float ``[clicks, lanes, 1]``, 0 where the state is reset before the click and 1 elsewhere; a constant.
        hidden: ``[lanes, units]``, the state before the window.

    Returns:
        ``[clicks, lanes, units]``, the state after each click.
    """
    clicks, units = projected.shape[0], hidden.shape[-1]
    befores: list[Any] = []
    gates: list[Any] = []
    candidates: list[Any] = []
    states: list[Any] = []
    for click in range(clicks):
        befores.append(hidden * keep[click])
        hidden, gate, candidate = _step(projected[click], befores[-1], recurrent)
        for kept, value in ((gates, gate), (candidates, candidate), (states, hidden)):
            kept.append(value)

    def gradient(upstream: Any) -> tuple[Any, None, Any, Any]:
        of_gates, of_candidate = recurrent[:, : 2 * units], recurrent[:, 2 * units :]
        carried = tf.zeros_like(hidden)
        by_gates, by_candidates = [None] * clicks, [None] * clicks  # gradients by what enters sigmoid and tanh
        for click in reversed(range(clicks)):
            by_state = upstream[click] + carried
            before, candidate = befores[click], candidates[click]
            update, reset = gates[click][:, :units], gates[click][:, units:]
            by_candidates[click] = by_state * update * (1 - candidate * candidate)
            by_kept = tf.matmul(by_candidates[click], of_candidate, transpose_b=True)
            by_gate = tf.concat([by_state * (candidate - before), by_kept * before], 1)
            by_gates[click] = by_gate * gates[click] * (1 - gates[click])
            carried = by_state * (1 - update) + by_kept * reset
            carried = keep[click] * (carried + tf.matmul(by_gates[click], of_gates, transpose_b=True))
        kept = [before * gate[:, units:] for before, gate in zip(befores, gates, strict=True)]
        by_recurrent = [
            tf.matmul(tf.concat(entered, 0), tf.concat(by, 0), transpose_a=True)
            for entered, by in ((befores, by_gates), (kept, by_candidates))
        ]
        by_projected = tf.concat([tf.stack(by_gates), tf.stack(by_candidates)], 2)
        return by_projected, None, carried, tf.concat(by_recurrent, 1)

    return tf.stack(states), gradient


def _step(projected: Any, hidden: Any, recurrent: Any) -> tuple[Any, Any, Any]:
    """One click: the state after, and the gates ``[lanes, 2 * units]`` and the candidate it comes from."""
    units = hidden.shape[-1]
    gates = tf.sigmoid(projected[:, : 2 * units] + hidden @ recurrent[:, : 2 * units])
    update, reset = gates[:, :units], gates[:, units:]
    candidate = tf.tanh(projected[:, 2 * units :] + (reset * hidden) @ recurrent[:, 2 * units :])
    return hidden + update * (candidate - hidden), gates, candidate


def step(projected: Any, hidden: Any, recurrent: Any) -> Any:
    """One click: ``projected [lanes, 3 * units]`` is ``x kernel + bias``; ``hidden`` and result ``[lanes, units]``."""
    return _step(projected, hidden, recurrent)[0]
