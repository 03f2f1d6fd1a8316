"""After a swap of models, the states and lists of users who do not click are computed anew in the background.

A user's next click would do the same for him; until then his list is one of the old model's.
"""

from __future__ import annotations

import asyncio
import logging
import time

from recsys.errors import UnavailableError
from recsys.store import Store
from stream.processor import Processor

log = logging.getLogger(__name__)

USERS = 64  # at a time: a click that comes meanwhile waits for them
SHARE = 0.2  # of the time, at most, that this takes from clicks
RETRY_SECONDS = 5.0


async def renew_all(processor: Processor, store: Store) -> int:
    """Go through all users once; gives how many were renewed. Waits while the store is away."""
    renewed = 0
    while True:
        try:
            async for users in store.users(USERS):
                began = time.monotonic()
                renewed += await processor.renew(users)
                await asyncio.sleep((time.monotonic() - began) * (1 / SHARE - 1))
            break
        except UnavailableError as error:
            log.warning("renewing states stops for %.0f s: %s", RETRY_SECONDS, error)
            await asyncio.sleep(RETRY_SECONDS)
    log.info("%d states of another model were renewed", renewed)
    return renewed
