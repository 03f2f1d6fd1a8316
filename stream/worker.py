"""The stream worker, from its start to its end."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError
from threadpoolctl import threadpool_limits

from recsys.errors import UnavailableError
from recsys.kafka import aiokafka_options
from recsys.kafka_on_uvloop import mend_connections
from recsys.published import Bundles
from recsys.scoring.leading_table import TABLES
from recsys.service_log import announce
from recsys.serving import CurrentModel, Served
from recsys.settings import KafkaSettings, Settings
from recsys.store import Store
from stream.app import build_app
from stream.lag import watch_lag
from stream.metrics import WorkerMetrics
from stream.renewal import Renewal
from stream.topic import START_SECONDS, Topic, number_of, settle
from stream.trend import TrendKeeper
from stream.watches import end_as, watch_faust, watch_servers, watch_topic

SWITCH_SECONDS = 0.0005  # the thread that fetches waits this long for a batch to let it in; by default ten times that
GC_THRESHOLDS = 50_000, 20, 50  # a batch makes thousands of objects and hardly a cycle; looking for some costs a fifth


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish the batch in hand, commit its offsets and return.

    Raises:
        MissingInputError: no bundle is published.
        BundleError: the published bundle is altered.
        UnavailableError: the broker or the store does not answer at the start.
    """
    mend_connections()
    sys.setswitchinterval(SWITCH_SECONDS)
    threadpool_limits(1)  # small products are a hundred times slower on several BLAS threads
    model = CurrentModel(Bundles(settings.bundles), TABLES[settings.worker.index])
    metrics = WorkerMetrics()
    store = Store(settings.redis)
    await store.ping()
    broker = await _connect(settings.kafka)
    topic = Topic(settings.kafka)
    number = await number_of(topic, store, START_SECONDS) or 0
    settings = settle(settings, number)
    port = metrics.serve(settings.worker)
    stop = _stop_signal()

    trends = TrendKeeper(model, store, settings.trend.seconds, metrics)
    await trends.adopt()

    with tempfile.TemporaryDirectory(prefix="recsys-worker-") as scratch:
        app, processor = build_app(settings, model, store, metrics, trends, stop, scratch)
        await app.start()
        gc.freeze()  # what is here now stays
        gc.set_threshold(*GC_THRESHOLDS)
        announce(f"worker: model {model.served.version}")
        announce(f"worker: metrics on http://{settings.worker.metrics_host}:{port}/metrics")
        watches = [
            *_watch_models(settings, model, Renewal(processor, store, metrics.renewed), trends, metrics),
            trends.watch(),
            watch_servers(broker, store, settings, metrics),
            watch_topic(topic, store, number),
            watch_faust(app),
            watch_lag(app, settings.kafka.topic, metrics),
        ]
        await _until_stopped(app, stop, watches)
    await broker.close()
    await store.close()


def _stop_signal() -> asyncio.Event:
    """Set when the process is asked to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _watch_models(
    settings: Settings, model: CurrentModel, renewal: Renewal, trends: TrendKeeper, metrics: WorkerMetrics
) -> list[Coroutine[Any, Any, None]]:
    """Take over newer models, and renew what older ones left."""

    async def changed(served: Served) -> None:
        metrics.model(served.version)
        renewal.wake()
        await trends.adopt()

    metrics.model(model.served.version)
    renewal.wake()  # another model may have come while no worker ran
    return [model.watch(settings.worker.bundle_poll_seconds, changed), renewal.watch()]


async def _until_stopped(app: Any, stop: asyncio.Event, watches: list[Coroutine[Any, Any, None]]) -> None:
    """Go on until asked to stop, then finish and commit; end the process when a watch ends first."""
    tasks = [asyncio.create_task(watch) for watch in watches]
    await asyncio.wait([asyncio.create_task(stop.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        end_as(app, next(task for task in tasks if task.done()))
    announce("worker: finishing the batch in hand")
    for task in tasks:
        task.cancel()
    await app.stop()


async def _connect(kafka: KafkaSettings) -> AIOKafkaClient:
    client = AIOKafkaClient(request_timeout_ms=5000, **aiokafka_options(kafka))
    try:
        await client.bootstrap()
    except KafkaError as error:
        with suppress(Exception):
            await client.close()
        raise UnavailableError(f"the broker at {kafka.bootstrap_servers} does not answer: {error}") from None
    return client
