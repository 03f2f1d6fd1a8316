"""The application: routes, bounds, metrics and error shape put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from recsys.api import operations, routes
from recsys.api.errors import add_error_handlers
from recsys.api.limits import Limits
from recsys.api.metrics import Measured
from recsys.api.services import Services
from recsys.serving import CurrentModel
from recsys.settings import Settings

DESCRIPTION = """
Lists of what a visitor will want next, and the door for their clicks.

Every answer names its source, the model version and its age, and no page is empty while items exist.
Every error has the shape `{"error": {"code", "field", "message", "details"}}`.
"""


def create_app(settings: Settings, model: CurrentModel) -> FastAPI:
    """The lookup API on a model; its connections are opened and closed by the application's lifespan."""
    services = Services(settings, model)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with services.running():
            yield

    app = FastAPI(
        title="recsys lookup API",
        version=version("recsys"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.services = services
    app.include_router(routes.router, tags=["recommendations"])
    app.include_router(operations.router, tags=["operations"])
    add_error_handlers(app)
    app.add_middleware(Limits, settings=settings.api)
    if origins := [origin.strip() for origin in settings.api.cors_origins.split(",") if origin.strip()]:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["content-type"]
        )
    app.add_middleware(Measured, metrics=services.metrics)  # the outermost sees every answer
    return app
