"""Optimisers against arithmetic by hand and against Keras's, whole and by rows."""

from math import sqrt
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from recsys.model.optimizer import ADAM_EPSILON, EPSILON, Adagrad, Adam, Optimizer, Rows, Rule, clipped

RULES = [Adagrad(0.0), Adagrad(0.3), Adam(), Adam(0.1)]


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_two_steps_of_adagrad_by_hand(momentum: float) -> None:
    weight = tf.Variable([1.0, -2.0])
    optimizer = Optimizer({"w": weight}, Adagrad(momentum))
    first, second = np.array([0.5, -1.0]), np.array([0.25, 2.0])
    change = -0.1 * first / np.sqrt(first**2 + EPSILON)
    expected = np.array([1.0, -2.0]) + change
    optimizer.apply({"w": tf.constant(first, tf.float32)}, 0.1)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    change = momentum * change - 0.1 * second / np.sqrt(first**2 + second**2 + EPSILON)
    optimizer.apply({"w": tf.constant(second, tf.float32)}, 0.1)
    np.testing.assert_allclose(weight.numpy(), expected + change, rtol=1e-6)


def test_adamw_on_rows_by_hand() -> None:
    """Row 1 is touched in the first and the third step: those are its first and second. Row 0 never is."""
    weight = tf.Variable([[1.0], [2.0], [3.0]])
    optimizer = Optimizer({"w": weight}, Adam(decay=0.1))
    for row, gradient in ((1, 4.0), (2, 1.0), (1, -1.0)):
        optimizer.apply({"w": Rows.once(tf.constant([row]), tf.constant([[gradient]]))[0]}, 0.5)
    first = 4 / (4 + ADAM_EPSILON)  # both averages, corrected, are of one gradient
    mean = (0.9 * 0.1 * 4 + 0.1 * -1) / (1 - 0.9**2)
    square = (0.999 * 0.001 * 16 + 0.001 * 1) / (1 - 0.999**2)
    after_one = 2 - 0.5 * (first + 0.1 * 2)
    after_two = after_one - 0.5 * (mean / (sqrt(square) + ADAM_EPSILON) + 0.1 * after_one)
    np.testing.assert_allclose(weight.numpy().ravel(), [1, after_two, 3 - 0.5 * (1 + 0.1 * 3)], rtol=1e-4)
    assert optimizer.slots["count.w"].numpy().ravel().tolist() == [0, 2, 1]
    assert optimizer.slots["mean.w"].numpy()[0] == optimizer.slots["square.w"].numpy()[0] == 0


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        (Adagrad(0.0), tf.keras.optimizers.Adagrad(0.05, initial_accumulator_value=0, epsilon=EPSILON)),
        (Adam(), tf.keras.optimizers.Adam(0.05)),
        (Adam(0.02), tf.keras.optimizers.AdamW(0.05, weight_decay=0.02)),
    ],
)
def test_whole_tensors_change_as_with_keras(rule: Rule, theirs: Any) -> None:
    random = np.random.default_rng(1)
    start = random.normal(size=(4, 3)).astype(np.float32)
    ours, keras = tf.Variable(start), tf.Variable(start)
    optimizer = Optimizer({"w": ours}, rule)
    for _ in range(20):
        gradient = tf.constant(random.normal(size=(4, 3)), tf.float32)
        optimizer.apply({"w": gradient}, 0.05)
        theirs.apply_gradients([(gradient, keras)])
    np.testing.assert_allclose(ours.numpy(), keras.numpy(), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("rule", RULES)
def test_rows_change_as_a_whole_tensor_of_them_and_others_stay(rule: Rule) -> None:
    random = np.random.default_rng(1)
    start = random.normal(size=(4, 3)).astype(np.float32)
    table, three = tf.Variable(start), tf.Variable(start[[0, 2, 3]])
    by_rows, by_whole = Optimizer({"w": table}, rule), Optimizer({"w": three}, rule)
    for _ in range(3):
        gradients = random.normal(size=(3, 3)).astype(np.float32)
        by_rows.apply({"w": Rows.once(tf.constant([2, 0, 3]), tf.constant(gradients))[0]}, 0.1)
        by_whole.apply({"w": tf.constant(gradients[[1, 0, 2]])}, 0.1)
    np.testing.assert_allclose(table.numpy()[[0, 2, 3]], three.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(table.numpy()[1], start[1])
    for name, slot in by_rows.slots.items():
        np.testing.assert_allclose(slot.numpy()[[0, 2, 3]], by_whole.slots[name].numpy(), rtol=1e-5)
        assert (slot.numpy()[1] == 0).all()


def test_of_a_row_that_stands_twice_gradients_add_up_and_so_do_their_squares() -> None:
    weight = tf.Variable([[1.0], [2.0]])
    optimizer = Optimizer({"w": weight}, Adagrad(0.0))
    optimizer.apply({"w": Rows.once(tf.constant([1, 0, 1]), tf.constant([[3.0], [1.0], [4.0]]))[0]}, 0.1)
    np.testing.assert_allclose(weight.numpy(), [[1 - 0.1], [2 - 0.1 * 7 / 5]], rtol=1e-5)
    assert optimizer.slots["accumulator.w"].numpy().ravel().tolist() == [1, 25]


def test_a_shorter_gradient_belongs_to_the_first_rows() -> None:
    by_row, of_first = Rows.once(tf.constant([5, 2, 5, 7]), tf.ones([4, 2]), tf.ones([3]))
    assert by_row.rows.numpy().tolist() == [5, 2, 7]
    assert by_row.gradient.numpy().tolist() == [[2, 2], [1, 1], [1, 1]]
    assert of_first.rows.numpy().tolist() == [5, 2]
    assert of_first.gradient.numpy().tolist() == [2, 1]


def test_gradients_are_scaled_down_to_a_norm_of_all_together() -> None:
    rows = Rows.once(tf.constant([1, 1]), tf.constant([[1.0], [2.0]]))[0]  # 3, of squares 1 + 4
    found = clipped({"table": rows, "whole": tf.constant([4.0])}, 2.5)
    assert found["table"].gradient.numpy().tolist() == [[1.5]]
    assert found["table"].square.numpy().tolist() == [[1.25]]
    assert found["whole"].numpy().tolist() == [2.0]
    kept = clipped({"table": rows, "whole": tf.constant([4.0])}, 5.0)
    assert kept["table"].gradient.numpy().tolist() == [[3.0]]
