"""The step and the ranking that serving runs, against the equations written out and against sorting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.scorer import BLOCK, SCORE_BLOCK, Scorer, best
from recsys.sessions import Sessions
from tests.conftest import random_model, random_states


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_the_step_is_the_equations_gate_by_gate() -> None:
    weights = random_model(items=5, units=3).weights
    kernel, recurrent, bias = (weights[f"gru.0.{part}"].astype(float) for part in ("kernel", "recurrent", "bias"))
    before, item, seen = np.array([0.3, -0.6, 0.9]), 4, [3, 0, 0]
    x = weights["embedding"][item].astype(float)

    def product(vector: np.ndarray, matrix: np.ndarray, gate: int, unit: int) -> float:
        return sum(vector[i] * matrix[i, 3 * gate + unit] for i in range(3))

    z = [sigmoid(product(x, kernel, 0, u) + product(before, recurrent, 0, u) + bias[u]) for u in range(3)]
    r = [sigmoid(product(x, kernel, 1, u) + product(before, recurrent, 1, u) + bias[3 + u]) for u in range(3)]
    kept = np.array(r) * before  # the reset is applied before the product
    c = [math.tanh(product(x, kernel, 2, u) + product(kept, recurrent, 2, u) + bias[6 + u]) for u in range(3)]
    expected = [(1 - z[u]) * before[u] + z[u] * c[u] for u in range(3)]

    scorer = Scorer(weights)
    state = np.array([*before, *seen, 0], np.float32)[None]
    after = scorer.step(state, np.array([item], np.int32))[0]
    np.testing.assert_allclose(after[:3], expected, atol=1e-6)
    assert after[3:].tolist() == [item + 1, *seen]
    scores = [float(after[:3] @ weights["embedding"][i] + weights["bias"][i]) for i in range(5)]
    scores[item] += weights["revisit"][0]
    scores[2] += weights["revisit"][1]
    np.testing.assert_allclose(scorer.scores(after[None])[0], scores, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_state_does_not_depend_on_who_else_is_in_the_batch(layers: int) -> None:
    scorer = Scorer(random_model(items=200, units=48, layers=layers).weights)
    random = np.random.default_rng(1)
    hidden = random_states(scorer, 3 * BLOCK + 5)
    rows = random.integers(0, 200, len(hidden)).astype(np.int32)
    together = scorer.step(hidden, rows)
    order = random.permutation(len(hidden))
    np.testing.assert_array_equal(scorer.step(hidden[order], rows[order]), together[order])
    for index in range(0, len(hidden), 7):
        np.testing.assert_array_equal(
            scorer.step(hidden[index : index + 1], rows[index : index + 1])[0], together[index]
        )


@pytest.mark.parametrize("items", [300, 5000])
def test_scores_do_not_depend_on_who_else_is_in_the_batch(items: int) -> None:
    scorer = Scorer(random_model(items=items, units=100).weights)
    hidden = random_states(scorer, 2 * SCORE_BLOCK + 3)
    together = scorer.scores(hidden)
    for index in range(len(hidden)):
        np.testing.assert_array_equal(scorer.scores(hidden[index : index + 1])[0], together[index])


def test_advancing_by_many_clicks_is_stepping_by_each() -> None:
    scorer = Scorer(random_model(layers=2).weights)
    clicks = [[3, 1, 4], [], [1], [5, 9, 2, 6, 5]]
    together = scorer.advance(scorer.start(4), clicks)
    for rows, expected in zip(clicks, together, strict=True):
        hidden = scorer.start(1)
        for row in rows:
            hidden = scorer.step(hidden, np.array([row], np.int32))
        np.testing.assert_array_equal(hidden[0], expected)


def test_predictions_are_the_scores_before_each_event_but_the_first() -> None:
    scorer = Scorer(random_model().weights)
    items = np.array([7, 8, 9, 1, 2, 3], np.int32)
    sessions = Sessions(items, np.arange(6, dtype=np.int64), np.zeros(6, np.int8), np.array([0, 3, 4, 6]))
    histories = [[7], [7, 8], [2]]
    expected = scorer.scores(scorer.advance(scorer.start(3), histories))
    np.testing.assert_allclose(np.concatenate(list(scorer.predict(sessions))), expected, atol=1e-5)


SCORES = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-3, 3).map(float)
)


@given(SCORES, st.integers(1, 15), st.data())
def test_the_best_are_the_first_of_a_sort(scores: np.ndarray, count: int, data: st.DataObject) -> None:
    """Highest first, equal scores by row; what is excluded (-inf) never appears."""
    scores = scores.copy()
    hidden = data.draw(hnp.arrays(np.bool_, scores.shape))
    scores[hidden] = -np.inf
    for row, (rows, values) in zip(scores, best(scores, count), strict=True):
        expected = [i for i in sorted(range(len(row)), key=lambda i: (-row[i], i)) if row[i] > -np.inf][:count]
        assert rows.tolist() == expected
        assert values.tolist() == row[expected].tolist()
