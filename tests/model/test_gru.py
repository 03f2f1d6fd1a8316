"""The GRU step gate by gate, and against Keras's own layer."""

import numpy as np
import pytest
import tensorflow as tf

from recsys.model.gru import layer, step
from recsys.model.network import hidden_states, initial_weights
from recsys.scorer import Scorer
from recsys.settings import ModelSettings

from .logs import sessions_of


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_step_gate_by_gate() -> None:
    random = np.random.default_rng(1)
    x, h = random.normal(size=(4, 3)), random.normal(size=(4, 5))
    wz, wr, wc = (random.normal(size=(3, 5)) for _ in range(3))
    uz, ur, uc = (random.normal(size=(5, 5)) for _ in range(3))
    bz, br, bc = (random.normal(size=5) for _ in range(3))
    z = sigmoid(x @ wz + h @ uz + bz)
    r = sigmoid(x @ wr + h @ ur + br)
    candidate = np.tanh(x @ wc + (r * h) @ uc + bc)
    kernel, recurrent, bias = np.hstack([wz, wr, wc]), np.hstack([uz, ur, uc]), np.concatenate([bz, br, bc])
    after = step(tf.constant(x @ kernel + bias), tf.constant(h), tf.constant(recurrent))
    np.testing.assert_allclose(after.numpy(), (1 - z) * h + z * candidate, atol=1e-12)


def test_layer_is_keras_gru_with_the_update_gate_turned_round() -> None:
    random = np.random.default_rng(2)
    inputs = random.normal(size=(7, 4, 3)).astype(np.float32)
    kernel, recurrent = (random.normal(size=(n, 15)).astype(np.float32) for n in (3, 5))
    bias = random.normal(size=15).astype(np.float32)
    ours = layer(inputs, tf.ones([7, 4, 1]), tf.zeros([4, 5]), kernel, recurrent, bias)

    # Keras: h' = z h + (1 - z) c, and 1 - sigmoid(a) = sigmoid(-a).
    turned = np.concatenate([np.full(5, -1), np.ones(10)]).astype(np.float32)
    keras = tf.keras.layers.GRU(5, reset_after=False, return_sequences=True)
    keras.build((4, 7, 3))
    keras.set_weights([kernel * turned, recurrent * turned, bias * turned])
    theirs = keras(np.swapaxes(inputs, 0, 1))
    np.testing.assert_allclose(np.swapaxes(ours.numpy(), 0, 1), theirs.numpy(), atol=1e-5)


def test_reset_forgets_all_that_came_before() -> None:
    random = np.random.default_rng(3)
    inputs = random.normal(size=(4, 2, 3)).astype(np.float32)
    kernel, recurrent = (random.normal(size=(n, 9)).astype(np.float32) for n in (3, 3))
    keep = np.ones((4, 2, 1), np.float32)
    keep[2, 0] = 0
    whole = layer(inputs, keep, tf.ones([2, 3]), kernel, recurrent, tf.zeros(9)).numpy()
    rest = layer(inputs[2:], keep[2:], tf.zeros([2, 3]), kernel, recurrent, tf.zeros(9)).numpy()
    np.testing.assert_array_equal(whole[2:, 0], rest[:, 0])
    assert not np.allclose(whole[2:, 1], rest[:, 1])


@pytest.mark.parametrize("model", [ModelSettings(units=16), ModelSettings(units=8, layers=2, embedding="separate")])
def test_offline_states_are_those_of_serving(model: ModelSettings) -> None:
    random = np.random.default_rng(4)
    weights = initial_weights(40, model, 1)
    weights = {name: value + random.normal(0, 0.3, value.shape).astype(np.float32) for name, value in weights.items()}
    rows = [random.integers(40, size=length).tolist() for length in [1, 2, 40, 3, 0, 17] * 60]
    states = hidden_states(weights, sessions_of(rows))
    assert states.shape == (sum(map(len, rows)), model.units * model.layers)
    scorer = Scorer(weights)
    at = 0
    for row in rows[:12]:
        hidden = np.zeros((1, model.units * model.layers), np.float32)
        for item in row:
            hidden = scorer.step(hidden, np.array([item], np.int32))
            np.testing.assert_allclose(states[at], hidden[0], atol=1e-5)
            at += 1
