"""What counts as a negative, that a window's gradient is right, and where dropout acts."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from recsys.model import gradients
from recsys.model.feed import Prepared
from recsys.model.gradients import WindowGradients, dropout, no_negatives
from recsys.model.network import BACKWARDS, initial_weights
from recsys.settings import ModelSettings, TrainingSettings

CLICKS, LANES, UNITS, LAYERS = 3, 2, 4, 2
Tensors = dict[str, NDArray[np.float64]]


def test_no_negatives_by_hand() -> None:
    """Two clicks of two lanes, the last of lane 1 missing, and two samples; item 9 cannot follow in lane 0."""
    candidates = tf.constant([1, 2, 3, 0, 2, 9])
    valid, barred = tf.constant([[True, True], [True, False]]), tf.constant([[9, -1], [9, -1]])
    excluded = no_negatives(candidates, valid, barred).numpy().astype(int)
    expected = [
        [1, 0, 1, 1, 0, 1],  # lane 0, target 1: its own clicks 1 and 3, and what is barred
        [0, 1, 0, 1, 1, 0],  # lane 1, target 2: itself and the sample that hits it
        [1, 0, 1, 1, 0, 1],
    ]
    np.testing.assert_array_equal(excluded[:3], expected)


def random_tensors() -> Tensors:
    """What a window's loss is differentiated by: gathered rows, and the weights of two layers."""
    random = np.random.default_rng(1)
    weights = initial_weights(5, ModelSettings(units=UNITS, layers=LAYERS), 1)
    gru = {name: value.astype(np.float64) for name, value in weights.items() if name.startswith("gru.")}
    gru[BACKWARDS] = random.normal(size=3 * UNITS)
    shapes = {"entering": (CLICKS, LANES, UNITS), "scoring": (10, UNITS), "bias": (10,)}
    return {name: random.normal(size=shape) for name, shape in shapes.items()} | gru


@cache
def gradients_of(**settings: Any) -> WindowGradients:
    """Compiled once for all calls with the same settings."""
    return WindowGradients(TrainingSettings(**settings))


def window(tensors: Tensors, noise: float = 0.0, **settings: Any) -> tuple[float, NDArray[np.float64], Tensors]:
    """Mean loss, states after and gradients of three clicks, a session ending in between and a click missing."""
    options = {"hidden_dropout": 0.0, "embedding_dropout": 0.0, "precision": "float32"} | settings
    constants = {name: tf.constant(value) for name, value in tensors.items()}
    gru = {name: value for name, value in constants.items() if name.startswith("gru.")}
    step = Prepared(
        number=tf.constant(0),
        inputs=tf.constant([[7, 8], [8, 9], [7, 7]]),
        barred=tf.constant([[7, 8], [8, 9], [7, 7]]),
        resets=tf.constant([[True, False], [False, False], [False, True]]),
        valid=tf.constant([[True, True], [True, True], [True, False]]),
        backwards=tf.constant([[False, True], [True, True], [True, False]]),
        candidates=tf.constant([1, 2, 3, 4, 5, 6, 7, 8, 9, 1]),
        log_expected=tf.zeros(10, tf.float64),
        noise=tf.fill([CLICKS, LANES, (1 + LAYERS) * UNITS], tf.constant(noise, tf.float64)),
    )
    rows = constants["entering"], constants["scoring"], constants["bias"]
    hidden = tf.constant(np.random.default_rng(2).normal(size=(LANES, LAYERS * UNITS)))
    loss, states, by_rows, by_gru = gradients_of(**options)(gru, rows, hidden, step)
    found = dict(zip(("entering", "scoring", "bias"), by_rows, strict=True)) | by_gru
    return float(loss) / 5, states.numpy(), {name: gradient.numpy() for name, gradient in found.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "cross-entropy"},
        {"loss": "bpr-max"},
        {"loss": "top1-max"},
        {"loss": "bpr-max", "score_penalty": 0.3, "hidden_dropout": 0.5, "embedding_dropout": 0.2, "noise": 0.9},
    ],
)
def test_window_gradient_is_that_of_finite_differences(options: dict[str, Any]) -> None:
    """Back through two layers and three clicks, by every row and every weight."""
    random = np.random.default_rng(3)
    tensors = random_tensors()
    found = window(tensors, **options)[2]
    assert found.keys() == tensors.keys()
    for name, gradient in found.items():
        assert gradient.shape == tensors[name].shape
        for place in [tuple(random.integers(n) for n in gradient.shape) for _ in range(6)]:
            slope = 0.0
            for change in (1e-5, -1e-5):
                moved = tensors[name].copy()
                moved[place] += change
                slope += window(tensors | {name: moved}, **options)[0] / (2 * change)
            assert gradient[place] == pytest.approx(slope, abs=1e-6), name


def test_what_is_compiled_serves_all_settings_that_leave_shapes_and_loss_alone() -> None:
    tensors = random_tensors()
    first = {"loss": "bpr-max", "hidden_dropout": 0.5, "embedding_dropout": 0.5, "score_penalty": 1.0, "noise": KEPT}
    losses = {window(tensors, **first)[0]}
    traced = [each.experimental_get_tracing_count() for each in (gradients._entered, gradients._compared)]
    for other in ({"hidden_dropout": 0.2}, {"embedding_dropout": 0.1}, {"score_penalty": 0.3}):
        losses.add(window(tensors, **first | other)[0])
    assert traced == [each.experimental_get_tracing_count() for each in (gradients._entered, gradients._compared)]
    assert len(losses) == 4


def test_dropout_drops_its_share_and_scales_up_the_rest() -> None:
    noise = np.random.default_rng(4).random(100_000)
    after = dropout(tf.fill(noise.shape, tf.constant(3.0, tf.float64)), 0.2, noise).numpy()
    assert set(after.tolist()) == {0.0, 3.0 / 0.8}
    assert np.mean(after == 0) == pytest.approx(0.2, abs=0.006)
    assert after.mean() == pytest.approx(3.0, abs=0.025)


def test_no_dropout_at_rate_0() -> None:
    values = tf.constant([1.0, -2.0])
    np.testing.assert_array_equal(dropout(values, 0.0, tf.zeros(2)), values)


KEPT, DROPPED = 0.9, 0.1  # noise that a rate of 0.5 keeps or drops everything by


def test_embedding_dropout_acts_on_what_enters_and_on_nothing_else() -> None:
    tensors = random_tensors()
    none = window(tensors | {"entering": np.zeros_like(tensors["entering"])})
    double = window(tensors | {"entering": 2 * tensors["entering"]})
    for noise, expected in ((DROPPED, none), (KEPT, double)):
        loss, states, gradients = window(tensors, noise, embedding_dropout=0.5)
        assert loss == pytest.approx(expected[0])
        np.testing.assert_allclose(states, expected[1])
        np.testing.assert_allclose(gradients["scoring"], expected[2]["scoring"])
    assert (window(tensors, DROPPED, embedding_dropout=0.5)[2]["entering"] == 0).all()


def test_hidden_dropout_acts_on_what_layers_hand_upwards_but_not_on_their_own_states() -> None:
    tensors = random_tensors()
    upper, scoring = tensors["gru.1.kernel"], tensors["scoring"]
    for noise, factor in ((DROPPED, 0), (KEPT, 2)):
        loss, states, _ = window(tensors, noise, hidden_dropout=0.5)
        expected = window(tensors | {"gru.1.kernel": factor * upper, "scoring": factor * scoring})
        assert loss == pytest.approx(expected[0])
        np.testing.assert_allclose(states, expected[1])
