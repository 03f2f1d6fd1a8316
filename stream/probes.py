"""What supervisors and Prometheus ask a worker over HTTP: ``/live``, ``/ready`` and ``/metrics``."""

from __future__ import annotations

import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from recsys.errors import UnavailableError
from recsys.settings import WorkerSettings

LIVE_SECONDS = 60.0  # a worker that has not looked after its servers for so long hangs
CLIENT_SECONDS = 10.0  # longest wait for a request to come in whole


class Health:
    """Whether the worker lives, and whether it can work: what its last look at the servers found."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._checks = {"broker": False, "store": False}

    def saw(self, *, broker: bool, store: bool) -> None:
        """Say which servers answer."""
        self._checks = {"broker": broker, "store": store}
        self._looked = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether broker and store answered at the last look."""
        return all(self._checks.values())

    @property
    def live(self) -> bool:
        """Whether there was a look lately: a worker that hangs takes none."""
        return time.monotonic() - self._looked < LIVE_SECONDS

    @property
    def checks(self) -> dict[str, str]:
        """What is wrong, by server."""
        return {name: "ok" if answers else "does not answer" for name, answers in self._checks.items()}


def serve_probes(settings: WorkerSettings, registry: CollectorRegistry, health: Health) -> int:
    """Answer from a thread, so that a worker that hangs can still say so; gives the port.

    Raises:
        UnavailableError: the address is taken.
    """

    class Probes(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:  # the base class's name
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path == "/ready":
                self._say(health.ready, "ready", checks=health.checks)
            elif path == "/live":
                self._say(health.live, "live")
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /ready, /live\n", "text/plain")

        def _say(self, good: bool, word: str, **more: Any) -> None:
            body = orjson.dumps({"status": word if good else f"not {word}", **more})
            self._answer(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, body, "application/json")

        def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """A probe is no news."""

    address = (settings.metrics_host, settings.metrics_port)
    try:
        _Server.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        server = _Server(address, Probes)
    except OSError as error:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        raise UnavailableError(f"cannot serve metrics on {where}: {error.strerror} (metrics_port)") from None
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return int(server.server_port)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
