"""The embedded servers as a command of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis

from recsys.demo.commands import Commands


def test_services_end_and_say_so_when_their_store_is_killed(tmp_path: Path) -> None:
    with Commands(tmp_path).service("services") as services:
        (url,) = services.wait_for_line("export REDIS_URL=")
        with redis.Redis.from_url(url) as store:
            info = store.info("server")
        assert isinstance(info, dict)
        os.kill(info["process_id"], signal.SIGKILL)
        assert services.process.wait(10) == 69
    assert f"error: the server at {url.split('/')[2]} is gone" in services.log.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_services_end_when_they_are_told_to(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with Commands(tmp_path).service("services") as services:
        services.wait_for_line("services: up")
        services.process.send_signal(number)
        assert services.process.wait(10) == code
    assert "Traceback" not in services.log.read_text()
