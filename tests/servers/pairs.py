"""A broker and a store that tests share: the embedded ones, or Apache Kafka and Redis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.demo.commands import Commands
from tests.servers.kafka import PARTITIONS, Kafka
from tests.servers.redis import EmbeddedRedis, Redis


class Servers(ABC):
    """A broker at ``broker`` (host:port) and a store at ``store`` (a URL); topics have ``partitions``."""

    partitions: int

    def __init__(self, broker: str, store: str) -> None:
        self.broker = broker
        self.store = store

    @abstractmethod
    def create_topic(self, name: str) -> None:
        """See that the topic is there."""

    @abstractmethod
    def own_store(self, directory: Path) -> Redis:
        """A durable store of the same kind for one test, not started."""

    @abstractmethod
    @contextmanager
    def own_broker(self, commands: Commands, topics: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], None]]]:
        """Run a broker of the same kind for one test; gives its address, and what stops it."""


class EmbeddedServers(Servers):
    """What ``recsys services`` runs. Topics come into being when first named."""

    partitions = 4

    def create_topic(self, name: str) -> None:
        """Nothing to do."""

    def own_store(self, directory: Path) -> Redis:
        """See :class:`Servers`."""
        return EmbeddedRedis(directory, durable=True)

    @contextmanager
    def own_broker(self, commands: Commands, topics: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], None]]]:
        """See :class:`Servers`."""
        with commands.service("services") as services:
            (address,) = services.wait_for_line("export KAFKA_BOOTSTRAP_SERVERS=")
            yield address, services.process.terminate


class RealServers(Servers):
    """Apache Kafka and Debian's Redis."""

    partitions = PARTITIONS

    def __init__(self, kafka: Kafka, redis: Redis) -> None:
        super().__init__(kafka.address, redis.url)
        self.kafka = kafka
        self.redis = redis

    def create_topic(self, name: str) -> None:
        """See :class:`Servers`."""
        self.kafka.create_topic(name)

    def own_store(self, directory: Path) -> Redis:
        """See :class:`Servers`."""
        return Redis(directory, durable=True)

    @contextmanager
    def own_broker(self, commands: Commands, topics: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], None]]]:
        """See :class:`Servers`."""
        with Kafka(commands.directory / "kafka") as kafka:
            for topic in topics:
                kafka.create_topic(topic)
            yield kafka.address, kafka.stop
