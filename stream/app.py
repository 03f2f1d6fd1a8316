"""The Faust app of the worker: one agent on the click topic, which hands micro-batches to the processor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError

from recsys.errors import UnavailableError
from recsys.kafka import ssl_context
from recsys.service_log import announce
from recsys.serving import CurrentModel
from recsys.settings import KafkaSettings, Settings
from recsys.store import Store
from stream.dead_letter import DeadLetter
from stream.drift import DriftMonitor
from stream.letter_log import LetterLog
from stream.metrics import WorkerMetrics
from stream.outcome import Outcome
from stream.pace import Pace
from stream.patience import until_done
from stream.processor import Processor
from stream.transport import Bundle, Transport
from stream.trend import TrendKeeper

METADATA_SECONDS = 10.0  # how soon clicks in a partition that was added are read; by default it takes five minutes
_RAW = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}


def build_app(
    settings: Settings,
    model: CurrentModel,
    store: Store,
    metrics: WorkerMetrics,
    trends: TrendKeeper,
    stop: asyncio.Event,
    scratch: str,
) -> tuple[Any, Processor]:
    """The app, and the processor that its agent hands the micro-batches.

    ``scratch`` is a directory that Faust wants and does not fill.
    """
    kafka = settings.kafka
    app = _faust_app(settings, scratch)
    clicks, letters = (app.topic(name, **_RAW) for name in (kafka.topic, kafka.dead_letter_topic))
    processor = Processor(model, store, settings.worker, partial(_send, settings, letters))
    drift = DriftMonitor(model, settings.worker.drift_bound)
    metrics.registry.register(drift)
    batches = _Batches(settings, app, processor, metrics, (drift.observe, trends.observe), stop)

    @app.on_partitions_assigned.connect  # type: ignore[untyped-decorator]
    async def assigned(_: Any, assigned: Any, **__: Any) -> None:
        mine = sorted(each.partition for each in assigned if each.topic == kafka.topic)
        metrics.assigned(len(mine))
        announce(f"worker: reading partitions {mine} of {kafka.topic}")

    @app.agent(clicks, concurrency=1)  # type: ignore[untyped-decorator]  # more would lose the order by key
    async def advance(stream: Any) -> None:
        async for _ in stream.events():
            await batches.work_off()

    return app, processor


class _Batches:
    """Makes batches of what waits, and takes note of what becomes of them."""

    def __init__(
        self,
        settings: Settings,
        app: Any,
        processor: Processor,
        metrics: WorkerMetrics,
        observers: Sequence[Callable[[Outcome], None]],
        stop: asyncio.Event,
    ) -> None:
        self._worker = settings.worker
        self._app, self._processor, self._stop = app, processor, stop
        self._metrics, self._observers, self._letter_log = metrics, observers, LetterLog()
        self._pace = Pace(self._worker.batch_size, self._worker.catch_up_batch)

    async def work_off(self) -> None:
        """Work on what waits until nothing does, or until asked to stop."""
        consumer, few = self._app.consumer, self._worker.batch_size
        while not self._stop.is_set() and (bundles := consumer.take(few, self._pace.most)):
            await self._work(bundles)

    async def _work(self, bundles: Sequence[Bundle]) -> None:
        records = [record for bundle in bundles for record in bundle.records]
        lagging = len(records) > self._worker.batch_size
        work = partial(self._processor.process, records, self._app.consumer.ahead() if lagging else ())
        outcome = await until_done(work, self._worker.retry_seconds, self._stop, self._metrics)
        for bundle in bundles:
            bundle.done = True
        seconds = sum(outcome.seconds.values())
        self._pace.took(len(records), seconds)
        self._app.consumer.took(seconds)
        self._metrics.observe(outcome, len(records), {bundle.tp.partition: bundle.offset for bundle in bundles})
        for observe in self._observers:
            observe(outcome)
        self._letter_log.say(outcome.dead)


async def _send(settings: Settings, letters: Any, dead: Sequence[DeadLetter]) -> None:
    """Send dead letters to their topic, and return when the broker has them."""
    try:
        async with asyncio.timeout(settings.worker.retry_seconds):
            topic = settings.kafka.topic
            pending = [await letters.send(key=letter.key, value=letter.encode(topic)) for letter in dead]
            await asyncio.gather(*pending)
    except (KafkaError, ProducerSendError, TimeoutError) as error:
        raise UnavailableError(f"the broker does not take dead letters: {error or type(error).__name__}") from error


def _faust_app(settings: Settings, scratch: str) -> Any:
    """An app without a web server, tables or topics of its own, on our transport."""
    kafka, worker = settings.kafka, settings.worker
    app: Any = faust.App(
        kafka.group,
        broker=";".join(f"kafka://{address.strip()}" for address in kafka.bootstrap_servers.split(",")),
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
    return app


def _credentials(kafka: KafkaSettings) -> Any:
    """Who we are to the broker, in Faust's words."""
    context = ssl_context(kafka)
    if not kafka.security_protocol.startswith("SASL"):
        return None if context is None else faust.SSLCredentials(context)
    password = kafka.sasl_password.get_secret_value()
    return faust.SASLCredentials(
        username=kafka.sasl_username, password=password, mechanism=kafka.sasl_mechanism, ssl_context=context
    )
