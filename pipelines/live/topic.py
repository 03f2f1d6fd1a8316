"""The click topic as a source of a Beam pipeline, which tells time by the clicks themselves.

Beam's own Kafka source knows when a record was produced, not when its click was, and it needs Java on every machine.
This one is a splittable DoFn over offsets, so that the runner's checkpoints, and nothing else, say where to go on.
"""

# mypy: disable-error-code="no-untyped-call,misc,untyped-decorator"
# ruff: noqa: B008 (Beam learns from the defaults what a method wants)
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider, WatermarkEstimatorProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Duration, Timestamp
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from pipelines.live.arrivals import Intake, Record
from pipelines.live.pipeline import keyed
from recsys.reading import REQUEST_SECONDS, away, consumer_of, read
from recsys.settings import KafkaSettings

NEVER = (1 << 63) - 1  # the offset at which a topic ends that goes on
POLL_SECONDS = 0.5
BATCH = 1000  # records
Part = tuple[int, int, int]  # a partition, its first offset, and the one after its last of now


def read_until_now(part: Part, kafka: KafkaSettings, intake: Intake) -> Iterator[TimestampedValue[tuple[int, bytes]]]:
    """A partition up to where it ends now; elements as :func:`pipelines.live.pipeline.close_sessions` takes them.

    Raises:
        UnavailableError: the broker went away.
    """
    partition, *offsets = part
    now_ms = int(time.time() * 1000)
    for message in read(kafka, kafka.topic, {partition: (offsets[0], offsets[1])}):
        yield keyed(intake.read(record_of(message), now_ms), now_ms)


class Offsets(OffsetRestrictionTracker):
    """Offsets of one partition, which do not end."""

    def is_bounded(self) -> bool:
        """No: the runner must not wait for the end."""
        return False


class Parts(RestrictionProvider):
    """What there is to read of a partition."""

    def initial_restriction(self, element: Part) -> OffsetRange:
        """All that there is, and will be."""
        return OffsetRange(element[1], NEVER)

    def create_tracker(self, restriction: OffsetRange) -> Offsets:
        """Offsets are claimed one by one."""
        return Offsets(restriction)

    def restriction_size(self, element: Part, restriction: OffsetRange) -> int:
        """All partitions alike: nobody knows."""
        return 1


class ClickTime(WatermarkEstimatorProvider):
    """The watermark that :class:`ReadClicks` moves; before the first click it is the beginning of time."""

    def initial_estimator_state(self, element: Part, restriction: OffsetRange) -> Timestamp:
        """The beginning of time."""
        return MIN_TIMESTAMP

    def create_watermark_estimator(self, estimator_state: Timestamp) -> ManualWatermarkEstimator:
        """It is moved by hand."""
        return ManualWatermarkEstimator(estimator_state)


class ReadClicks(beam.DoFn):
    """Reads partitions without end; elements as :func:`pipelines.live.pipeline.close_sessions` takes them.

    The watermark of a partition is the newest click's time, and the clock's where no record waits, so that a partition
    in which nobody clicks holds nobody up. The allowed lateness is for clicks that come behind others: an old log that
    is replayed into a topic at rest is late, one that waits in it when reading begins is not.
    """

    def __init__(self, kafka: KafkaSettings, intake: Intake) -> None:
        self._kafka = kafka
        self._intake = intake

    def setup(self) -> None:
        """Nothing is read yet."""
        self._readers: dict[int, Reader] = {}

    def teardown(self) -> None:
        """Disconnect."""
        for reader in self._readers.values():
            reader.close()

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: Part,
        tracker: Any = beam.DoFn.RestrictionParam(Parts()),
        watermark: Any = beam.DoFn.WatermarkEstimatorParam(ClickTime()),
    ) -> Iterator[TimestampedValue[tuple[int, bytes]]]:
        """Read what waits, up to a bound, and go on later: in between the runner writes its checkpoints.

        Raises:
            UnavailableError: the records went away.
        """
        if element[0] not in self._readers:
            self._readers[element[0]] = Reader(self._kafka, element[0])
        reader = self._readers[element[0]]
        records = reader.read(tracker.current_restriction().start)
        now_ms = int(time.time() * 1000)
        newest = watermark.current_watermark().micros // 1000
        for record in records:
            if not tracker.try_claim(record.offset):
                return
            arrival = self._intake.read(record, now_ms)
            newest = max(newest, arrival.time_ms or 0)
            yield keyed(arrival, newest)
        if not records and reader.at_end():
            newest = max(newest, now_ms)
        watermark.set_watermark(Timestamp(micros=newest * 1000))
        tracker.defer_remainder(Duration(seconds=0 if records else POLL_SECONDS))


class Reader:
    """A client for one partition; what it has fetched ahead stays where reading goes on."""

    def __init__(self, kafka: KafkaSettings, partition: int) -> None:
        self._kafka = kafka
        self._client = consumer_of(kafka, f"{kafka.group}.sessions", auto_offset_reset="error")
        self._place = TopicPartition(kafka.topic, partition)
        self._next: int | None = None
        self._end = 0

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def read(self, start: int) -> list[Record]:
        """Up to :data:`BATCH` records from offset ``start`` on.

        Raises:
            UnavailableError: the records went away.
        """
        if start != self._next:
            self._client.assign([TopicPartition(self._place.topic, self._place.partition, start)])
            self._end = 0
        self._next = None  # after an error the client goes no further, and has passed what came before
        records = []
        for message in self._client.consume(BATCH, POLL_SECONDS):
            error = message.error()
            if error is None:
                records.append(record_of(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._end = message.offset() or 0
            else:
                raise away(self._kafka, error.str())
        self._next = records[-1].offset + 1 if records else start
        return records

    def at_end(self) -> bool:
        """Whether the broker says that no record waits; not where it says nothing."""
        try:
            _, end = self._client.get_watermark_offsets(self._place, timeout=REQUEST_SECONDS)
        except KafkaException:
            return False
        return bool(end <= max(self._next or 0, self._end))  # the last offsets may hold no record


def record_of(message: Message) -> Record:
    """A record as the broker gives it."""
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return Record(partition, offset, message.value() or b"")
