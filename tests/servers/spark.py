"""Apache Spark on this machine: a master and two workers, each with one executor for a job.

``python -m tests.servers.spark`` runs such a cluster until Ctrl-C and prints the flags by which Beam uses it.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

from stream.embedded import free_port
from tests.servers.beam import BEAM, JVM, WORKERS, Cluster, Part
from tests.servers.process import run_until_stopped

SPARK = "3.5.0"
SCALA = "2.12"
_MIB = 512


class Spark(Cluster):
    """A standalone cluster whose workers have one core each. See :class:`Cluster`."""

    def __init__(self, directory: Path) -> None:
        spark = [f"org.apache.spark:spark-{part}_{SCALA}:{SPARK}" for part in ("core", "streaming")]
        super().__init__(directory, f"spark-{SPARK}", f"org.apache.beam:beam-runners-spark-3:{BEAM}", *spark)
        self._page = free_port()
        (directory / "jars").symlink_to(self.jars)
        master = f"spark://127.0.0.1:{self.port}"
        worker = ["--host", "127.0.0.1", "--cores", "1", "--memory", f"{_MIB}m", "--webui-port", "0", master]
        command = self._run("worker.Worker", *worker)
        for number in range(WORKERS):
            self.add(Part(directory / f"worker-{number}", lambda _: command, self._is_whole))
        settings = {
            "driver.host": "127.0.0.1",
            "driver.bindAddress": "127.0.0.1",
            "executor.memory": f"{_MIB}m",
            "executor.extraJavaOptions": " ".join(JVM),
            "ui.enabled": "false",
        }
        options = [f"-Dspark.{name}={value}" for name, value in settings.items()]
        options.append("-Dbeam.spark.test.reuseSparkContext=true")  # else executors start anew for each job
        driver = "org.apache.beam.runners.spark.SparkJobServerDriver"
        self.add_job_server(driver, f"--spark-master-url={master}", options)

    def command(self) -> list[str]:
        """The master."""
        return self._run(
            "master.Master", "--host", "127.0.0.1", "--port", str(self.port), "--webui-port", str(self._page)
        )

    def answers(self) -> bool:
        """Whether the master answers."""
        return self._workers() is not None

    def _run(self, main: str, *arguments: str) -> list[str]:
        """The command line of a server of Spark: workers start executors with the jars of SPARK_HOME."""
        settings = [f"SPARK_HOME={self.directory}", f"SPARK_SCALA_VERSION={SCALA}", "SPARK_LOCAL_IP=127.0.0.1"]
        return ["env", *settings, *self.run(f"org.apache.spark.deploy.{main}", *arguments)]

    def _is_whole(self) -> bool:
        return self._workers() == WORKERS

    def _workers(self) -> int | None:
        """How many have come to the master; None while that is not there."""
        try:
            with urlopen(f"http://127.0.0.1:{self._page}/json/", timeout=5) as answer:
                count: int = json.load(answer)["aliveworkers"]
                return count
        except (OSError, ValueError):  # before it has workers' pages, it answers with others
            return None


if __name__ == "__main__":
    run_until_stopped(Spark, lambda spark: " ".join(spark.flags))
