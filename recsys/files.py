"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from recsys.errors import RecsysError

_PART, _OLD = ".part", ".old"  # being written; replaced by a newer one


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(hashes: Mapping[str, str]) -> str:
    """One SHA-256 for a set of files, given the hash of each by its relative name."""
    lines = (f"{name}\0{digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def link(path: Path, name: Path) -> None:
    """Give a file that nobody changes in place another name; where there are no such names, a copy."""
    name.parent.mkdir(parents=True, exist_ok=True)
    try:
        name.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, name)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step that survives a crash: readers see the old bytes or the new ones."""
    with staged_file(path) as staging:
        staging.write_bytes(data)


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """A file written aside that takes the name ``target``, or the place of what has it, when the block ends well."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-", suffix=_PART)
    os.close(handle)
    staging = Path(name)
    try:
        yield staging
        sync(staging)
        staging.chmod(0o644)
        staging.replace(target)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    sync(target.parent)


@contextmanager
def staged_directory(
    target: Path, *, overwrite: bool = False, check: Callable[[], None] | None = None
) -> Iterator[Path]:
    """A directory built aside that takes the name ``target`` only when the block ends well.

    What a killed process left of the same target is deleted; a process at work is told by the lock it holds. No other
    process replaces ``target`` between ``check``, which may refuse by an error of its own, and the end.

    Raises:
        RecsysError: ``target`` exists and may not be overwritten.
    """
    if target.exists() and not overwrite:
        raise RecsysError(f"{target} exists already: choose another name, or pass --overwrite")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent):
        clear_leftovers(target)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-", suffix=_PART))
        lock = ExitStack()
        lock.enter_context(locked(staging))
    staging.chmod(0o755)
    try:
        yield staging
        for path in [*staging.rglob("*"), staging]:
            sync(path)
        with locked(target.parent):
            if check:
                check()
            if overwrite and target.exists():
                discarded = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-", suffix=_OLD))
                target.replace(discarded / target.name)
            staging.replace(target)
            for path in leftovers(target, _OLD):
                shutil.rmtree(path)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        lock.close()


def put_back(target: Path) -> None:
    """Where a process was killed between the two steps of a replacement, what was at ``target`` is there again."""
    if target.exists() or not target.parent.is_dir():
        return
    with locked(target.parent):
        replaced = [path / target.name for path in leftovers(target, _OLD)]
        for path in replaced:
            if path.exists() and not target.exists():
                path.replace(target)


def clear_leftovers(target: Path) -> None:
    """Delete what killed processes left of ``target``; what was replaced stays until its replacement stands."""
    for path in leftovers(target, _PART):
        with locked(path, wait=False) as free:
            if free:
                shutil.rmtree(path)
    if target.exists():
        for path in leftovers(target, _OLD):
            shutil.rmtree(path, ignore_errors=True)


def leftovers(target: Path, *kinds: str) -> list[Path]:
    """What was written aside for ``target``, by processes at work or killed."""
    ours = re.compile(rf"\.{re.escape(target.name)}-\w{{8}}({'|'.join(map(re.escape, kinds or (_PART, _OLD)))})")
    return [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]


@contextmanager
def locked(directory: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a directory's lock, which ends with the process; gives False where another holds it or there are no locks.

    A lock, not a process id: other containers may write to the same volume.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        held = True
    except OSError:
        held = False
    try:
        yield held
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """See that a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
