"""Negative samples follow popularity^alpha, the same seed draws the same, and what is expected is what comes."""

import numpy as np
import pytest
import tensorflow as tf

from recsys.model.batches import session_parallel
from recsys.model.sampling import Negatives, NegativeSampler
from recsys.settings import TrainingSettings

from .logs import sessions_of

COUNTS = np.array([1, 0, 10, 100, 0, 1000, 37, 5], np.int64)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_distribution(alpha: float) -> None:
    draws = 200_000
    drawn = np.bincount(NegativeSampler(COUNTS, alpha).draw(draws, [3, 4]).numpy(), minlength=len(COUNTS))
    seen = COUNTS > 0
    assert drawn[~seen].sum() == 0
    expected = COUNTS[seen] ** alpha / (COUNTS[seen] ** alpha).sum() * draws
    chi_square = ((drawn[seen] - expected) ** 2 / expected).sum()
    assert chi_square < 20.5  # 5 degrees of freedom, p = 0.001


def test_chance_is_a_function_of_the_seed() -> None:
    sampler = NegativeSampler(COUNTS, 0.5)
    first, again, other = (sampler.draw(500, seed).numpy() for seed in ([1, 7], [1, 7], [1, 8]))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_expected_counts_are_what_a_prediction_is_compared_with_on_average() -> None:
    """All windows are full, so that other lanes' targets come exactly as often as expected; samples come by chance."""
    random = np.random.default_rng(1)
    items, lanes, clicks, samples, draws = 8, 4, 4, 6, 20
    chances = 1 / np.arange(1, items + 1)
    rows = random.choice(items, (400, clicks + 1), p=chances / chances.sum())
    batches = session_parallel(sessions_of(rows.tolist()), lanes, clicks)
    assert batches.valid.all()
    negatives = Negatives(batches, items, TrainingSettings(samples=samples, alpha=0.0))

    counted = np.zeros(items)
    for window, targets in enumerate(batches.targets):
        for draw in range(draws):
            drawn = negatives.candidates(tf.constant(targets.ravel()), [window, draw]).numpy()
            sampled = np.bincount(drawn[targets.size :], minlength=items)
            for lane in range(lanes):
                others = np.delete(drawn[: targets.size].reshape(clicks, lanes), lane, axis=1)
                counted += np.bincount(others.ravel(), minlength=items) + sampled
    repeated = len(batches) * draws
    expected = negatives.expected_counts(tf.range(items), batches.valid[0]).numpy()
    error = np.sqrt(samples / items / repeated)
    np.testing.assert_allclose(counted / (repeated * lanes), expected, atol=5 * error)


def test_fewer_clicks_are_expected_where_lanes_have_run_out() -> None:
    batches = session_parallel(sessions_of([[0, 1, 1], [1, 0, 0]]), 2, 2)
    negatives = Negatives(batches, 2, TrainingSettings(samples=0))
    halves = [
        negatives.expected_counts([0, 1], np.array(valid)).numpy() for valid in ([[1, 1], [1, 1]], [[1, 1], [0, 0]])
    ]
    np.testing.assert_allclose(halves, [[1, 1], [0.5, 0.5]])
