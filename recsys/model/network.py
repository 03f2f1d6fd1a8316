"""The network: item embedding, GRU layers, scores over items (Hidasi et al. 2016).

Weights are plain arrays by name, float32: ``embedding [items, units]``; ``output [items, units]`` where it is not tied
to the embedding; ``bias [items]``; and for each layer ``l`` ``gru.{l}.kernel``, ``gru.{l}.recurrent`` and
``gru.{l}.bias`` as :mod:`recsys.model.gru` says. The scores after a click are ``h output^T + bias``, ``h`` being the
top layer's state; the items of the session's trail (:mod:`recsys.trail`) score ``revisit [1 + memory]`` more, by place,
which :mod:`recsys.model.revisits` fits when the rest is learnt. The bias of a network that has learnt includes
``trend [1]`` times ``rise [items]``, see :mod:`recsys.model.trend`. Where counts say more of what follows an item than
the network does, its ``followers [items, places]`` score ``following [1]`` times their ``surplus [items, places]``
more after it, see :mod:`recsys.model.followers`.

One-hot inputs have no embedding. The product of a one-hot vector and the first layer's kernel is a row of the kernel,
so that ``gru.0.kernel [items, 3 * units]`` is the table of inputs, and no product is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from recsys.model.batches import assign
from recsys.model.gru import layer
from recsys.sessions import Sessions
from recsys.settings import ModelSettings

Weights = dict[str, NDArray[np.float32]]

# While a model learns, what reading a session backwards adds to the first layer's bias, [3 * units].
BACKWARDS = "gru.backwards"
REVISIT, RISE, TREND = "revisit", "rise", "trend"
FITTED = REVISIT, RISE, TREND  # what is fitted when the rest is learnt
FOLLOWERS, SURPLUS, FOLLOWING = "followers", "surplus", "following"  # fitted too, and there only where they count

LANES, CLICKS = 256, 4  # of the offline graph; any values give the same states, and few clicks compile soon


def output_table(weights: Mapping[str, Any]) -> str:
    """The name of the table that scores items."""
    return "output" if "output" in weights else "embedding"


def input_table(weights: Mapping[str, Any]) -> str:
    """The name of the table whose rows enter the first layer."""
    return "embedding" if "embedding" in weights else "gru.0.kernel"


def gru_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights that every click goes through: all that are no table of items."""
    return {
        name: weight for name, weight in weights.items() if name.startswith("gru.") and name != input_table(weights)
    }


def width(weights: Mapping[str, Any]) -> int:
    """Width of each layer."""
    return int(weights["gru.0.recurrent"].shape[0])


def layers(weights: Mapping[str, Any]) -> int:
    """How many GRU layers the weights have."""
    return sum(name.endswith(".recurrent") for name in weights)


def initial_weights(items: int, model: ModelSettings, seed: int) -> Weights:
    """Random weights: uniform within Glorot and Bengio's bound (2010), biases zero."""
    random = np.random.default_rng(seed)

    def uniform(bound: float, *shape: int) -> NDArray[np.float32]:
        return random.uniform(-bound, bound, shape).astype(np.float32)

    units, one_hot = model.units, model.embedding == "one-hot"
    table, square = (6 / (items + units)) ** 0.5, (6 / (2 * units)) ** 0.5
    weights: Weights = {}
    if not one_hot:
        weights["embedding"] = uniform(table, items, units)
    if model.embedding != "tied":
        weights["output"] = uniform(table, items, units)
    weights["bias"] = np.zeros(items, np.float32)
    weights |= {REVISIT: np.zeros(1 + model.memory, np.float32), RISE: np.zeros_like(weights["bias"])}
    weights[TREND] = np.zeros(1, np.float32)
    for number in range(model.layers):
        bound, rows = (table, items) if one_hot and number == 0 else (square, units)
        weights[f"gru.{number}.kernel"] = uniform(bound, rows, 3 * units)
        weights[f"gru.{number}.recurrent"] = uniform(square, units, 3 * units)
        weights[f"gru.{number}.bias"] = np.zeros(3 * units, np.float32)
    return weights


def forward(
    weights: Mapping[str, Any],
    entering: Any,
    resets: Any,
    hidden: Any,
    backwards: Any = None,
    dropout: Callable[[Any, int], Any] = lambda states, _: states,
) -> tuple[Any, Any]:
    """A window of clicks through all layers.

    Args:
        weights: the GRU's, as :func:`gru_weights` gives them.
        entering: ``[clicks, lanes, width]``, the rows of the items clicked in the table of inputs.
        resets: bool ``[clicks, lanes]``, where a session begins.
        hidden: ``[lanes, layers * units]``, the states before the window.
        backwards: bool ``[clicks, lanes]``, where a session is read backwards; None for nowhere.
        dropout: applied to the states that a layer hands upwards, with the layer's number.

    Returns:
        What the top layer hands upwards, ``[clicks, lanes, units]``, and the states after each click,
        ``[clicks, lanes, layers * units]``.
    """
    keep = 1.0 - tf.cast(resets, entering.dtype)[:, :, None]
    states = []
    handed = entering
    turned = None if backwards is None or BACKWARDS not in weights else tf.cast(backwards, entering.dtype)[:, :, None]
    for number, before in enumerate(tf.split(hidden, layers(weights), axis=1)):
        kernel = weights.get(f"gru.{number}.kernel")  # none where the row that enters is the kernel's own
        projected = handed if kernel is None else tf.tensordot(handed, kernel, 1)
        if number == 0 and turned is not None:
            projected += turned * weights[BACKWARDS]
        states.append(
            layer(projected + weights[f"gru.{number}.bias"], keep, before, weights[f"gru.{number}.recurrent"])
        )
        handed = dropout(states[-1], number)
    return handed, tf.concat(states, axis=2)


@cache
def _states_of_window() -> Any:
    """Compiled once a process for each shape of weights."""
    return tf.function(
        lambda gru, entering, resets, hidden: forward(gru, entering, resets, hidden)[1], jit_compile=True
    )


def hidden_states(weights: Weights, sessions: Sessions) -> NDArray[np.float32]:
    """The state after each event, float32 ``[events, layers * units]``; every session starts from zero.

    Computed by the graph that training uses: the reference that serving is compared with.
    """
    gru = {name: tf.constant(weight) for name, weight in gru_weights(weights).items()}
    table, size = weights[input_table(weights)], layers(weights) * width(weights)
    layout = assign(sessions.lengths, LANES)
    time, lane = layout.positions
    steps = -(-layout.steps // CLICKS) * CLICKS
    items = np.zeros((steps, LANES), np.int32)
    resets = np.zeros((steps, LANES), np.bool_)
    items[time, lane] = sessions.items
    nonempty = sessions.lengths > 0
    resets[layout.offset[nonempty], layout.lane[nonempty]] = True
    hidden = tf.zeros([LANES, size])
    states = np.empty((steps, LANES, size), np.float32)
    compiled = None
    for start in range(0, steps, CLICKS):
        part = slice(start, start + CLICKS)
        window = gru, tf.constant(table[items[part]]), tf.constant(resets[part]), hidden
        # asked for before it is called, as TensorFlow complains of calls that had to be traced
        compiled = compiled or _states_of_window().get_concrete_function(*window)
        after = compiled(*window)
        states[part], hidden = after.numpy(), after[-1]
    return states[time, lane]
