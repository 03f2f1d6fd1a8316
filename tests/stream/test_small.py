"""States and lists in fewer bytes: how many, and what that changes. How batches fell still leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from recsys.bundle import Model
from recsys.model.training import fit
from recsys.packing import Numbers
from recsys.settings import ModelSettings, TrainingSettings
from recsys.state import RecommendationList, UserState
from stream.dead_letter import Record
from stream.processor import Processor
from tests.benchmarks.memory import DEFAULT, Keep, bytes_per_user
from tests.conftest import publish, random_model
from tests.model.logs import markov_chain, markov_log, recall
from tests.servers.presence import where_present
from tests.servers.redis import Redis
from tests.stream.processing import World, record

MOST = 600 * 2**20 / 1e6  # bytes a user: 600 MiB for a million
USERS = 15_625  # fill the store's tables, whose sizes are powers of two, as far as a million do
SMALL: list[dict[str, Any]] = [
    {"state_numbers": "float16", "compact_lists": True},
    {"state_numbers": "int12", "compact_lists": True},
]


@pytest.fixture(scope="module")
def real_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this module's own, to be emptied at will."""
    with where_present():
        server = Redis(tmp_path_factory.mktemp("redis"))
    with server:
        yield server.url


@pytest.mark.parametrize(
    ("keep", "most"), [(Keep(Numbers.INT12, True), MOST), (Keep(Numbers.FLOAT16, True), 690), (DEFAULT, 1000)]
)
def test_a_user_takes_no_more_than_this_of_redis_and_not_for_ever(real_redis: str, keep: Keep, most: float) -> None:
    used = bytes_per_user(real_redis, USERS, keep)
    print(f"{keep.numbers}: {used:.0f} bytes a user")
    assert used <= most
    assert redis.Redis.from_url(real_redis).info("keyspace")["db0"]["expires"] == 2 * USERS
    assert redis.Redis.from_url(real_redis).dbsize() == 2 * USERS


def clicks(users: int, count: int, items: int) -> list[Record]:
    return [record(f"u{i % users}", f"item-{(7 * i) % items:03d}", 40 * i, i) for i in range(count)]


async def left(world: World, users: int) -> list[tuple[bytes, bytes]]:
    """What the store holds of the users, but for the times of writing."""
    states = await world.store.states([f"u{user}" for user in range(users)])
    lists = await world.store.lists([f"u{user}" for user in range(users)])
    return [
        (state or b"", replace(RecommendationList.unpack(ranked or b""), written=0).pack())
        for state, ranked in zip(states, lists, strict=True)
    ]


@pytest.mark.parametrize("options", SMALL)
def test_batches_of_any_size_leave_the_same(run: Callable[..., None], bundles: Path, options: dict[str, Any]) -> None:
    """To the bit; so does the renewal by another model, which starts from the carried clicks."""
    older = random_model(items=400, units=100, seed=3)
    newer = random_model(items=400, units=100, seed=2)
    records = clicks(37, 300, 400)
    found: list[list[tuple[bytes, bytes]]] = []

    def in_batches_of(size: int) -> None:
        async def body(world: World) -> None:
            for start in range(0, len(records), size):
                await world.process(*records[start : start + size])
            found.append(await left(world, 37))

        run(body, **options)

    async def renewed(world: World) -> None:
        await world.process(*records)
        publish(bundles, newer)
        assert world.model.refresh()
        assert await world.processor.renew([f"u{user}" for user in range(37)]) == 37
        found.append(await left(world, 37))

    publish(bundles, older)
    run(renewed, **options)
    for size in (1, 7, 300):
        in_batches_of(size)
    assert found[0] == found[1] == found[2] == found[3]


def test_states_of_either_form_stand_side_by_side(run: Callable[..., None]) -> None:
    """The option may change at any time, and back: a state keeps the form it has until its user's next click."""
    records = clicks(3, 30, 40)

    async def body(world: World) -> None:
        settings = world.processor._settings
        forms = []
        for start, numbers in enumerate([*Numbers, *Numbers]):
            changed = settings.model_copy(update={"state_numbers": numbers, "compact_lists": bool(start % 2)})
            processor = Processor(world.model, world.store, changed, world._keep)
            await processor.process(records[5 * start : 5 * start + 5])
            (packed,) = await world.store.states(["u0"])
            forms.append((packed or b"")[0])
        assert forms == [0xA0, 0xA1, 0xA2] * 2
        scorer = world.model.served.scorer
        for user in range(3):
            state = await world.state(f"u{user}")
            rows = [(7 * i) % 40 for i in range(30) if i % 3 == user]
            assert [click.row for click in state.recent] == rows
            np.testing.assert_allclose(state.hidden, scorer.advance(scorer.start(1), [rows])[0], atol=0.01)

    run(body)


CHANCES = markov_chain(200, 10, seed=1)


@pytest.fixture(scope="module")
def trained() -> Model:
    """A model that has learnt a first-order process among 200 items, twice as good as chance at the least."""
    log = markov_log(CHANCES, 2000, 8, seed=2)
    settings = TrainingSettings(
        epochs=2,
        samples=64,
        clicks_per_step=4,
        learning_rate=0.3,
        backwards=False,
        hidden_dropout=0.0,
        embedding_dropout=0.0,
    )
    weights = fit(log, log, 200, ModelSettings(units=32, memory=3), settings).weights
    assert recall(weights, markov_log(CHANCES, 300, 8, seed=3)) > 2 * 20 / 200
    return replace(random_model(items=200, units=32), weights=weights)


@pytest.mark.parametrize("options", SMALL)
def test_lists_stay_what_they_were_but_for_near_ties(
    run: Callable[..., None], bundles: Path, trained: Model, options: dict[str, Any]
) -> None:
    """After each of a session's eight clicks, against the exact states and lists of the same clicks."""
    publish(bundles, trained)
    sessions = list(markov_log(CHANCES, 150, 8, seed=3))
    batches = [
        [record(f"u{user}", f"item-{rows[turn]:03d}", turn, 150 * turn + user) for user, rows in enumerate(sessions)]
        for turn in range(8)
    ]

    async def lists_of(world: World) -> list[tuple[UserState, RecommendationList]]:
        found = []
        for batch in batches:
            await world.process(*batch)
            for user in range(150):
                ranked = await world.list(f"u{user}")
                assert ranked is not None
                found.append((await world.state(f"u{user}"), ranked))
        return found

    pairs: list[list[tuple[UserState, RecommendationList]]] = []

    async def body(world: World) -> None:
        pairs.append(await lists_of(world))

    run(body)
    run(body, **options)
    shared, moved = [], 0.0
    for (exact, best), (rounded, found) in zip(*pairs, strict=True):
        assert exact.hidden[32:].tolist() == rounded.hidden[32:].tolist()
        moved = max(moved, float(np.abs(exact.hidden - rounded.hidden).max()))
        shared.append(len(set(best.rows.tolist()) & set(found.rows.tolist())) / 20)
    print(f"{options['state_numbers']}: states off by {moved:.1e} at most, lists share {np.mean(shared):.4f}")
    assert moved < 2e-3
    assert np.mean(shared) > 0.99


def test_a_compact_list_has_the_same_items_in_the_same_order(run: Callable[..., None]) -> None:
    found: list[list[RecommendationList]] = []

    async def body(world: World) -> None:
        await world.process(*clicks(3, 30, 40))
        found.append([each for user in range(3) if (each := await world.list(f"u{user}")) is not None])

    run(body)
    run(body, compact_lists=True)
    for full, compact in zip(*found, strict=True):
        np.testing.assert_array_equal(compact.rows, full.rows)
        np.testing.assert_array_equal(compact.scores, full.scores.astype(np.float16).astype(np.float32))
        assert (compact.model, compact.event_time) == (full.model, full.event_time)
