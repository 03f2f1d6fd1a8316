"""What benchmarks of the stream share: a shop's clicks, servers, and workers on cores of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import redis
from confluent_kafka import Producer
from numpy.typing import NDArray

from recsys.bundle import Model
from recsys.demo.commands import Service, get_text
from recsys.demo.figures import Reading
from recsys.settings import ModelSettings
from recsys.state import RecommendationList
from recsys.vocabulary import Vocabulary
from tests.benchmarks.lookup import cpu_seconds
from tests.conftest import publish, random_model
from tests.servers.kafka import Kafka
from tests.servers.redis import Redis

PARTITIONS = 8


@dataclass(frozen=True)
class Mix:
    """Visitors as a shop has them: ``rate`` clicks a second, sessions of ``length`` clicks, ``pause`` seconds apart.

    Lengths are geometric and pauses exponential, all by their means; items are popular by Zipf's law.
    """

    rate: float = 500.0
    length: float = 8.0
    pause: float = 20.0

    def clicks(self, count: int, items: int, seed: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64], list[bytes]]:
        """Users, times in ms from the first click on, and values of ``count`` clicks of a shop long open."""
        rng = np.random.default_rng(seed)
        span = count / self.rate
        before = 5 * self.length * self.pause  # sessions that began then and still go on
        sessions = int((span + before) * self.rate / self.length * 1.1) + 100
        lengths = rng.geometric(1 / self.length, sessions)
        user = np.repeat(np.arange(sessions), lengths)
        pauses = rng.exponential(self.pause, len(user))
        starts = np.cumsum(lengths) - lengths
        pauses[starts] = rng.uniform(0, (span + before) * 1.1, sessions)
        elapsed = np.cumsum(pauses)
        when = elapsed - np.repeat(elapsed[starts] - pauses[starts], lengths)
        order = np.argsort(when, kind="stable")
        order = order[np.searchsorted(when[order], before) :][:count]
        assert len(order) == count
        time_ms = ((when[order] - before) * 1000).astype(np.int64)
        rows = np.minimum(rng.zipf(1.2, count) - 1, items - 1)
        begin = time.time_ns() // 1_000_000 - int(time_ms[-1])
        values = [
            b'{"user_id":"u-%d","item_id":"item-%09d","timestamp":%d,"event_type":"view"}' % (who, row, begin + at)
            for who, row, at in zip(user[order].tolist(), rows.tolist(), time_ms.tolist(), strict=True)
        ]
        return user[order], time_ms, values


def shop_model(items: int, units: int, seed: int = 0) -> Model:
    """A model with random weights of the items that :class:`Mix` clicks."""
    model = random_model(items, units, seed=seed, followers=ModelSettings().followers)
    return replace(model, vocabulary=Vocabulary([f"item-{row:09d}" for row in range(items)], model.vocabulary.counts))


def producer_to(broker: str) -> Producer:
    """A producer that places users as the product's does."""
    options = {"linger.ms": 0, "partitioner": "murmur2_random", "queue.buffering.max.messages": 2_000_000}
    return Producer({"bootstrap.servers": broker, **options})


class Bench:
    """Kafka, Redis and a published random model; workers read a topic into keys of their own."""

    def __init__(self, directory: Path, stack: ExitStack, items: int, units: int, length: int) -> None:
        self.directory = directory
        self.kafka = stack.enter_context(Kafka(directory / "kafka"))
        self.redis = stack.enter_context(Redis(directory / "redis"))
        self.items, self.units = items, units
        self.environment = dict(os.environ) | {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.address,
            "REDIS_URL": self.redis.url,
            "RECSYS_BUNDLES": str(directory / "bundles"),
            "RECSYS_WORKER__LIST_LENGTH": str(length),
            "RECSYS_WORKER__METRICS_PORT": "0",
            "RECSYS_KAFKA__DEAD_LETTER_TOPIC": "dead",
        }
        publish(directory / "bundles", shop_model(items, units))
        self.kafka.create_topic("dead")

    def load(self, topic: str, values: list[bytes]) -> None:
        """Put clicks into a new topic."""
        self.kafka.create_topic(topic, PARTITIONS)
        producer = producer_to(self.kafka.address)
        for value in values:
            producer.produce(topic, key=value[12 : value.index(b'"', 12)], value=value)
            if len(producer) > 500_000:
                producer.poll(0.1)
        assert producer.flush(120) == 0

    @contextmanager
    def worker(self, topic: str, run: str, cores: str, settings: Mapping[str, object]) -> Iterator[Service]:
        """A worker of the group ``run`` that writes under that prefix, on these cores."""
        environment = self.environment | {
            "RECSYS_KAFKA__TOPIC": topic,
            "RECSYS_KAFKA__GROUP": run,
            "RECSYS_REDIS__PREFIX": run,
        }
        environment |= {f"RECSYS_WORKER__{name.upper()}": str(value) for name, value in settings.items()}
        log = Path(tempfile.mkstemp(dir=self.directory, suffix=".log")[1])
        command = ["taskset", "-c", cores, sys.executable, "-m", "recsys", "worker"]
        with log.open("wb") as file, subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process:
            try:
                service = Service("worker", process, log)
                service.wait_for_line("worker: metrics on ")
                yield service
            finally:
                process.terminate()

    def lists(self, run: str) -> dict[bytes, bytes]:
        """What a run left in the store, without the time of writing of each list."""
        client = redis.Redis.from_url(self.redis.url)
        found: dict[bytes, bytes] = {}
        keys = list(client.scan_iter(f"{run}:*", count=10_000))
        for first in range(0, len(keys), 10_000):
            some = keys[first : first + 10_000]
            values: Any = client.mget(some)
            found |= {
                key.removeprefix(run.encode()): _timeless(key, value) for key, value in zip(some, values, strict=True)
            }
        return found


def _timeless(key: bytes, value: bytes) -> bytes:
    return replace(RecommendationList.unpack(value), written=0).pack() if b":l:" in key else value


def metrics(worker: Service) -> str:
    """What the worker tells Prometheus."""
    return get_text(worker.wait_for_line("worker: metrics on ")[0])


def reading(worker: Service) -> Reading:
    """The worker's counters now."""
    return Reading.of(metrics(worker))


def cpu(worker: Service) -> float:
    """Processor seconds that the worker has used."""
    return cpu_seconds(worker.process.pid)
