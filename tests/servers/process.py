"""A server process that tests start, stop, kill and start again, on the same port and directory."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from recsys.errors import UnavailableError
from stream.embedded import free_port

START_SECONDS = 60
STOP_SECONDS = 20


class AbsentError(Exception):
    """A program that a real server needs is not on this machine; the message says which."""


def find_program(name: str) -> str:
    """The path of a program.

    Raises:
        AbsentError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise AbsentError(f"{name} is not installed")
    return found


class Server(ABC):
    """A process that listens on ``port`` of loopback and keeps its data and its ``log`` in ``directory``.

    As a context manager it runs while the block lasts.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port or free_port()
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the process."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server answers a request."""

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            UnavailableError: it ended, or did not answer in time.
        """
        with self.log.open("ab") as log:
            # In a session of its own: Ctrl-C reaches the tests, which then stop their servers.
            self._process = subprocess.Popen(
                self.command(), cwd=self.directory, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                words = self.log.read_text(errors="replace").strip().splitlines()[-5:]
                raise UnavailableError("\n".join([f"{type(self).__name__} did not start: {self.log}", *words]))
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask the process to end, and make it end if it does not; nothing where it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End the process as a power cut would; nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the process do nothing while the block lasts: connections stand, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


Made = TypeVar("Made")


def run_until_stopped(make: Callable[[Path], AbstractContextManager[Made]], words: Callable[[Made], str]) -> None:
    """Run a server until Ctrl-C or SIGTERM, with a directory of its own; when it is up, print what is to be known."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="server-") as directory, make(Path(directory) / "server") as server:
        print(words(server), flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.exit(130)
