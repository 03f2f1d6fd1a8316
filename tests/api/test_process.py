"""``recsys api`` as a process: start, stop, refusals, and what it carries."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from recsys.published import Bundles
from tests.api.running import NOWHERE

RECSYS = [sys.executable, "-c", "from recsys.cli import main; main()", "api"]
ABSENT = ["--redis-url", f"redis://{NOWHERE}/0", "--kafka-bootstrap-servers", NOWHERE]


@contextmanager
def process(bundles: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it printed."""
    command = [*RECSYS, "--bundles", str(bundles), "--port", "0", *ABSENT]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            for line in running.stderr:
                if found := re.search(r"try +(http://127\.0\.0\.1:\d+)(/\S+)", line):
                    assert httpx.get(found[1] + found[2]).status_code == 200
                    yield running, found[1]
                    break
        finally:
            running.kill()


def refusal(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([*RECSYS, *arguments, *ABSENT], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_without_store_and_broker_and_stops_cleanly(bundles: Path, number: signal.Signals) -> None:
    with process(bundles) as (running, url):
        assert httpx.get(f"{url}/health/ready").status_code == 503
        running.send_signal(number)
        _, rest = running.communicate(timeout=20)
        assert running.returncode == 0
        assert rest.rstrip().endswith("stopped")
        assert "not ready" in rest
        assert "Traceback" not in rest


def test_without_a_published_bundle_it_does_not_start(tmp_path: Path) -> None:
    code, message = refusal("--bundles", str(tmp_path))
    assert code == 66
    assert "no bundle is published" in message


def test_with_an_altered_bundle_it_does_not_start(bundles: Path) -> None:
    weights = bundles / Bundles(bundles).current() / "weights.safetensors"
    altered = bytearray(weights.read_bytes())
    altered[-1] ^= 1
    weights.write_bytes(altered)
    code, message = refusal("--bundles", str(bundles))
    assert code == 65
    assert "weights.safetensors" in message


def test_an_address_in_use_is_named(bundles: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = refusal("--bundles", str(bundles), "--port", str(port))
    assert code == 69
    assert f"127.0.0.1:{port}" in message


def test_it_carries_nothing_that_serving_does_not_need() -> None:
    code = "import sys, recsys.api.server; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "fastapi" in loaded
    unwanted = {
        "tensorflow",
        "keras",
        "apache_beam",
        "pyarrow",
        "faust",
        "mode",
        "confluent_kafka",
        "stream",
        "pipelines",
    }
    assert not unwanted & set(loaded)
