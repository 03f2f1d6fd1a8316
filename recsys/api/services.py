"""What the routes of one application work with, and its life from start to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from fastapi import Request

from recsys.api.answers import Recommender
from recsys.api.clicks import ClickProducer
from recsys.api.lookups import Lookups
from recsys.api.metrics import Metrics
from recsys.api.trends import watch_trends
from recsys.errors import UnavailableError
from recsys.serving import CurrentModel
from recsys.settings import Settings
from recsys.store import Store

log = logging.getLogger(__name__)

TREND_POLLS = 5  # for newer trends, while each follows


class Services:
    """The model, the store, the producer and the metrics of one application."""

    def __init__(self, settings: Settings, model: CurrentModel) -> None:
        self.settings = settings
        self.model = model
        self.metrics = Metrics()
        self.store = Store(settings.redis)
        self.producer = ClickProducer(
            settings.kafka, settings.api.broker_timeout_seconds, settings.api.max_pending_events
        )
        self.recommender = Recommender(
            model, Lookups(self.store), settings.api, settings.worker.exclude_seen, self.metrics
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the published model and its trend, look for the broker, and in the end close everything."""
        seconds = self.settings.api.bundle_poll_seconds
        follow = self.model.watch(seconds, self.recommender.adopt)
        works = [self.producer.connect(), follow]
        if every := self.settings.trend.seconds:
            works.append(watch_trends(self.model, self.store, every / TREND_POLLS, self.recommender.adopt))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await self.store.ping()
        except UnavailableError as error:
            log.warning("not ready, users' lists are not to be had: %s", error)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.producer.close()
            await self.store.close()


def services_of(request: Request) -> Services:
    """The services of the application that the request came to."""
    return cast(Services, request.app.state.services)
