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


def step(projected: Any, hidden: Any, recurrent: Any) -> Any:
    """One click: ``projected [lanes, 3 * units]`` is ``x kernel + bias``; ``hidden`` and result ``[lanes, units]``."""
    units = hidden.shape[-1]
    gates = tf.sigmoid(projected[:, : 2 * units] + hidden @ recurrent[:, : 2 * units])
    update, reset = gates[:, :units], gates[:, units:]
    candidate = tf.tanh(projected[:, 2 * units :] + (reset * hidden) @ recurrent[:, 2 * units :])
    return hidden + update * (candidate - hidden)


def layer(projected: Any, keep: Any, hidden: Any, recurrent: Any) -> Any:
    """A window of clicks through one layer.

    Args:
        projected: ``[clicks, lanes, 3 * units]``, ``x kernel + bias``.
        keep: float ``[clicks, lanes, 1]``, 0 where the state is reset before the click and 1 elsewhere.
        hidden: ``[lanes, units]``, the state before the window.

    Returns:
        ``[clicks, lanes, units]``, the state after each click.
    """
    states = []
    for click in range(projected.shape[0]):
        hidden = step(projected[click], hidden * keep[click], recurrent)
        states.append(hidden)
    return tf.stack(states)
