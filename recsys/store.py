"""User states and recommendation lists in Redis.

Each user has two keys, ``<prefix>:s:{user}`` and ``<prefix>:l:{user}``. They are written by one script, together or not
at all, and only if the state there is still the one that was read: a worker that does not know it has lost its
partition changes nothing. The braces make a Redis Cluster keep both keys on one node. Whether the store is a cluster it
says itself, when it is first spoken to.

``<prefix>:trend:<digest>`` is what all visitors click of late beside what the model with this digest expects; workers
write it, and whoever serves that model reads it.

``<prefix>:topics`` numbers the topics that clicks came from. Workers look it up every few seconds, so that it outlives
all states that have its numbers, and no policy that evicts what was not used for long takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from recsys.errors import SettingsError, UnavailableError
from recsys.settings import RedisSettings
from recsys.state import PREFIX
from recsys.store_cluster import Cluster
from recsys.store_servers import LEAVE, OneServer, Servers, is_cluster

TREND_LIFE_MS = 3_600_000  # an hour after the last click nobody knows what is clicked


@dataclass(frozen=True, slots=True)
class Write:
    """What to store for a user: the packed state, and the packed list, ``b""`` for none or None for the one there is.

    ``read`` is the packed state in the store from which they were made, None if there was none.
    """

    user_id: str
    read: bytes | None
    state: bytes
    recommendations: bytes | None


class Store:
    """A connection pool to the store. Every method raises ``UnavailableError`` when it cannot be reached in time."""

    def __init__(self, settings: RedisSettings) -> None:
        self._address = settings.url.rpartition("@")[2].partition("?")[0]  # without any password
        self._prefix = settings.prefix
        self._ttl_ms = round(settings.ttl_hours * 3_600_000)
        try:
            self._redis = Redis.from_url(
                settings.url,
                socket_timeout=settings.timeout_seconds,
                socket_connect_timeout=settings.timeout_seconds,
                decode_responses=False,
                **_credentials(settings),
            )
        except ValueError:  # its words may hold a part of the password
            words = "cannot be read; in a password '/', '#' and '?' are written %2F, %23 and %3F"
            raise SettingsError(f"settings: redis.url: {words}") from None
        self._timeout_seconds = settings.timeout_seconds
        self._servers: Servers | None = None  # not spoken to yet

    async def ping(self) -> None:
        """Return if the store answers, in a cluster every node that has keys."""
        async with self._reach() as servers:
            await servers.ping()

    async def states(self, users: Sequence[str]) -> list[bytes | None]:
        """The packed state of each user, None where there is none."""
        return await self._get([self.key("s", user) for user in users])

    async def lists(self, users: Sequence[str]) -> list[bytes | None]:
        """The packed recommendation list of each user, None where there is none."""
        return await self._get([self.key("l", user) for user in users])

    async def states_and_lists(self, users: Sequence[str]) -> tuple[list[bytes | None], list[bytes | None]]:
        """What :meth:`states` and :meth:`lists` give, by one request."""
        values = await self._get([self.key(kind, user) for kind in ("s", "l") for user in users])
        return values[: len(users)], values[len(users) :]

    async def save(self, writes: Sequence[Write], *, keep_life: bool = False) -> set[str]:
        """Store each user's state and list together, if the state there is still ``read``; say whose was not.

        With ``keep_life`` the keys expire when they would have.
        """
        if not writes:
            return set()
        keys = [self.key(kind, write.user_id) for write in writes for kind in ("s", "l")]
        values = [
            value
            for write in writes
            for value in (
                (write.read or b"")[:PREFIX],
                write.state,
                LEAVE if write.recommendations is None else write.recommendations,
            )
        ]
        async with self._reach() as servers:
            refused = await servers.save(0 if keep_life else self._ttl_ms, keys, values)
        return {writes[user - 1].user_id for user in refused}

    async def forget(self, users: Sequence[str]) -> int:
        """Delete the states and lists of these users; says how many keys there were."""
        keys = [self.key(kind, user) for user in users for kind in ("s", "l")]
        async with self._reach() as servers:
            return int(await servers.delete(keys)) if keys else 0

    async def users(self, count: int) -> AsyncIterator[list[str]]:
        """All users that have a state, about ``count`` at a time; one may come twice, or not if he is new."""
        start = f"{self._prefix}:s:{{"
        async with self._reach() as servers:
            found = servers.scan(f"{start}*}}", count)
        while True:
            async with self._reach():
                keys: list[bytes] | None = await anext(found, None)
            if keys is None:
                return
            names = (key.decode()[len(start) : -1] for key in keys)
            yield [name.replace("%7D", "}").replace("%25", "%") for name in names]

    async def trend(self, model: int) -> bytes | None:
        """The packed trend of the model with this digest, None where there is none of late."""
        (packed,) = await self._get([self._trend_key(model)])
        return packed

    async def save_trend(self, model: int, packed: bytes) -> None:
        """Store the trend of the model with this digest, for as long as it may be of use."""
        async with self._reach() as servers:
            await servers.put(self._trend_key(model), packed, TREND_LIFE_MS)

    async def topic_number(self, identity: str) -> int:
        """The number of the topic with this id: 0 for the first that was ever asked for, 1 for the next, and so on."""
        life = self._ttl_ms + 3_600_000  # longer than that of any state
        async with self._reach() as servers:
            return int(await servers.number(f"{self._prefix}:topics", identity, life))

    async def close(self) -> None:
        """Give all connections back."""
        await (self._servers or self._redis).aclose()

    def key(self, kind: str, user_id: str) -> str:
        """The key of a user's state (``s``) or list (``l``)."""
        # A hash tag ends at the first closing brace, so one inside an id is written another way.
        return f"{self._prefix}:{kind}:{{{user_id.replace('%', '%25').replace('}', '%7D')}}}"

    def _trend_key(self, model: int) -> str:
        return f"{self._prefix}:trend:{model:016x}"

    async def _get(self, keys: Sequence[str]) -> list[bytes | None]:
        async with self._reach() as servers:
            return list(await servers.get(keys)) if keys else []

    @asynccontextmanager
    async def _reach(self) -> AsyncIterator[Servers]:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            yield self._servers or await self._meet()
        except (RedisError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            does = "refuses" if isinstance(error, ResponseError) else "does not answer"
            raise UnavailableError(f"the store at {self._address} {does}: {reason}") from error
        finally:
            if task and task.cancelling() > before:  # redis-py waits by ``wait_for``, which loses it in Python 3.11
                raise asyncio.CancelledError

    async def _meet(self) -> Servers:
        clustered = await is_cluster(self._redis)
        if self._servers is None:  # nobody else has met them meanwhile
            self._servers = self._cluster() if clustered else OneServer(self._redis)
        return self._servers

    def _cluster(self) -> Cluster:
        if "path" in self._redis.connection_pool.connection_kwargs:
            raise SettingsError("settings: redis.url: a Redis Cluster is not reached by a socket file")
        return Cluster(self._redis, self._timeout_seconds)


def _credentials(settings: RedisSettings) -> dict[str, Any]:
    """Who we are to the store, and whom we trust; what the address says of itself goes before."""
    if settings.ssl_ca and not Path(settings.ssl_ca).is_file():
        raise SettingsError(f"settings: redis.ssl_ca: {settings.ssl_ca}: no such file")
    options = {
        "username": settings.username,
        "password": settings.password.get_secret_value(),
        "ssl_ca_certs": settings.ssl_ca,
    }
    return {name: value for name, value in options.items() if value}
