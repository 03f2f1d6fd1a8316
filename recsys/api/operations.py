"""Routes for those who come to look: what this is, health and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from recsys.api.errors import json_response
from recsys.api.schemas import About, Health
from recsys.api.services import services_of
from recsys.errors import UnavailableError

router = APIRouter()


@router.get("/", response_model=About, summary="What this is")
async def root(request: Request) -> Response:
    """The name and version of the API, and where to read on."""
    app = request.app
    return json_response({"name": app.title, "version": app.version, "docs": app.docs_url, "openapi": app.openapi_url})


@router.get("/health/live", summary="Whether the process answers")
async def live() -> Response:
    """Always 200."""
    return json_response({"status": "live"})


@router.get("/health", response_model=Health, responses={503: {"model": Health}}, summary="The same as /health/ready")
@router.get("/health/ready", response_model=Health, responses={503: {"model": Health}}, summary="Ready for requests")
async def ready(request: Request) -> Response:
    """200 with a model and the store; 503 says what is wrong. Without the broker, lookups are served all the same."""
    services = services_of(request)
    checks = {"model": "ok", "store": "ok", "broker": services.producer.health}
    try:
        await services.store.ping()
    except UnavailableError as error:
        checks["store"] = str(error)
    status = "ready" if checks["store"] == "ok" else "not ready"
    version = services.recommender.edition.served.version
    return json_response(
        {"status": status, "model_version": version, "checks": checks}, 200 if status == "ready" else 503
    )


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """In the text format of Prometheus."""
    return Response(generate_latest(services_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
