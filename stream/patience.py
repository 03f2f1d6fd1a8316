"""How long the worker goes on while a server is away, and how it ends without losing a click.

Faust acknowledges a batch even when its body raises, which would lose it. So the body never raises: it tries again
while a server is away, and past ``worker.retry_seconds`` ends the process at once, with the batch's offsets not
committed, for a supervisor to start it anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from recsys.errors import UnavailableError
from stream.metrics import WorkerMetrics
from stream.outcome import Outcome

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.05, 2.0
STOPPING_SECONDS = 3.0  # of further tries once asked to stop
DEFECT = 70  # exit code, as in sysexits.h


async def until_done(
    work: Callable[[], Awaitable[Outcome]], retry_seconds: float, stop: asyncio.Event, metrics: WorkerMetrics
) -> Outcome:
    """Do the work, again and again while a server is away; past the limit, or on a defect, end the process."""
    started = time.monotonic()
    wait = FIRST_RETRY_SECONDS
    while True:
        try:
            return await work()
        except UnavailableError as error:
            metrics.retried()
            away = time.monotonic() - started
            if away + wait > (min(retry_seconds, STOPPING_SECONDS) if stop.is_set() else retry_seconds):
                end(f"{error}; gave up after {away:.0f} s, no click is lost", UnavailableError.exit_code)
            log.warning("%s; trying again in %.2f s", error, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_RETRY_SECONDS)
        except Exception:
            log.exception("a defect in the worker; no click is lost")
            end("a defect, see the traceback above", DEFECT)


def end(reason: str, code: int) -> NoReturn:
    """End the process without a commit. Faust's own ways to stop would acknowledge the batch, or hang."""
    log.critical("worker ends: %s", reason)
    logging.shutdown()
    os._exit(code)
