"""A cluster on this machine for Beam's jobs: its servers on Java, Beam's job server, and Python workers."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.embedded import free_port
from tests.servers.jars import jars_of, java
from tests.servers.process import Server

BEAM = "2.62.0"  # of its part in Java, which speaks with newer Python workers too
WORKERS = 2
_LOG = "org.slf4j:slf4j-simple:1.7.36"
# A job server uploads what is on its class path to the cluster, for each job anew, but for what lies in such a
# directory. It is what the cluster has on its own class path.
_KNOWN_TO_THE_CLUSTER = "gradle/wrapper"
_OPENED = (  # to serialisation that is older than Java's modules
    "java.lang java.lang.invoke java.lang.reflect java.net java.io java.nio sun.nio.ch java.text java.time java.util "
    "java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks"
)
JVM = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts sooner, and leaves the cores to what is tested
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED.split()),
)
# As Beam's own, but its workers are threads of one process that has all imported already, and end with the connection:
# the cluster's workers give them the same names, so that none may stop them by name.
_POOL = """
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
import pipelines.build

class Pool(BeamFnExternalWorkerPoolServicer):
    def StopWorker(self, request, context):
        return beam_fn_api_pb2.StopWorkerResponse()

address, server = Pool.start(use_process=False, port={port})
server.wait_for_termination()
"""


class Cluster(Server):
    """The head of a cluster of two workers, with all that runs beside it. ``flags`` are Beam's.

    Raises:
        AbsentError: Java 17 or the jars are not to be had here.
    """

    def __init__(self, directory: Path, name: str, *artifacts: str) -> None:
        self._java = java()
        self.jars = jars_of(f"{_KNOWN_TO_THE_CLUSTER}/{name}-beam-{BEAM}", *artifacts, _LOG)
        super().__init__(directory)
        self._pool = Part(directory / "python", lambda part: [sys.executable, "-c", _POOL.format(port=part.port)])
        self._beside: list[Server] = [self._pool]
        self.flags: list[str] = []

    def run(self, main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """The command line of a Java program, with more ``options`` of Java."""
        return [
            self._java,
            "-Xmx512m",
            "-XX:MaxDirectMemorySize=256m",
            *JVM,
            *options,
            "-cp",
            f"{self.jars}/*",
            main,
            *arguments,
        ]

    def add(self, *parts: Server) -> None:
        """Have these start and end with the cluster."""
        self._beside += parts

    def add_job_server(self, driver: str, master: str, options: Sequence[str] = ()) -> None:
        """Have the job server whose main class is ``driver`` bring jobs to the cluster at ``master``."""
        artifacts = free_port()

        def command(part: Part) -> list[str]:
            ports = [f"--job-port={part.port}", f"--artifact-port={artifacts}", "--expansion-port=0"]
            staged = f"--artifacts-dir={part.directory / 'artifacts'}"
            return self.run(driver, master, "--job-host=127.0.0.1", *ports, staged, options=options)

        jobs = Part(self.directory / "job-server", command)
        self.add(jobs)
        self.flags = [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{jobs.port}",
            f"--artifact_endpoint=127.0.0.1:{artifacts}",
            "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{self._pool.port}",
        ]

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(1 + len(self._beside)) as pool, ExitStack() as started:
            for server in (self, *self._beside):
                started.callback(server.stop)
            list(pool.map(Server.start, (self, *self._beside)))
            started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (*self._beside, self):
            server.kill()  # nothing is kept


class Part(Server):
    """A server beside the head of a cluster; without ``ready`` it is up when it takes connections."""

    def __init__(
        self, directory: Path, command: Callable[[Part], list[str]], ready: Callable[[], bool] | None = None
    ) -> None:
        super().__init__(directory)
        self._command = command
        self._ready = ready or self._takes_connections

    def command(self) -> list[str]:
        """As it was given."""
        return self._command(self)

    def answers(self) -> bool:
        """Whether it is ready."""
        return self._ready()

    def _takes_connections(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
