"""User states and recommendation lists in Redis.

Each user has two keys, ``<prefix>:s:{user}`` and ``<prefix>:l:{user}``. They are written by one script, together or not
at all, and only if the event they follow from is newer than what is there: a redelivered click, or a worker that does
not know it has lost its partition, changes nothing. (The braces would make Redis Cluster keep both keys in one slot; a
batch of users is written by one call, though, so the store must be one Redis, with or without replicas.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from recsys.errors import UnavailableError
from recsys.settings import RedisSettings

# KEYS: state and list key of each user. ARGV: the keys' life in milliseconds, then state and list of each user; an
# empty list takes the old one away. The states' first 16 bytes are epoch, partition and offset (recsys.state).
_SAVE = """
local stale = {}
for i = 1, #KEYS, 2 do
  local old = redis.call('GETRANGE', KEYS[i], 0, 15)
  local fresh = true
  if #old == 16 then
    local old_epoch, old_partition, old_offset = struct.unpack('<I4i4i8', old)
    local epoch, partition, offset = struct.unpack('<I4i4i8', ARGV[i + 1])
    if epoch ~= old_epoch or partition ~= old_partition then
      fresh = epoch >= old_epoch
    else
      fresh = offset > old_offset
    end
  end
  if fresh then
    redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[1])
    if ARGV[i + 2] == '' then
      redis.call('DEL', KEYS[i + 1])
    else
      redis.call('SET', KEYS[i + 1], ARGV[i + 2], 'PX', ARGV[1])
    end
  else
    stale[#stale + 1] = (i + 1) / 2
  end
end
return stale
"""


@dataclass(frozen=True, slots=True)
class Write:
    """What to store for a user: the packed state, and the packed list or ``b""`` for none."""

    user_id: str
    state: bytes
    recommendations: bytes


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
            )
        except ValueError as error:
            raise UnavailableError(f"redis.url: {error}") from None
        self._save = self._redis.register_script(_SAVE)

    async def ping(self) -> None:
        """Return if the store answers."""
        async with self._reachable():
            await self._redis.ping()

    async def states(self, users: Sequence[str]) -> list[bytes | None]:
        """The packed state of each user, None where there is none."""
        return await self._get("s", users)

    async def lists(self, users: Sequence[str]) -> list[bytes | None]:
        """The packed recommendation list of each user, None where there is none."""
        return await self._get("l", users)

    async def save(self, writes: Sequence[Write]) -> set[str]:
        """Store each user's state and list together, if newer than what is there; say whose were not."""
        if not writes:
            return set()
        keys = [self.key(kind, write.user_id) for write in writes for kind in ("s", "l")]
        values = [value for write in writes for value in (write.state, write.recommendations)]
        async with self._reachable():
            stale = await self._save(keys=keys, args=[self._ttl_ms, *values])
        return {writes[index - 1].user_id for index in stale}

    async def close(self) -> None:
        """Give all connections back."""
        await self._redis.aclose()

    def key(self, kind: str, user_id: str) -> str:
        """The key of a user's state (``s``) or list (``l``)."""
        # A hash tag ends at the first closing brace, so one inside an id is written another way.
        return f"{self._prefix}:{kind}:{{{user_id.replace('%', '%25').replace('}', '%7D')}}}"

    async def _get(self, kind: str, users: Iterable[str]) -> list[bytes | None]:
        keys = [self.key(kind, user) for user in users]
        async with self._reachable():
            return list(await self._redis.mget(keys)) if keys else []  # type: ignore[arg-type]  # bytes: no decoding

    @asynccontextmanager
    async def _reachable(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"the store at {self._address} does not answer: {reason}") from error
