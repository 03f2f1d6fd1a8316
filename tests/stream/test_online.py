"""Online figures are honest: on a replay of a test day they are those of offline evaluation."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from recsys.cli.commands import cli
from recsys.columns import Clock
from recsys.demo.commands import get_text
from recsys.evaluation.protocol import NEVER
from recsys.events import MAX_TIMESTAMP_MS, encode
from recsys.logs.sources import find_sources, parse_mapping
from recsys.published import Bundles
from recsys.serving import CurrentModel
from recsys.settings import RedisSettings, WorkerSettings
from recsys.store import Store
from stream.dead_letter import DeadLetter, Record
from stream.metrics import WorkerMetrics
from stream.online import Trial, rank
from stream.online_metrics import KEPT_SURFACES, KEPT_VERSIONS, OnlineMetrics, Tally
from stream.outcome import Outcome
from stream.processor import Processor
from stream.replay import ClickLog
from stream.trend import TrendKeeper
from tests.conftest import publish, random_model
from tests.servers.pairs import Servers
from tests.stream.conftest import make_world
from tests.stream.world import START, wait_until_dealt_with

GAP_MS, EVERY_MS = 30 * 60_000, 20 * 60_000
SMALL = ["--epochs", "1", "--units", "16", "--clicks-per-step", "2", "--samples", "64", "--no-refit"]


@dataclass(frozen=True)
class Day:
    """A log, the time from which it is tested, the model of what was before, and its offline evaluation.

    ``following`` is that of the model with its live trend.
    """

    log: Path
    since: int
    bundles: Path
    offline: dict[str, Any]
    following: dict[str, Any]

    def clicks(self) -> ClickLog:
        return open_log(self.log, self.since)


def open_log(log: Path, since: int) -> ClickLog:
    return ClickLog(
        find_sources([str(log)], parse_mapping(())), Clock("ms", MAX_TIMESTAMP_MS, 0), since, MAX_TIMESTAMP_MS
    )


def quiet_moment(log: Path) -> int:
    """A time near the end of the log at which no session is under way: the test sessions are all that comes after."""
    clicks = open_log(log, 0)
    last: dict[str, int] = {}
    busy: list[tuple[int, int]] = []
    for event in clicks:
        before = last.get(event.user_id)
        if before is not None and event.timestamp - before <= GAP_MS:
            busy.append((before, event.timestamp))
        last[event.user_id] = event.timestamp
    for moment in clicks.times[int(0.8 * len(clicks)) :].tolist():
        if not any(before < moment <= after for before, after in busy):
            return int(moment)
    raise AssertionError("visitors never rest")


def run_here(*arguments: str) -> None:
    """A command in this process, which has imported already what takes seconds to import."""
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    directory = tmp_path_factory.mktemp("online")
    log = directory / "clicks.csv"
    run_here("generate", "--events", "9000", "--users", "400", "--items", "300", "--seed", "3", "--out", str(log))
    since, dataset, run, report = quiet_moment(log), directory / "dataset", directory / "run", directory / "report"
    run_here("sessions", str(log), "--out", str(dataset), "--max-bad", "0.5", "--test-from", str(since))
    run_here("train", str(dataset), "--out", str(run), *SMALL)
    figures = []
    for seconds in (EVERY_MS // 1000, 0):
        run_here("evaluate", f"{run}/model", str(dataset), "--out", str(report), "--trend-seconds", str(seconds))
        figures.append(json.loads((report / "evaluation.json").read_bytes()))
    bundles, evaluation = directory / "bundles", report / "evaluation.json"
    run_here("publish", f"{run}/model", "--bundles", str(bundles), "--evaluation", str(evaluation))
    return Day(log, since, bundles, figures[1], figures[0])


async def ignore(_: Sequence[DeadLetter]) -> None:
    """Letters are not looked at."""


def process(bundles: Path, store_url: str, batches: Sequence[Sequence[Record]], **worker: Any) -> list[Outcome]:
    """What becomes of batches, from nothing on."""

    async def work() -> list[Outcome]:
        store = Store(RedisSettings(url=store_url, prefix=f"t-{uuid.uuid4().hex}"))
        processor = Processor(CurrentModel(Bundles(bundles)), store, WorkerSettings(**worker), ignore)
        outcomes = [await processor.process(batch) for batch in batches]
        await store.close()
        return outcomes

    return asyncio.run(work())


def replayed(day: Day, store_url: str, size: int, **worker: Any) -> tuple[OnlineMetrics, int]:
    """The figures of the test day in micro-batches of a size, and how many clicks were not looked at."""
    records = [
        Record(event.user_id.encode(), encode(event), 0, offset, START) for offset, event in enumerate(day.clicks())
    ]
    batches = [records[start : start + size] for start in range(0, len(records), size)]
    metrics, unexamined = OnlineMetrics(), 0
    for outcome in process(day.bundles, store_url, batches, **worker):
        metrics.add(outcome.trials)
        unexamined += outcome.unexamined
    return metrics, unexamined


def assert_equal(metrics: OnlineMetrics, day: Day, evaluation: dict[str, Any]) -> None:
    total, offline = metrics.total(Bundles(day.bundles).current()), evaluation["recommenders"][0]
    assert offline["name"] == evaluation["model"] == "GRU"
    assert total.tests == evaluation["predictions"] > 500
    assert total.recall == pytest.approx(offline["metrics"]["recall@20"], abs=1e-6)
    assert total.mrr == pytest.approx(offline["metrics"]["mrr@20"], abs=1e-6)


@pytest.mark.parametrize(("size", "looks"), [(200, "all"), (37, "all"), (1, "stored")])
def test_a_replay_of_the_test_day_gives_the_figures_of_evaluation(
    day: Day, store_url: str, size: int, looks: str
) -> None:
    metrics, unexamined = replayed(day, store_url, size, online_metrics=looks)
    assert unexamined == 0
    assert_equal(metrics, day, day.offline)


def test_with_the_live_trend_they_are_those_of_its_evaluation(day: Day, store_url: str) -> None:
    """Clicks come one by one, and the trend follows when the clock says so, by the clicks' own times."""
    figures = [day.following, day.offline]
    with_trend, without = (each["recommenders"][0]["metrics"]["mrr@20"] for each in figures)
    assert abs(with_trend - without) > 1e-4
    metrics = OnlineMetrics()

    async def work() -> None:
        store = Store(RedisSettings(url=store_url, prefix=f"t-{uuid.uuid4().hex}"))
        model = CurrentModel(Bundles(day.bundles))
        processor, trends = (
            Processor(model, store, WorkerSettings(), ignore),
            TrendKeeper(model, store, 1, WorkerMetrics()),
        )
        await trends.adopt()
        interval = 0
        for offset, event in enumerate(day.clicks()):
            if event.timestamp // EVERY_MS > interval:
                await trends.follow()
                interval = event.timestamp // EVERY_MS
            outcome = await processor.process([Record(event.user_id.encode(), encode(event), 0, offset, START)])
            trends.observe(outcome)
            metrics.add(outcome.trials)
        await store.close()

    asyncio.run(work())
    assert_equal(metrics, day, day.following)


def test_what_is_not_looked_at_is_counted(day: Day, store_url: str) -> None:
    stored, unexamined = replayed(day, store_url, 200, online_metrics="stored")
    tests = stored.total(Bundles(day.bundles).current()).tests
    assert 0 < tests < day.offline["predictions"] <= tests + unexamined
    off, unexamined = replayed(day, store_url, 200, online_metrics="off")
    assert off.total(Bundles(day.bundles).current()) == Tally()
    assert unexamined >= day.offline["predictions"]


def test_a_worker_that_lags_looks_at_nothing(day: Day, store_url: str) -> None:
    lagging, unexamined = replayed(day, store_url, 200, online_metrics="all", batch_size=199)
    tests = lagging.total(Bundles(day.bundles).current()).tests  # of the last batch, which is not full
    assert tests <= len(day.clicks()) % 200
    assert unexamined >= day.offline["predictions"] - tests


def test_the_worker_tells_prometheus_the_figures_of_evaluation(
    day: Day, embedded_servers: Servers, tmp_path: Path
) -> None:
    world = make_world(embedded_servers, day.bundles, tmp_path)
    world.commands.environment |= {"RECSYS_WORKER__ONLINE_METRICS": "all", "RECSYS_WORKER__BATCH_SIZE": "10000"}
    clicks = len(day.clicks())
    with world.worker() as worker:
        sent = json.loads(world.commands.read("replay", str(day.log), "--since", str(day.since)))
        assert sent["sent"] == clicks
        wait_until_dealt_with(worker, clicks)
        text = get_text(worker.wait_for_line("worker: metrics on ")[0])
    figures = {line.partition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    model, offline = f'{{model="{Bundles(day.bundles).current()}"}}', day.offline["recommenders"][0]["metrics"]
    assert figures[f"recsys_online_recall_at_20_ratio{model}"] == pytest.approx(offline["recall@20"], abs=1e-6)
    assert figures[f"recsys_online_mrr_at_20_ratio{model}"] == pytest.approx(offline["mrr@20"], abs=1e-6)
    tests = {name: value for name, value in figures.items() if name.startswith("recsys_online_tests_total")}
    assert sum(tests.values()) == day.offline["predictions"]
    assert {"2nd", "3rd"} <= {name.split('position="')[1].split('"')[0] for name in tests}
    assert figures['recsys_drift_reference_ratio{signal="hit_rate"}'] == pytest.approx(offline["recall@20"])


def click(item: int, second: int, offset: int, **fields: Any) -> Record:
    event = {"user_id": "u", "item_id": f"item-{item:03d}", "timestamp": START + 1000 * second, **fields}
    return Record(b"u", json.dumps(event).encode(), 0, offset, time.time_ns() // 1_000_000)


def test_only_clicks_that_lead_a_session_on_are_tests(bundles: Path, store_url: str) -> None:
    batch = [
        click(1, 0, 0),  # opens
        click(2, 10, 1, context={"surface": "home"}),
        click(2, 20, 2),  # repeats
        click(99, 30, 3),  # unknown
        click(3, 40, 4, event_type="cart"),
        click(1, 0, 5),  # a duplicate
        click(5, 15, 6),  # late: sorted in between
        click(4, 7200, 7),  # opens
        click(99, 14400, 8),  # an unknown item opens
        click(6, 14410, 9),  # the first known one
        click(7, 14420, 10),
    ]
    (outcome,) = process(bundles, store_url, [batch], online_metrics="all")
    assert [(trial.position, trial.surface) for trial in outcome.trials] == [(1, "home"), (2, "cart"), (1, "view")]
    singly = process(bundles, store_url, [[each] for each in batch], online_metrics="stored")
    assert [trial for each in singly for trial in each.trials] == outcome.trials


def test_a_click_tests_the_model_whose_list_it_meets(bundles: Path, store_url: str) -> None:
    first = Bundles(bundles).current()

    async def work() -> list[Trial]:
        store = Store(RedisSettings(url=store_url, prefix=f"t-{uuid.uuid4().hex}"))
        model = CurrentModel(Bundles(bundles))
        processor = Processor(model, store, WorkerSettings(online_metrics="all"), ignore)
        await processor.process([click(1, 0, 0)])
        publish(bundles, random_model(items=60, seed=9))
        assert model.refresh()
        outcome = await processor.process([click(2, 10, 1), click(55, 20, 2)])
        await store.close()
        return outcome.trials

    assert [trial.version for trial in asyncio.run(work())] == [first, Bundles(bundles).current()]


def test_a_rank_counts_the_items_that_score_as_high() -> None:
    rows, scores = np.array([4, 7, 2, 9], np.int32), np.array([3, 2, 2, 1], np.float32)
    assert [rank(rows, scores, row) for row in (4, 7, 2, 9, 1)] == [1, 3, 3, 4, NEVER]


def test_strangers_cannot_make_series_without_end() -> None:
    metrics = OnlineMetrics()
    for version in range(3 * KEPT_VERSIONS):
        metrics.add(Trial(f"v{version}", n, f"surface-{n}" * 20, 1) for n in range(1, 200))
    samples = [sample for metric in metrics.collect() for sample in metric.samples]
    assert {sample.labels["model"] for sample in samples} == {
        f"v{n}" for n in range(2 * KEPT_VERSIONS, 3 * KEPT_VERSIONS)
    }
    assert len({sample.labels.get("surface") for sample in samples} - {None}) <= KEPT_SURFACES + 1
    assert metrics.total("v11").tests == 199
