"""The losses against values worked by hand, finite differences, and the softmax they stand for."""

from collections.abc import Callable
from math import exp, log
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from recsys.model.losses import bpr_max, sampled_cross_entropy, top1_max
from recsys.model.sampling import NegativeSampler

NOTHING = np.zeros((1, 2), np.bool_)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_cross_entropy_by_hand() -> None:
    loss = sampled_cross_entropy(tf.constant([1.0]), tf.constant([[0.0, 2.0]]), tf.zeros(2), NOTHING)
    assert loss.numpy() == pytest.approx([-log(exp(1) / (exp(1) + exp(0) + exp(2)))])


def test_cross_entropy_with_logq_by_hand() -> None:
    expected = tf.math.log(tf.constant([0.5, 4.0]))
    loss = sampled_cross_entropy(tf.constant([1.0]), tf.constant([[0.0, 2.0]]), expected, NOTHING)
    assert loss.numpy() == pytest.approx([-log(exp(1) / (exp(1) + exp(0) / 0.5 + exp(2) / 4))])


def test_bpr_max_by_hand() -> None:
    weights = np.array([exp(0.0), exp(2.0)]) / (exp(0.0) + exp(2.0))
    below = weights[0] * sigmoid(1 - 0) + weights[1] * sigmoid(1 - 2)
    loss = bpr_max(tf.constant([1.0]), tf.constant([[0.0, 2.0]]), NOTHING, 0.5)
    assert loss.numpy() == pytest.approx([-log(below) + 0.5 * weights[1] * 4])


def test_top1_max_by_hand() -> None:
    weights = np.array([exp(0.0), exp(2.0)]) / (exp(0.0) + exp(2.0))
    above = np.array([sigmoid(0 - 1) + sigmoid(0), sigmoid(2 - 1) + sigmoid(4)])
    loss = top1_max(tf.constant([1.0]), tf.constant([[0.0, 2.0]]), NOTHING)
    assert loss.numpy() == pytest.approx([weights @ above])


LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "cross-entropy": lambda positive, negatives, excluded: sampled_cross_entropy(
        positive, negatives, tf.constant(np.log([0.3, 1.0, 2.0, 5.0])), excluded
    ),
    "bpr-max": lambda positive, negatives, excluded: bpr_max(positive, negatives, excluded, 0.7),
    "top1-max": top1_max,
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(3, 5))
    excluded = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1]], np.bool_)

    def total(values: Any) -> Any:
        return tf.reduce_sum(LOSSES[name](values[:, 0], values[:, 1:], excluded))

    variable = tf.Variable(scores)
    with tf.GradientTape() as tape:
        loss = total(variable)
    gradient = tape.gradient(loss, variable).numpy()
    for place in np.ndindex(scores.shape):
        change = np.zeros_like(scores)
        change[place] = 1e-5
        slope = float(total(tf.constant(scores + change)) - total(tf.constant(scores - change))) / 2e-5
        assert gradient[place] == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_excluded_candidates_do_not_matter(name: str) -> None:
    excluded = np.array([[False, True, False, True]])
    one, other = (
        LOSSES[name](tf.constant([0.3], tf.float64), tf.constant([scores], tf.float64), excluded)
        for scores in ([1.0, 5.0, 2.0, -3.0], [1.0, 9.0, 2.0, 0.0])
    )
    assert one.numpy() == pytest.approx(other.numpy())


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_scores_stay_finite(name: str) -> None:
    for positive, negative in ((500.0, -500.0), (-500.0, 500.0)):
        scores = tf.Variable([[positive, negative, negative, 0.0, 0.0]], dtype=tf.float64)
        with tf.GradientTape() as tape:
            loss = LOSSES[name](scores[:, 0], scores[:, 1:], np.zeros((1, 4), np.bool_))
        assert np.isfinite(loss.numpy()).all()
        assert np.isfinite(tape.gradient(loss, scores).numpy()).all()


def softmax_gradient_error(samples: int, corrected: bool) -> float:
    """Largest difference between the sampled gradient on all item scores and the full softmax's."""
    random = np.random.default_rng(2)
    items, target = 30, 4
    scores = random.normal(size=items)
    counts = random.integers(1, 1000, size=items)
    popularity = counts / counts.sum()
    sampler = NegativeSampler(counts, 0.5)
    in_batch = random.choice(items, samples // 4, p=popularity)
    candidates = np.concatenate([in_batch, sampler.draw(samples, [1, 2]).numpy()])
    expected = len(in_batch) * popularity + samples * sampler.probability
    log_expected = (
        np.log(expected[candidates]) if corrected else np.full(len(candidates), np.log(samples * 1.25 / items))
    )
    variable = tf.Variable(scores)
    with tf.GradientTape() as tape:
        negatives = tf.gather(variable, candidates)[None, :]
        hits = (candidates == target)[None, :]
        loss = sampled_cross_entropy(variable[target : target + 1], negatives, log_expected, hits)
    gradient = tf.convert_to_tensor(tape.gradient(loss, variable)).numpy()
    full = np.exp(scores) / np.exp(scores).sum()
    full[target] -= 1
    return float(np.abs(gradient - full).max())


def test_sampled_gradient_converges_to_the_full_softmax() -> None:
    errors = [softmax_gradient_error(samples, corrected=True) for samples in (100, 10_000, 1_000_000)]
    assert errors[2] < errors[1] / 3 < errors[0] / 9
    assert errors[2] < 2e-3


def test_without_correction_it_does_not() -> None:
    assert softmax_gradient_error(1_000_000, corrected=False) > 0.01
