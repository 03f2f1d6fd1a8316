"""What tests of the demo share."""

from __future__ import annotations

import os
import re
import sys
import urllib.request
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "recsys", "demo"]


def processes_of(directory: Path) -> list[str]:
    """Command lines of running processes that name the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command and str(os.getpid()) != path.parent.name:
            found.append(command)
    return found


def assert_refused(directory: Path) -> None:
    """Broker and store no longer answer."""
    ports = re.findall(r"127\.0\.0\.1:(\d+)", (directory / "services.log").read_text())
    assert len(ports) == 2
    for port in ports:
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2)
