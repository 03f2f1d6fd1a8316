"""A store on a Redis Cluster: every command goes to the node that has its key, those of a node together.

A node that no longer has a key says who has (MOVED), or who has it for the time of a move (ASK). Then the command goes
there, and so does one that came while a user's two keys were on two nodes (TRYAGAIN), as long as the caller may wait.
When a node is away, or calls the cluster down, the caller is told, and its next attempt begins with what other nodes
say of the cluster. A write that no replica has in time fails too, where there are any: repeated, it is found done, or
is done if it was lost.

(The library has a client for clusters too. It sends ASKING and the command it is for over different connections, so
that a slot on its move cannot be read or written, and one node that is away makes it close the connections to all.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from recsys.store_servers import NUMBER, SAVE, Value, scan

Address = tuple[str, int]
Words = tuple[Value, ...]  # of a command

SHAS = {script: sha1(script.encode()).hexdigest() for script in (SAVE, NUMBER)}
PAUSE_SECONDS = 0.01  # before a command that was sent elsewhere for the second time


@dataclass
class _Slots:
    """Which node has each slot, how many replicas each of these has, and all nodes there are."""

    owners: list[Address | None] = field(default_factory=lambda: [None] * SLOTS)
    replicas: dict[Address, int] = field(default_factory=dict)
    known: set[Address] = field(default_factory=set)

    @classmethod
    def read(cls, answer: Sequence[Any], asked: str) -> _Slots:
        """What ``CLUSTER SLOTS`` says; a node without a name is the one that was ``asked``."""
        slots = cls()
        for first, last, *nodes in answer:
            addresses = [((host or asked.encode()).decode(), int(port)) for host, port, *_ in nodes]
            slots.owners[first : last + 1] = addresses[:1] * (last + 1 - first)
            slots.replicas[addresses[0]] = len(addresses) - 1
            slots.known.update(addresses)
        return slots


@dataclass
class _Command:
    """A command on its way to the owner of its slot, or to the node that is ``asked`` instead."""

    slot: int
    words: Words
    asked: Address | None = None
    answer: Any = None


class Cluster:
    """Commands to the nodes of a cluster.

    Args:
        seed: connects to any node, as the settings say.
        wait_seconds: how long commands are sent on while slots move, and replicas are waited for.
    """

    def __init__(self, seed: Redis, wait_seconds: float) -> None:
        self._seed = seed
        self._wait_seconds = wait_seconds
        self._slots: _Slots | None = None  # to be asked for
        self._nodes: dict[Address, Redis] = {}  # who is best not believed stands last

    async def get(self, keys: Sequence[str]) -> list[Any]:
        """See :class:`~recsys.store_servers.Servers`. One command a key: on a move, two keys may be on two nodes."""
        return await self._run([_command(key, "GET", key) for key in keys])

    async def save(self, life_ms: int, keys: Sequence[str], values: Sequence[Value]) -> list[int]:
        """See :class:`~recsys.store_servers.Servers`. Done when a replica has it too, where the node has any."""
        pairs = [keys[first : first + 2] for first in range(0, len(keys), 2)]
        commands = [
            _command(pair[0], "EVALSHA", SHAS[SAVE], 2, *pair, life_ms, *values[3 * user : 3 * user + 3])
            for user, pair in enumerate(pairs)
        ]
        answers = await self._run(commands, durable=True)
        return [number for number, refused in enumerate(answers, 1) if refused]

    async def number(self, key: str, identity: str, life_ms: int) -> int:
        """See :class:`~recsys.store_servers.Servers`."""
        (number,) = await self._run([_command(key, "EVALSHA", SHAS[NUMBER], 1, key, identity, life_ms)], durable=True)
        return int(number)

    async def put(self, key: str, value: bytes, life_ms: int) -> None:
        """See :class:`~recsys.store_servers.Servers`."""
        await self._run([_command(key, "SET", key, value, "PX", life_ms)])

    async def delete(self, keys: Sequence[str]) -> int:
        """See :class:`~recsys.store_servers.Servers`."""
        return sum(await self._run([_command(key, "DEL", key) for key in keys], durable=True))

    async def scan(self, pattern: str, count: int) -> AsyncIterator[list[Any]]:
        """See :class:`~recsys.store_servers.Servers`. Begins anew when slots have moved, so keys may come twice."""
        scanned: list[Address | None] = []
        while scanned != (slots := await self._learn()).owners:
            scanned = slots.owners
            for owner in slots.replicas:
                async for keys in scan(self._node(owner), pattern, count):
                    yield keys

    async def ping(self) -> None:
        """See :class:`~recsys.store_servers.Servers`. Looks for new nodes and replicas, too."""
        slots = await self._learn()
        await _all(self._node(owner).ping() for owner in slots.replicas)

    async def aclose(self) -> None:
        """See :class:`~recsys.store_servers.Servers`."""
        await _all(node.aclose() for node in [self._seed, *self._nodes.values()])

    async def _run(self, commands: list[_Command], *, durable: bool = False) -> list[Any]:
        """The answers to the commands; ``durable`` ones are waited for until a replica has them too."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_seconds
        left, pause = commands, 0.0
        while left:
            slots = self._slots or await self._learn()
            parcels: dict[tuple[Address, bool], list[_Command]] = {}
            for command in left:
                owner = command.asked or slots.owners[command.slot]
                if owner is None:
                    raise ClusterDownError(f"no node has slot {command.slot}")
                parcels.setdefault((owner, command.asked is not None), []).append(command)
            followed = slots.replicas if durable else {}
            await _all(
                self._send(owner, parcel, asking, wait=followed.get(owner, 0) > 0)
                for (owner, asking), parcel in parcels.items()
            )
            left = [command for command in left if isinstance(command.answer, ResponseError)]
            for command in left:
                self._redirect(command, late=loop.time() > deadline)
            moved = [command.answer.node_addr for command in left if isinstance(command.answer, MovedError)]
            if moved:
                await self._learn(moved[0])
            if left:
                await asyncio.sleep(pause)
                pause = PAUSE_SECONDS
        return [command.answer for command in commands]

    async def _send(self, address: Address, commands: list[_Command], asking: bool, wait: bool) -> None:
        """Send the commands to one node and keep its answers, be they errors; ``wait`` for a replica, too.

        Raises:
            RedisError: the node does not answer.
            OSError: neither, or no replica has followed in time: the commands are then to be repeated.
        """
        node = self._node(address)
        pipeline = node.pipeline(transaction=False)
        for command in commands:
            if asking:  # the word is for the next command alone, on the same connection
                pipeline.execute_command("ASKING")
            pipeline.execute_command(*command.words)
        if wait:
            pipeline.execute_command("WAIT", 1, round(500 * self._wait_seconds))
        try:
            answers = await pipeline.execute(raise_on_error=False)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                for script in SHAS:
                    await node.script_load(script)
        except (RedisError, OSError):
            self._slots = None
            self._ask_last(address, node)
            raise
        if any(isinstance(answer, ClusterDownError) for answer in answers):
            self._ask_last(address, node)  # it may be cut off from others that go on
        reached = answers.pop() if wait else 1
        for command, answer in zip(commands, answers[1::2] if asking else answers, strict=True):
            command.answer = answer
        if isinstance(reached, ResponseError):
            raise reached
        if reached < 1:
            self._slots = None
            raise TimeoutError(f"no replica of {address[0]}:{address[1]} has what was written")

    def _redirect(self, command: _Command, late: bool) -> None:
        """See where a command that got an error goes next.

        Raises:
            ResponseError: nowhere.
        """
        error: ResponseError = command.answer
        if late or not isinstance(error, AskError | TryAgainError | NoScriptError):
            self._slots = None
            raise error
        moved = isinstance(error, MovedError)  # which is an AskError to the library
        command.asked = error.node_addr if isinstance(error, AskError) and not moved else None

    async def _learn(self, best: Address | None = None) -> _Slots:
        """Ask which node has which slots: the ``best`` to know, other nodes, and at last the one in the settings."""
        failure: Exception | None = None
        others = [address for address in self._nodes if address != best]
        for address in [best, *others, None] if best else [*others, None]:
            node = self._seed if address is None else self._node(address)
            host = address[0] if address else str(self._seed.connection_pool.connection_kwargs.get("host"))
            try:
                slots = _Slots.read(await node.execute_command("CLUSTER SLOTS"), host)  # type: ignore[no-untyped-call]
            except (RedisError, OSError) as error:
                failure = error
                if address:
                    self._ask_last(address, node)
                continue
            if None not in slots.owners:
                await self._adopt(slots)
                return slots
        raise failure or ClusterDownError("not all slots have a node")

    def _ask_last(self, address: Address, node: Redis) -> None:
        """Ask this node, what it says of the cluster, after all others from now on."""
        self._nodes[address] = self._nodes.pop(address, node)

    async def _adopt(self, slots: _Slots) -> None:
        self._slots = slots
        gone = [self._nodes.pop(address) for address in [*self._nodes] if address not in slots.known]
        for address in slots.known:
            self._node(address)
        await _all(node.aclose() for node in gone)

    def _node(self, address: Address) -> Redis:
        """The client of a node; it connects when it is used."""
        if address not in self._nodes:
            pool = self._seed.connection_pool
            options = pool.connection_kwargs | {"host": address[0], "port": address[1]}
            self._nodes[address] = Redis.from_pool(ConnectionPool(pool.connection_class, **options))
        return self._nodes[address]


def _command(key: str, *words: Value) -> _Command:
    return _Command(key_slot(key.encode()), words)


async def _all(tasks: Iterable[Awaitable[Any]]) -> None:
    """Wait for all; then raise what the first that failed did."""
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
