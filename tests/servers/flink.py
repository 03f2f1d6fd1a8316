"""Apache Flink on this machine: a job manager, two task managers, Beam's job server for them, and Python workers.

``python -m tests.servers.flink`` runs such a cluster until Ctrl-C and prints the flags by which Beam uses it.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from stream.embedded import free_port
from tests.servers.jars import jars_of, java
from tests.servers.process import Server

FLINK = "1.19"
BEAM = "2.62.0"  # of the job server, which speaks with newer Python workers too
TASK_MANAGERS = 2
_ARTIFACTS = (f"org.apache.beam:beam-runners-flink-{FLINK}:{BEAM}", "org.slf4j:slf4j-simple:1.7.36")
_MIB = {
    "task.heap.size": 384,
    "task.off-heap.size": 64,
    "framework.heap.size": 64,
    "framework.off-heap.size": 64,
    "network.min": 64,
    "network.max": 64,
    "managed.size": 128,
    "jvm-metaspace.size": 192,
    "jvm-overhead.min": 64,
    "jvm-overhead.max": 64,
}
_OPENED = (  # to Flink's own serialisation, which is older than Java's modules
    "java.lang java.lang.reflect java.net java.io java.nio sun.nio.ch java.text java.time java.util "
    "java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks"
)
_JVM = (
    "-Xmx512m",
    "-XX:MaxDirectMemorySize=256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts sooner, and leaves the cores to what is tested
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED.split()),
)
# As Beam's own, but its workers are threads of one process that has all imported already, and end with the connection:
# the two task managers give them the same names, so that neither may stop them by name.
_WORKERS = """
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
import pipelines.build

class Pool(BeamFnExternalWorkerPoolServicer):
    def StopWorker(self, request, context):
        return beam_fn_api_pb2.StopWorkerResponse()

address, server = Pool.start(use_process=False, port={port})
server.wait_for_termination()
"""


class Flink(Server):
    """A cluster in which a job of parallelism 2 runs on two task managers. ``flags`` are Beam's.

    Raises:
        AbsentError: Java 17 or the jars are not to be had here.
    """

    def __init__(self, directory: Path) -> None:
        self._java, self._jars = java(), jars_of(f"beam-flink-{FLINK}-{BEAM}", *_ARTIFACTS)
        super().__init__(directory)
        self._conf = directory / "conf"
        self._conf.mkdir()
        (self._conf / "flink-conf.yaml").write_text(_configuration(self.port, directory / "tmp"))
        self._others = [_TaskManager(directory / f"task-manager-{n}", self) for n in range(TASK_MANAGERS)]
        jobs, workers = _JobServer(directory / "job-server", self), _Workers(directory / "workers")
        self._others += [jobs, workers]
        self.flags = [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{jobs.port}",
            f"--artifact_endpoint=127.0.0.1:{jobs.artifacts}",
            "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{workers.port}",
            f"--parallelism={TASK_MANAGERS}",
        ]

    def command(self) -> list[str]:
        """The job manager."""
        return self.run("org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint")

    def answers(self) -> bool:
        """Whether the job manager answers."""
        return self.task_managers() is not None

    def task_managers(self) -> int | None:
        """How many have come to the job manager; None while that is not there."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/overview", timeout=5) as answer:
                count: int = json.load(answer)["taskmanagers"]
                return count
        except OSError:
            return None

    def run(self, main: str, *arguments: str) -> list[str]:
        """The command line of a Java program of Flink or Beam."""
        return [self._java, *_JVM, "-cp", f"{self._jars}/*", main, *(arguments or ("--configDir", str(self._conf)))]

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(1 + len(self._others)) as pool, ExitStack() as started:
            for server in (self, *self._others):
                started.callback(server.stop)
            list(pool.map(Server.start, (self, *self._others)))
            started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (*self._others, self):
            server.kill()  # nothing is kept


class _TaskManager(Server):
    def __init__(self, directory: Path, flink: Flink) -> None:
        super().__init__(directory)
        self._flink = flink

    def command(self) -> list[str]:
        return self._flink.run("org.apache.flink.runtime.taskexecutor.TaskManagerRunner")

    def answers(self) -> bool:
        return self._flink.task_managers() == TASK_MANAGERS


class _Listener(Server):
    """A server that is up when it takes connections."""

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class _JobServer(_Listener):
    def __init__(self, directory: Path, flink: Flink) -> None:
        super().__init__(directory)
        self._flink = flink
        self.artifacts = free_port()

    def command(self) -> list[str]:
        return self._flink.run(
            "org.apache.beam.runners.flink.FlinkJobServerDriver",
            f"--flink-master=http://127.0.0.1:{self._flink.port}",
            "--job-host=127.0.0.1",
            f"--job-port={self.port}",
            f"--artifact-port={self.artifacts}",
            "--expansion-port=0",
            f"--artifacts-dir={self.directory / 'artifacts'}",
        )


class _Workers(_Listener):
    def command(self) -> list[str]:
        return [sys.executable, "-c", _WORKERS.format(port=self.port)]


def _configuration(port: int, scratch: Path) -> str:
    scratch.mkdir()
    local = ("jobmanager.rpc.address", "jobmanager.bind-host", "rest.address", "rest.bind-address")
    settings: dict[str, object] = dict.fromkeys((*local, "taskmanager.host", "taskmanager.bind-host"), "127.0.0.1")
    settings |= {"jobmanager.rpc.port": free_port(), "rest.port": port, "taskmanager.rpc.port": 0}
    settings |= {"taskmanager.numberOfTaskSlots": 1, "taskmanager.cpu.cores": 1.0}
    settings |= {"classloader.resolve-order": "parent-first"}  # since Beam is in the class path
    settings |= {f"taskmanager.memory.{name}": f"{size}m" for name, size in _MIB.items()}
    settings |= {"io.tmp.dirs": scratch, "blob.storage.directory": scratch}
    return "".join(f"{name}: {value}\n" for name, value in settings.items())


def main() -> None:
    """Run a cluster until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="flink-") as directory, Flink(Path(directory) / "flink") as flink:
        print(*flink.flags, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
