"""The worker's trends: what they are made of, what they change, and what outlives a restart."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys.demo.commands import get_text
from recsys.published import Bundles
from recsys.scoring import live_trend
from recsys.scoring.clicks import Clicks
from recsys.scoring.live_trend import LiveTrend
from recsys.scoring.scorer import Scorer
from recsys.scoring.trend import Trend
from recsys.settings import RedisSettings
from recsys.state import RecommendationList
from recsys.store import Store
from stream.metrics import WorkerMetrics
from stream.trend import TrendKeeper
from tests.api.running import NOWHERE, eventually
from tests.conftest import publish, random_model
from tests.servers.redis import client_of
from tests.stream.processing import World, on_one_server_and_a_cluster, record
from tests.stream.world import World as StreamWorld
from tests.stream.world import clicks, on_embedded_servers

Run = Callable[..., None]


def keeper_of(world: World, seconds: float = 300.0, store: Store | None = None) -> TrendKeeper:
    return TrendKeeper(world.model, store or world.store, seconds, WorkerMetrics())


async def crowd(world: World, keeper: TrendKeeper, begin: int = 0) -> None:
    """Forty visitors who go from one item of their own to item 40."""
    for place in range(2):
        items = [f"item-{user % 30:03d}" if place == 0 else "item-040" for user in range(40)]
        records = [
            record(f"u{begin + user}", item, 60 * place + user / 100, 2 * (begin + user) + place)
            for user, item in enumerate(items)
        ]
        keeper.observe(await world.process(*records))


def test_a_trend_is_made_of_the_clicks_that_led_sessions_on(run: Run) -> None:
    async def body(world: World) -> None:
        keeper = keeper_of(world)
        await keeper.adopt()
        await crowd(world, keeper)
        await keeper.follow()
        plain = Scorer(world.model.served.bundle.model.weights)
        before = plain.advance(plain.start(40), [[user % 30] for user in range(40)])
        times = np.array([1_700_000_060_000 + 10 * user for user in range(40)])
        expected = LiveTrend(plain).follow(Clicks(before, np.full(40, 40, np.int32), times))
        found = world.model.served.trend
        assert found is not None
        assert found.pack() == expected.pack()
        assert found.rise[found.rows == 40] > 1
        assert found.clicks.sum() == 40
        assert set(found.pairs.follower.tolist()) <= {40}

    run(body)


@on_one_server_and_a_cluster
def test_lists_follow_and_states_do_not(run: Run) -> None:
    async def body(world: World) -> None:
        keeper = keeper_of(world)
        await keeper.adopt()
        await crowd(world, keeper)
        await keeper.follow()
        await world.process(record("visitor", "item-003", 90, 900))
        weights, trend = world.model.served.bundle.model.weights, world.model.served.trend
        assert trend is not None
        plain, raised = Scorer(weights), Scorer(trend.on(weights))
        hidden = plain.advance(plain.start(1), [[3]])
        np.testing.assert_array_equal((await world.state("visitor")).hidden, hidden[0])
        found = await world.list("visitor")
        assert found is not None
        [(rows, scores)] = raised.top_k(hidden, 20)
        assert found.rows.tolist() == rows.tolist() != plain.top_k(hidden, 20)[0][0].tolist()
        np.testing.assert_array_equal(found.scores, scores)
        packed = await world.store.trend(world.model.served.digest)
        assert packed == trend.pack()
        assert 3_500_000 < world.life_ms(f"{world.redis.prefix}:trend:{world.model.served.digest:016x}") <= 3_600_000

    run(body)


def test_clicks_that_lead_nothing_on_are_not_followed(run: Run) -> None:
    """First clicks, repeats, unknown items, what comes late or twice, and what came after nothing that is known."""

    async def body(world: World) -> None:
        keeper = keeper_of(world)
        await keeper.adopt()
        clicks = [
            ("u", "item-001", 0),
            ("u", "item-001", 1),
            ("u", "item-no", 2),
            ("u", "item-002", 3),  # the first that does
            ("u", "item-004", 2.5),
            ("u", "item-003", 7200),
            ("v", "item-no", 0),
            ("v", "item-005", 1),
            ("v", "item-006", 2),  # the second
        ]
        for offset, (user, item, second) in enumerate(clicks):
            keeper.observe(await world.process(record(user, item, second, offset)))
        keeper.observe(await world.process(record("v", "item-006", 2, 8)))
        await keeper.follow()
        assert world.model.served.trend is not None
        found = dict(zip(world.model.served.trend.rows.tolist(), world.model.served.trend.clicks.tolist(), strict=True))
        assert {row: count for row, count in found.items() if count} == {2: 1, 6: 1}

    run(body)


def test_a_worker_that_starts_goes_on_from_what_is_stored(run: Run) -> None:
    async def body(world: World) -> None:
        first = keeper_of(world)
        await first.adopt()
        await crowd(world, first)
        await first.follow()
        trend = world.model.served.trend
        assert trend is not None
        world.model.served.follow(None)
        second = keeper_of(world)
        await second.adopt()
        assert world.model.served.trend is not None
        assert world.model.served.trend.pack() == trend.pack()
        await crowd(world, second, begin=100)
        await second.follow()
        goes_on = world.model.served.trend
        assert goes_on.rise[goes_on.rows == 40] > trend.rise[trend.rows == 40]
        assert goes_on.clicks.sum() == 80

    run(body)


def test_stored_bytes_that_are_no_trend_are_left_aside(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World) -> None:
        await world.store.save_trend(world.model.served.digest, b"what is this?")
        with caplog.at_level(logging.WARNING):
            keeper = keeper_of(world)
            await keeper.adopt()
        assert world.model.served.trend is None
        assert "not a trend" in caplog.text
        await crowd(world, keeper)
        await keeper.follow()
        assert Trend.unpack(await world.store.trend(world.model.served.digest) or b"", 50).clicks.sum() == 40

    run(body)


def test_while_the_store_is_away_the_worker_follows_all_the_same(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World) -> None:
        away = Store(RedisSettings(url=f"redis://{NOWHERE}/0", timeout_seconds=0.2))
        keeper = keeper_of(world, store=away)
        with caplog.at_level(logging.WARNING):
            await keeper.adopt()
            await crowd(world, keeper)
            await keeper.follow()
        assert world.model.served.trend is not None
        assert "is not stored" in caplog.text
        await away.close()

    run(body)


def test_none_are_made_where_none_are_wanted(run: Run) -> None:
    async def body(world: World) -> None:
        keeper = keeper_of(world, seconds=0)
        await keeper.adopt()
        await crowd(world, keeper)
        await keeper.follow()
        assert world.model.served.trend is None
        assert await world.store.trend(world.model.served.digest) is None

    run(body)


def test_another_model_has_a_trend_of_its_own(run: Run, bundles: Path) -> None:
    async def body(world: World) -> None:
        keeper = keeper_of(world)
        await keeper.adopt()
        await crowd(world, keeper)
        await keeper.follow()
        old = world.model.served
        publish(bundles, random_model(seed=5))
        assert world.model.refresh()
        await keeper.adopt()
        assert world.model.served.trend is None
        await crowd(world, keeper, begin=200)
        await keeper.follow()
        assert world.model.served.trend is not None
        assert old.trend is not None
        assert world.model.served.trend.pack() != old.trend.pack()

    run(body)


def test_clicks_that_wait_are_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_trend, "MOST_CLICKS", 25)

    async def body(world: World) -> None:
        keeper = keeper_of(world)
        await keeper.adopt()
        for begin in range(0, 400, 40):
            await crowd(world, keeper, begin)
            assert all(len(model._led) <= 50 >= len(model._told) for model in keeper._models.values())
        await keeper.follow()
        assert world.model.served.trend is not None
        assert world.model.served.trend.clicks.sum() <= 25

    run(body)


def test_nobody_speaks_for_all(run: Run) -> None:
    """A visitor who goes to and fro counts once an item, however often he does."""

    async def body(world: World) -> None:
        keeper = keeper_of(world)
        await keeper.adopt()
        await crowd(world, keeper)
        clicks = [record("bot", f"item-{7 + number % 2:03d}", number, 500 + number) for number in range(200)]
        for click in clicks:
            keeper.observe(await world.process(click))
        await keeper.follow()
        assert world.model.served.trend is not None
        found = dict(zip(world.model.served.trend.rows.tolist(), world.model.served.trend.clicks.tolist(), strict=True))
        assert (found[7], found[8], found[40]) == (1, 1, 40)

    run(body)


def test_a_trend_that_nobody_has_fed_for_an_hour_is_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(world: World) -> None:
        keeper = keeper_of(world)
        await keeper.adopt()
        await crowd(world, keeper)
        await keeper.follow()
        await keeper.follow()
        assert world.model.served.trend is not None
        for model in keeper._models.values():
            model.followed -= 3601
        await keeper.follow()
        assert world.model.served.trend is None
        await crowd(world, keeper, begin=100)
        await keeper.follow()
        assert world.model.served.trend is not None
        assert world.model.served.trend.clicks.sum() == 40

    run(body)


def test_a_defect_of_a_trend_is_said_and_clicks_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Trend:
        raise MemoryError("no more")

    async def body(world: World) -> None:
        keeper = keeper_of(world)
        await keeper.adopt()
        await crowd(world, keeper)
        with monkeypatch.context() as patch:
            patch.setattr(LiveTrend, "follow", broken)
            await keeper.follow()
        assert "stays as it is" in caplog.text
        await crowd(world, keeper, begin=100)
        await keeper.follow()
        assert world.model.served.trend is not None

    run(body)


def test_metrics_tell_of_the_models_that_serve_alone(run: Run, bundles: Path) -> None:
    async def body(world: World) -> None:
        metrics = WorkerMetrics()
        keeper = TrendKeeper(world.model, world.store, 300, metrics)
        await keeper.adopt()
        await crowd(world, keeper)
        await keeper.follow()
        first = {"model": world.model.served.version}
        assert metrics.registry.get_sample_value("recsys_trend_newest_click_timestamp_seconds", first) == pytest.approx(
            1_700_000_060.35, abs=0.1
        )
        assert metrics.registry.get_sample_value("recsys_trend_strength", first) is not None
        await TrendKeeper(world.model, world.store, 300, metrics).adopt()
        assert metrics.registry.get_sample_value("recsys_trend_strength", first) is not None
        publish(bundles, random_model(seed=5))
        assert world.model.refresh()
        await keeper.adopt()
        assert metrics.registry.get_sample_value("recsys_trend_strength", first) is None

    run(body)


def test_it_goes_on_as_often_as_asked(run: Run) -> None:
    async def body(world: World) -> None:
        keeper = keeper_of(world, seconds=0.05)
        await keeper.adopt()
        watch = asyncio.create_task(keeper.watch())
        for begin in (0, 100):
            before = world.model.served.trend
            await crowd(world, keeper, begin)
            async with asyncio.timeout(10):
                while world.model.served.trend is before:
                    await asyncio.sleep(0.01)
        watch.cancel()

    run(body)


def states(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {name: value for name, value in contents.items() if name.startswith("s:")}


@on_embedded_servers
def test_a_worker_that_follows_and_is_killed_leaves_the_states_of_a_clean_run(world: StreamWorld) -> None:
    """Lists are those of the state, the model and some trend; states are those of the clicks alone."""
    world.commands.environment["RECSYS_TREND__SECONDS"] = "0.2"
    made = clicks(900, seed=4)
    digest = Bundles(world.bundles).open().digest
    key, store = f"{world.prefix}:trend:{digest:016x}", client_of(world.store)

    def stored() -> Trend:
        return Trend.unpack(store.get(key) or b"", 50)

    with world.worker() as worker:
        with world.producing(made[:600], pause=0.004):
            eventually(lambda: store.exists(key))
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait(10)
    first = stored()
    with world.worker() as worker:
        text = get_text(worker.wait_for_line("worker: metrics on ")[0])
        assert "recsys_trend_strength{" in text  # it goes on from what is stored
        world.produce(made[600:], pause=0.004)
        eventually(lambda: states(world.contents()) == states(world.clean_run(len(made))), 40)
        eventually(lambda: stored().time > first.time)
    lists = [RecommendationList.unpack(value) for name, value in world.contents().items() if name.startswith("l:")]
    assert lists
    assert world.contents().keys() == world.clean_run(len(made)).keys()
