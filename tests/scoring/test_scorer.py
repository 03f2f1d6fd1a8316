"""The step and the ranking that serving runs, against the equations written out and against sorting."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.scoring.ranking import rank
from recsys.scoring.scorer import BLOCK, TILE, Scorer
from recsys.scoring.tables import BLOCK_ITEMS
from recsys.sessions import Sessions
from tests.conftest import random_model, random_states, with_added


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
    scores = with_added(
        np.array([after[:3] @ row for row in weights["embedding"]]) + weights["bias"], weights, after[3:]
    )
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


@pytest.mark.parametrize(("items", "units"), [(300, 100), (5000, 48), (BLOCK_ITEMS + 77, 100)])
def test_lists_do_not_depend_on_who_else_is_in_the_batch(items: int, units: int) -> None:
    scorer = Scorer(random_model(items=items, units=units).weights)
    hidden = random_states(scorer, 2 * TILE + 11)
    lists = scorer.top_k(hidden, 100)
    for first in range(0, len(hidden), 5):
        few = hidden[first : first + 1 + first % 20]
        for mine, expected in zip(scorer.top_k(few, 100), lists[first:], strict=False):
            assert [part.tobytes() for part in mine] == [part.tobytes() for part in expected]


def by_sorting(scores: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """The best finite scores of a row as a plain sort finds them: highest first, equal ones by place."""
    rows = [i for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)) if scores[i] > -np.inf][:count]
    return rows, scores[rows].tolist()


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize(("items", "count"), [(30, 100), (3000, 20), (BLOCK_ITEMS * 2 + 5, 100), (BLOCK_ITEMS, 1000)])
def test_lists_are_the_first_of_a_sort_of_all_scores(items: int, count: int, exclude: bool) -> None:
    """Weights of few values, so that many scores are equal; the last clicks weigh in, and lie in all blocks."""
    rng = np.random.default_rng(3)
    weights = dict(random_model(items=items, units=4).weights)
    for name, scale in (("embedding", 1), ("bias", 3), ("revisit", 20), ("surplus", 9)):
        weights[name] = rng.integers(-scale, scale + 1, weights[name].shape).astype(np.float32)
    weights["following"] = np.full(1, 2, np.float32)
    scorer = Scorer(weights)
    hidden = random_states(scorer, 19)
    hidden[:, :4] = rng.integers(-2, 3, (19, 4))
    scores = scorer.scores(hidden)
    gone = [rng.integers(0, items, 7).astype(np.int32) for _ in hidden] if exclude else None
    for index, (rows, values) in enumerate(scorer.top_k(hidden, count, gone)):
        if gone is not None:
            scores[index, gone[index]] = -np.inf
        assert (rows.tolist(), values.tolist()) == by_sorting(scores[index], count)


def test_a_million_items_are_ranked_in_blocks_within_a_bound_of_memory() -> None:
    """The scores of the batch alone would be 256 MB; those of a block of items are 4 MB."""
    scorer = Scorer(random_model(items=1_000_000, units=8).weights)
    hidden = random_states(scorer, 64)
    scorer.top_k(hidden[:1], 100)
    tracemalloc.start()
    lists = scorer.top_k(hidden, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 * 2**20
    for index in (0, 63):
        scores = scorer.scores(hidden[index : index + 1])[0]
        order = np.lexsort((np.arange(len(scores)), -scores))[:100]
        assert lists[index][0].tolist() == order.tolist()


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


@settings(deadline=None)
@given(SCORES, st.integers(0, 15), st.data())
def test_a_ranking_is_a_sort_in_whatever_order_its_places_come(
    scores: np.ndarray, count: int, data: st.DataObject
) -> None:
    """Highest first, equal scores (0.0 and -0.0 among them) by column; what is missing never appears."""
    scores = scores.copy()
    scores[data.draw(hnp.arrays(np.bool_, scores.shape))] *= -1
    scores[data.draw(hnp.arrays(np.bool_, scores.shape))] = -np.inf
    row, column = np.nonzero(scores > -np.inf)
    order = np.array(data.draw(st.permutations(range(len(row)))), np.int64)
    row, column = row[order], column[order]
    found = rank(row, column, scores[row, column], len(scores), count)
    assert [(rows.tolist(), values.tolist()) for rows, values in found] == [by_sorting(row, count) for row in scores]
