"""The session dataset: what is written is read back, split by split, and nothing half or altered is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.dataset import Dataset, write_dataset
from recsys.errors import DatasetError, MissingInputError, RecsysError
from recsys.files import staged_directory
from recsys.fingerprint import add_fingerprints, fingerprint
from recsys.manifest import Counts, Split
from recsys.sessions import Sessions
from recsys.vocabulary import Vocabulary

VOCABULARY = Vocabulary(["a", "b", "c", "d"], np.array([3, 2, 2, 1]))


def sessions(*rows: list[tuple[int, int]]) -> Sessions:
    """Sessions from lists of (item, time)."""
    events = [event for row in rows for event in row]
    return Sessions(
        np.array([item for item, _ in events], np.int32),
        np.array([time for _, time in events], np.int64),
        np.zeros(len(events), np.int8),
        np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64),
    )


def as_lists(part: Sessions) -> list[list[tuple[int, int]]]:
    pairs = list(zip(part.items.tolist(), part.times.tolist(), strict=True))
    return [pairs[start:end] for start, end in zip(part.starts[:-1], part.starts[1:], strict=True)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Validation begins at 100, test at 200; one training session reaches over 100, written out of order."""
    train = sessions([(0, 90), (1, 95), (0, 110)], [(1, 10), (2, 20)], [(2, 99), (0, 101)])
    validation = sessions([(1, 150), (3, 151), (2, 152)], [(3, 120), (0, 121)])
    test = sessions([(0, 205), (1, 206)], [(2, 200), (0, 210)])
    parts = {
        "train": (train, ["u2", "u1", "u3"]),
        "validation": (validation, ["u4", "u5"]),
        "test": (test, ["é", "u1"]),
    }
    return write_dataset(tmp_path / "dataset", VOCABULARY, parts, Split(validation_from=100, test_from=200))


def test_training_is_cut_at_the_validation_boundary(dataset: Dataset) -> None:
    assert as_lists(dataset.training()) == [[(1, 10), (2, 20)], [(0, 90), (1, 95)]]


def test_validation_has_only_items_of_training(dataset: Dataset) -> None:
    assert as_lists(dataset.validation()) == [[(1, 150), (2, 152)]]


def test_development_is_everything_before_the_test_boundary(dataset: Dataset) -> None:
    assert as_lists(dataset.development()) == [
        [(1, 10), (2, 20)],
        [(0, 90), (1, 95), (0, 110)],
        [(2, 99), (0, 101)],
        [(3, 120), (0, 121)],
        [(1, 150), (3, 151), (2, 152)],
    ]


def test_test_sessions_and_their_users_stand_in_the_order_of_their_start(dataset: Dataset) -> None:
    assert as_lists(dataset.test()) == [[(2, 200), (0, 210)], [(0, 205), (1, 206)]]
    assert dataset.test_users() == ["u1", "é"]


def test_without_a_validation_split_training_is_development(tmp_path: Path) -> None:
    parts = {"train": (sessions([(0, 1), (1, 2)]), ["u"])}
    dataset = write_dataset(tmp_path / "d", VOCABULARY, parts, Split(test_from=50))
    assert as_lists(dataset.training()) == as_lists(dataset.development()) == [[(0, 1), (1, 2)]]
    assert len(dataset.validation()) == len(dataset.test()) == 0
    assert dataset.test_users() == []


@pytest.mark.parametrize("name", ["vocabulary.json", "train/00000.parquet", "dead-letter.jsonl"])
def test_an_altered_file_is_named(dataset: Dataset, name: str) -> None:
    path = dataset.path / name
    data = bytearray(path.read_bytes() or b"x")
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=name):
        Dataset.open(dataset.path)


def test_a_missing_file_is_named(dataset: Dataset) -> None:
    (dataset.path / "test/00000.parquet").unlink()
    with pytest.raises(DatasetError, match=r"test/00000\.parquet: is missing"):
        Dataset.open(dataset.path)


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_a_manifest_that_is_none_is_refused(dataset: Dataset, text: str) -> None:
    (dataset.path / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        Dataset.open(dataset.path)


def test_a_directory_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="not a session dataset"):
        Dataset.open(tmp_path)
    with pytest.raises(MissingInputError, match="none: no such dataset directory"):
        Dataset.open(tmp_path / "none")


def test_the_manifest_holds_every_field_as_plain_json(dataset: Dataset) -> None:
    manifest = json.loads((dataset.path / "manifest.json").read_text())
    assert manifest["split"] == {"validation_from": 100, "test_from": 200}
    assert manifest["sizes"]["train"] == {"events": 7, "sessions": 3, "items": 3}
    assert manifest["session_settings"]["gap_minutes"] == 30.0


def test_an_existing_dataset_stays_unless_overwritten(dataset: Dataset) -> None:
    parts = {"train": (sessions([(0, 1), (1, 2)]), ["u"])}
    with pytest.raises(RecsysError, match="--overwrite"):
        write_dataset(dataset.path, VOCABULARY, parts, Split())
    assert len(Dataset.open(dataset.path).development()) == 5
    write_dataset(dataset.path, VOCABULARY, parts, Split(), overwrite=True)
    assert len(Dataset.open(dataset.path).development()) == 1


def test_a_failure_leaves_the_old_dataset_and_nothing_else(dataset: Dataset) -> None:
    def fail() -> None:
        with staged_directory(dataset.path, overwrite=True) as directory:
            (directory / "half").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in dataset.path.parent.iterdir()] == ["dataset"]
    assert len(Dataset.open(dataset.path).test()) == 2


def test_counts_must_add_up() -> None:
    parts = {"duplicates": 2, "repeats": 1, "rejected": {"a": 1}, "filtered": {"b": 3}, "cut": {"c": 2}}
    Counts(read=10, kept=1, **parts).check()
    with pytest.raises(DatasetError, match="add up"):
        Counts(read=10, kept=2, **parts).check()


def test_the_fingerprint_does_not_depend_on_the_order_or_parts_of_sessions() -> None:
    first, second = [(0, 1), (1, 2)], [(2, 3), (0, 4)]
    one = fingerprint(sessions(first, second), ["x", "y"])
    assert add_fingerprints(fingerprint(sessions(first), ["x"]), fingerprint(sessions(second), ["y"])) == one
    assert fingerprint(sessions(second, first), ["y", "x"]) == one
    assert fingerprint(sessions(first, second), ["y", "x"]) != one
    assert fingerprint(sessions([*first, *second]), ["x"]) != one
    assert fingerprint(sessions([(1, 1), (0, 2)], second), ["x", "y"]) != one
