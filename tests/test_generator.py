"""Generated logs: the same from the same seed, of exactly the stated faults, and of the process that is stated."""

from __future__ import annotations

import csv
import gzip
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from recsys.cli.generate import generate as generate_command
from recsys.errors import EventError, InputError, MissingInputError, SettingsError
from recsys.events import ClickEvent, decode, from_mapping
from recsys.generator.bots import with_bots
from recsys.generator.clicks import FAULTS, Rows, generate
from recsys.generator.files import FORMATS, read_process, sidecar, write
from recsys.generator.process import CART, EXPLORE, HOUR, PURCHASE, VIEW, Parameters, Process
from recsys.sessions import SessionRule, assemble

SMALL = Parameters(events=20_000, users=800, items=400, days=3, seed=7, bad_share=0.02, duplicate_share=0.03)
MINUTE = 60_000


@pytest.fixture(scope="module")
def process() -> Process:
    return Process(SMALL)


@pytest.fixture(scope="module")
def rows(process: Process) -> Rows:
    return Rows.join(list(generate(process)))


@pytest.fixture(scope="module")
def good(rows: Rows) -> Rows:
    """Each event once, ordered by user and time."""
    clean = rows.take(rows.fault == 0)
    _, first = np.unique(clean.number, return_index=True)
    clean = clean.take(first)
    return clean.take(np.lexsort((clean.time, clean.user)))


def read(path: Path) -> tuple[list[ClickEvent], int]:
    """The events of a log by the one decoder, and how many rows it refuses."""
    events, refused = [], 0
    for row in raw_rows(path):
        try:
            events.append(decode(row) if isinstance(row, bytes) else from_mapping(row))
        except EventError:
            refused += 1
    return events, refused


def raw_rows(path: Path) -> list[Any]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".json" in path.name:
        return data.splitlines()
    return list(csv.DictReader(data.decode().splitlines()))


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    one, two, other = (tmp_path / f"{name}{suffix}" for name in ("one", "two", "other"))
    write(SMALL, one)
    write(SMALL, two)
    write(SMALL.model_copy(update={"seed": 8}), other)
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_the_stated_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clicks{suffix}"
    write(SMALL, path)
    events, refused = read(path)
    assert refused == SMALL.bad == 400
    assert len(events) + refused == SMALL.events
    assert len(events) - len({event.event_id for event in events}) == SMALL.duplicates == 600


def test_all_formats_hold_the_same_events(tmp_path: Path) -> None:
    logs = []
    for suffix in FORMATS:
        write(SMALL, tmp_path / f"clicks{suffix}")
        events, _ = read(tmp_path / f"clicks{suffix}")
        logs.append([(e.user_id, e.item_id, e.timestamp, e.event_type, e.event_id) for e in events])
    assert all(log == logs[0] for log in logs)


def test_prices_and_categories_belong_to_items(tmp_path: Path, process: Process) -> None:
    write(SMALL, tmp_path / "clicks.jsonl")
    events, _ = read(tmp_path / "clicks.jsonl")
    expected = dict(zip(process.item_ids, process.prices.tolist(), strict=True))
    prices = {event.item_id: event.context["price"] for event in events if event.context}
    assert prices == pytest.approx({item: expected[item] for item in prices})
    assert min(prices.values()) > 0


def test_every_kind_of_fault_occurs(rows: Rows) -> None:
    assert set(rows.fault.tolist()) == set(range(len(FAULTS)))


def test_late_rows_stand_after_their_time(rows: Rows) -> None:
    first_copies = rows.take(np.sort(np.unique(rows.number, return_index=True)[1]))
    newest_before = np.maximum.accumulate(first_copies.time)
    behind = newest_before - first_copies.time
    assert np.count_nonzero(behind) == pytest.approx(SMALL.late, rel=0.1)
    assert behind.max() > 30 * MINUTE


def test_any_gap_between_finds_the_same_sessions(good: Rows) -> None:
    def starts(minutes: float) -> list[int]:
        columns = good.user, good.item.astype(np.int32), good.time, good.type.astype(np.int8)
        return assemble(*columns, None, SessionRule(round(minutes * MINUTE), False)).sessions.starts.tolist()

    assert starts(6) == starts(30) == starts(44)
    assert starts(2) != starts(30)


def test_users_come_back_within_a_day(good: Rows) -> None:
    again = (np.diff(good.user) == 0) & (np.diff(good.time) > 30 * MINUTE) & (np.diff(good.time) < 12 * HOUR)
    assert np.count_nonzero(again) > 0.2 * len(np.unique(good.user))


def test_evenings_are_busy_and_nights_are_quiet(good: Rows) -> None:
    by_hour = np.bincount(good.time // HOUR % 24, minlength=24)
    assert by_hour[19:22].sum() > 3 * by_hour[3:6].sum()
    assert by_hour.min() > 0


def test_the_log_spans_the_stated_days(good: Rows) -> None:
    assert SMALL.start_ms <= good.time.min() < SMALL.start_ms + HOUR
    end = SMALL.start_ms + SMALL.days * 24 * HOUR
    assert end - HOUR < good.time.max() < end + HOUR


def test_purchases_follow_carts_and_carts_follow_views_of_the_item(good: Rows) -> None:
    for kind, cause in ((PURCHASE, CART), (CART, VIEW)):
        at = np.flatnonzero(good.type == kind)
        assert len(at) > 100
        for column, expected in ((good.item, good.item[at]), (good.user, good.user[at])):
            np.testing.assert_array_equal(column[at - 1], expected)
        assert set(good.type[at - 1].tolist()) == {cause}
    assert np.bincount(good.type).tolist() == sorted(np.bincount(good.type), reverse=True)


def test_popularity_is_zipf() -> None:
    drawn = Rows.join(list(generate(Process(SMALL.model_copy(update={"events": 60_000, "users": 3000})))))
    counts = np.sort(np.bincount(drawn.item, minlength=SMALL.items))[::-1]
    ranks = np.arange(1, 201)
    slope, _ = np.polyfit(np.log(ranks), np.log(counts[:200]), 1)
    assert -1.1 < slope < -0.5


def test_next_items_have_the_stated_probabilities(process: Process) -> None:
    item, draws = 123, 200_000
    time = SMALL.start_ms + 5 * HOUR
    chances = EXPLORE * process.taste[5][process.category] * process.popularity
    chances[process.near[item]] += process.near_chance[item]
    assert chances.sum() == pytest.approx(1)
    drawn = process.next(np.full(draws, item), np.full(draws, time), np.random.default_rng(0))
    seen = np.bincount(drawn, minlength=SMALL.items)
    likely = chances * draws >= 5
    squares = (seen - chances * draws)[likely] ** 2 / (chances * draws)[likely]
    freedom = int(likely.sum())
    assert squares.sum() < freedom + 4 * np.sqrt(2 * freedom)
    assert seen[~likely].sum() == pytest.approx(chances[~likely].sum() * draws, rel=0.3, abs=20)


def test_transitions_in_the_log_are_those_of_the_process(process: Process, good: Rows) -> None:
    moves = (np.diff(good.user) == 0) & (np.diff(good.time) <= 6 * MINUTE) & (np.diff(good.item) != 0)
    current, following = good.item[:-1][moves], good.item[1:][moves]
    near = (process.near[current] == following[:, None]).any(axis=1)
    chance_by_exploring = EXPLORE * process.near.shape[1] / SMALL.items
    assert near.mean() == pytest.approx(1 - EXPLORE + chance_by_exploring, abs=0.02)


def test_taste_drifts() -> None:
    taste = Process(SMALL.model_copy(update={"days": 8})).taste
    assert taste.sum(axis=1) == pytest.approx(np.ones(len(taste)))
    change = np.abs(taste[0] - taste[-1]).sum() / 2
    assert change > 0.1
    assert np.abs(taste[0] - taste[1]).sum() / 2 < change / 5


def test_memory_is_bounded_by_a_part_of_a_day(process: Process) -> None:
    chunks = [len(chunk) for chunk in generate(process)]
    assert max(chunks) < 0.35 * SMALL.events / SMALL.days


def test_the_sidecar_rebuilds_the_process(tmp_path: Path, process: Process) -> None:
    beside = write(SMALL, tmp_path / "clicks.csv.gz")
    assert beside == tmp_path / "clicks.csv.gz.process.json"
    rebuilt = read_process(beside)
    assert rebuilt.item_ids == process.item_ids
    arrays: list[NDArray[Any]] = [process.near, process.near_chance, process.taste, process.popularity]
    for array, again in zip(
        arrays, (rebuilt.near, rebuilt.near_chance, rebuilt.taste, rebuilt.popularity), strict=True
    ):
        np.testing.assert_array_equal(array, again)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"parameters": {"version": 99}}', '{"parameters": {"color": 1}}'])
def test_what_is_no_sidecar_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "clicks.process.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"clicks\.process\.json"):
        read_process(path)


def test_a_missing_sidecar_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="nowhere"):
        read_process(tmp_path / "nowhere.json")


def test_a_run_that_fails_leaves_no_log(tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(SMALL, tmp_path / "clicks.csv", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def crawled() -> tuple[Parameters, list[Rows]]:
    parameters = SMALL.model_copy(update={"bots": 0.01})
    process = Process(parameters)
    return parameters, list(with_bots(process, generate(process)))


def test_bots_click_the_stated_rows_among_those_of_shoppers(crawled: tuple[Parameters, list[Rows]]) -> None:
    parameters, chunks = crawled
    rows = Rows.join(chunks)
    assert len(rows) == parameters.events
    assert (np.diff(rows.arrival) >= 0).all()
    clicks = np.bincount(rows.user, minlength=808)[800:]
    assert sorted(clicks) == parameters.bot_clicks.tolist()
    assert len(clicks) == 8
    clean = rows.take(rows.fault == 0)
    assert len(np.unique(clean.number)) == parameters.events - parameters.bad - parameters.duplicates
    assert max(map(len, chunks)) < len(rows) / 3


def test_bots_go_through_the_shop_at_a_steady_pace(crawled: tuple[Parameters, list[Rows]]) -> None:
    rows = Rows.join(crawled[1])
    for user in range(800, 808):
        own = rows.take(rows.user == user)
        assert set((np.diff(own.item) % 400).tolist()) == {1}
        pauses = np.diff(own.time)
        assert pauses.min() > 0.6 * pauses.mean()
        assert pauses.max() < 1.4 * pauses.mean()


def test_the_sidecar_names_the_bots(tmp_path: Path) -> None:
    log = tmp_path / "clicks.jsonl"
    named = orjson.loads(write(SMALL.model_copy(update={"bots": 0.01}), log).read_bytes())["bots"]
    assert named == [f"user-{number:05d}" for number in range(801, 809)]
    assert set(named) <= {event.user_id for event in read(log)[0]}


def test_bots_that_leave_no_shopper_a_row_are_refused() -> None:
    with pytest.raises(ValueError, match="bots leave no good row"):
        Parameters(events=1000, users=1000, bots=0.01)


def test_too_few_users_are_refused_with_a_number_that_suffices() -> None:
    few = SMALL.model_copy(update={"users": 100})
    with pytest.raises(SettingsError, match="100 users are too few") as error:
        list(generate(Process(few)))
    enough = int(str(error.value).partition("about ")[2].split()[0])
    assert len(Rows.join(list(generate(Process(few.model_copy(update={"users": enough})))))) == SMALL.events


@pytest.mark.parametrize("name", ["clicks.txt", ".csv", "clicks"])
def test_an_unknown_format_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="must end in"):
        sidecar(Path(name))


@pytest.mark.parametrize(("events", "users", "items"), [(1, 10, 10), (50, 20, 10), (3000, 200, 25)])
def test_small_shops_work(events: int, users: int, items: int) -> None:
    rows = Rows.join(list(generate(Process(Parameters(events=events, users=users, items=items, days=1)))))
    assert len(rows) == events
    assert {len(getattr(rows, column.name)) for column in fields(Rows)} == {events}


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "clicks.csv"
    arguments = ["--events", "500", "--users", "50", "--items", "40", "--start", "2026-05-01", "--out", str(out)]
    result = CliRunner().invoke(generate_command, arguments)
    assert result.exit_code == 0, result.output
    assert len(out.read_text().splitlines()) == 501
    assert read_process(tmp_path / "clicks.csv.process.json").parameters.start.isoformat() == "2026-05-01"


def test_the_command_names_a_wrong_option(tmp_path: Path) -> None:
    result = CliRunner().invoke(generate_command, ["--users", "0", "--out", str(tmp_path / "clicks.csv")])
    assert isinstance(result.exception, SettingsError)
    assert "--users" in str(result.exception)
