"""Apache Kafka's jars, from Maven Central into the user's cache, once a version."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.servers.process import AbsentError, find_program

KAFKA = "4.1.0"  # as in deploy/compose.yaml
SCALA = "2.13"
SLF4J = "1.7.36"  # what Kafka brings of the interface
MINIMUM_JAVA = 17
FETCH_SECONDS = 600
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>recsys</groupId>
  <artifactId>kafka</artifactId>
  <version>{KAFKA}</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{SCALA}</artifactId>
      <version>{KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{SLF4J}</version>
    </dependency>
  </dependencies>
</project>
"""


def java() -> str:
    """The path of a Java runtime that Kafka 4 runs on.

    Raises:
        AbsentError: there is none, or it is too old.
    """
    path = find_program("java")
    words = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', words)
    if version is None or int(version[1]) < MINIMUM_JAVA:
        raise AbsentError(f"Kafka {KAFKA} needs Java {MINIMUM_JAVA} or later; {path} says {words.strip()!r}")
    return path


def kafka_jars() -> Path:
    """The directory of Kafka's jars and all that they need; fetched where it is not there yet (40 MB).

    Raises:
        AbsentError: Maven is not installed, or could not fetch them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys"
    jars = cache / f"kafka-{KAFKA}"
    if not jars.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "kafka.lock").open("w") as lock:  # test processes that run side by side fetch once
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not jars.is_dir():
                _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    maven = find_program("mvn")
    scratch = Path(tempfile.mkdtemp(prefix="fetch-", dir=jars.parent))
    try:
        (scratch / "pom.xml").write_text(_POM)
        command = [maven, "--batch-mode", "--quiet", "--file", str(scratch / "pom.xml"), _COPY]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={scratch / 'jars'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS)
        if done.returncode:
            raise AbsentError(f"Maven could not fetch Kafka {KAFKA}: {done.stdout.strip()[-500:]}")
        (scratch / "jars").rename(jars)
    except subprocess.TimeoutExpired:
        raise AbsentError(f"Maven did not fetch Kafka {KAFKA} within {FETCH_SECONDS} s") from None
    finally:
        shutil.rmtree(scratch)
