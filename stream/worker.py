"""The stream worker: a Faust app that hands micro-batches of the click topic to the processor.

Faust acknowledges a batch even when its body raises, which would lose it. So the body never raises: it tries again
while a server is away, and past ``worker.retry_seconds`` ends the process at once, with the batch's offsets not
committed, for a supervisor to start it anew.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import faust
from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError
from threadpoolctl import threadpool_limits

from recsys.errors import UnavailableError
from recsys.kafka import aiokafka_options, ssl_context
from recsys.kafka_on_uvloop import mend_connections
from recsys.published import Bundles
from recsys.scoring.leading_table import TABLES
from recsys.service_log import announce
from recsys.serving import CurrentModel, Served
from recsys.settings import KafkaSettings, Settings
from recsys.store import Store
from stream.dead_letter import DeadLetter
from stream.drift import DriftMonitor
from stream.lag import watch_lag
from stream.letter_log import LetterLog
from stream.metrics import WorkerMetrics
from stream.pace import Pace
from stream.processor import Outcome, Processor
from stream.renewal import Renewal
from stream.topic import START_SECONDS, Topic, number_of, settle
from stream.transport import Transport

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.05, 2.0
STOPPING_SECONDS = 3.0  # of further tries once asked to stop
WATCH_SECONDS = 2.0
METADATA_SECONDS = 10.0  # how soon clicks in a partition that was added are read; by default it takes five minutes
SWITCH_SECONDS = 0.0005  # the thread that fetches waits this long for a batch to let it in; by default ten times that
GC_THRESHOLDS = 50_000, 20, 50  # a batch makes thousands of objects and hardly a cycle; looking for some costs a fifth
DEFECT = 70  # exit code, as in sysexits.h


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
    topic_number = await number_of(topic, store, START_SECONDS) or 0
    settings = settle(settings, topic_number)
    port = metrics.serve(settings.worker)
    metrics.model(model.served.version)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    with tempfile.TemporaryDirectory(prefix="recsys-worker-") as scratch:
        app, processor = build_app(settings, model, store, metrics, stop, scratch)
        renewal = Renewal(processor, store, metrics.renewed)
        renewal.wake()  # another model may have come while no worker ran

        async def changed(served: Served) -> None:
            metrics.model(served.version)
            renewal.wake()

        await app.start()
        gc.freeze()  # what is here now stays
        gc.set_threshold(*GC_THRESHOLDS)
        announce(f"worker: model {model.served.version}")
        announce(f"worker: metrics on http://{settings.worker.metrics_host}:{port}/metrics")
        watches = [
            asyncio.create_task(model.watch(settings.worker.bundle_poll_seconds, changed)),
            asyncio.create_task(renewal.watch()),
            asyncio.create_task(_watch_servers(broker, store, settings, metrics)),
            asyncio.create_task(_watch_topic(topic, store, topic_number)),
            asyncio.create_task(_watch_faust(app)),
            asyncio.create_task(watch_lag(app, settings.kafka.topic, metrics)),
        ]
        await asyncio.wait([asyncio.create_task(stop.wait()), *watches], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            _end_as(app, next(watch for watch in watches if watch.done()))
        announce("worker: finishing the batch in hand")
        for watch in watches:
            watch.cancel()
        await app.stop()
    await broker.close()
    await store.close()


def build_app(
    settings: Settings,
    model: CurrentModel,
    store: Store,
    metrics: WorkerMetrics,
    stop: asyncio.Event,
    scratch: str,
) -> tuple[Any, Processor]:
    """The Faust app: one agent on the click topic, and the processor that it hands its micro-batches.

    ``scratch`` is a directory that Faust wants and does not fill.
    """
    kafka, worker = settings.kafka, settings.worker
    urls = ";".join(f"kafka://{address.strip()}" for address in kafka.bootstrap_servers.split(","))
    app: Any = faust.App(
        kafka.group,
        broker=urls,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        datadir=scratch,
        broker_session_timeout=kafka.session_timeout_seconds,
        broker_heartbeat_interval=kafka.session_timeout_seconds / 3,
        broker_commit_interval=kafka.commit_seconds,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=worker.catch_up_batch,
        stream_buffer_maxsize=4 * worker.catch_up_batch,  # never reached: the transport holds back before
        consumer_metadata_max_age_ms=round(METADATA_SECONDS * 1000),
        producer_acks=-1,
        broker_credentials=_credentials(kafka),
    )
    app.transport = Transport([app.conf.broker[0]], app)
    app.transport.url = app.conf.broker_consumer
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    clicks = app.topic(kafka.topic, **raw)
    letters = app.topic(kafka.dead_letter_topic, **raw)

    async def send_dead_letters(dead: Sequence[DeadLetter]) -> None:
        try:
            async with asyncio.timeout(worker.retry_seconds):
                pending = [await letters.send(key=letter.key, value=letter.encode(kafka.topic)) for letter in dead]
                await asyncio.gather(*pending)
        except (KafkaError, ProducerSendError, TimeoutError) as error:
            raise UnavailableError(f"the broker does not take dead letters: {error or type(error).__name__}") from error

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def assigned(_: Any, assigned: Any, **__: Any) -> None:
        mine = sorted(each.partition for each in assigned if each.topic == kafka.topic)
        metrics.assigned(len(mine))
        announce(f"worker: reading partitions {mine} of {kafka.topic}")

    processor = Processor(model, store, worker, send_dead_letters)
    drift = DriftMonitor(model, worker.drift_bound)
    metrics.registry.register(drift)
    letter_log = LetterLog()
    pace = Pace(worker.batch_size, worker.catch_up_batch)

    @app.agent(clicks, concurrency=1)  # type: ignore[untyped-decorator]  # more would lose the order by key
    async def advance(stream: Any) -> None:
        async for event in stream.events():
            bundles = app.consumer.take(event.message, worker.batch_size, pace.most)
            if not bundles:  # its records were in an earlier batch
                continue
            records = [record for bundle in bundles for record in bundle.records]
            outcome = await _until_done(partial(processor.process, records), worker.retry_seconds, stop, metrics)
            for bundle in bundles:
                bundle.done = True
            pace.took(len(records), sum(outcome.seconds.values()))
            metrics.observe(outcome, len(records), {bundle.partition: bundle.offset for bundle in bundles})
            drift.observe(outcome)
            letter_log.say(outcome.dead)

    return app, processor


async def _until_done(
    work: Callable[[], Awaitable[Outcome]], retry_seconds: float, stop: asyncio.Event, metrics: WorkerMetrics
) -> Outcome:
    """Do the work, again and again while a server is away; past the limit, or on a defect, end the process."""
    started = time.monotonic()
    wait = FIRST_RETRY_SECONDS
    while True:
        try:
            return await work()
        except UnavailableError as error:
            metrics.retried()
            away = time.monotonic() - started
            if away + wait > (min(retry_seconds, STOPPING_SECONDS) if stop.is_set() else retry_seconds):
                _end(f"{error}; gave up after {away:.0f} s, no click is lost", UnavailableError.exit_code)
            log.warning("%s; trying again in %.2f s", error, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_RETRY_SECONDS)
        except Exception:
            log.exception("a defect in the worker; no click is lost")
            _end("a defect, see the traceback above", DEFECT)


def _end(reason: str, code: int) -> NoReturn:
    """End the process without a commit. Faust's own ways to stop would acknowledge the batch, or hang."""
    log.critical("worker ends: %s", reason)
    logging.shutdown()
    os._exit(code)


def _credentials(kafka: KafkaSettings) -> Any:
    """Who we are to the broker, in Faust's words."""
    context = ssl_context(kafka)
    if not kafka.security_protocol.startswith("SASL"):
        return None if context is None else faust.SSLCredentials(context)
    password = kafka.sasl_password.get_secret_value()
    return faust.SASLCredentials(
        username=kafka.sasl_username, password=password, mechanism=kafka.sasl_mechanism, ssl_context=context
    )


async def _connect(kafka: KafkaSettings) -> AIOKafkaClient:
    client = AIOKafkaClient(request_timeout_ms=5000, **aiokafka_options(kafka))
    try:
        await client.bootstrap()
    except KafkaError as error:
        with suppress(Exception):
            await client.close()
        raise UnavailableError(f"the broker at {kafka.bootstrap_servers} does not answer: {error}") from None
    return client


async def _watch_servers(broker: AIOKafkaClient, store: Store, settings: Settings, metrics: WorkerMetrics) -> None:
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
                _end(f"the broker has been away for {away:.0f} s", UnavailableError.exit_code)
        await asyncio.sleep(WATCH_SECONDS)


async def _watch_topic(topic: Topic, store: Store, number: int) -> None:
    """End the process when the topic has been created anew: positions and commits are those of the old one."""
    while True:
        with suppress(UnavailableError):
            if await number_of(topic, store) not in {None, number}:
                _end("the topic has been created anew, start again to read it", UnavailableError.exit_code)
        await asyncio.sleep(WATCH_SECONDS)


async def _watch_faust(app: Any) -> None:
    """Return when a part of Faust has crashed: the rest would live on and consume nothing."""
    while not (app.crashed or app.consumer.crashed):
        await asyncio.sleep(WATCH_SECONDS)


def _end_as(app: Any, failed: asyncio.Task[None]) -> NoReturn:
    """End the process as a watch of it has ended."""
    if crash := app.crash_reason or app.consumer.crash_reason:
        _end(f"Faust crashed: {crash!r}", UnavailableError.exit_code if isinstance(crash, KafkaError) else DEFECT)
    _end(f"a defect in one of its watches: {'cancelled' if failed.cancelled() else failed.exception()!r}", DEFECT)
