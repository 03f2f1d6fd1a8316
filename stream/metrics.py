"""What the worker tells Prometheus, units in the names."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server

from recsys.errors import UnavailableError
from recsys.settings import WorkerSettings
from stream.processor import Outcome

# From 1 ms to 60 s, each 15% above the one before, so that a quantile read off them is within 15%.
FRESHNESS_BUCKETS = tuple(round(0.001 * 1.15**power, 6) for power in range(79))
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TIME_BUCKETS = tuple(0.0001 * 2**power for power in range(16))


class WorkerMetrics:
    """The worker's counters, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry, "namespace": "recsys"}
        self._applied = Counter("clicks_applied", "Clicks that advanced a user's state.", **options)
        self._skipped = Counter("clicks_skipped", "Clicks that changed nothing, by reason.", ["reason"], **options)
        self._dead = Counter("clicks_dead_lettered", "Clicks that could not be used, by reason.", ["reason"], **options)
        self._lists = Counter("lists_written", "Recommendation lists written.", **options)
        self._rebuilt = Counter("states_rebuilt", "States carried over from another model.", **options)
        self._lost = Counter("states_lost", "States that could not be read or carried over.", **options)
        self._stale = Counter("writes_refused", "Writes that the store refused as not newer.", **options)
        self._retries = Counter("batch_retries", "Micro-batches tried again because a server was away.", **options)
        self._batch = Histogram("batch_clicks", "Clicks in a micro-batch.", buckets=BATCH_BUCKETS, **options)
        self._seconds = Histogram(
            "batch_part_seconds", "Time of each part of a micro-batch.", ["part"], buckets=TIME_BUCKETS, **options
        )
        self._freshness = Histogram(
            "freshness_seconds",
            "From the click in the topic to its list in the store.",
            buckets=FRESHNESS_BUCKETS,
            **options,
        )
        self._offset = Gauge("last_offset", "Offset of the newest click dealt with.", ["partition"], **options)
        self._ready = Gauge("ready", "1 while broker and store answer.", **options)
        self._assigned = Gauge(
            "partitions_assigned", "Partitions of the click topic that this worker reads.", **options
        )
        self._model = Info("model", "The model that serves.", **options)

    def serve(self, settings: WorkerSettings) -> int:
        """Answer ``GET /metrics``; gives the port.

        Raises:
            UnavailableError: the address is taken.
        """
        try:
            server, _ = start_http_server(settings.metrics_port, settings.metrics_host, self.registry)
        except OSError as error:
            address = f"{settings.metrics_host}:{settings.metrics_port}"
            raise UnavailableError(f"cannot serve metrics on {address}: {error.strerror} (metrics_port)") from None
        return int(server.server_port)

    def observe(self, outcome: Outcome, records: int, offsets: dict[int, int]) -> None:
        """Count a finished micro-batch; ``offsets`` has the last one of each partition."""
        self._applied.inc(outcome.applied)
        for reason, count in outcome.skipped.items():
            self._skipped.labels(reason).inc(count)
        for letter in outcome.dead:
            self._dead.labels(letter.reason).inc()
        self._lists.inc(outcome.lists)
        self._rebuilt.inc(outcome.rebuilt)
        self._lost.inc(outcome.lost_states)
        self._stale.inc(outcome.stale)
        self._batch.observe(records)
        for part, seconds in outcome.seconds.items():
            self._seconds.labels(part).observe(seconds)
        now = time.time()
        for record in outcome.visible:
            self._freshness.observe(max(0.0, now - record.timestamp / 1000))
        for partition, offset in offsets.items():
            self._offset.labels(str(partition)).set(offset)

    def retried(self) -> None:
        """Count a micro-batch that must be tried again."""
        self._retries.inc()

    def assigned(self, partitions: int) -> None:
        """Say how many partitions are this worker's."""
        self._assigned.set(partitions)

    def ready(self, value: bool) -> None:
        """Say whether the worker can work."""
        self._ready.set(value)

    def model(self, version: str) -> None:
        """Say which model serves."""
        self._model.info({"version": version})
