"""Adagrad with momentum, whole and by rows."""

import numpy as np
import pytest
import tensorflow as tf

from recsys.model.optimizer import EPSILON, AdagradMomentum


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_two_steps_by_hand(momentum: float) -> None:
    weight = tf.Variable([1.0, -2.0])
    optimizer = AdagradMomentum({"w": weight}, learning_rate=0.1, momentum=momentum)
    first, second = np.array([0.5, -1.0]), np.array([0.25, 2.0])
    change = -0.1 * first / np.sqrt(first**2 + EPSILON)
    expected = np.array([1.0, -2.0]) + change
    optimizer.apply("w", tf.constant(first, tf.float32))
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    change = momentum * change - 0.1 * second / np.sqrt(first**2 + second**2 + EPSILON)
    optimizer.apply("w", tf.constant(second, tf.float32))
    np.testing.assert_allclose(weight.numpy(), expected + change, rtol=1e-6)


def test_rows_that_stand_twice_add_up_and_others_stay() -> None:
    """Updating rows equals updating the whole table with the summed gradient, where every row is touched."""
    random = np.random.default_rng(1)
    start = random.normal(size=(4, 3)).astype(np.float32)
    rows, whole = tf.Variable(start), tf.Variable(start)
    by_rows, by_whole = (AdagradMomentum({"w": variable}, 0.1, 0.3) for variable in (rows, whole))
    for _ in range(3):
        gradients = random.normal(size=(5, 3)).astype(np.float32)
        touched = np.array([2, 0, 2, 3, 2])
        summed = np.zeros((4, 3), np.float32)
        np.add.at(summed, touched, gradients)
        by_rows.apply_rows("w", tf.constant(touched), tf.constant(gradients))
        by_whole.apply("w", tf.constant(summed))
    np.testing.assert_allclose(rows.numpy(), whole.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(rows.numpy()[1], start[1])
