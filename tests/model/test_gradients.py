"""What counts as a negative, and that a window's gradient is right."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from recsys.model.gradients import no_negatives, window_gradients
from recsys.model.network import initial_weights
from recsys.settings import ModelSettings, TrainingSettings


def test_no_negatives_by_hand() -> None:
    """Two clicks of two lanes, the last of lane 1 missing, and two samples."""
    candidates = tf.constant([1, 2, 3, 0, 2, 9])
    excluded = no_negatives(candidates, tf.constant([[True, True], [True, False]])).numpy().astype(int)
    expected = [
        [1, 0, 1, 1, 0, 0],  # lane 0, target 1: its own clicks 1 and 3
        [0, 1, 0, 1, 1, 0],  # lane 1, target 2: itself and the sample that hits it
        [1, 0, 1, 1, 0, 0],
    ]
    np.testing.assert_array_equal(excluded[:3], expected)


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_window_gradient_is_that_of_finite_differences(loss: Any) -> None:
    """Back through two layers and three clicks, a session ending in between."""
    random = np.random.default_rng(1)
    settings = TrainingSettings(loss=loss, hidden_dropout=0.0, embedding_dropout=0.0)
    weights = initial_weights(5, ModelSettings(units=4, layers=2), 1)
    gru = {name: tf.constant(value, tf.float64) for name, value in weights.items() if name.startswith("gru.")}
    rows = [random.normal(size=shape) for shape in ((6, 4), (10, 4), (10,))]
    candidates = tf.constant([1, 2, 3, 4, 5, 6, 7, 8, 9, 1])
    resets = tf.constant([[True, False], [False, False], [False, True]])
    valid = tf.constant([[True, True], [True, True], [True, False]])
    fixed = (
        tf.constant(random.normal(size=(2, 8))),
        candidates,
        tf.zeros(10, tf.float64),
        resets,
        valid,
        tf.zeros([3, 3, 2, 4]),
    )

    def mean_loss(rows: list[np.ndarray]) -> float:
        return float(window_gradients(settings, gru, tuple(map(tf.constant, rows)), *fixed)[0]) / 5

    gradients = window_gradients(settings, gru, tuple(map(tf.constant, rows)), *fixed)[2]
    for number, gradient in enumerate(gradients):
        for place in [tuple(random.integers(n) for n in rows[number].shape) for _ in range(6)]:
            slopes = []
            for change in (1e-5, -1e-5):
                moved = [row.copy() for row in rows]
                moved[number][place] += change
                slopes.append(mean_loss(moved) / 2e-5 * np.sign(change))
            assert gradient.numpy()[place] == pytest.approx(sum(slopes), abs=1e-6)
