"""After a swap of models, the states and lists of users who do not click are computed anew in the background.

A user's next click would do the same for him; until then his list is one of the old model's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from recsys.errors import UnavailableError
from recsys.store import Store
from stream.processor import Processor

log = logging.getLogger(__name__)

USERS = 16  # at a time: a click that comes meanwhile waits for them
SHARE = 0.2  # of the time, at most, that this takes from clicks
RETRY_SECONDS = 5.0


class Renewal:
    """Goes through all users once after each :meth:`wake`.

    Args:
        processor: renews.
        store: knows the users.
        renewed: told how many states were renewed, as it goes.
    """

    def __init__(self, processor: Processor, store: Store, renewed: Callable[[int], None] = lambda _: None) -> None:
        self._processor, self._store, self._renewed = processor, store, renewed
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Another model serves, or may have come to serve while nobody watched."""
        self._awake.set()

    async def watch(self) -> None:
        """Never ends; waits while the store is away."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            try:
                await self.renew_all()
            except UnavailableError as error:
                log.warning("renewing states stops for %.0f s: %s", RETRY_SECONDS, error)
                self._awake.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def renew_all(self) -> int:
        """Go through all users once; gives how many were renewed.

        Raises:
            UnavailableError: the store is away.
        """
        total = 0
        async for users in self._store.users(USERS):
            began = time.monotonic()
            renewed = await self._processor.renew(users)
            total += renewed
            self._renewed(renewed)
            await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
        log.info("%d states of another model were renewed", total)
        return total
