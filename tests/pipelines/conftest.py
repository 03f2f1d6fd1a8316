"""Runs the real command line inside the test process, so that each test takes a fraction of a second."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from recsys.cli import main
from recsys.dataset import Dataset

NOW = "2024-03-10T00:00:00Z"
NOW_MS = 1_710_028_800_000
HEADER = "user_id,item_id,timestamp"


@dataclass(frozen=True)
class Outcome:
    """How the command ended, what it said, and what it left."""

    code: int
    stdout: str
    stderr: str
    out: Path

    @property
    def dataset(self) -> Dataset:
        return Dataset.open(self.out)

    @property
    def dead_letters(self) -> list[dict[str, object]]:
        inside = self.out / "dead-letter.jsonl"
        path = inside if inside.exists() else self.out.with_name(f"{self.out.name}.dead-letter.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """``recsys sessions ARGUMENTS --out tmp/dataset``, with the clock at :data:`NOW`."""

    def run_command(*arguments: str | Path, out: Path = tmp_path / "dataset") -> Outcome:
        argv = ["recsys", "sessions", "--out", str(out), "--now", NOW, *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err, out)

    return run_command


def good_rows(users: int = 40, items: int = 4, clicks: int = 4, start: int = 1_704_067_200_000) -> list[str]:
    """CSV rows of users that each click ``clicks`` items a minute apart, an hour after the user before."""
    return [
        f"u{user:03},i{(user + click) % items},{start + user * 3_600_000 + click * 60_000}"
        for user in range(users)
        for click in range(clicks)
    ]


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV log of good rows with ``extra`` lines (bytes or text) among them, the first on line 5."""

    def write(*extra: str | bytes, name: str = "clicks.csv", header: str = HEADER) -> Path:
        lines = [header.encode(), *(row.encode() for row in good_rows())]
        lines[4:4] = [line.encode() if isinstance(line, str) else line for line in extra]
        path = tmp_path / name
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return write
