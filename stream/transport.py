"""Faust's Kafka transport with a short fetch wait, and no records lost in a rebalance.

Faust fixes the time for which a broker may hold a fetch at 1.5 s. Apache Kafka answers as soon as a record is there, so
the figure does not matter with it; the embedded broker sleeps the whole time, and a click would wait with it.

Faust drops what it has fetched when a rebalance begins, and seeks back to what is committed. A partition of which
nothing is committed yet it leaves where it is: what was dropped would never be read.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver

FETCH_WAIT_MS = 20


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    async def seek_to_committed(self) -> Any:
        return await self.call_thread(_seek_to_committed, self._ensure_consumer())


async def _seek_to_committed(consumer: Any) -> Any:
    """Go back to what is committed, or else to the beginning; gives the committed offset of each partition, or None."""
    committed = await consumer.seek_to_committed()
    fresh = [partition for partition, offset in committed.items() if not offset]
    if fresh:
        with suppress(IllegalStateError):  # no longer assigned: the next assignment begins with a seek
            await consumer.seek_to_beginning(*fresh)
    return committed


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):
    """The transport of the stream worker."""

    Consumer = _Consumer
