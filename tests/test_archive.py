"""The archive on disk: a change happens whole or not at all, whatever ends the process in the middle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.archive import SCHEMA, Archive, Counts, Position, write_clicks
from recsys.errors import InputError, MissingInputError, RecsysError

DAYS = ("2026-11-19", "2026-11-20", "2026-11-21")


class Killed(BaseException):
    """As a kill: nothing catches it."""


def rows(number: int) -> pa.Table:
    values = {"offset": [number], "partition": [0], "user_id": ["u"], "item_id": ["i"], "timestamp": [0]}
    return pa.table([values.get(name, [None]) for name in SCHEMA.names], schema=SCHEMA)


def bring(archive: Archive, number: int) -> None:
    """A change of three days and a dead letter, which takes the first day's older files away."""
    position = archive.position or Position(topic="clicks")
    with archive.change(position) as change:
        for day in DAYS:
            write_clicks(change.new_file(f"{day}/{change.name}.parquet"), rows(number), None)
        change.new_dead_letters().write_text(f"{number}\n")
        change.gone = [str(path.relative_to(archive.path)) for path in archive.clicks() if path.parent.name == DAYS[0]]
        counts = Counts(records=4, clicks=3, dead_letters=1)
        update = {"offsets": {0: number + 1}, "counts": change.position.counts + counts}
        change.position = change.position.model_copy(update=update)


def contents(path: Path) -> dict[str, bytes]:
    found = (each for each in path.rglob("*") if each.is_file() and each.name != ".lock")
    return {str(each.relative_to(path)): each.read_bytes() for each in found}


def run_until(step: int, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Make a change, and end it before its call number ``step`` that changes the disk; whether it came so far."""
    calls = 0

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def inner(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step:
                raise Killed
            return call(*arguments, **named)

        return inner

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            bring(archive, 1)
        except Killed:
            return True
    return False


def test_a_change_that_was_torn_is_done_or_undone_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, after = tmp_path / "first", tmp_path / "after"
    with Archive.open(first, create=True) as archive:
        bring(archive, 0)
    shutil.copytree(first, after)
    with Archive.open(after) as archive:
        bring(archive, 1)
    seen, step = [], 1
    while True:
        torn = tmp_path / f"torn-{step}"
        shutil.copytree(first, torn)
        with Archive.open(torn) as archive:
            ended = run_until(step, archive, monkeypatch)
        with Archive.open(torn) as archive:
            assert archive.position is not None
            assert archive.position.offsets == {0: archive.position.changes}
        found = contents(torn)
        assert found in (contents(first), contents(after)), step
        seen.append(found == contents(after))
        if not ended:
            break
        step += 1
    assert seen == sorted(seen)  # undone up to one step, done from there on
    assert seen.index(True) > 1
    assert seen.count(True) > 5


def test_files_are_whole_and_say_where_they_came_from(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        bring(archive, 7)
        assert [path.parent.name for path in archive.clicks()] == list(DAYS)
        assert pq.read_table(archive.clicks()[0])["offset"].to_pylist() == [7]
        assert len(archive.dead_letters()) == 1


def test_one_process_writes(tmp_path: Path) -> None:
    with (
        Archive.open(tmp_path / "archive", create=True),
        pytest.raises(RecsysError, match="another process"),
        Archive.open(tmp_path / "archive"),
    ):
        pass


def test_counts_must_add_up(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive", create=True) as archive:
        with pytest.raises(RecsysError, match="add up"), archive.change(Position(topic="clicks")) as change:
            change.position = change.position.model_copy(update={"counts": Counts(records=1)})
        assert archive.position is None
    assert contents(tmp_path / "archive") == {}


@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        ("clicks.csv", "user_id", InputError, "it has no _position.json, but clicks.csv"),
        ("_position.json", '{"topic": 7}', InputError, "_position.json: topic: "),
        (".hidden", "", MissingInputError, "it has no _position.json"),
    ],
)
def test_other_directories_are_refused(
    tmp_path: Path, name: str, text: str, error: type[Exception], words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=words), Archive.open(tmp_path):
        pass
    if name != "_position.json":
        assert [path.name for path in tmp_path.iterdir()] == [name], "nothing is left in what is another's"
    with pytest.raises(MissingInputError, match="no such archive"), Archive.open(tmp_path / "nowhere"):
        pass
