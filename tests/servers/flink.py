"""Apache Flink on this machine: a job manager and two task managers.

``python -m tests.servers.flink`` runs such a cluster until Ctrl-C and prints the flags by which Beam uses it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from stream.embedded import free_port
from tests.servers.beam import BEAM, WORKERS, Cluster, Part
from tests.servers.process import run_until_stopped

FLINK = "1.19"
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


class Flink(Cluster):
    """A cluster in which a job of parallelism 2 runs on two task managers. See :class:`Cluster`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, f"flink-{FLINK}", f"org.apache.beam:beam-runners-flink-{FLINK}:{BEAM}")
        conf = directory / "conf"
        conf.mkdir()
        (conf / "flink-conf.yaml").write_text(_configuration(self.port, directory / "tmp"))
        self._configured = ("--configDir", str(conf))
        manager = self.run("org.apache.flink.runtime.taskexecutor.TaskManagerRunner", *self._configured)
        for number in range(WORKERS):
            self.add(Part(directory / f"task-manager-{number}", lambda _: manager, self._is_whole))
        self.add_job_server(
            "org.apache.beam.runners.flink.FlinkJobServerDriver", f"--flink-master=http://127.0.0.1:{self.port}"
        )
        self.flags.append(f"--parallelism={WORKERS}")

    def command(self) -> list[str]:
        """The job manager."""
        return self.run("org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint", *self._configured)

    def answers(self) -> bool:
        """Whether the job manager answers."""
        return self._task_managers() is not None

    def cancel_jobs(self) -> None:
        """Cancel all jobs that run."""
        for job in self._ask("jobs")["jobs"]:
            if job["status"] == "RUNNING":
                self._ask(f"jobs/{job['id']}?mode=cancel", "PATCH")

    def _is_whole(self) -> bool:
        return self._task_managers() == WORKERS

    def _task_managers(self) -> int | None:
        """How many have come to the job manager; None while that is not there."""
        try:
            count: int = self._ask("overview")["taskmanagers"]
        except OSError:
            return None
        return count

    def _ask(self, path: str, method: str = "GET") -> Any:
        with urlopen(Request(f"http://127.0.0.1:{self.port}/{path}", method=method), timeout=5) as answer:
            return json.load(answer)


def _configuration(port: int, scratch: Path) -> str:
    scratch.mkdir()
    local = ("jobmanager.rpc.address", "jobmanager.bind-host", "rest.address", "rest.bind-address")
    settings: dict[str, object] = dict.fromkeys((*local, "taskmanager.host", "taskmanager.bind-host"), "127.0.0.1")
    settings |= {"jobmanager.rpc.port": free_port(), "rest.port": port, "taskmanager.rpc.port": 0}
    settings |= {"taskmanager.numberOfTaskSlots": 1, "taskmanager.cpu.cores": 1.0}
    settings |= {f"taskmanager.memory.{name}": f"{size}m" for name, size in _MIB.items()}
    settings |= {"io.tmp.dirs": scratch, "blob.storage.directory": scratch}
    return "".join(f"{name}: {value}\n" for name, value in settings.items())


if __name__ == "__main__":
    run_until_stopped(Flink, lambda flink: " ".join(flink.flags))
