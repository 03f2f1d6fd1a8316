"""Reads of users' lists, folded: lookups that wait together travel together."""

from __future__ import annotations

import asyncio

from recsys.errors import UnavailableError
from recsys.store import Store

BATCH = 512  # users of one MGET
REST_SECONDS = 1.0  # after a failure, how long lookups fail at once instead of each waiting for the store


class Lookups:
    """Lists by user, with one MGET in the air at a time.

    The first lookup of an event-loop tick starts a read at the end of that tick; all that come until it is back form
    the next one. So the store sees few commands, however many requests there are, and one connection suffices.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[str, asyncio.Future[bytes | None]]] = []
        self._reader: asyncio.Task[None] | None = None
        self._resting_until = 0.0

    async def packed_list(self, user_id: str) -> bytes | None:
        """The user's list as stored, None where there is none.

        Raises:
            UnavailableError: the store does not answer.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._resting_until:
            raise UnavailableError("the store did not answer a moment ago")
        answer: asyncio.Future[bytes | None] = loop.create_future()
        self._waiting.append((user_id, answer))
        if self._reader is None:
            self._reader = loop.create_task(self._read())
        return await answer

    async def _read(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                await self._read_batch(batch)
        finally:
            self._reader = None

    async def _read_batch(self, batch: list[tuple[str, asyncio.Future[bytes | None]]]) -> None:
        users = list(dict.fromkeys(user for user, _ in batch))
        try:
            lists = dict(zip(users, await self._store.lists(users), strict=True))
        except Exception as error:
            self._resting_until = asyncio.get_running_loop().time() + REST_SECONDS
            failed, self._waiting = batch + self._waiting, []
            for _, answer in failed:
                if not answer.done():  # a client may have left
                    answer.set_exception(UnavailableError(str(error)))
            if not isinstance(error, UnavailableError):
                raise
        else:
            for user, answer in batch:
                if not answer.done():
                    answer.set_result(lists[user])
