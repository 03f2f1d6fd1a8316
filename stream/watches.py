"""What the worker looks after beside its work: a watch ends the process, or returns, when it cannot go on."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any, NoReturn

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError

from recsys.errors import UnavailableError
from recsys.settings import Settings
from recsys.store import Store
from stream.metrics import WorkerMetrics
from stream.patience import DEFECT, end
from stream.topic import Topic, number_of

log = logging.getLogger(__name__)

WATCH_SECONDS = 2.0


async def watch_servers(broker: AIOKafkaClient, store: Store, settings: Settings, metrics: WorkerMetrics) -> None:
    """Say whether broker and store answer; end the process when the broker stays away.

    The consumer alone would wait for the broker in silence. For the store, the batch in hand sees to that.
    """
    last_seen = time.monotonic()
    while True:
        broker_answers = store_answers = False
        with suppress(KafkaError, OSError, TimeoutError):
            broker_answers = bool(await broker.force_metadata_update())
        with suppress(UnavailableError):
            await store.ping()
            store_answers = True
        metrics.servers(broker=broker_answers, store=store_answers)
        if broker_answers:
            last_seen = time.monotonic()
        else:
            away = time.monotonic() - last_seen
            log.warning("the broker at %s does not answer", settings.kafka.bootstrap_servers)
            if away > settings.worker.retry_seconds:
                end(f"the broker has been away for {away:.0f} s", UnavailableError.exit_code)
        await asyncio.sleep(WATCH_SECONDS)


async def watch_topic(topic: Topic, store: Store, number: int) -> None:
    """End the process when the topic has been created anew: positions and commits are those of the old one."""
    while True:
        with suppress(UnavailableError):
            if await number_of(topic, store) not in {None, number}:
                end("the topic has been created anew, start again to read it", UnavailableError.exit_code)
        await asyncio.sleep(WATCH_SECONDS)


async def watch_faust(app: Any) -> None:
    """Return when a part of Faust has crashed: the rest would live on and consume nothing."""
    while not (app.crashed or app.consumer.crashed):
        await asyncio.sleep(WATCH_SECONDS)


def end_as(app: Any, failed: asyncio.Task[None]) -> NoReturn:
    """End the process as a watch of it has ended."""
    if crash := app.crash_reason or app.consumer.crash_reason:
        end(f"Faust crashed: {crash!r}", UnavailableError.exit_code if isinstance(crash, KafkaError) else DEFECT)
    end(f"a defect in one of its watches: {'cancelled' if failed.cancelled() else failed.exception()!r}", DEFECT)
