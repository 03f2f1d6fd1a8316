"""Where click logs lie: on this machine, unless whoever reads them brings another way to find and open files."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

Found = tuple[str, int]  # name of a file, bytes


class Files(Protocol):
    """Finds and opens files by name. It travels to the workers of a run with the names."""

    def find(self, name: str) -> list[Found]:
        """The files that a name, a glob or a directory means, in order; those of a directory that are not hidden."""

    def open(self, name: str) -> pa.NativeFile:
        """The file, to read from and to seek in.

        Raises:
            OSError: it cannot be opened.
        """


@dataclass(frozen=True)
class LocalFiles:
    """Files of this machine."""

    def find(self, name: str) -> list[Found]:
        """See :class:`Files`."""
        path = Path(name)
        if not name:  # to Path this is where we are
            paths = []
        elif path.is_dir():
            inside = [child for child in path.rglob("*") if child.is_file()]
            paths = [child for child in inside if not hidden(child.relative_to(path).parts)]
        elif path.is_file():
            paths = [path]
        else:
            paths = [Path(match) for match in glob.glob(name, recursive=True) if Path(match).is_file()]
        return [(str(path), path.stat().st_size) for path in sorted(paths)]

    def open(self, name: str) -> pa.NativeFile:
        """See :class:`Files`."""
        return pa.OSFile(name)


LOCAL = LocalFiles()


def hidden(parts: Iterable[str]) -> bool:
    """Whether a file is no log, by the parts of its name inside a directory: what is not yet whole, or a mark."""
    return any(part.startswith((".", "_")) for part in parts)
