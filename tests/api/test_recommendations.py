"""Which answer a request gets, down the whole chain of fallbacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.bundle import Model
from recsys.published import Bundles
from recsys.scoring.scorer import Scorer
from recsys.sessions import SessionRule, assemble
from recsys.state import RecommendationList
from tests.api.running import Api, eventually, ids, named, running_api
from tests.conftest import STORES, publish, random_model

MINUTE = 60_000
START = 1_700_000_000_000


def after(model: Model, rows: list[int], limit: int, exclude: list[int] | None = None) -> list[str]:
    """What the model recommends after clicks on these rows."""
    scorer = Scorer(model.weights)
    hidden = scorer.advance(scorer.start(1), [rows])
    scores = scorer.scores(hidden)[0]
    scores[exclude or []] = -np.inf
    return named(np.argsort(-scores, kind="stable")[:limit].tolist())


def test_a_known_user_gets_the_stored_list(api: Api) -> None:
    stored = api.put_list("ada", [7, 3, 99], age_ms=5000)
    answer = api.get("/v1/recommendations", user_id="ada", limit=3)
    assert ids(answer) == ["item-007", "item-003", "item-099"]
    assert [item["score"] for item in answer["items"]] == [9, 5, 1]
    assert answer["source"] == "user"
    assert answer["model_version"] == api.services.model.served.version
    assert answer["event_time"] == stored.event_time
    assert 5000 <= answer["age_ms"] < 15_000
    assert answer["filled"] == answer["unknown_items"] == 0
    assert not answer["degraded"]


def test_a_short_list_is_filled_with_popular_items_it_does_not_hold(api: Api) -> None:
    api.put_list("bea", [1, 50])
    answer = api.get("/v1/recommendations", user_id="bea", limit=6)
    assert ids(answer) == named([1, 50, 0, 2, 3, 4])
    assert answer["filled"] == 4
    assert [item["score"] for item in answer["items"]][1:] == [1.0, None, None, None, None]


def test_the_item_of_the_page_is_left_out_of_list_and_filling(api: Api) -> None:
    api.put_list("cleo", [9, 8])
    assert ids(api.get("/v1/recommendations", user_id="cleo", item_id="item-009", limit=3)) == named([8, 0, 1])
    assert ids(api.get("/v1/recommendations", user_id="cleo", item_id="item-000", limit=3)) == named([9, 8, 1])


@pytest.mark.parametrize("row", [0, 42, 149])
def test_an_unknown_user_on_an_item_page_gets_what_follows_that_item(api: Api, model: Model, row: int) -> None:
    for _ in range(2):  # computed, then from memory
        answer = api.get("/v1/recommendations", user_id="nobody", item_id=f"item-{row:03d}", limit=100)
        assert answer["source"] == "item"
        assert ids(answer) == after(model, [row], 100, exclude=[row])
        assert answer["age_ms"] is None
        assert answer["event_time"] is None


def test_an_unknown_item_gets_popular_items(api: Api) -> None:
    answer = api.get("/v1/recommendations", item_id="never seen", limit=4)
    assert (answer["source"], answer["unknown_items"]) == ("popular", 1)
    assert ids(answer) == named([0, 1, 2, 3])
    assert [item["score"] for item in answer["items"]] == [150, 149, 148, 147]


def test_without_user_and_item_there_are_popular_items(api: Api) -> None:
    assert api.get("/v1/recommendations") == api.get("/v1/popular", limit=20)


def test_a_user_id_may_hold_anything_an_event_allows(api: Api) -> None:
    for row, user in enumerate(["a}b{c", "%7D", "}", "日本", "a&b=c d/é"]):
        api.put_list(user, [row + 10])
        assert ids(api.get("/v1/recommendations", user_id=user, limit=1)) == named([row + 10])


@pytest.mark.parametrize("packed", [b"\x00", b"x" * 500])
def test_a_damaged_list_is_no_error(api: Api, packed: bytes) -> None:
    before = api.metric("recsys_api_unusable_lists_total")
    api.put_bytes("dora", packed)
    assert api.get("/v1/recommendations", user_id="dora", item_id="item-003")["source"] == "item"
    assert api.metric("recsys_api_unusable_lists_total") == before + 1


@pytest.mark.parametrize("rows", [[150], [-1, 3], []])
def test_a_list_that_names_no_items_of_its_model_is_left_aside(api: Api, rows: list[int]) -> None:
    api.put_list("eve", rows)
    assert api.get("/v1/recommendations", user_id="eve")["source"] == "popular"


def test_a_list_of_a_model_that_is_gone_is_left_aside(api: Api) -> None:
    api.put_list("fay", [1], model=12345)
    assert api.get("/v1/recommendations", user_id="fay", item_id="item-001")["source"] == "item"


def test_an_answer_holds_the_whole_catalogue_where_that_is_small(bundles: Path, store_url: str) -> None:
    with running_api(bundles, store_url) as api:
        assert sorted(ids(api.get("/v1/popular", limit=100))) == named(range(50))
        assert sorted(ids(api.get("/v1/recommendations", item_id="item-001", limit=100))) == named([0, *range(2, 50)])


@pytest.mark.parametrize("store", STORES)
def test_lists_outlive_a_swap_of_the_model(bundles: Path, store: str, request: pytest.FixtureRequest) -> None:
    """Rows of an old list are read by the old vocabulary; new answers come from the new model."""
    old = Bundles(bundles).current()
    with running_api(bundles, request.getfixturevalue(store)) as api:
        assert api.get("/health/ready")["checks"]["store"] == "ok"
        api.put_list("gil", [49, 0])
        item = api.get("/v1/recommendations", item_id="item-000", limit=3)
        other = random_model(items=60, units=4, seed=9)
        other.vocabulary.ids[:] = [f"fresh-{row:03d}" for row in range(30)] + [f"item-{row:03d}" for row in range(30)]
        new = publish(bundles, other)
        eventually(lambda: api.get("/v1/popular")["model_version"] == new)

        answer = api.get("/v1/recommendations", user_id="gil", limit=3)
        assert (ids(answer), answer["model_version"]) == (["item-049", "item-000", "fresh-000"], old)
        assert answer["filled"] == 1
        after_swap = api.get("/v1/recommendations", item_id="fresh-000", limit=3)
        assert after_swap["model_version"] == new
        assert set(ids(after_swap)) <= set(other.vocabulary.ids)
        assert api.metric("recsys_api_model_info", version=new) == 1
        assert not api.metric("recsys_api_model_info", version=old)

        Bundles(bundles).rollback()
        eventually(lambda: api.get("/v1/popular")["model_version"] == old)
        assert api.get("/v1/recommendations", item_id="item-000", limit=3) == item


def test_a_bad_bundle_does_not_take_over(
    bundles: Path, tmp_path: Path, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running_api(bundles, store_url) as api:
        old = api.get("/v1/popular")["model_version"]
        bad = publish(tmp_path / "elsewhere", random_model(seed=3))
        shutil.copytree(tmp_path / "elsewhere" / bad, bundles / bad)
        weights = bytearray((bundles / bad / "weights.safetensors").read_bytes())
        weights[-1] ^= 1
        (bundles / bad / "weights.safetensors").write_bytes(weights)
        Bundles(bundles).point_to(bad)
        eventually(lambda: "bundle refused" in caplog.text)
        assert api.get("/v1/popular")["model_version"] == old
        good = publish(bundles, random_model(seed=4))
        eventually(lambda: api.get("/v1/popular")["model_version"] == good)


def test_the_memory_of_item_answers_is_bounded(bundles: Path, store_url: str) -> None:
    with running_api(bundles, store_url, item_cache=3) as api:
        first = [api.get("/v1/recommendations", item_id=item) for item in named(range(10))]
        assert len(api.services.recommender.edition._items) == 3
        assert [api.get("/v1/recommendations", item_id=item) for item in named(range(10))] == first


# Anonymous sessions


def test_a_session_is_stepped_through_the_model(api: Api, model: Model) -> None:
    answer = api.recommend("item-005", "item-006", "item-005", limit=10)
    assert answer["source"] == "session"
    assert ids(answer) == after(model, [5, 6, 5], 10)


def test_direct_repeats_in_a_session_count_once(api: Api) -> None:
    assert api.recommend("item-005", "item-005", "item-006") == api.recommend("item-005", "item-006")


def test_items_that_the_model_does_not_know_are_skipped_and_counted(api: Api, model: Model) -> None:
    answer = api.recommend("x", "item-005", "y", "item-006", limit=5)
    assert (ids(answer), answer["unknown_items"]) == (after(model, [5, 6], 5), 2)


def test_items_of_the_session_are_left_out_where_the_stream_leaves_them_out(bundles: Path, store_url: str) -> None:
    clicked = named([3, 0, 4])
    with running_api(bundles, store_url) as api:
        assert set(clicked) < set(ids(api.recommend(*clicked, limit=50)))
    with running_api(bundles, store_url, exclude_seen=True) as api:
        answer = api.recommend(*clicked, limit=47)
        assert (answer["filled"], set(ids(answer)) & set(clicked)) == (0, set())


@pytest.mark.parametrize("items", [[], ["x", "y"]])
def test_a_session_without_known_items_gets_popular_ones(api: Api, items: list[str]) -> None:
    answer = api.recommend(*items)
    assert (answer["source"], answer["unknown_items"]) == ("popular", len(items))
    assert ids(answer) == named(range(5))


clicks = st.lists(
    st.tuples(st.integers(0, 149), st.sampled_from([0, 0, 1, 29, 30, 31, 45, 90, 120])), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(clicks)
def test_a_session_with_times_is_cut_as_batch_cuts_it(api: Api, model: Model, clicks: list[tuple[int, int]]) -> None:
    rows, minutes = (np.array(column) for column in zip(*clicks, strict=True))
    one_user = np.zeros(len(rows), np.int64)
    whole = assemble(
        one_user, rows.astype(np.int32), minutes * MINUTE, one_user.astype(np.int8), None, SessionRule()
    ).sessions
    last = whole.items[whole.starts[-2] :].tolist()

    session = [{"item_id": f"item-{row:03d}", "timestamp": START + minute * MINUTE} for row, minute in clicks]
    answer = api.client.post("/v1/recommendations", json={"session": session, "limit": 8}).json()
    assert ids(answer) == after(model, last, 8)


def test_stored_and_computed_scores_are_written_as_they_are(api: Api) -> None:
    """A float32 is written by the shortest digits that read back equal."""
    score = np.float32(1) / np.float32(3)
    served = api.services.model.served
    stored = api.put_list("hal", [2])
    packed = RecommendationList(served.digest, stored.position, 1, 2, stored.rows, np.array([score])).pack()
    api.put_bytes("hal", packed)
    (item,) = api.get("/v1/recommendations", user_id="hal", limit=1)["items"]
    assert np.float32(item["score"]) == score
    assert len(str(item["score"])) <= 11
