"""How far the worker is behind, in records, by partition."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, NoReturn

from stream.metrics import WorkerMetrics

log = logging.getLogger(__name__)

LAG_SECONDS = 2.0


async def watch_lag(app: Any, topic: str, metrics: WorkerMetrics) -> NoReturn:
    """Tell ``metrics`` the lag of each partition of ``topic`` that the Faust app reads, every two seconds."""
    while True:
        try:
            metrics.lag(await lag_of(app.consumer, topic, metrics.dealt_with))
        except Exception as error:  # the partitions may be taken away meanwhile; the work does not hang on this
            log.debug("the lag is not to be had: %r", error)
        await asyncio.sleep(LAG_SECONDS)


async def lag_of(consumer: Any, topic: str, dealt_with: Mapping[int, int]) -> dict[int, int]:
    """Records of each partition that stand between its end and the newest one dealt with, here or by the group.

    ``dealt_with`` has the offset of the newest record of each partition that this process has dealt with.
    """
    mine = [each for each in consumer.assignment() if each.topic == topic]
    if not mine:
        return {}
    ends, begins = await consumer.highwaters(*mine), await consumer.earliest_offsets(*mine)
    committed = consumer._committed_offset  # where this process began, or what another had done meanwhile
    done = {each: max(dealt_with.get(each.partition, -1) + 1, committed[each] or 0, begins[each]) for each in mine}
    return {each.partition: max(0, ends[each] - done[each]) for each in mine}
