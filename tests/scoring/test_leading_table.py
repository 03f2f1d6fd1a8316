"""Lists by the leading directions of the items are nearly the exact ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recsys.published import Bundles
from recsys.scoring.leading_table import TABLES, LeadingTable
from recsys.scoring.scorer import Scorer
from recsys.scoring.tables import FloatTable
from recsys.serving import CurrentModel
from tests.conftest import publish, random_model, random_states

ITEMS, UNITS = 40_000, 100


def leaning(rng: np.random.Generator, vectors: np.ndarray) -> np.ndarray:
    """The same vectors, but each direction counts for less than the one before, as in trained models."""
    turn, _ = np.linalg.qr(rng.normal(size=(UNITS, UNITS)))
    lengths: np.ndarray = np.arange(1, UNITS + 1) ** -0.5
    return ((vectors * lengths) @ turn).astype(np.float32)


def test_of_the_items_of_trained_models_lists_99_in_100_are_found() -> None:
    rng = np.random.default_rng(1)
    weights = dict(random_model(items=ITEMS, units=UNITS).weights)
    weights["bias"] *= np.float32(0.3)
    weights["embedding"] = leaning(np.random.default_rng(2), weights["embedding"])
    exact, near = Scorer(weights), Scorer(weights, LeadingTable)
    hidden = random_states(exact, 200)
    hidden[:, :UNITS] = np.tanh(3 * leaning(np.random.default_rng(2), rng.normal(size=(200, UNITS))))
    common = 0
    for (rows, scores), (others, theirs) in zip(exact.top_k(hidden, 20), near.top_k(hidden, 20), strict=True):
        same, mine, other = np.intersect1d(rows, others, return_indices=True)
        common += len(same)
        assert scores[mine].tolist() == theirs[other].tolist()
    assert 0.99 <= common / (20 * len(hidden)) < 1  # less than all: or the test would say nothing


def test_each_version_that_is_served_is_searched_by_the_same_kind_of_table(bundles: Path) -> None:
    made = []

    def table(vectors: np.ndarray, bias: np.ndarray) -> FloatTable:
        made.append(len(vectors))
        return FloatTable(vectors, bias)

    model = CurrentModel(Bundles(bundles), table)
    publish(bundles, random_model(items=60))
    assert model.refresh()
    assert made == [50, 60]


def test_the_setting_chooses_the_table_and_vectors_of_all_directions_are_searched_exactly() -> None:
    vectors = random_model(items=20_000, units=UNITS).weights["embedding"]
    bias = np.zeros(20_000, np.float32)
    kinds = {
        (name, led): isinstance(
            table(leaning(np.random.default_rng(2), vectors) if led else vectors, bias), LeadingTable
        )
        for name, table in TABLES.items()
        for led in (True, False)
    }
    assert [kind for kind, leading in kinds.items() if leading] == [("approximate", True)]
