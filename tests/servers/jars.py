"""Jars of servers that run on Java, from Maven Central into the user's cache, once a version."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import AbsentError, find_program

MINIMUM_JAVA = 17
FETCH_SECONDS = 600
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>recsys</groupId>
  <artifactId>servers</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def java() -> str:
    """The path of a Java runtime that all servers run on.

    Raises:
        AbsentError: there is none, or it is too old.
    """
    path = find_program("java")
    words = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', words)
    if version is None or int(version[1]) < MINIMUM_JAVA:
        raise AbsentError(f"this server needs Java {MINIMUM_JAVA} or later; {path} says {words.strip()!r}")
    return path


def jars_of(name: str, *artifacts: str) -> Path:
    """The directory ``name`` of jars: ``artifacts``, each group:artifact:version, and all that they need.

    They are fetched where the directory is not there yet.

    Raises:
        AbsentError: Maven is not installed, or could not fetch them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys"
    jars = cache / name
    if not jars.is_dir():
        jars.parent.mkdir(parents=True, exist_ok=True)
        with (cache / f"{name}.lock").open("w") as lock:  # test processes that run side by side fetch once
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not jars.is_dir():
                _fetch(jars, artifacts)
    return jars


def _fetch(jars: Path, artifacts: Sequence[str]) -> None:
    maven = find_program("mvn")
    scratch = Path(tempfile.mkdtemp(prefix="fetch-", dir=jars.parent))
    try:
        dependencies = "".join(_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
        (scratch / "pom.xml").write_text(_POM.format(dependencies=dependencies))
        command = [maven, "--batch-mode", "--quiet", "--file", str(scratch / "pom.xml"), _COPY]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={scratch / 'jars'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS)
        if done.returncode:
            raise AbsentError(f"Maven could not fetch {jars.name}: {done.stdout.strip()[-500:]}")
        (scratch / "jars").rename(jars)
    except subprocess.TimeoutExpired:
        raise AbsentError(f"Maven did not fetch {jars.name} within {FETCH_SECONDS} s") from None
    finally:
        shutil.rmtree(scratch)
