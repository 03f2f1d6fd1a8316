"""Faust's Kafka transport with a short fetch wait.

Faust fixes the time for which a broker may hold a fetch at 1.5 s. Apache Kafka answers as soon as a record is there, so
the figure does not matter with it; the embedded broker sleeps the whole time, and a click would wait with it.
"""

from __future__ import annotations

from typing import Any

from faust.transport.drivers import aiokafka as driver

FETCH_WAIT_MS = 20


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):
    """The transport of the stream worker."""

    Consumer = _Consumer
