"""A Redis Cluster on this machine: primaries that share all slots, and perhaps a replica."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS

from tests.servers.process import START_SECONDS, run_until_stopped
from tests.servers.redis import Redis, Tls

NODE_TIMEOUT_MS = 1_500  # after which a node that does not answer has failed, where another can take its place


class RedisCluster:
    """Three primaries, each with a third of the slots; ``replica`` follows the first, if one is wanted.

    ``login`` is of a user in ``acl_file`` who may do all. As a context manager it runs while the block lasts.

    Raises:
        AbsentError: ``redis-server`` is not installed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        replica: bool = False,
        tls: Tls | None = None,
        acl_file: Path | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        def node(number: int) -> Redis:
            options = {
                "cluster-enabled": "yes",
                "cluster-port": str(self._ports[2 * number]),
                "cluster-node-timeout": str(NODE_TIMEOUT_MS if replica else 15_000),
                "repl-diskless-sync-delay": "0",
                "enable-debug-command": "local",
            } | ({} if tls is None else {"tls-cluster": "yes", "tls-replication": "yes"})
            port = self._ports[2 * number + 1]
            return Redis(directory / str(number), tls=tls, acl_file=acl_file, port=port, options=options)

        self._ports = _free_ports(2 * 4)
        self._access = {} if tls is None else {"ssl_ca_certs": str(tls.authority)}
        if login is not None:
            self._access |= dict(zip(("username", "password"), login, strict=True))
        self._moved: dict[int, int] = {}
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
        return redis.Redis.from_url(node.url, decode_responses=True, socket_timeout=5, **self._access)

    def begin_to_move(self, slot: int) -> tuple[redis.Redis, redis.Redis, str]:
        """Let a slot be on its way to the next primary; gives clients of both nodes, and the id of the latter."""
        source = self._moved.get(slot, slot * 3 // SLOTS)
        target = self._moved[slot] = (source + 1) % 3
        giver, taker = self.client(self.primaries[source]), self.client(self.primaries[target])
        giver_id, taker_id = (client.execute_command("CLUSTER MYID") for client in (giver, taker))
        taker.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", giver_id)
        giver.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", taker_id)
        return giver, taker, taker_id

    def move(self, slot: int, pause: float) -> None:
        """Give a slot to the next primary, one key at a time, with a pause after each step."""
        giver, taker, taker_id = self.begin_to_move(slot)
        time.sleep(pause)
        while keys := giver.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
            giver.migrate("127.0.0.1", taker.connection_pool.connection_kwargs["port"], keys, 0, 5000)
            time.sleep(pause)
        for client in (taker, giver):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", taker_id)

    def cut_off(self, node: Redis) -> None:
        """Let a node and the others hear nothing of each other any more, though clients reach all of them."""
        client = self.client(node)
        client.execute_command("DEBUG", "DROP-CLUSTER-PACKET-FILTER", 1)  # what others answer
        client.config_set("cluster-announce-bus-port", 1)  # where they look for the node from now on

    def owner(self, slot: int) -> tuple[Redis, int]:
        """Which node has the slot, as the second one says, and how many replicas follow it."""
        for first, last, (_, port, *_), *replicas in self.client(self.primaries[1]).execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port), len(replicas)
        raise LookupError(slot)

    def is_up(self, node: Redis) -> bool:
        """Whether the node serves: one that was in a minority waits for some time after it has got slots."""
        return _state(self.client(node))["cluster_state"] == "ok"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            clients = [self.client(stack.enter_context(node)) for node in self.nodes]
            for number, client in enumerate(clients[:3]):
                client.execute_command("CLUSTER ADDSLOTSRANGE", *_third(number))
            for client in clients:
                for node, bus in zip(self.nodes, self._ports[::2], strict=False):
                    client.execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
            _wait_until(lambda: all(_state(each)["cluster_known_nodes"] == str(len(clients)) for each in clients))
            _wait_until(lambda: all(_state(each)["cluster_state"] == "ok" for each in clients))
            if self.replica is not None:
                clients[3].execute_command("CLUSTER REPLICATE", clients[0].execute_command("CLUSTER MYID"))
                _wait_until(lambda: clients[3].info("replication")["master_link_status"] == "up")
                clients[0].set("bar", "", px=1)  # a replica that has nothing yet is not told of
                _wait_until(lambda: len(clients[0].execute_command("CLUSTER SLOTS")[0]) == 4)
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


def _free_ports(count: int) -> list[int]:
    """Some that no outgoing connection is given before the servers have them."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


def _state(client: redis.Redis) -> dict[str, str]:
    return dict(client.cluster("info"))


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


if __name__ == "__main__":
    run_until_stopped(RedisCluster, lambda cluster: f"export REDIS_URL={cluster.url}")
