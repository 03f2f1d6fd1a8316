"""Directories are whole or not there, and what killed writers left goes away, but nothing of a writer at work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsys.errors import RecsysError
from recsys.files import leftovers, locked, put_back, staged_directory, write_atomically


def test_what_nobody_writes_any_more_is_deleted_and_a_writer_at_work_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    (tmp_path / ".dataset-killed_0.part" / "half").mkdir(parents=True)
    with staged_directory(target) as slow:
        (slow / "data").write_text("slow")
        assert leftovers(target) == [slow]
        with staged_directory(target, overwrite=True) as fast:
            (fast / "data").write_text("fast")
        assert (slow / "data").read_text() == "slow"
        target.rename(tmp_path / "fast")
    assert (target / "data").read_text() == "slow"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "fast"]


def test_what_was_replaced_is_kept_until_its_replacement_stands(tmp_path: Path) -> None:
    target, old = tmp_path / "dataset", tmp_path / ".dataset-killed_0.old"
    (old / "dataset").mkdir(parents=True)
    with pytest.raises(ValueError, match="no good"), staged_directory(target):
        raise ValueError("no good")
    assert list(tmp_path.iterdir()) == [old]
    with staged_directory(target):
        pass
    assert list(tmp_path.iterdir()) == [target]


def test_a_replacement_that_a_kill_broke_off_is_undone(tmp_path: Path) -> None:
    target, old = tmp_path / "dataset", tmp_path / ".dataset-killed_0.old"
    (old / "dataset" / "first").mkdir(parents=True)
    put_back(target)
    assert [path.name for path in target.iterdir()] == ["first"]
    (old / "dataset" / "second").mkdir(parents=True)
    put_back(target)
    assert [path.name for path in target.iterdir()] == ["first"], "it is there already"
    put_back(tmp_path / "nowhere" / "dataset")


def test_who_checks_before_a_replacement_sees_all_that_others_did(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    target.mkdir()

    def check() -> None:
        with locked(tmp_path, wait=False) as free:
            assert not free, "another one could replace it between the check and the end"
        if (target / "data").exists():
            raise ValueError("changed")

    with staged_directory(target, overwrite=True, check=check) as staging:
        write_atomically(staging / "data", b"new")
    with pytest.raises(ValueError, match="changed"), staged_directory(target, overwrite=True, check=check):
        pass
    assert (target / "data").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_replacements_at_the_same_time_do_not_stand_in_each_others_way(tmp_path: Path) -> None:
    def replace(number: int) -> None:
        with staged_directory(tmp_path / "dataset", overwrite=True) as staging:
            for part in range(20):
                (staging / str(part)).write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(replace, range(40))) == [None] * 40
    assert list(tmp_path.iterdir()) == [tmp_path / "dataset"]
    assert len({path.read_text() for path in (tmp_path / "dataset").iterdir()}) == 1


def test_a_target_that_exists_is_replaced_only_on_demand(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    target.mkdir()
    with pytest.raises(RecsysError, match="exists already"), staged_directory(target):
        pass
    with staged_directory(target, overwrite=True) as staging:
        write_atomically(staging / "data", b"new")
    assert (target / "data").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]
