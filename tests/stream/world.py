"""What tests of the worker share: topics and keys of a test's own, clicks to send, and what must come of them."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count as count_from
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from recsys.demo.commands import Commands, Service, get_text
from recsys.demo.figures import Reading
from recsys.position import BEGINNING, Progress
from recsys.published import Bundles
from recsys.serving import CurrentModel
from recsys.settings import RedisSettings, WorkerSettings
from recsys.state import RecommendationList, UserState
from recsys.store import Store
from stream.dead_letter import DeadLetter, Record
from stream.processor import Processor
from tests.servers.pairs import Servers
from tests.servers.redis import client_of

# For tests to which it makes no difference which broker and store it is.
on_embedded_servers = pytest.mark.parametrize("servers", ["embedded"], indirect=True)

START = 1_700_000_000_000
POISON = (b"not json", b"\xff\xfe", b"", b'{"user_id": "nobody"}')


@dataclass
class World:
    """Topics and keys of a test's own."""

    servers: Servers
    bundles: Path
    commands: Commands
    prefix: str

    def __post_init__(self) -> None:
        self.broker, self.store = self.servers.broker, self.servers.store
        self.partitions = self.servers.partitions
        self.topic, self.dead_letter_topic = f"clicks-{self.prefix}", f"dead-{self.prefix}"

    @contextmanager
    def worker(self, *flags: str) -> Iterator[Service]:
        """Run a worker while the block lasts, its log in a directory of its own; several may run side by side."""
        directory = self.commands.directory / f"worker-{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        commands = Commands(directory, self.commands.environment)
        with commands.service("worker", "--bundles", str(self.bundles), "--metrics-port", "0", *flags) as service:
            service.wait_for_line("worker: metrics on ")
            yield service

    def produce(self, values: Sequence[tuple[str, bytes]], pause: float = 0.0) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.broker,
                "linger.ms": 0,
                "enable.idempotence": True,  # or a retry may send a click twice
                "partitioner": "murmur2_random",
                "topic.metadata.refresh.interval.ms": 500,  # partitions may be added meanwhile
                "log_level": 0,
            }
        )
        for key, value in values:
            producer.produce(self.topic, key=key, value=value)
            producer.poll(0)
            time.sleep(pause)
        assert producer.flush(150) == 0

    @contextmanager
    def producing(self, made: Sequence[tuple[str, bytes]], pause: float) -> Iterator[threading.Thread]:
        """Send clicks beside the block, and wait for the last at its end."""
        producing = threading.Thread(target=self.produce, args=(made, pause))
        producing.start()
        try:
            yield producing
        finally:
            producing.join()

    def records(self, count: int, topic: str | None = None) -> list[Record]:
        """The first ``count`` records of the topic."""
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": f"reader-{uuid.uuid4().hex}"})
        consumer.assign([TopicPartition(topic or self.topic, partition, 0) for partition in range(self.partitions)])
        found: list[Record] = []
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            message: Message | None = consumer.poll(0.2)
            if message is not None and not message.error():
                key, value = message.key(), message.value()
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                found.append(Record(key, value, partition, offset, message.timestamp()[1]))
        consumer.close()
        assert len(found) == count
        return found

    def all_records(self) -> list[Record]:
        """The records of the topic that are there now."""
        return self.records(sum(self.offsets()[1].values()))

    def letters(self) -> set[tuple[int, int, str]]:
        """Partition, offset and reason of all that was dead-lettered, each once."""
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": f"reader-{uuid.uuid4().hex}"})
        topics = [TopicPartition(self.dead_letter_topic, partition) for partition in range(self.partitions)]
        count = sum(consumer.get_watermark_offsets(each, timeout=10)[1] for each in topics)
        consumer.close()
        letters = [json.loads(record.value or b"") for record in self.records(count, self.dead_letter_topic)]
        return {(letter["partition"], letter["offset"], letter["reason"]) for letter in letters}

    def offsets(self) -> tuple[dict[int, int], dict[int, int]]:
        """By partition, the offset that the group has committed, and the end of what was produced."""
        group = self.commands.environment["RECSYS_KAFKA__GROUP"]
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": group})
        partitions = [TopicPartition(self.topic, partition) for partition in range(self.partitions)]
        committed = {each.partition: max(each.offset, 0) for each in consumer.committed(partitions, timeout=10)}
        ends = {each.partition: consumer.get_watermark_offsets(each, timeout=10)[1] for each in partitions}
        consumer.close()
        return committed, ends

    def wait_until_committed(self, seconds: float = 60) -> None:
        """Wait until the group has committed all that was produced."""
        deadline = time.monotonic() + seconds
        while True:
            committed, ends = self.offsets()
            if committed == ends:
                return
            assert time.monotonic() < deadline, (committed, ends)
            time.sleep(0.2)

    def assert_states_are_at_least(self, committed: dict[int, int]) -> None:
        """Every usable click before the committed offsets is in its user's state."""
        states = {name: UserState.unpack(value) for name, value in self.contents().items() if name.startswith("s:")}
        for record in self.all_records():
            if record.offset < committed[record.partition] and record.value not in POISON:
                user = json.loads(record.value or b"")["user_id"]
                assert states[f"s:{{{user}}}"].position.offset >= record.offset

    def contents(self, prefix: str | None = None) -> dict[str, bytes]:
        """All states and lists, the time of writing left out."""
        found = {}
        client = client_of(self.store)
        start = f"{prefix or self.prefix}:"
        for key in client.scan_iter(f"{start}[sl]:*", count=1000):
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
        return self.clean_run_of(self.records(count))[0]

    def clean_run_of(self, *topics: list[Record]) -> tuple[dict[str, bytes], set[tuple[int, int, str]]]:
        """What a run without any accident leaves of a topic's records, and of those of the ones created anew after.

        As :meth:`contents`, and as :meth:`letters`.
        """
        prefix = f"clean-{uuid.uuid4().hex}"
        sent: list[DeadLetter] = []

        async def keep(letters: Sequence[DeadLetter]) -> None:
            sent.extend(letters)

        async def process() -> None:
            store = Store(RedisSettings(url=self.store, prefix=prefix))
            model = CurrentModel(Bundles(self.bundles))
            for epoch, records in enumerate(topics):
                processor = Processor(model, store, WorkerSettings(epoch=epoch), keep)
                await processor.process(sorted(records, key=lambda record: (record.partition, record.offset)))
            await store.close()

        asyncio.run(process())
        letters = {(letter.record.partition, letter.record.offset, letter.reason) for letter in sent}
        return self.contents(prefix), letters

    def wait_for(self, expected: dict[str, bytes], seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.contents()) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        assert found == expected


def without_positions(contents: dict[str, bytes]) -> dict[str, object]:
    """States and lists, whatever the order in which a user's partitions were read.

    What a state has applied is compared as the last offset of each partition.
    """
    found: dict[str, object] = {}
    for name, value in contents.items():
        if name.startswith("l:"):
            found[name] = replace(RecommendationList.unpack(value), position=BEGINNING).pack()
        else:
            state = UserState.unpack(value)
            last, state.progress = state.progress, Progress()
            found[name] = state.pack(), last.elsewhere | {last.last.partition: last.last.offset}
    return found


def metrics(worker: Service) -> Reading:
    return Reading.of(get_text(worker.wait_for_line("worker: metrics on ")[0]))


def first_deliveries(worker: Service) -> int:
    """How many clicks a worker has dealt with, those left out that it found in the states already."""
    text = get_text(worker.wait_for_line("worker: metrics on ")[0])
    again = re.search(r'^recsys_clicks_skipped_total{reason="redelivered"} (\S+)', text, re.MULTILINE)
    return Reading.of(text).dealt_with - (round(float(again[1])) if again else 0)


def wait_until_dealt_with(worker: Service, count: int) -> None:
    deadline = time.monotonic() + 30
    while metrics(worker).dealt_with < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def clicks(count: int, seed: int, users: int = 20) -> list[tuple[str, bytes]]:
    """Clicks of several users with session ends, repeats, duplicates, late and bad ones among them."""
    return list(islice(_clicks(seed, users), count))


def _clicks(seed: int, users: int) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(seed)
    now, made = START, ("", b"")
    for index in count_from(0):
        now += chance.choice([500, 5_000, 400_000])
        user = f"user-{chance.randrange(users)}"
        late = chance.choice([0, 0, 0, 0, 30_000])
        event = {"user_id": user, "item_id": f"item-{chance.randrange(52):03d}", "timestamp": now - late}
        if index % 17 == 0:
            made = (user, b"not json")
        elif index % 13:
            made = (user, json.dumps(event).encode())
        yield made


def hostile_clicks(seed: int, users: int = 20) -> Iterator[tuple[str, bytes]]:
    """Clicks without end, some of which a producer sends two or three times, half with ids; every ninth is poison."""
    chance = random.Random(seed)
    for index, (user, value) in enumerate(_clicks(seed, users)):
        with_id = value != b"not json" and chance.random() < 0.5
        sent = json.dumps(json.loads(value) | {"event_id": f"e-{index}"}).encode() if with_id else value
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            yield user, sent
        if index % 9 == 0:
            yield user, chance.choice(POISON)


def single_sessions(count: int, seed: int, users: int) -> list[tuple[str, bytes]]:
    """Clicks of which each user's are one session, so that their order does not matter while a state carries them."""
    chance = random.Random(seed)
    made = []
    for index in range(count):
        user = f"user-{index % users}"
        event = {"user_id": user, "item_id": f"item-{chance.randrange(50):03d}", "timestamp": START + 1000 * index}
        made.append((user, json.dumps(event).encode()))
    return made
