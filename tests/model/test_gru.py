"""The GRU step gate by gate, and against Keras's own layer."""

from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from recsys.model import network
from recsys.model.gru import layer, step
from recsys.model.network import hidden_states, initial_weights
from recsys.scoring.scorer import Scorer
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
    ours = layer(inputs @ kernel + bias, tf.ones([7, 4, 1]), tf.zeros([4, 5]), recurrent)

    # Keras: h' = z h + (1 - z) c, and 1 - sigmoid(a) = sigmoid(-a).
    turned = np.concatenate([np.full(5, -1), np.ones(10)]).astype(np.float32)
    keras = tf.keras.layers.GRU(5, reset_after=False, return_sequences=True)
    keras.build((4, 7, 3))
    keras.set_weights([kernel * turned, recurrent * turned, bias * turned])
    theirs = keras(np.swapaxes(inputs, 0, 1))
    np.testing.assert_allclose(np.swapaxes(ours.numpy(), 0, 1), theirs.numpy(), atol=1e-5)


def test_reset_forgets_all_that_came_before() -> None:
    random = np.random.default_rng(3)
    projected = random.normal(size=(4, 2, 9)).astype(np.float32)
    recurrent = random.normal(size=(3, 9)).astype(np.float32)
    keep = np.ones((4, 2, 1), np.float32)
    keep[2, 0] = 0
    whole = layer(projected, keep, tf.ones([2, 3]), recurrent).numpy()
    rest = layer(projected[2:], keep[2:], tf.zeros([2, 3]), recurrent).numpy()
    np.testing.assert_array_equal(whole[2:, 0], rest[:, 0])
    assert not np.allclose(whole[2:, 1], rest[:, 1])


FORMS = [
    ModelSettings(units=16),
    ModelSettings(units=8, layers=2, embedding="separate"),
    ModelSettings(units=8, embedding="one-hot"),
    ModelSettings(units=8, layers=2, embedding="one-hot"),
]


@pytest.mark.parametrize("model", FORMS)
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
        hidden = scorer.start(1)
        for item in row:
            hidden = scorer.step(hidden, np.array([item], np.int32))
            np.testing.assert_allclose(states[at], hidden[0, : states.shape[1]], atol=1e-5)
            at += 1


def test_one_hot_inputs_are_the_identity_as_embedding() -> None:
    """The rows of the kernel that are gathered are the products of one-hot vectors and the kernel."""
    weights = initial_weights(7, ModelSettings(units=5, embedding="one-hot"), 1)
    kernel = weights["gru.0.kernel"]
    assert kernel.shape == (7, 15)
    sessions = sessions_of([[0, 3, 6], [2, 2]])
    ours = hidden_states(weights, sessions)
    for start, end in pairwise(sessions.starts):
        hidden = tf.zeros([1, 5])
        for event in range(start, end):
            projected = np.eye(7, dtype=np.float32)[sessions.items[event]][None] @ kernel + weights["gru.0.bias"]
            hidden = step(tf.constant(projected), hidden, weights["gru.0.recurrent"])
            np.testing.assert_allclose(ours[event], hidden[0], atol=1e-6)


def test_models_of_many_widths_bring_no_complaint(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when settings are searched."""
    monkeypatch.setattr(network, "CLICKS", 1)
    for units in range(2, 8):
        hidden_states(initial_weights(5, ModelSettings(units=units), 1), sessions_of([[0, 1]]))
    assert "retracing" not in caplog.text
