"""The epoch at hand as a line on the terminal, for the commands that train."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

    from recsys.model.history import Phase, Progress

PHASES: dict[Phase, str] = {"search": "epoch", "final": "final training, epoch"}


class EpochBar:
    """A progress bar for the epoch at hand, one of the bars of ``display``."""

    def __init__(self, display: rich.progress.Progress) -> None:
        self._display, self._task = display, display.add_task("epoch", total=None, note="compiling")

    def show(self, progress: Progress) -> None:
        """How far the epoch is, its loss so far and its speed."""
        self._display.update(
            self._task,
            description=f"{PHASES[progress.phase]} {progress.epoch}/{progress.epochs}",
            total=progress.windows,
            completed=progress.window,
            note=f"loss {progress.loss:.3f}  {progress.events_per_second:,.0f} events/s",
        )

    def clear(self) -> None:
        """Until the next run has compiled."""
        self._display.update(self._task, description="epoch", completed=0, note="compiling")
