"""The process that serves the API."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
import uvloop
from threadpoolctl import threadpool_limits

from recsys.api.app import create_app
from recsys.errors import UnavailableError
from recsys.published import Bundles
from recsys.service_log import announce, start_logging
from recsys.serving import CurrentModel
from recsys.settings import Settings

STOP_SECONDS = 5


class _Server(uvicorn.Server):
    """A server for which SIGTERM and Ctrl-C are the normal end; uvicorn would raise them anew after a clean stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        MissingInputError: no bundle is published.
        BundleError: the published bundle is altered.
        UnavailableError: the address cannot be listened on.
    """
    start_logging(settings.log)
    threadpool_limits(1, "blas")  # small products are many times slower on several threads
    model = CurrentModel(Bundles(settings.bundles))
    app = create_app(settings, model)
    listener = _listen(settings.api.host, settings.api.port)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    url = _url(listener)
    announce(f"model {model.served.version}, {len(model.served.vocabulary)} items")
    announce(f"api: listening on {url}")
    announce(f"try {url}/v1/popular?limit=5")
    announce(f"read {url}/docs")
    with listener:
        uvloop.run(_Server(config).serve(sockets=[listener]))
    announce("stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
