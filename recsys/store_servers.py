"""What a store runs on: one server, with or without replicas, or a cluster of them (``recsys/store_cluster.py``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from recsys.state import PREFIX

LEAVE = "="  # how no packed list begins

# KEYS: state and list key of each user. ARGV: the keys' life in milliseconds, then for each user how the state that was
# read begins, the new state and the list; an empty list takes the old one away, and '=' leaves it. A state that is
# there already counts as written: the client sends a command once more where it did not see the answer. A life of 0 is
# the life that keys have. Gives the numbers of the users whose state was another, counted from 1.
SAVE = f"""
local refused = {{}}
for i = 1, #KEYS, 2 do
  local user = (i + 1) / 2
  local read, state, list = ARGV[3 * user - 1], ARGV[3 * user], ARGV[3 * user + 1]
  if redis.call('GETRANGE', KEYS[i], 0, {PREFIX - 1}) == read then
    local life = ARGV[1] == '0' and redis.call('PTTL', KEYS[i]) or ARGV[1]
    redis.call('SET', KEYS[i], state, 'PX', life)
    if list == '' then
      redis.call('DEL', KEYS[i + 1])
    elseif list == '{LEAVE}' then
      redis.call('PEXPIRE', KEYS[i + 1], life)
    else
      redis.call('SET', KEYS[i + 1], list, 'PX', life)
    end
  elseif redis.call('GET', KEYS[i]) ~= state then
    refused[#refused + 1] = user
  end
end
return refused
"""

# KEYS: the hash of topics. ARGV: an id, and the hash's life in milliseconds. A number is that of the ids before.
NUMBER = """
redis.call('HSETNX', KEYS[1], ARGV[1], redis.call('HLEN', KEYS[1]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(redis.call('HGET', KEYS[1], ARGV[1]))
"""

Value = str | bytes | int


class Servers(Protocol):
    """The few things that a store asks for. They raise what ``redis`` raises."""

    def get(self, keys: Sequence[str]) -> Awaitable[Any]:
        """The value of each key, None where there is none."""

    def save(self, life_ms: int, keys: Sequence[str], values: Sequence[Value]) -> Awaitable[Any]:
        """Run ``SAVE``."""

    def number(self, key: str, identity: str, life_ms: int) -> Awaitable[Any]:
        """Run ``NUMBER``."""

    def put(self, key: str, value: bytes, life_ms: int) -> Awaitable[Any]:
        """Store a value that stands by itself."""

    def delete(self, keys: Sequence[str]) -> Awaitable[Any]:
        """Delete the keys; gives how many there were."""

    def scan(self, pattern: str, count: int) -> AsyncIterator[list[Any]]:
        """All keys of this pattern, about ``count`` at a time."""

    def ping(self) -> Awaitable[Any]:
        """Return if all servers answer."""

    def aclose(self) -> Awaitable[None]:
        """Give all connections back."""


class OneServer:
    """A batch of users is one command."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._save, self._number = redis.register_script(SAVE), redis.register_script(NUMBER)

    # No method here is a coroutine of its own: what they give is awaited once, by the store.

    def get(self, keys: Sequence[str]) -> Awaitable[Any]:
        """See :class:`Servers`."""
        return self._redis.mget(keys)

    def save(self, life_ms: int, keys: Sequence[str], values: Sequence[Value]) -> Awaitable[Any]:
        """See :class:`Servers`."""
        return self._save(keys=keys, args=[life_ms, *values])

    def number(self, key: str, identity: str, life_ms: int) -> Awaitable[Any]:
        """See :class:`Servers`."""
        return self._number(keys=[key], args=[identity, life_ms])

    def put(self, key: str, value: bytes, life_ms: int) -> Awaitable[Any]:
        """See :class:`Servers`."""
        return self._redis.set(key, value, px=life_ms)

    def delete(self, keys: Sequence[str]) -> Awaitable[Any]:
        """See :class:`Servers`."""
        return self._redis.delete(*keys)

    def scan(self, pattern: str, count: int) -> AsyncIterator[list[Any]]:
        """See :class:`Servers`."""
        return scan(self._redis, pattern, count)

    def ping(self) -> Awaitable[Any]:
        """See :class:`Servers`."""
        return self._redis.ping()

    def aclose(self) -> Awaitable[None]:
        """See :class:`Servers`."""
        return self._redis.aclose()


async def scan(redis: Redis, pattern: str, count: int) -> AsyncIterator[list[Any]]:
    """All keys of one server, about ``count`` at a time."""
    cursor = None
    while cursor != 0:
        cursor, keys = await redis.scan(cursor or 0, match=pattern, count=count)
        yield keys


async def is_cluster(redis: Redis) -> bool:
    """Whether the server is a node of a Redis Cluster, by its own word."""
    try:
        said = await redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
    except ResponseError:  # older than Redis 6, or something in between
        return False
    fields = said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))
    return bool(fields.get(b"mode") == b"cluster")
