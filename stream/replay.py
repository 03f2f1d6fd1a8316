"""A click log sent into Kafka as if its visitors were here now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from numpy.typing import NDArray

from recsys.columns import Clock, EventColumns
from recsys.errors import EventError, MissingInputError, UnavailableError
from recsys.events import ClickEvent, encode
from recsys.kafka import librdkafka_options
from recsys.logs.blocks import decode_block, read_blocks
from recsys.logs.parsed import Parsed
from recsys.logs.records import Oversized
from recsys.logs.sources import Source
from recsys.settings import KafkaSettings

FLUSH_SECONDS = 30

Delivered = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True)
class Pace:
    """How fast: ``rate`` clicks a second, or ``speed`` times as fast as they came, or as fast as the broker takes them.

    After ``seconds`` the replay ends, finished or not.
    """

    rate: float | None = None
    speed: float | None = None
    seconds: float | None = None

    def due(self, number: int, elapsed_ms: int) -> float:
        """Seconds after the start at which click ``number`` is due, ``elapsed_ms`` after the first in the log."""
        if self.rate is not None:
            return number / self.rate
        return elapsed_ms / 1000 / self.speed if self.speed is not None else 0.0


@dataclass(frozen=True)
class Sent:
    """What was sent, and how many clicks were ``left_out`` since they cannot be written.

    ``next`` is the time of the first click that was not come to (epoch milliseconds): go on from there.
    """

    sent: int
    left_out: int
    seconds: float
    rate: float
    next: int
    last_user: str | None


class ClickLog:
    """The clicks of a log from one time up to another (epoch milliseconds, the end not included), in order of time.

    Holds the blocks of the files that have such clicks, so memory is bounded by the size of that part of the log.
    """

    def __init__(self, sources: Sequence[Source], clock: Clock, since: int, until: int) -> None:
        self._blocks: list[tuple[Parsed, EventColumns]] = []
        positions: list[NDArray[np.int64]] = []
        self.unusable = 0
        for block in (block for source in sources for block in read_blocks(source)):
            columns, refused = decode_block(block, clock)
            self.unusable += len(refused)
            if columns is None or isinstance(block.parsed, Oversized):
                continue
            chosen = np.flatnonzero((columns.times >= since) & (columns.times < until))
            if len(chosen):
                number = np.full(len(chosen), len(self._blocks))
                positions.append(np.stack([columns.times[chosen], number, chosen], axis=1))
                self._blocks.append((block.parsed, columns))
        if not positions:
            raise MissingInputError("no click of the log is in that stretch of time")
        merged = np.concatenate(positions)
        self._order = merged[np.lexsort((merged[:, 2], merged[:, 1], merged[:, 0]))]

    def __len__(self) -> int:
        return len(self._order)

    @property
    def times(self) -> NDArray[np.int64]:
        """int64 ``[clicks]``: epoch milliseconds."""
        return self._order[:, 0]

    def __iter__(self) -> Iterator[ClickEvent]:
        for _, block, index in self._order.tolist():
            parsed, columns = self._blocks[block]
            fields = parsed.fields_of(int(columns.rows[index]))
            yield ClickEvent(
                columns.users[index].as_py(),
                columns.items[index].as_py(),
                int(columns.times[index]),
                columns.types[index].as_py(),
                str(fields["event_id"]) if fields.get("event_id") not in {None, ""} else None,
                fields.get("context"),
            )


def replay(log: ClickLog, kafka: KafkaSettings, pace: Pace, advance: Callable[[], object]) -> Sent:
    """Send the clicks at a pace; ``advance`` is called after each.

    Raises:
        UnavailableError: the broker does not answer, or does not take a click.
    """
    producer = connect(kafka)
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    times, sent, left_out, user = log.times, 0, 0, None
    start = time.monotonic()
    for number, event in enumerate(log):
        wait = start + pace.due(number, int(times[number] - times[0])) - time.monotonic()
        if pace.seconds is not None and time.monotonic() + max(wait, 0) - start > pace.seconds:
            break
        if wait > 0:
            producer.poll(0)
            time.sleep(wait)
        try:
            value = encode(event)
        except EventError:
            left_out += 1
        else:
            produce(producer, kafka.topic, event.user_id.encode(), value, delivered)
            refuse(failures, kafka)
            sent, user = sent + 1, event.user_id
        advance()
    flush(producer, failures, kafka)
    seconds = time.monotonic() - start
    passed = sent + left_out
    rest = int(times[passed]) if passed < len(log) else int(times[-1]) + 1
    return Sent(sent, left_out, round(seconds, 3), round(sent / seconds, 1), rest, user)


def connect(kafka: KafkaSettings) -> Producer:
    """A producer of clicks.

    Raises:
        UnavailableError: the broker does not answer.
    """
    producer = Producer(
        {
            **librdkafka_options(kafka),
            "acks": "all",
            "linger.ms": 1,
            # As all other clients do: a user's clicks must meet in one partition, whichever door they come by.
            "partitioner": "murmur2_random",
        }
    )
    try:
        producer.list_topics(kafka.topic, timeout=5)
    except KafkaException as error:
        raise UnavailableError(f"the broker at {kafka.bootstrap_servers} does not answer: {error}") from None
    return producer


def produce(producer: Producer, topic: str, key: bytes | None, value: bytes, delivered: Delivered) -> None:
    """Hand a click to the producer, waiting where it has too many in hand."""
    while True:
        try:
            producer.produce(topic, key=key, value=value, on_delivery=delivered)
        except BufferError:  # the broker is slower than we are
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def flush(producer: Producer, failures: list[KafkaError], kafka: KafkaSettings) -> None:
    """Wait until the broker has taken all clicks; raise ``UnavailableError`` where it has not."""
    if producer.flush(FLUSH_SECONDS):
        raise UnavailableError(f"the broker at {kafka.bootstrap_servers} did not take all clicks in {FLUSH_SECONDS} s")
    refuse(failures, kafka)


def refuse(failures: list[KafkaError], kafka: KafkaSettings) -> None:
    """Raise ``UnavailableError`` where the broker has not taken a click."""
    if failures:
        raise UnavailableError(f"the broker at {kafka.bootstrap_servers} did not take a click: {failures[0].str()}")
