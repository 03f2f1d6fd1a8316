"""The learning rate of each step, at steps where it is known."""

import numpy as np
import pytest
import tensorflow as tf

from recsys.model.schedule import learning_rate
from recsys.settings import TrainingSettings


def rates(steps: int, **settings: object) -> np.ndarray:
    chosen = TrainingSettings.model_validate({"learning_rate": 0.2, **settings})
    return np.array([float(learning_rate(chosen, tf.constant(number), steps)) for number in range(steps)])


def test_constant_by_default() -> None:
    np.testing.assert_allclose(rates(5), 0.2)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.2, 0.2]),
        ("linear", [0.05, 0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.05]),
        ("cosine", [0.05, 0.1, 0.15, 0.2, 0.2, 0.1 + 0.1 / 2**0.5, 0.1, 0.1 - 0.1 / 2**0.5]),
    ],
)
def test_half_the_steps_up_and_half_down_by_hand(schedule: str, expected: list[float]) -> None:
    np.testing.assert_allclose(rates(8, schedule=schedule, warmup=0.5), expected, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_without_warmup_it_falls_from_the_first_step_and_is_never_zero(schedule: str) -> None:
    found = rates(100, schedule=schedule)
    assert found[0] == pytest.approx(0.2)
    assert (np.diff(found) < 0).all()
    assert 0 < found[-1] < 0.004


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_all_warmup_and_a_single_step_are_finite(schedule: str) -> None:
    np.testing.assert_allclose(rates(4, schedule=schedule, warmup=1.0), [0.05, 0.1, 0.15, 0.2])
    np.testing.assert_allclose(rates(1, schedule=schedule), [0.2])
