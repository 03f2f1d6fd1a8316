"""A Redis Cluster on this machine: primaries that share all slots, and perhaps a replica."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS

from stream.embedded import free_port
from tests.servers.process import START_SECONDS
from tests.servers.redis import Redis, Tls

NODE_TIMEOUT_MS = 600  # after which a node that does not answer has failed


class RedisCluster:
    """Three primaries, each with a third of the slots; ``replica`` follows the first, if one is wanted.

    As a context manager it runs while the block lasts.

    Raises:
        AbsentError: ``redis-server`` is not installed.
    """

    def __init__(
        self, directory: Path, *, replica: bool = False, tls: Tls | None = None, acl_file: Path | None = None
    ) -> None:
        def node(number: int) -> Redis:
            options = {
                "cluster-enabled": "yes",
                "cluster-port": str(free_port()),
                "cluster-node-timeout": str(NODE_TIMEOUT_MS),
                "repl-diskless-sync-delay": "0",
            } | ({} if tls is None else {"tls-cluster": "yes", "tls-replication": "yes"})
            self._bus_ports.append(options["cluster-port"])
            return Redis(directory / str(number), tls=tls, acl_file=acl_file, options=options)

        self._tls = tls
        self._bus_ports: list[str] = []
        self._stack = ExitStack()
        self.primaries = [node(number) for number in range(3)]
        self.replica = node(3) if replica else None

    @property
    def url(self) -> str:
        """The address of the first node."""
        return self.primaries[0].url

    @property
    def nodes(self) -> list[Redis]:
        """All of them."""
        return self.primaries + ([] if self.replica is None else [self.replica])

    def client(self, node: Redis) -> redis.Redis:
        """A client of one node, that may do all."""
        trust = {} if self._tls is None else {"ssl_ca_certs": str(self._tls.authority)}
        return redis.Redis.from_url(node.url, decode_responses=True, socket_timeout=5, **trust)

    def move(self, slot: int, pause: float) -> None:
        """Give a slot to the next primary, one key at a time, with a pause after each step."""
        source = slot * 3 // SLOTS
        (giver, taker), target = (self.client(self.primaries[(source + i) % 3]) for i in (0, 1)), (source + 1) % 3
        ids = [self.client(node).execute_command("CLUSTER MYID") for node in self.primaries]
        taker.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        giver.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        time.sleep(pause)
        while keys := giver.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
            giver.migrate("127.0.0.1", self.primaries[target].port, keys, 0, 5000)
            time.sleep(pause)
        for client in (taker, giver):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            clients = [self.client(stack.enter_context(node)) for node in self.nodes]
            for number, client in enumerate(clients[:3]):
                client.execute_command("CLUSTER ADDSLOTSRANGE", *_third(number))
            for client in clients:
                for node, bus in zip(self.nodes, self._bus_ports, strict=True):
                    client.execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
            _wait_until(lambda: all(_state(each)["cluster_known_nodes"] == str(len(clients)) for each in clients))
            if self.replica is not None:
                clients[3].execute_command("CLUSTER REPLICATE", clients[0].execute_command("CLUSTER MYID"))
                _wait_until(lambda: clients[3].info("replication")["master_link_status"] == "up")
            _wait_until(lambda: all(_state(each)["cluster_state"] == "ok" for each in clients))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _third(number: int) -> tuple[int, int]:
    """First and last slot of a primary, by the rule that :meth:`RedisCluster.move` knows too."""
    first, end = (-(-SLOTS * each // 3) for each in (number, number + 1))
    return first, end - 1


def _state(client: redis.Redis) -> dict[str, str]:
    return dict(client.cluster("info"))


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
