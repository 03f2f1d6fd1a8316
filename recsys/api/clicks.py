"""Clicks from the door to the topic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from recsys.errors import UnavailableError
from recsys.events import ClickEvent, encode
from recsys.kafka import aiokafka_options
from recsys.kafka_on_uvloop import mend_connections
from recsys.settings import KafkaSettings

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0


class ClickProducer:
    """Puts clicks on the topic, keyed by user id, and returns when the broker has them on all replicas."""

    def __init__(self, settings: KafkaSettings, timeout_seconds: float, max_pending: int) -> None:
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._max_pending = max_pending
        self._pending = 0
        self._producer: AIOKafkaProducer | None = None
        self._failed = False

    @property
    def health(self) -> str:
        """``ok``, or what is wrong: the broker was not reached yet, or did not take the last events."""
        if self._producer is None:
            return "not reached yet"
        return "did not take the last events" if self._failed else "ok"

    async def connect(self) -> None:
        """Reach the broker, trying again until it is there; afterwards the producer mends its own connections."""
        mend_connections()
        said = False
        while self._producer is None:
            producer = AIOKafkaProducer(
                acks="all",
                request_timeout_ms=round(self._timeout_seconds * 1000),
                **aiokafka_options(self._settings),
            )
            try:
                await producer.start()
                self._producer = producer
            except (KafkaError, OSError) as error:
                if not said:
                    log.warning("no broker at %s yet, events are refused: %s", self._settings.bootstrap_servers, error)
                    said = True
                await asyncio.sleep(RECONNECT_SECONDS)
            finally:
                if self._producer is None:
                    await producer.stop()
        log.info("events go to topic %s at %s", self._settings.topic, self._settings.bootstrap_servers)

    async def send(self, events: Sequence[ClickEvent]) -> None:
        """Produce events in order and wait until the broker has acknowledged all of them.

        Raises:
            UnavailableError: not acknowledged in time. Some may still arrive: an event sent again under the same event
                id, or equal in user, item, type and time, counts once.
        """
        if self._producer is None:
            raise UnavailableError(f"the broker at {self._settings.bootstrap_servers} has not been reached yet")
        if self._pending + len(events) > self._max_pending:
            raise UnavailableError(f"{self._pending} events wait for the broker already")
        self._pending += len(events)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                acknowledgements = [await self._enqueue(self._producer, event) for event in events]
                await asyncio.wait(acknowledgements)
            for acknowledgement in acknowledgements:
                acknowledgement.result()
            self._failed = False
        except (KafkaError, OSError, TimeoutError) as error:
            self._failed = True
            reason = str(error) or type(error).__name__
            raise UnavailableError(
                f"the broker at {self._settings.bootstrap_servers} did not answer: {reason}"
            ) from error
        finally:
            self._pending -= len(events)

    async def _enqueue(self, producer: AIOKafkaProducer, event: ClickEvent) -> asyncio.Future[object]:
        sent: asyncio.Future[object] = await producer.send(
            self._settings.topic, value=encode(event), key=event.user_id.encode()
        )
        sent.add_done_callback(_look_at)
        return sent

    async def close(self) -> None:
        """Send what is still waiting, for as long as one send may take, and disconnect."""
        if self._producer is not None:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._producer.stop()
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("the broker went away before the end: %s", str(error) or type(error).__name__)


def _look_at(sent: asyncio.Future[object]) -> None:
    """Take note of a failure nobody waits for any more, so that it is not reported as forgotten."""
    if not sent.cancelled():
        sent.exception()
