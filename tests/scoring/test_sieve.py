"""However the items of a list are found, they are those of a sort of all true scores."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from recsys.scoring.byte_table import ByteTable, fastest_table, multiplies_bytes
from recsys.scoring.scorer import Scorer
from recsys.scoring.sieve import Sieve
from recsys.scoring.tables import FloatTable
from tests.conftest import random_model, random_states, with_added

Kind = type[FloatTable] | type[ByteTable]


@pytest.fixture(params=[FloatTable, ByteTable])
def table(request: pytest.FixtureRequest) -> Kind:
    """A kind of table, if this machine has it."""
    if request.param is ByteTable and not multiplies_bytes():
        pytest.skip("no runtime here multiplies bytes without saturation")
    kind: Kind = request.param
    return kind


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few items a block, so that few items have many."""
    monkeypatch.setattr("recsys.scoring.tables.BLOCK_ITEMS", 40)


def weights_of(kind: str, items: int = 1000, units: int = 20) -> dict[str, np.ndarray]:
    """Weights as they may be: of one size, with one huge item, all the same, or nearly all in the biases."""
    rng = np.random.default_rng(2)
    weights = dict(random_model(items=items, units=units).weights)
    if kind == "an outlier":
        weights["embedding"][7] *= 50
    elif kind == "all the same":
        weights["embedding"][:] = weights["bias"][:] = 0
    elif kind == "biases":
        weights["embedding"] *= np.float32(1e-4)
        weights["bias"] = rng.normal(0, 30, items).astype(np.float32)
    return weights


KINDS = ["one size", "an outlier", "all the same", "biases"]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("kind", KINDS)
def test_coarse_scores_are_off_by_no_more_than_is_said(table: Kind, kind: str) -> None:
    weights = weights_of(kind)
    vectors, bias = weights["embedding"], weights["bias"]
    states = np.random.default_rng(1).normal(0, 0.5, (30, 20)).astype(np.float32)
    states[0], states[1] = 0, states[1] * 100
    true = states.astype(np.float64) @ vectors.T.astype(np.float64) + bias
    made = table(vectors, bias)
    query = made.ask(states)
    for block in range(made.blocks):
        mine = true[:, block :: made.blocks]
        coarse = query.unit[:, None] * query.scores(block)[:, : mine.shape[1]]
        assert (np.abs(coarse - mine) <= query.error[:, None]).all()
    if kind == "one size":
        assert (query.error < 0.2 * true.std(axis=1)).mean() > 0.9  # and that is not much


def by_sorting(
    weights: dict[str, np.ndarray], hidden: np.ndarray, count: int, gone: np.ndarray
) -> tuple[list[int], list[float]]:
    """A state's list by the score of each item, one product after the other."""
    units = weights["embedding"].shape[1]
    scores = weights["bias"] + np.array([np.vecdot(hidden[:units], item) for item in weights["embedding"]])
    scores = with_added(scores, weights, hidden[units:])
    scores[gone] = -np.inf
    order = np.lexsort((np.arange(len(scores)), -scores))[: min(count, int(np.isfinite(scores).sum()))]
    return order.tolist(), scores[order].tolist()


def check(table: Kind, weights: dict[str, np.ndarray], count: int) -> None:
    scorer = Scorer(weights, table)
    hidden = random_states(scorer, 70)
    gone = [np.random.default_rng(i).integers(0, scorer.items, i % 5).astype(np.int32) for i in range(len(hidden))]
    gone[3] = np.arange(1, scorer.items, dtype=np.int32)
    found = scorer.top_k(hidden, count, gone)
    for state, without, (rows, scores) in zip(hidden, gone, found, strict=True):
        assert (rows.tolist(), scores.tolist()) == by_sorting(weights, state, count, without)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 20, 300])
def test_lists_are_to_the_bit_those_of_a_sort(table: Kind, kind: str, count: int) -> None:
    check(table, weights_of(kind), count)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("guess", [-np.inf, np.inf])
def test_a_wrong_guess_changes_no_list(table: Kind, guess: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sieve, "_guess", lambda *given: np.full(len(given[1]), guess))
    check(table, weights_of("one size"), 20)


@pytest.mark.usefixtures("blocks")
def test_many_items_of_the_same_worth_are_looked_for_for_fewer_states_at_a_time(
    table: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.scoring.sieve.MOST_PLACES", 3000)
    check(table, weights_of("all the same"), 20)


def test_bytes_are_used_where_they_can_be_and_are_fine_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(weights: dict[str, np.ndarray]) -> Kind:
        return type(fastest_table(weights["embedding"], weights["bias"]))

    assert kind(weights_of("one size")) is (ByteTable if multiplies_bytes() else FloatTable)
    assert kind(weights_of("an outlier")) is FloatTable
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("recsys.scoring.byte_table.multiplies_bytes", multiplies_bytes.__wrapped__)
    assert kind(weights_of("one size")) is FloatTable
