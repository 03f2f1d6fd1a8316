"""The whole system on one machine: every step is a command that the user could type.

The steps run in turn; broker, store, worker and API run beside them until the end. Whatever was started is stopped,
however the demo ends.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys.console import console
from recsys.errors import RecsysError, UnavailableError

STOP_SECONDS = 15
START_SECONDS = 60


@dataclass
class Commands:
    """Runs ``recsys`` commands, each shown as it would be typed, in an environment that grows as services start."""

    directory: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, *arguments: str) -> None:
        """Run a command to its end.

        Raises:
            RecsysError: it ended with another code than 0.
        """
        self._finish(arguments, None)

    def read(self, *arguments: str) -> str:
        """Run a command to its end; gives what it printed on stdout.

        Raises:
            RecsysError: it ended with another code than 0.
        """
        return self._finish(arguments, subprocess.PIPE)

    def export(self, variables: Mapping[str, str]) -> None:
        """Set environment variables for the commands to come."""
        self.environment.update(variables)
        for name, value in variables.items():
            console.print(f"$ export {name}={value}", style="bold", soft_wrap=True)

    def _finish(self, arguments: Sequence[str], stdout: int | None) -> str:
        self._show(arguments)
        process = subprocess.Popen([*_RECSYS, *arguments], env=self.environment, stdout=stdout, text=True)
        with process:
            try:
                printed, _ = process.communicate()
            except BaseException:
                _stop(process)
                raise
        if process.returncode:
            raise _failed(arguments[0], process.returncode)
        return printed or ""

    @contextmanager
    def service(self, *arguments: str) -> Iterator[Service]:
        """Keep a command running while the block lasts; its output goes to a log file."""
        self._show(arguments, " &")
        log = self.directory / f"{arguments[0]}.log"
        with log.open("wb") as file:
            # In a session of its own, so that Ctrl-C reaches the demo alone, which then stops things in order.
            process = subprocess.Popen(
                [*_RECSYS, *arguments], env=self.environment, stdout=file, stderr=file, start_new_session=True
            )
        try:
            yield Service(arguments[0], process, log)
        finally:
            _stop(process)

    def _show(self, arguments: Sequence[str], ending: str = "") -> None:
        console.print(f"\n$ recsys {shlex.join(arguments)}{ending}", style="bold", soft_wrap=True)


_RECSYS = (sys.executable, "-m", "recsys")


@dataclass
class Service:
    """A command that runs beside the demo."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise if it has ended."""
        if self.process.poll() is not None:
            words = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise _failed(self.name, self.process.returncode, words)

    def wait_for_line(self, *beginnings: str) -> list[str]:
        """Wait until the log has a line with each of these beginnings; gives what follows each."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            lines = self.log.read_text(errors="replace").splitlines()
            found = [next((line for line in lines if line.startswith(begin)), None) for begin in beginnings]
            if all(line is not None for line in found):
                return [str(line).removeprefix(begin) for line, begin in zip(found, beginnings, strict=True)]
            self.check()
            time.sleep(0.05)
        raise UnavailableError(f"{self.name} did not start within {START_SECONDS} s: see {self.log}")


def get_json(url: str) -> Any:
    """The JSON that a loopback address answers with.

    Raises:
        UnavailableError: no answer, or an error.
    """
    return json.loads(get_text(url))


def get_text(url: str) -> str:
    """The text that a loopback address answers with."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, OSError) as error:
        raise UnavailableError(f"{url}: {error}") from None


def _stop(process: subprocess.Popen[Any]) -> None:
    """Ask the process to end, and make it end if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failed(name: str, code: int, words: Sequence[str] = ()) -> RecsysError:
    error = RecsysError("\n".join([f"recsys {name} ended with code {code}", *words]))
    error.exit_code = code if code > 0 else 1
    return error
