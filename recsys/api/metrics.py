"""What the API counts, for Prometheus."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WENT_AWAY = 499  # the client left before there was an answer
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "recsys_api_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "recsys_api_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.answers = Counter("recsys_api_answers", "Recommendations by source.", ["source"], registry=registry)
        self.degraded = Counter(
            "recsys_api_degraded_answers", "Answers without the user's list: the store is away.", registry=registry
        )
        self.unusable = Counter(
            "recsys_api_unusable_lists", "Stored lists that could not be read or translated.", registry=registry
        )
        self.events = Counter("recsys_api_events", "Events received, by outcome.", ["outcome"], registry=registry)
        self._model = Gauge("recsys_api_model_info", "The model version served.", ["version"], registry=registry)

    def serves(self, version: str) -> None:
        """Name the model version that answers from now on."""
        self._model.clear()
        self._model.labels(version).set(1)


class Measured:
    """Counts and times every request by route, method and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = _WENT_AWAY, perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception:
            status = 500
            raise
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(perf_counter() - start)
