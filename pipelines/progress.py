"""What a run shows while it works: how far it is and how many clicks a second it reads.

Workers may be other processes or machines, so progress is read off the files they leave in the work directory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipelines.places import Place
from pipelines.shards import shards_of
from recsys.console import progress

_INTERVAL_SECONDS = 0.2
_SHARE = 0.1  # of the time, at most, that goes in looking: filesystems may be far away
_MIB = 1 << 20

State = tuple[float, float, str]  # done, of how much, a note


class Stages:
    """The progress displays of a run's stages."""

    def __init__(self, work: Place) -> None:
        self.work = work

    @contextmanager
    def reading(self, size: int) -> Iterator[None]:
        """While files of ``size`` bytes together are read."""
        began = time.monotonic()

        def state() -> State:
            parts = [told.split() for told in (self.work / "progress").contents()]
            clicks = sum(int(clicks) for _, clicks in parts)
            rate = clicks / (time.monotonic() - began)
            return sum(int(position) for position, _ in parts) / _MIB, size / _MIB, f"{rate:,.0f} clicks/s"

        with self._shown("reading and cutting (MiB)", state):
            yield

    @contextmanager
    def shards(self, stage: str, step: str) -> Iterator[None]:
        """While a step goes through the shards."""
        shards = len(shards_of(self.work))

        def state() -> State:
            return len((self.work / "tallies" / step).children()), shards, "shards"

        with self._shown(stage, state):
            yield

    @contextmanager
    def _shown(self, stage: str, state: Callable[[], State]) -> Iterator[None]:
        ended = threading.Event()
        with progress() as display:
            task = display.add_task(stage, note="")

            def show() -> None:
                with suppress(OSError):  # the work itself says what cannot be read
                    done, of, note = state()
                    display.update(task, completed=round(done), total=max(round(of), 1), note=note)

            def watch() -> None:
                pause = _INTERVAL_SECONDS
                while not ended.wait(pause):
                    began = time.monotonic()
                    show()
                    pause = max(_INTERVAL_SECONDS, (time.monotonic() - began) / _SHARE)

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield
            finally:
                ended.set()
                watcher.join()
                show()
