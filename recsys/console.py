"""The terminal: progress and words on stderr, results on stdout."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# What is printed holds names that users chose, so brackets are brackets unless a call asks for markup.
console = Console(stderr=True, highlight=False, markup=False)
output = Console(highlight=False, markup=False)


def progress() -> Progress:
    """A progress display for long work; silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
