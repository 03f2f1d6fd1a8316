"""Bounds on what requests may cost: how many at a time, how large, and how long a body may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.api.errors import RefusedError, unavailable
from recsys.settings import ApiSettings

BODY_SECONDS = 10.0


class Limits:
    """Refuses requests beyond the bounds before any of their work is done.

    A body is read whole before the request goes on, so that one sent in chunks is held to the same size as one that
    announces its length. Health and metrics are never refused for being one too many.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._max_bytes = settings.max_body_kib * 1024
        self._max_requests = settings.max_requests
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        if self._requests >= self._max_requests:
            await unavailable("overloaded", "too many requests at a time").response()(scope, receive, send)
            return
        self._requests += 1
        try:
            if scope["method"] == "POST":
                receive = await self._whole_body(receive)
            await self._app(scope, receive, send)
        except RefusedError as refusal:
            await refusal.response()(scope, receive, send)
        finally:
            self._requests -= 1

    async def _whole_body(self, receive: Receive) -> Receive:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "incomplete", "the body broke off", field="body")
                    body += message.get("body", b"")
                    if len(body) > self._max_bytes:
                        problem = f"the body is larger than {self._max_bytes} bytes"
                        raise RefusedError(413, "too_large", problem, field="body")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise RefusedError(408, "timeout", f"the body took more than {BODY_SECONDS:.0f} s to arrive") from None
        whole: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            given, whole = whole, None
            return given

        return replay
