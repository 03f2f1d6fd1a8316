"""``recsys archive``: exactly the clicks of the topic, each once, whatever happens to the process and the topic."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import KafkaError, Message, Producer, TopicPartition

from recsys.archive import SCHEMA, Archive, Counts
from recsys.cli import main
from recsys.dataset import Dataset
from recsys.errors import EventError, RecsysError, SettingsError, UnavailableError
from recsys.events import ClickEvent, decode, encode
from recsys.reading import read_ends
from recsys.settings import Settings
from recsys.settings_in_force import load_settings
from stream.archiver import Archiver
from stream.dead_letter import Record
from stream.embedded import embedded_broker
from stream.harvest import Harvest
from tests.servers.pairs import RealServers, Servers
from tests.stream.conftest import make_world
from tests.stream.world import POISON, START, World, hostile_clicks

DAY = 86_400_000
KILLS = 2
SECRET = "a secret of the shop"


@pytest.fixture
def world(embedded_servers: Servers, bundles: Path, tmp_path: Path) -> World:
    """Topics of a test's own on the embedded servers."""
    return make_world(embedded_servers, bundles, tmp_path)


def settings_of(world: World, **sections: dict[str, Any]) -> Settings:
    kafka = {"bootstrap_servers": world.broker, "topic": world.topic, "group": world.prefix}
    return load_settings({"kafka": kafka, **sections})


def keep(world: World, path: Path, **sections: dict[str, Any]) -> Counts:
    """Archive what is there now."""
    with Archive.open(path, create=True) as archive:
        archiver = Archiver(settings_of(world, **sections), archive)
        archiver.run(lambda: False, until_now=True)
    return archiver.counts


def rows_of(path: Path) -> list[dict[str, Any]]:
    with Archive.open(path) as archive:
        tables = [pq.ParquetFile(each).read() for each in archive.clicks()]
    rows: list[dict[str, Any]] = pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pylist()
    return rows


def letters_of(path: Path) -> list[dict[str, Any]]:
    with Archive.open(path) as archive:
        return [json.loads(line) for each in archive.dead_letters() for line in each.read_text().splitlines()]


def event_of(row: dict[str, Any]) -> ClickEvent:
    context, extra = (json.loads(row[name]) if row[name] else None for name in ("context", "extra"))
    fields = {name: row[name] for name in ("user_id", "item_id", "timestamp", "event_type", "event_id")}
    return ClickEvent(**fields, context=context, extra=extra or {})


def assert_holds(path: Path, records: Sequence[Record]) -> None:
    """The archive has these records, each once, as a click of its day or as a dead letter, and its counts say so."""
    clicks, dead = {}, {}
    for record in records:
        try:
            clicks[record.partition, record.offset] = decode(record.value or b"")
        except EventError as error:
            dead[record.partition, record.offset] = error.code, record.value
    rows, letters = rows_of(path), letters_of(path)
    assert {(row["partition"], row["offset"]): event_of(row) for row in rows} == clicks
    assert len(rows) == len(clicks)
    assert {(each["partition"], each["offset"]): each["reason"] for each in letters} == {
        place: reason for place, (reason, _) in dead.items()
    }
    assert len(letters) == len(dead)
    with Archive.open(path) as archive:
        for file in archive.clicks():
            times = pq.ParquetFile(file).read()["timestamp"].to_numpy()
            days = {str(day) for day in times.astype("datetime64[ms]").astype("datetime64[D]")}
            assert days == {file.parent.name}
        assert archive.position is not None
        counts = archive.position.counts
    assert (counts.records, counts.clicks, counts.dead_letters) == (len(records), len(clicks), len(dead))


def changes_of(path: Path) -> int:
    """How often the archive has changed, whoever holds it."""
    position = path / "_position.json"
    return int(json.loads(position.read_text())["changes"]) if position.exists() else 0


def test_kill_minus_9_at_any_moment_keeps_each_click_once(world: World, tmp_path: Path) -> None:
    out, chance = tmp_path / "archive", random.Random(5)
    made = hostile_clicks(seed=5)
    world.produce([next(made) for _ in range(300)])
    for _ in range(KILLS):
        before = changes_of(out)
        with world.commands.service("archive", "--out", str(out), "--flush-seconds", "0.02") as service:
            service.wait_for_line("archive: ")
            with pytest.raises(RecsysError, match="another process writes"), Archive.open(out):
                pass
            with world.producing([next(made) for _ in range(300)], pause=0.003):
                deadline = time.monotonic() + 30
                while changes_of(out) == before:
                    assert time.monotonic() < deadline
                    service.check()
                time.sleep(chance.uniform(0, 0.3))
                service.process.kill()
                service.process.wait()
    keep(world, out)
    assert changes_of(out) >= KILLS
    assert_holds(out, world.all_records())


def test_a_clean_stop_writes_what_waits(world: World, tmp_path: Path) -> None:
    world.produce([("u", click("u", second)) for second in range(40)])
    for seconds in (1, 4, 16):  # the reader may be slow to begin
        with world.commands.service("archive", "--out", str(tmp_path / "archive")) as service:
            service.wait_for_line("archive: ")
            time.sleep(seconds)
            service.process.terminate()
            assert service.process.wait(20) == 0
        if json.loads(service.log.read_text().splitlines()[-1])["records"]:
            break
    assert_holds(tmp_path / "archive", world.all_records())


def click(user: str, second: int, **fields: Any) -> bytes:
    return encode(ClickEvent(user, f"item-{second % 5}", START + 1000 * second, **fields))


def test_late_clicks_and_all_fields_land_in_their_day(world: World, tmp_path: Path) -> None:
    out, day = tmp_path / "archive", START // DAY * DAY
    full = {"event_type": "cart", "event_id": "e-1", "context": {"surface": "home"}, "extra": {"price": 1.5, "user": 7}}
    world.produce([("u", click("u", 0, **full)), ("u", encode(ClickEvent("u", "i", day + DAY)))])
    keep(world, out)
    late = [encode(ClickEvent("v", "i", time)) for time in (day, day - 1, day + DAY - 1, 100_000_000_000)]
    world.produce([("v", value) for value in late])
    assert keep(world, out) == Counts(records=4, clicks=4)
    assert_holds(out, world.all_records())
    with Archive.open(out) as archive:
        days = [path.parent.name for path in archive.clicks()]
    assert days == ["1973-03-03", "2023-11-13", "2023-11-14", "2023-11-14", "2023-11-15"]


def test_what_comes_with_an_error_is_kept(world: World, tmp_path: Path) -> None:
    world.produce([("u", click("u", 0))])
    (record,) = world.records(1)
    place: dict[str, Any] = {"topic": world.topic, "partition": record.partition}
    came = Message(**place, offset=record.offset, key=record.key, value=record.value)
    error = Message(**place, offset=0, error=KafkaError(KafkaError._AUTO_OFFSET_RESET))
    with Archive.open(tmp_path / "archive", create=True) as archive:
        archiver = Archiver(settings_of(world), archive)
        with pytest.raises(UnavailableError, match="start again"):
            archiver.take([came, error])
        archiver.run(lambda: True)
    assert_holds(tmp_path / "archive", [record])


def test_a_click_that_cannot_be_written_is_a_dead_letter_and_stops_nobody(world: World, tmp_path: Path) -> None:
    """JSON that nests this deep can be read, but not written."""
    deep = b'{"user_id":"u","item_id":"i","timestamp":%d,"context":%s}' % (START, b'{"a":' * 400 + b"1" + b"}" * 400)
    world.produce([("u", click("u", 0)), ("u", deep), ("u", click("u", 1))])
    assert keep(world, tmp_path / "archive") == Counts(records=3, clicks=2, dead_letters=1)
    (letter,) = letters_of(tmp_path / "archive")
    assert (letter["reason"], letter["value"]) == ("not_json", deep.decode())


def test_the_size_that_waits_is_bounded(world: World, tmp_path: Path) -> None:
    world.produce([("u", click("u", second, context={"text": "x" * 8000})) for second in range(300)])
    keep(world, tmp_path / "archive", archive={"flush_mib": 1})
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.position is not None
        assert archive.position.changes > 1
    assert_holds(tmp_path / "archive", world.all_records())


def test_records_without_a_value_take_memory_too() -> None:
    """A topic may be full of them, as of marks of deletion in one that is compacted."""
    harvest = Harvest("clicks", None)
    harvest.take([Message(topic="clicks", partition=0, offset=offset, key=b"u") for offset in range(1000)])
    assert harvest.counts == Counts(records=1000, dead_letters=1000)
    assert harvest.size > 100 * 1000


def recsys(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["recsys", *map(str, arguments)])
    main()


def shop_clicks() -> list[ClickEvent]:
    """Some days of clicks with duplicates, event ids, types and users that come again."""
    chance, now, made = random.Random(6), START, list[ClickEvent]()
    for number in range(1500):
        now += chance.choice([1000, 90_000, 900_000])
        kind, name = chance.choice(["view", "view", "cart"]), f"e-{number}" if number % 3 else None
        made.append(ClickEvent(f"user-{chance.randrange(30)}", f"item-{chance.randrange(20):02}", now, kind, name))
        made += made[-1:] * (number % 50 == 0)
    return made


@pytest.mark.parametrize("secret", ["", SECRET])
def test_sessions_of_the_archive_are_those_of_the_log(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """With user ids in clear, and with the same key for both."""
    monkeypatch.setenv("RECSYS_PRIVACY__KEY", secret)
    made, log, out = shop_clicks(), tmp_path / "clicks.jsonl", tmp_path / "archive"
    log.write_bytes(b"".join(encode(event) + b"\n" for event in made))
    for part in (made[:700], made[700:]):
        world.produce([(event.user_id, encode(event)) for event in part] + [("u", POISON[0])])
        keep(world, out)
    recsys(monkeypatch, "sessions", log, "--out", tmp_path / "of-log")
    recsys(monkeypatch, "sessions", out, "--out", tmp_path / "of-archive")
    log_made, archive_made = (Dataset.open(tmp_path / name).manifest for name in ("of-log", "of-archive"))
    assert archive_made.content_hash == log_made.content_hash
    assert archive_made.counts == log_made.counts


def test_another_topic_or_another_key_is_refused(world: World, tmp_path: Path) -> None:
    world.produce([("u", click("u", 0))])
    out = tmp_path / "archive"
    keep(world, out, privacy={"key": SECRET})
    with pytest.raises(SettingsError, match=r"privacy\.key: .*hashed by the key"):
        keep(world, out)
    with pytest.raises(SettingsError, match=r"privacy\.key"):
        keep(world, out, privacy={"key": SECRET[::-1]})
    assert SECRET not in (out / "_position.json").read_text()
    world.topic = "another"
    with pytest.raises(SettingsError, match=r"kafka\.topic: .* keeps the topic clicks-"):
        keep(world, out, privacy={"key": SECRET})


def test_a_topic_that_is_shorter_than_the_archive_is_no_surprise(world: World, tmp_path: Path) -> None:
    """A broker without topic ids, as the embedded one, has made it anew: whoever knows says so by the epoch."""
    out, first = tmp_path / "archive", [("u", click("u", second)) for second in range(9)]
    world.produce(first)
    keep(world, out)
    with Archive.open(out) as archive:
        assert archive.position is not None
        with archive.change(archive.position) as change:
            offsets = {partition: offset + 100 for partition, offset in change.position.offsets.items()}
            change.position = change.position.model_copy(update={"offsets": offsets})
    with pytest.raises(RecsysError, match=r"raise worker\.epoch by one"):
        keep(world, out)
    assert keep(world, out, worker={"epoch": 1}).clicks == 9
    assert keep(world, out, worker={"epoch": 1}).clicks == 0


def test_a_broker_that_stays_away_ends_it_and_what_was_read_is_kept(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", create=True) as archive, ExitStack() as broker:
        address = broker.enter_context(embedded_broker(("clicks",)))
        producer = Producer({"bootstrap.servers": address, "log_level": 0})
        for second in range(9):
            producer.produce("clicks", click("u", second), b"u")
        assert producer.flush(10) == 0
        del producer
        settings = load_settings({"kafka": {"bootstrap_servers": address}, "worker": {"retry_seconds": 1}})
        archiver = Archiver(settings, archive)
        ends = {partition: end for partition, (_, end) in read_ends(settings.kafka, "clicks").items()}

        def stop() -> bool:
            if archiver._next == ends:
                broker.close()
            return False

        with pytest.raises(UnavailableError) as raised:
            archiver.run(stop)
        assert str(raised.value).count("does not answer") == 1
        assert archiver.counts == Counts(records=9, clicks=9)
        assert archive.position is not None
        assert archive.position.offsets == ends


def test_with_a_key_nobody_is_named(world: World, tmp_path: Path) -> None:
    user = "visitor-17"
    full: dict[str, Any] = {"event_id": f"{user}/1", "context": {"who": user}, "extra": {"mail": f"{user}@shop"}}
    world.produce([(user, click(user, 0, **full)), (user, user.encode()), (user, click(user, 1))])
    keep(world, tmp_path / "archive", privacy={"key": SECRET})
    rows, letters = rows_of(tmp_path / "archive"), letters_of(tmp_path / "archive")
    assert user not in json.dumps([rows, letters])
    assert len({row["user_id"] for row in rows}) == 1
    assert {(row["context"], row["extra"]) for row in rows} == {(None, None)}
    assert [letter["reason"] for letter in letters] == ["not_json"]
    raw = b"".join(path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file())
    assert user.encode() not in raw
    assert SECRET.encode() not in raw


def test_a_topic_that_grows_or_is_created_anew(real_servers: RealServers, bundles: Path, tmp_path: Path) -> None:
    world, out = make_world(real_servers, bundles, tmp_path), tmp_path / "archive"
    world.produce([(f"u-{second}", click(f"u-{second}", second)) for second in range(50)])
    with Archive.open(out, create=True) as archive:
        archiver = Archiver(settings_of(world, archive={"flush_seconds": 0.1}), archive)
        deadline, grown = time.monotonic() + 60, False

        def stop() -> bool:
            nonlocal grown
            if archiver.counts.clicks == 50 and not grown:
                real_servers.kafka.grow_topic(world.topic, world.partitions + 2)
                world.produce([(f"v-{second}", click(f"v-{second}", second)) for second in range(50)])
                grown = True
            return archiver.counts.clicks == 100 or time.monotonic() > deadline

        archiver.run(stop)
        world.partitions += 2
        assert any(record.partition >= world.partitions - 2 for record in world.all_records())
    assert_holds(out, world.all_records())

    with Archive.open(out) as archive:
        archiver = Archiver(settings_of(world), archive)
        anew = iter([lambda: None, lambda: recreate(world, real_servers)])

        def watch() -> bool:
            next(anew, lambda: None)()
            return False

        with pytest.raises(UnavailableError, match="start again"):
            archiver.run(watch)
    world.partitions -= 2
    world.produce([("w", click("w", 1)), ("w", click("w", 2))])
    assert keep(world, out) == Counts(records=2, clicks=2)
    assert keep(world, out) == Counts()
    assert sorted(row["user_id"] for row in rows_of(out))[-2:] == ["w", "w"]
    assert len(rows_of(out)) == 102


def test_records_that_are_gone_too_soon_are_counted(real_servers: RealServers, bundles: Path, tmp_path: Path) -> None:
    world, out = make_world(real_servers, bundles, tmp_path), tmp_path / "archive"
    world.produce([(f"u-{second}", click(f"u-{second}", second)) for second in range(5)])
    assert keep(world, out) == Counts(records=5, clicks=5)
    world.produce([(f"u-{second}", click(f"u-{second}", second)) for second in range(20)])
    ends = [TopicPartition(world.topic, partition, end) for partition, end in world.offsets()[1].items()]
    for deleted in real_servers.kafka.admin.delete_records(ends).values():
        deleted.result(20)
    world.produce([("v", click("v", second)) for second in range(3)])
    assert keep(world, out) == Counts(records=3, clicks=3, missed=20)
    assert keep(world, out) == Counts()
    with Archive.open(out) as archive:
        assert archive.position is not None
        assert archive.position.counts == Counts(records=8, clicks=8, missed=20)


def recreate(world: World, servers: RealServers) -> None:
    servers.kafka.delete_topic(world.topic)
    deadline = time.monotonic() + 30
    while True:
        try:
            servers.kafka.create_topic(world.topic)
            break
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.2)
