"""Answers that follow what all visitors click, as far as workers have stored it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Model
from recsys.scoring.scorer import Scorer
from recsys.scoring.trend import Pairs, Trend
from recsys.store import Store
from tests.api.running import Api, eventually, ids, named, running_api
from tests.conftest import publish

LATE = np.array([120, 140], np.int32)  # hardly clicked in training
PAIRS = Pairs(np.array([3], np.int32), np.array([77], np.int32), np.array([20], np.float32))
TREND = Trend(1_700_000_000_000, 1.0, 1.0, 1.0, LATE, np.array([15, 12], np.float32), np.array([3, 9], np.int32), PAIRS)


@pytest.fixture
def own_api(tmp_path: Path, model: Model, store_url: str) -> Iterator[Api]:
    """An API that a test may change."""
    publish(tmp_path / "bundles", model)
    with running_api(tmp_path / "bundles", store_url, trend_seconds=0.2) as running:
        yield running


def store(api: Api, packed: bytes) -> None:
    async def put() -> None:
        store = Store(api.services.settings.redis)
        await store.save_trend(api.services.model.served.digest, packed)
        await store.close()

    asyncio.run(put())


def test_item_pages_sessions_and_popular_items_follow(own_api: Api, model: Model) -> None:
    before = ids(own_api.get("/v1/recommendations", item_id="item-003", limit=5))
    assert not set(before) & set(named(LATE.tolist()))
    store(own_api, TREND.pack())
    eventually(lambda: own_api.services.recommender.edition.served.trend is not None)
    eventually(lambda: ids(own_api.get("/v1/popular", limit=2)) == named([140, 120]))
    scorer = Scorer(TREND.on(model.weights))
    [(rows, scores)] = scorer.top_k(scorer.advance(scorer.start(1), [[3]]), 5, [np.array([3], np.int32)])
    answer = own_api.get("/v1/recommendations", item_id="item-003", limit=5)
    assert ids(answer) == named(rows.tolist())
    assert ids(answer)[0] == "item-077"
    assert set(named(LATE.tolist())) <= set(ids(answer))
    assert [item["score"] for item in answer["items"]] == pytest.approx(scores.tolist())
    assert set(named(LATE.tolist())) <= set(ids(own_api.recommend("item-003")))


def test_popular_items_are_those_of_the_last_half_hour_then_those_of_the_log(own_api: Api) -> None:
    counts = own_api.services.model.served.vocabulary.counts
    first = own_api.get("/v1/popular", limit=2)
    assert ids(first) == named([0, 1])
    assert [item["score"] for item in first["items"]] == counts[:2].tolist()
    store(own_api, TREND.pack())
    eventually(lambda: ids(own_api.get("/v1/popular", limit=4)) == named([140, 120, 0, 1]))
    scores = [item["score"] for item in own_api.get("/v1/popular", limit=4)["items"]]
    assert [int(score) for score in scores] == [9, 3, 0, 0]
    assert scores == sorted(scores, reverse=True)


def test_a_trend_that_is_gone_is_forgotten(own_api: Api) -> None:
    store(own_api, TREND.pack())
    eventually(lambda: own_api.services.model.served.trend is not None)
    store(own_api, b"damaged")
    eventually(lambda: own_api.services.model.served.trend is None)
    eventually(lambda: ids(own_api.get("/v1/popular", limit=2)) == named([0, 1]))


def test_lists_of_users_are_as_the_worker_made_them(own_api: Api) -> None:
    store(own_api, TREND.pack())
    eventually(lambda: own_api.services.model.served.trend is not None)
    own_api.put_list("u-1", [7, 8, 9])
    answer = own_api.get("/v1/recommendations", user_id="u-1", limit=3)
    assert (answer["source"], ids(answer)) == ("user", named([7, 8, 9]))
