"""Negative samples follow popularity^alpha, and the same seed draws the same."""

import numpy as np
import pytest

from recsys.model.sampling import NegativeSampler

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
