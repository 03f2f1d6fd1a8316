"""Topics read from where one says, with nothing committed on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from recsys.errors import UnavailableError
from recsys.kafka import librdkafka_options
from recsys.settings import KafkaSettings

REQUEST_SECONDS = 10.0

Place = tuple[int, int]  # partition and offset


def consumer_of(kafka: KafkaSettings, group: str | None = None, **options: str | int) -> Consumer:
    """A consumer that commits only what it is told to; without a group it never commits.

    ``options`` are librdkafka's, with underscores for dots.
    """
    group = group or f"{kafka.group}.dead-letter-reader"
    ours = {"group.id": group, "enable.auto.commit": False, "enable.partition.eof": True}
    more = {name.replace("_", "."): value for name, value in options.items()}
    return Consumer({**librdkafka_options(kafka), **ours, **more})


def read_ends(kafka: KafkaSettings, topic: str) -> dict[int, Place]:
    """By partition of a topic, the first offset that is there and the one after the last."""
    consumer = consumer_of(kafka)
    try:
        found = consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
        if found.error is not None:
            raise UnavailableError(f"the broker at {kafka.bootstrap_servers} has no topic {topic}: {found.error}")
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=REQUEST_SECONDS)
            for partition in sorted(found.partitions)
        }
    except KafkaException as error:
        raise away(kafka, error) from None
    finally:
        consumer.close()


def read(kafka: KafkaSettings, topic: str, ends: dict[int, Place]) -> Iterator[Message]:
    """The messages of each partition from its first offset up to its end.

    Raises:
        UnavailableError: the broker does not answer any more.
    """
    open_ends = {partition: end for partition, (begin, end) in ends.items() if begin < end}
    consumer = consumer_of(kafka)
    try:
        consumer.assign([TopicPartition(topic, partition, ends[partition][0]) for partition in open_ends])
        last_seen = time.monotonic()
        while open_ends:
            message = consumer.poll(0.2)
            if message is None:
                if time.monotonic() - last_seen > REQUEST_SECONDS:
                    raise away(kafka, f"no more records of {topic} come")
                continue
            last_seen = time.monotonic()
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            end = open_ends.get(partition, 0)
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise away(kafka, error.str())
            if error is not None or offset >= end - 1:  # the last offsets may hold no message
                open_ends.pop(partition, None)
            if error is None and offset < end:
                yield message
            last_seen = time.monotonic()
    except KafkaException as error:
        raise away(kafka, error) from None
    finally:
        consumer.close()


def away(kafka: KafkaSettings, error: object) -> UnavailableError:
    """The error that says so."""
    return UnavailableError(f"the broker at {kafka.bootstrap_servers} does not answer: {error}")
