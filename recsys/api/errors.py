"""One JSON shape for every refusal: ``{"error": {"code", "field", "message", "details"}}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from recsys.errors import EventError

_CODES = {404: "not_found", 405: "method_not_allowed"}


class RefusedError(Exception):
    """A request that is answered with an error.

    ``code`` is a short stable word for programs, ``message`` is for people, ``field`` names what is wrong in the
    request, and ``details`` has one entry for each wrong element of a list.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.field, self.details, self.headers = field, details, headers

    def response(self) -> Response:
        """The answer that says so."""
        error = {"code": self.code, "field": self.field, "message": self.message, "details": list(self.details)}
        return json_response({"error": error}, self.status, self.headers)


def unavailable(code: str, message: str, retry_after_seconds: int = 1) -> RefusedError:
    """A 503 that says when to try again."""
    return RefusedError(503, code, message, headers={"Retry-After": str(retry_after_seconds)})


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; NumPy scalars are written as the shortest number that reads back equal."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of the application the one shape, and let no traceback out."""

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return error.response()

    @app.exception_handler(EventError)
    async def bad_value(request: Request, error: EventError) -> Response:
        return RefusedError(422, "invalid_parameter", str(error), field=error.field).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "refused")
        message = f"{request.method} {request.url.path}: {error.detail}"
        return RefusedError(error.status_code, code, message, headers=error.headers).response()

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return RefusedError(500, "internal", "an error on our side; it has been logged").response()
