"""What the worker tells Prometheus, units in the names."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from recsys.scoring.trend import Trend
from recsys.settings import WorkerSettings
from stream.online_metrics import OnlineMetrics
from stream.outcome import Outcome
from stream.probes import Health, serve_probes

# From 1 ms to 60 s, each 15% above the one before, so that a quantile read off them is within 15%.
FRESHNESS_BUCKETS = tuple(round(0.001 * 1.15**power, 6) for power in range(79))
BATCH_BUCKETS = tuple(2**power for power in range(16))  # a worker that catches up takes some ten thousand
TIME_BUCKETS = tuple(0.0001 * 2**power for power in range(16))


class WorkerMetrics:
    """The worker's counters, on a registry of their own, and what it says of its health.

    Attributes:
        online: how the lists fare that visitors meet.
        dealt_with: offset of the newest record of each partition that the worker has dealt with.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry, "namespace": "recsys"}
        self._applied = Counter("clicks_applied", "Clicks that advanced a user's state.", **options)
        self._skipped = Counter("clicks_skipped", "Clicks that changed nothing, by reason.", ["reason"], **options)
        self._dead = Counter("clicks_dead_lettered", "Clicks that could not be used, by reason.", ["reason"], **options)
        self._lists = Counter("lists_written", "Recommendation lists written.", **options)
        self._rebuilt = Counter("states_rebuilt", "States carried over from another model.", **options)
        self._lost = Counter("states_lost", "States that could not be read or carried over.", **options)
        self._stale = Counter("writes_refused", "Writes refused as others had changed the state.", **options)
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
        self._lag = Gauge(
            "lag_records",
            "Records of the click topic not dealt with yet, as of two seconds ago.",
            ["partition"],
            **options,
        )
        self._ready = Gauge("ready", "1 while broker and store answer.", **options)
        self._assigned = Gauge(
            "partitions_assigned", "Partitions of the click topic that this worker reads.", **options
        )
        self._model = Info("model", "The model that serves.", **options)
        self._trend_time = Gauge(
            "trend_newest_click_timestamp_seconds", "Time of the newest click that a trend knows.", ["model"], **options
        )
        self._trend_strength = Gauge(
            "trend_strength",
            "What multiplies rises of items: 0 where none goes on, 1 where all do, 0.5 before that is known.",
            ["model"],
            **options,
        )
        self._unexamined = Counter(
            "online_unexamined_clicks", "Clicks that lead a session on, but test no list (online_metrics).", **options
        )
        self.online = OnlineMetrics()
        self.registry.register(self.online)
        self._health = Health()
        self._lagging: set[int] = set()
        self.dealt_with: dict[int, int] = {}

    def serve(self, settings: WorkerSettings) -> int:
        """Answer ``GET /metrics``, ``/ready`` and ``/live``; gives the port.

        Raises:
            UnavailableError: the address is taken.
        """
        return serve_probes(settings, self.registry, self._health)

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
        self._unexamined.inc(outcome.unexamined)
        self.online.add(outcome.trials)
        for part, seconds in outcome.seconds.items():
            self._seconds.labels(part).observe(seconds)
        now = time.time()
        for record in outcome.visible:
            self._freshness.observe(max(0.0, now - record.timestamp / 1000))
        self.dealt_with |= offsets
        for partition, offset in offsets.items():
            self._offset.labels(str(partition)).set(offset)

    def renewed(self, states: int) -> None:
        """Count states carried over in the background."""
        self._rebuilt.inc(states)

    def retried(self) -> None:
        """Count a micro-batch that must be tried again."""
        self._retries.inc()

    def assigned(self, partitions: int) -> None:
        """Say how many partitions are this worker's."""
        self._assigned.set(partitions)

    def servers(self, *, broker: bool, store: bool) -> None:
        """Say which servers answer."""
        self._health.saw(broker=broker, store=store)
        self._ready.set(self._health.ready)

    def lag(self, records: Mapping[int, int]) -> None:
        """Say how far behind the worker is, by partition; partitions that it no longer reads are forgotten."""
        for partition in self._lagging - records.keys():
            self._lag.remove(str(partition))
        for partition, count in records.items():
            self._lag.labels(str(partition)).set(count)
        self._lagging = set(records)

    def no_trends(self) -> None:
        """Forget the trends of all models."""
        self._trend_time.clear()
        self._trend_strength.clear()

    def trend(self, version: str, trend: Trend) -> None:
        """Say what a model's trend is like."""
        self._trend_time.labels(version).set(trend.time / 1000)
        self._trend_strength.labels(version).set(trend.strength)

    def model(self, version: str) -> None:
        """Say which model serves."""
        self._model.info({"version": version})
