"""The network: item embedding, GRU layers, scores over items (Hidasi et al. 2016).

Weights are plain arrays by name, float32: ``embedding [items, units]``; ``output [items, units]`` where it is not tied
to the embedding; ``bias [items]``; and for each layer ``l`` ``gru.{l}.kernel``, ``gru.{l}.recurrent`` and
``gru.{l}.bias`` as :mod:`recsys.model.gru` says. The scores after a click are ``h output^T + bias``, ``h`` being the
top layer's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from recsys.model.batches import assign
from recsys.model.gru import layer
from recsys.sessions import Sessions
from recsys.settings import ModelSettings

Weights = dict[str, NDArray[np.float32]]

LANES, CLICKS = 256, 16  # of the offline graph; any values give the same states


def output_table(weights: Mapping[str, Any]) -> str:
    """The name of the table that scores items."""
    return "output" if "output" in weights else "embedding"


def layers(weights: Mapping[str, Any]) -> int:
    """How many GRU layers the weights have."""
    return sum(name.endswith(".recurrent") for name in weights)


def initial_weights(items: int, model: ModelSettings, seed: int) -> Weights:
    """Random weights: uniform within Glorot and Bengio's bound (2010), biases zero."""
    random = np.random.default_rng(seed)

    def uniform(bound: float, *shape: int) -> NDArray[np.float32]:
        return random.uniform(-bound, bound, shape).astype(np.float32)

    units = model.units
    table, square = (6 / (items + units)) ** 0.5, (6 / (2 * units)) ** 0.5
    weights: Weights = {"embedding": uniform(table, items, units)}
    if model.embedding == "separate":
        weights["output"] = uniform(table, items, units)
    weights["bias"] = np.zeros(items, np.float32)
    for number in range(model.layers):
        weights[f"gru.{number}.kernel"] = uniform(square, units, 3 * units)
        weights[f"gru.{number}.recurrent"] = uniform(square, units, 3 * units)
        weights[f"gru.{number}.bias"] = np.zeros(3 * units, np.float32)
    return weights


def forward(
    weights: Mapping[str, Any],
    embedded: Any,
    resets: Any,
    hidden: Any,
    dropout: Callable[[Any, int], Any] = lambda states, _: states,
) -> tuple[Any, Any]:
    """A window of clicks through all layers.

    Args:
        weights: the GRU's; tables are not touched.
        embedded: ``[clicks, lanes, units]``, the embeddings of the items clicked.
        resets: bool ``[clicks, lanes]``, where a session begins.
        hidden: ``[lanes, layers * units]``, the states before the window.
        dropout: applied to the states that a layer hands upwards, with the layer's number.

    Returns:
        What the top layer hands upwards, ``[clicks, lanes, units]``, and the states after each click,
        ``[clicks, lanes, layers * units]``.
    """
    keep = 1.0 - tf.cast(resets, embedded.dtype)[:, :, None]
    states = []
    handed = embedded
    for number, before in enumerate(tf.split(hidden, layers(weights), axis=1)):
        kernel, recurrent, bias = (weights[f"gru.{number}.{part}"] for part in ("kernel", "recurrent", "bias"))
        states.append(layer(handed, keep, before, kernel, recurrent, bias))
        handed = dropout(states[-1], number)
    return handed, tf.concat(states, axis=2)


def hidden_states(weights: Weights, sessions: Sessions) -> NDArray[np.float32]:
    """The state after each event, float32 ``[events, layers * units]``; every session starts from zero.

    Computed by the graph that training uses: the reference that serving is compared with.
    """
    gru = {name: tf.constant(weight) for name, weight in weights.items() if name.startswith("gru.")}
    units, depth = weights["embedding"].shape[1], layers(weights)
    layout = assign(sessions.lengths, LANES)
    time, lane = layout.positions
    steps = -(-layout.steps // CLICKS) * CLICKS
    items = np.zeros((steps, LANES), np.int32)
    resets = np.zeros((steps, LANES), np.bool_)
    items[time, lane] = sessions.items
    nonempty = sessions.lengths > 0
    resets[layout.offset[nonempty], layout.lane[nonempty]] = True
    window = tf.function(lambda embedded, resets, hidden: forward(gru, embedded, resets, hidden)[1], jit_compile=True)
    hidden = tf.zeros([LANES, depth * units])
    states = np.empty((steps, LANES, depth * units), np.float32)
    for start in range(0, steps, CLICKS):
        part = slice(start, start + CLICKS)
        after = window(weights["embedding"][items[part]], resets[part], hidden)
        states[part], hidden = after.numpy(), after[-1]
    return states[time, lane]
