"""Keeps the trend of each model that serves: every few minutes it follows the clicks that have come since.

Each worker follows the clicks of its own partitions, which are those of some users by lot, and scores by what it finds.
It stores that, too: the API reads it there, and a worker goes on from it when it starts. So a trend is no part of what
must survive: states never depend on it, and lists only until the next click of their user.
"""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from recsys.errors import InputError, UnavailableError
from recsys.scoring.live_trend import Clicks, LiveTrend
from recsys.scoring.scorer import Scorer
from recsys.scoring.trend import Trend
from recsys.serving import CurrentModel, Served
from recsys.store import Store
from stream.metrics import WorkerMetrics
from stream.outcome import Led, Outcome

log = logging.getLogger(__name__)


class TrendKeeper:
    """Takes note of clicks, and makes trends of them.

    Args:
        model: serves.
        store: has the trends that are known.
        seconds: how often trends follow; 0: there are none.
        metrics: are told of them.
    """

    def __init__(self, model: CurrentModel, store: Store, seconds: float, metrics: WorkerMetrics) -> None:
        self._model, self._store, self._seconds, self._metrics = model, store, seconds, metrics
        self._lives: dict[int, LiveTrend] = {}
        self._led: dict[int, list[Led]] = {}

    def observe(self, outcome: Outcome) -> None:
        """Take note of the clicks of a micro-batch; if they are more than can be looked at, of some."""
        if not self._seconds:
            return
        for digest, led in outcome.led.items():
            if live := self._lives.get(digest):
                noted = self._led.setdefault(digest, [])
                noted += led
                if len(noted) > 2 * live.most:
                    del noted[::2]

    async def watch(self) -> None:
        """Never ends."""
        while True:
            await asyncio.sleep(self._seconds or 3600)
            await self.follow()

    async def adopt(self) -> None:
        """Go on from what is stored of models that have come to serve; forget those that no longer do."""
        if not self._seconds:
            return
        serving = {served.digest: served for served in self._model.serving}
        self._lives = {digest: live for digest, live in self._lives.items() if digest in serving}
        self._led = {digest: led for digest, led in self._led.items() if digest in serving}
        for digest in serving.keys() - self._lives.keys():
            served = serving[digest]
            trend = await self._stored(served)
            if trend is not None:
                await asyncio.to_thread(served.follow, trend)
            self._lives[digest] = LiveTrend(Scorer(served.bundle.model.weights), trend)

    async def follow(self) -> None:
        """Score by what has been clicked since the last time, and store what that says."""
        for served in self._model.serving:
            led = self._led.pop(served.digest, [])
            if led and served.digest in self._lives:
                trend = await asyncio.to_thread(_follow, self._lives[served.digest], led, served)
                self._metrics.trend(served.version, trend)
                try:
                    await self._store.save_trend(served.digest, trend.pack())
                except UnavailableError as error:
                    log.warning("the trend of %s is not stored: %s", served.version, error)

    async def _stored(self, served: Served) -> Trend | None:
        try:
            packed = await self._store.trend(served.digest)
            return None if packed is None else Trend.unpack(packed, served.scorer.items)
        except (InputError, UnavailableError) as error:
            log.warning("the trend of %s is begun anew: %s", served.version, error)
            return None


def _follow(live: LiveTrend, led: list[Led], served: Served) -> Trend:
    hidden, rows, times = zip(*led, strict=True)
    trend = live.follow(Clicks(np.stack(hidden), np.array(rows, np.int32), np.array(times, np.int64)))
    served.follow(trend)
    return trend
