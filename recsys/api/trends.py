"""Answers follow the trends that workers store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from recsys.errors import InputError, UnavailableError
from recsys.scoring.trend import Trend
from recsys.serving import CurrentModel, Served
from recsys.store import Store

log = logging.getLogger(__name__)


async def watch_trends(
    model: CurrentModel, store: Store, seconds: float, changed: Callable[[Served], Awaitable[None]]
) -> None:
    """Look for a newer trend of the served model every ``seconds``; whatever happens, go on looking."""
    while True:
        try:
            served = model.served
            if await follow_stored(served, store):
                await changed(served)
        except UnavailableError:
            pass  # lookups say so
        except Exception:
            log.exception("looking for a trend failed, answers go on as they are")
        await asyncio.sleep(seconds)


async def follow_stored(served: Served, store: Store) -> bool:
    """Score by the stored trend of a model if it is newer, by none where there is none; gives whether that is a change.

    Raises:
        UnavailableError: the store is away.
    """
    packed = await store.trend(served.digest)
    try:
        trend = None if packed is None else Trend.unpack(packed, served.scorer.items)
    except InputError as error:
        log.warning("stored trend left aside: %s", error)
        trend = None
    known = served.trend
    if trend is known or (trend is not None and known is not None and trend.time <= known.time):
        return False  # several workers may store what each knows
    await asyncio.to_thread(served.follow, trend)
    return True
