"""Where the workers of a run leave files for each other: on this machine, or on any filesystem that Beam knows.

A file is there whole or not at all, and replaces one of its name. So a worker may do a step again, even while another
is still at it: what they write is the same. Names that begin with a dot are of files not yet whole.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.s3_clients import reach
from pipelines.threads import in_threads
from recsys.console import console
from recsys.errors import InputError
from recsys.logs.files import LOCAL, Found, hidden

_PACKAGES = {"s3": "aws", "gs": "gcp", "hdfs": "hadoop", "azfs": "azure"}
_WILD = "*?["
_AT_ONCE = 16  # files that are read side by side: most of the time goes in waiting


class Place(ABC):
    """A file, or a directory of files; directories need not be made."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The path or URL."""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    @abstractmethod
    def __truediv__(self, name: str) -> Place:
        """The place called ``name`` in this one."""

    @abstractmethod
    def reader(self) -> Any:
        """A context that gives the file as a ``pyarrow.NativeFile``, mapped into memory where that can be."""

    @abstractmethod
    def writer(self) -> Any:
        """A context that gives a ``pyarrow.NativeFile`` to write to; the file is there when the block ends well."""

    @abstractmethod
    def children(self) -> Sequence[Place]:
        """The whole files of a directory, by name; none where there is no directory."""

    @abstractmethod
    def delete(self) -> None:
        """Delete a directory and all in it, where it is there."""

    def contents(self) -> Iterator[bytes]:
        """The bytes of each of :meth:`children`."""
        return (child.read() for child in self.children())

    def read(self) -> bytes:
        """The bytes of the file."""
        with self.reader() as file:
            data: bytes = file.read()
            return data

    def write(self, data: bytes) -> None:
        """Write the file."""
        with self.writer() as file:
            file.write(data)


@dataclass(frozen=True)
class Local(Place):
    """A place on this machine, or on a disk that all workers mount at the same path."""

    path: Path

    @property
    def address(self) -> str:
        """The path."""
        return str(self.path)

    def __truediv__(self, name: str) -> Local:
        """See :class:`Place`."""
        return Local(self.path / name)

    def read(self) -> bytes:
        """See :class:`Place`."""
        return self.path.read_bytes()

    @contextmanager
    def reader(self) -> Iterator[pa.NativeFile]:
        """See :class:`Place`."""
        with pa.memory_map(str(self.path)) as file:
            yield file

    @contextmanager
    def writer(self) -> Iterator[pa.NativeFile]:
        """See :class:`Place`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.name}-{uuid4().hex}")
        try:
            with pa.OSFile(str(aside), "wb") as file:
                yield file
            aside.replace(self.path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def children(self) -> list[Local]:
        """See :class:`Place`."""
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
        except FileNotFoundError:
            return []
        return [Local(self.path / name) for name in sorted(names)]

    def delete(self) -> None:
        """See :class:`Place`."""
        if self.path.is_dir():
            shutil.rmtree(self.path)


@dataclass(frozen=True)
class Remote(Place):
    """A place on a filesystem of Beam's; ``flags`` are Beam's, among them those of the filesystem."""

    url: str
    flags: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The URL."""
        return self.url

    def __truediv__(self, name: str) -> Remote:
        """See :class:`Place`."""
        return Remote(f"{self.url}/{name}", self.flags)

    @contextmanager
    def reader(self) -> Iterator[pa.NativeFile]:
        """See :class:`Place`."""
        with _named(self.url), _open(self.url, self.flags) as file:
            data = file.read()
        yield pa.BufferReader(data)

    @contextmanager
    def writer(self) -> Iterator[pa.NativeFile]:
        """See :class:`Place`; the file is kept in memory until the block ends."""
        sink = pa.BufferOutputStream()
        yield sink
        with _named(self.url):
            self._put(memoryview(sink.getvalue()))

    def _put(self, data: memoryview) -> None:
        """Write the file: what an object store is given appears when it is complete."""
        filesystem = _filesystem(self.url, self.flags)
        if not filesystem.has_dirs():
            with filesystem.create(self.url, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                file.write(data)
            return
        directory, _, name = self.url.rpartition("/")
        aside = f"{directory}/.{name}-{uuid4().hex}"
        with filesystem.create(aside, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(data)
        try:
            filesystem.rename([aside], [self.url])
        except OSError:  # some do not rename over a file
            filesystem.delete([self.url])
            filesystem.rename([aside], [self.url])

    def contents(self) -> Iterator[bytes]:
        """See :class:`Place`."""
        return in_threads(Remote.read, self.children(), _AT_ONCE)

    def children(self) -> list[Remote]:
        """See :class:`Place`."""
        names = sorted(name for name, _ in _match(f"{self.url}/*", self.flags))
        return [Remote(name, self.flags) for name in names if not name.rpartition("/")[2].startswith(".")]

    def delete(self) -> None:
        """See :class:`Place`."""
        with _named(self.url):
            filesystem = _filesystem(self.url, self.flags)
            if not filesystem.has_dirs():
                filesystem.delete([name for name, _ in _match(f"{self.url}/**", self.flags)])
            elif filesystem.exists(self.url):
                filesystem.delete([self.url])


def place(address: str | Path, flags: Sequence[str] = ()) -> Place:
    """The place at a path or URL.

    Raises:
        InputError: the URL has characters that stand for others in listings.
    """
    if not is_remote(str(address)):
        return Local(Path(address).absolute())  # workers may have another working directory
    if any(character in str(address) for character in _WILD):
        raise InputError(f"{address}: an address to write to cannot have any of {' '.join(_WILD)}")
    return Remote(str(address).rstrip("/"), tuple(flags))


def is_remote(address: str) -> bool:
    """Whether an address is a URL and not a path."""
    return "://" in address


@dataclass(frozen=True)
class BeamFiles:
    """:class:`recsys.logs.files.Files` on this machine and on any filesystem of Beam's."""

    flags: tuple[str, ...] = ()

    def find(self, name: str) -> list[Found]:
        """See :class:`recsys.logs.files.Files`."""
        if not is_remote(name):
            return LOCAL.find(name)
        with console.status(f"looking for {name}"):
            return self._found(name)

    def _found(self, name: str) -> list[Found]:
        found = _match(name, self.flags)
        if not found and not any(character in name for character in _WILD):
            inside = f"{name.rstrip('/')}/"
            found = _match(f"{inside}**", self.flags)
            found = [file for file in found if not hidden(file[0].removeprefix(inside).split("/"))]
        return sorted(file for file in found if not file[0].endswith("/"))

    def open(self, name: str) -> pa.NativeFile:
        """See :class:`recsys.logs.files.Files`."""
        if not is_remote(name):
            return LOCAL.open(name)
        with _named(name):
            return pa.PythonFile(_open(name, self.flags), "r")


def _match(pattern: str, flags: tuple[str, ...]) -> list[Found]:
    with _named(pattern):
        (result,) = _filesystem(pattern, flags).match([pattern])
        return [(file.path, file.size_in_bytes) for file in result.metadata_list]


def _open(name: str, flags: tuple[str, ...]) -> BinaryIO:
    file: BinaryIO = _filesystem(name, flags).open(name, compression_type=CompressionTypes.UNCOMPRESSED)
    return file


def _filesystem(address: str, flags: tuple[str, ...]) -> Any:
    """The filesystem, told the flags: workers of some runners know none."""
    if address.startswith("s3://"):
        reach(_options(flags), bucket=address.split("/")[2])
    FileSystems.set_options(_options(flags))
    return FileSystems.get_filesystem(address)


@cache
def _options(flags: tuple[str, ...]) -> PipelineOptions:
    return PipelineOptions(list(flags))


@contextmanager
def _named(address: str) -> Iterator[None]:
    """Whatever a filesystem raises becomes an error that names the address, and the package that may be missing."""
    try:
        yield
    except Exception as error:
        scheme = address.partition("://")[0]
        extra = _PACKAGES.get(scheme)
        absent = isinstance(error, (AssertionError, ValueError, RuntimeError, TypeError)) and extra
        advice = f" (is apache-beam[{extra}] installed?)" if absent else ""
        raise OSError(f"{address}: {error or type(error).__name__}{advice}") from error
