"""Keeps the trend of each model that serves: every few minutes it follows the clicks that have come since.

Each worker follows the clicks of its own partitions, which are those of some users by lot, and scores by what it finds.
It stores that, too: the API reads it there, and a worker goes on from it when it starts. So a trend is no part of what
must survive: states never depend on it, and lists only until the next click of their user.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence

import numpy as np

from recsys.errors import InputError, UnavailableError
from recsys.scoring.clicks import Clicks
from recsys.scoring.live_trend import LiveTrend
from recsys.scoring.scorer import Scorer
from recsys.scoring.trend import Trend
from recsys.serving import CurrentModel, Served
from recsys.store import TREND_LIFE_MS, Store
from stream.metrics import WorkerMetrics
from stream.outcome import Led, Outcome

log = logging.getLogger(__name__)


class _Model:
    """A model that serves, its trend, and the clicks that this has not followed yet."""

    def __init__(self, served: Served, trend: Trend | None) -> None:
        self.served = served
        self.live = LiveTrend(Scorer(served.bundle.model.weights), trend)
        self.followed = time.monotonic()
        self._led: list[Led] = []
        self._told: set[tuple[str, int]] = set()

    def note(self, led: Iterable[Led]) -> None:
        """Take note of clicks: of each visitor one an item, so that nobody speaks for all; of too many, of some."""
        for click in led:
            if (key := (click.user, click.row)) not in self._told:
                self._told.add(key)
                self._led.append(click)
        if len(self._led) > 2 * self.live.most:
            del self._led[::2]
            self._told = {(click.user, click.row) for click in self._led}

    def take(self) -> list[Led]:
        """The clicks since the last time."""
        led, self._led, self._told = self._led, [], set()
        return led

    def follow(self, led: Sequence[Led]) -> Trend:
        """Score by what these clicks say, too."""
        clicks = Clicks(
            np.stack([click.hidden for click in led]),
            np.array([click.row for click in led], np.int32),
            np.array([click.time for click in led], np.int64),
        )
        trend = self.live.follow(clicks)
        self.served.follow(trend)
        return trend


class TrendKeeper:
    """Takes note of clicks, and makes trends of them. Whatever happens here, clicks go on without.

    Args:
        model: serves.
        store: has the trends that are known.
        seconds: how often trends follow; 0: there are none.
        metrics: are told of them.
    """

    def __init__(self, model: CurrentModel, store: Store, seconds: float, metrics: WorkerMetrics) -> None:
        self._model, self._store, self._seconds, self._metrics = model, store, seconds, metrics
        self._models: dict[int, _Model] = {}

    def observe(self, outcome: Outcome) -> None:
        """Take note of the clicks of a micro-batch."""
        for digest, led in outcome.led.items():
            if digest in self._models:
                self._models[digest].note(led)

    async def watch(self) -> None:
        """Never ends."""
        while True:
            await asyncio.sleep(self._seconds or 3600)
            await self.follow()

    async def adopt(self) -> None:
        """Go on from what is stored of models that have come to serve; forget those that no longer do."""
        if not self._seconds:
            return
        models: dict[int, _Model] = {}
        self._metrics.no_trends()
        for served in self._model.serving:
            known = self._models.get(served.digest)
            try:
                if known is None or known.served is not served:
                    trend = await self._stored(served) if known is None else known.live.trend
                    await asyncio.to_thread(served.follow, trend)
                    known = _Model(served, trend)
            except Exception:
                log.exception("the trend of %s is begun anew", served.version)
                known = _Model(served, None)
            models[served.digest] = known
            if served.trend is not None:
                self._metrics.trend(served.version, served.trend)
        self._models = models

    async def follow(self) -> None:
        """Score by what has been clicked since the last time, and store what that says."""
        for each in list(self._models.values()):
            try:
                await self._follow(each)
            except UnavailableError as error:
                log.warning("the trend of %s is not stored: %s", each.served.version, error)
            except Exception:
                log.exception("the trend of %s stays as it is", each.served.version)

    async def _follow(self, model: _Model) -> None:
        served, led = model.served, model.take()
        if led:
            trend = await asyncio.to_thread(model.follow, led)
            model.followed = time.monotonic()
            log.info("trend of %s: %d clicks, strength %.2f", served.version, trend.clicks.sum(), trend.strength)
            self._metrics.trend(served.version, trend)
            await self._store.save_trend(served.digest, trend.pack())
        elif served.trend is not None and time.monotonic() > model.followed + TREND_LIFE_MS / 1000:
            await asyncio.to_thread(served.follow, None)  # nobody knows any more what is clicked
            self._models[served.digest] = _Model(served, None)

    async def _stored(self, served: Served) -> Trend | None:
        try:
            packed = await self._store.trend(served.digest)
            return None if packed is None else Trend.unpack(packed, served.scorer.items)
        except (InputError, UnavailableError) as error:
            log.warning("the trend of %s is begun anew: %s", served.version, error)
            return None
