"""Faust's Kafka transport with many records a message, a short fetch wait, and no records lost in a rebalance.

A message costs Faust a hundred times what a record costs Kafka. So all that one fetch brings goes through Faust as one
message, which says no more than that something waits: records of a partition, in *bundles*. Whoever gets the message
takes bundles until none waits. A bundle is ``done`` when its worker says so, and offsets are committed up to the first
bundle that is not, whatever Faust has acknowledged: no end of a process or of a task can skip a record.

Faust fixes the time for which a broker may hold a fetch at 1.5 s. Apache Kafka answers as soon as a record is there, so
the figure does not matter with it; the embedded broker sleeps the whole time, and a click would wait with it.

A fetch, and the work on what it brings, cost nearly the same for one click as for a few. So a broker is asked anew
:data:`FETCH_EVERY_SECONDS` after it was asked last at the soonest, or after the time that the last batch took: a click
that comes alone waits for nothing, and where they come often, a few come together.

Faust drops what it has fetched when a rebalance begins, and seeks back to what is committed. A partition of which
nothing is committed yet it leaves where it is: what was dropped would never be read.

aiokafka does no more for its group after an error that it does not expect, as a broker gives that has just come back
and is loading its groups: it waits until one of its own fetches has raised the error, and Faust fetches in another way.
A worker whose fetch did not wait just then would read its old partitions for ever, while they are another's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from stream.dead_letter import Record

log = logging.getLogger(__name__)

FETCH_WAIT_MS = 20
FETCH_EVERY_SECONDS, FETCH_SELDOM_SECONDS = 0.005, 0.05
HEED_SECONDS = 0.5  # between looks for errors of the group
ASTRAY_SECONDS = 30.0  # of errors, before the worker gives up
BUNDLE_RECORDS = 256  # at most: a batch is made of whole bundles


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    async def on_start(self) -> None:
        await super().on_start()
        fetcher, books = self._ensure_consumer()._fetcher, cast(Consumer, self.consumer)
        fetcher._proc_fetch_request = spaced(fetcher._proc_fetch_request, lambda: books.pause)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look whether a partition is stuck, if it is assigned and has a position: else Faust would end the worker."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription and subscription.assignment
        state = assignment and assignment.state_value(TopicPartition(tp.topic, tp.partition))
        if state and state.has_valid_position:
            super().verify_event_path(now, tp)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    @Service.task
    async def _stay_in_group(self) -> None:
        """Join the group again after each error; raise one that comes again and again for a long time."""
        coordinator = self._ensure_consumer()._coordinator
        first = last = -math.inf
        while not self.should_stop:
            await self.sleep(HEED_SECONDS)
            try:
                coordinator.check_errors()
            except KafkaError as error:
                now = time.monotonic()
                first, last = (first if now - last < 10 * HEED_SECONDS else now), now
                if coordinator._coordination_task.done() or now - first > ASTRAY_SECONDS:
                    raise
                log.warning("joining the group again after %r", error)
                coordinator.request_rejoin()

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._fetch_records(consumer, *args, **kwargs)
        except KafkaError as error:
            if repr(error) != repr(consumer._coordinator._pending_exception):
                raise
            return {}  # it ends a fetch that waits, too, as a copy

    async def seek_to_committed(self) -> Any:
        return await self.call_thread(_seek_to_committed, self._ensure_consumer())


def spaced(
    fetch: Callable[[Any, int, Any], Awaitable[bool]], seconds: Callable[[], float]
) -> Callable[[Any, int, Any], Awaitable[bool]]:
    """``fetch``, begun for each node so many seconds after the time before at the soonest."""
    began: dict[int, float] = {}

    async def later(assignment: Any, node: int, request: Any) -> bool:
        if (wait := began.get(node, -math.inf) + seconds() - time.monotonic()) > 0:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:  # as a fetch that is cancelled
                return False
        began[node] = time.monotonic()
        return await fetch(assignment, node, request)

    return later


async def _seek_to_committed(consumer: Any) -> Any:
    """Go back to what is committed, or else to the beginning; gives the committed offset of each partition, or None."""
    committed = await consumer.seek_to_committed()
    fresh = [partition for partition, offset in committed.items() if not offset]
    if fresh:
        with suppress(IllegalStateError):  # no longer assigned: the next assignment begins with a seek
            await consumer.seek_to_beginning(*fresh)
    return committed


@dataclass(slots=True, eq=False)
class Bundle:
    """Records of one partition in the order of their offsets."""

    tp: TP
    records: list[Record]
    done: bool = False

    @property
    def offset(self) -> int:
        """The last record's."""
        return self.records[-1].offset


class Consumer(driver.Consumer):
    """Hands out bundles, and no more than ``broker_max_poll_records`` records ahead of the work, twice that at most.

    Attributes:
        pause: seconds from one fetch to the next, at least.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pause = FETCH_EVERY_SECONDS
        self._most_waiting: int = self.app.conf.broker_max_poll_records
        self._delivered: dict[TP, deque[Bundle]] = {}  # and not committed
        self._waiting: deque[Bundle] = deque()
        self._records_waiting = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    def take(self, few: int, many: int) -> list[Bundle]:
        """Bundles that wait, the first ones, of up to ``few`` records; of up to ``many`` where more than ``few`` wait.

        One that alone is larger comes alone.
        """
        most = few if self._records_waiting <= few else many
        taken: list[Bundle] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0].records) <= most):
            taken.append(self._waiting.popleft())
            size += len(taken[-1].records)
        self._count(-size)
        return taken

    def took(self, seconds: float) -> None:
        """The work on what was taken took so long."""
        self.pause = min(max(FETCH_EVERY_SECONDS, seconds), FETCH_SELDOM_SECONDS)

    def ahead(self) -> list[Record]:
        """The records that wait."""
        return [record for bundle in self._waiting for record in bundle.records]

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what waits, let the work in hand end and commit it, and forget the partitions."""
        self._forget_waiting(revoked)
        await super().on_partitions_revoked(revoked)
        self._forget_waiting(revoked)  # a fetch may have ended meanwhile
        for partition in revoked:
            self._delivered.pop(partition, None)

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        """What Faust takes for one record is all that is fetched."""
        await self._has_room.wait()
        fetched = await super()._getmany(active_partitions, timeout)
        return {ensure_TP(next(iter(fetched))): [fetched]} if fetched else {}

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        """Let what is fetched wait; gives a message that Faust does not drop as one that it has delivered before."""
        for partition, records in record.items():
            for start in range(0, len(records), BUNDLE_RECORDS):
                some = records[start : start + BUNDLE_RECORDS]
                self._deliver(Bundle(ensure_TP(partition), [_record(each) for each in some]))
        newest = record[tp][-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            max(newest.offset, self._read_offset[tp] or 0),
            newest.timestamp / 1000,
            newest.timestamp_type,
            None,
            newest.key,
            newest.value,
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def _deliver(self, bundle: Bundle) -> None:
        read = self._read_offset[bundle.tp]
        if read is None or bundle.offset >= read:  # or else it has been delivered
            self._read_offset[bundle.tp] = bundle.offset
            self._delivered.setdefault(bundle.tp, deque()).append(bundle)
            self._waiting.append(bundle)
            self._count(len(bundle.records))

    def _forget_waiting(self, partitions: set[TP]) -> None:
        self._waiting = deque(bundle for bundle in self._waiting if bundle.tp not in partitions)
        self._count(sum(len(bundle.records) for bundle in self._waiting) - self._records_waiting)

    def _count(self, more: int) -> None:
        self._records_waiting += more
        if self._records_waiting < self._most_waiting:
            self._has_room.set()
        else:
            self._has_room.clear()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._delivered) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        """Where the next worker should begin, if that is later than when last asked."""
        self._acked.pop(tp, None)  # Faust's own books, which nobody else reads or empties
        self._acked_index.pop(tp, None)
        offset, delivered = None, self._delivered[tp]
        while delivered and delivered[0].done:
            offset = delivered.popleft().offset + 1
        return offset

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets that no record has need no books: a bundle follows on the one before it."""


def _record(fetched: Any) -> Record:
    return Record(fetched.key, fetched.value, fetched.partition, fetched.offset, fetched.timestamp)


class Transport(driver.Transport):
    """The transport of the stream worker."""

    Consumer = Consumer
