"""Datasets whose user ids are hashed by a key: nobody is named, and all else is as it would be."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from recsys.dataset import SPLITS, Dataset
from recsys.pseudonyms import KEY_METADATA, Pseudonyms
from tests.pipelines.conftest import Run

SECRET = "a secret of the shop"
OTHER = "a secret of another shop"


def name_of(user: str) -> str:
    """As README says: the first 32 digits of HMAC-SHA-256."""
    return hmac.new(SECRET.encode(), user.encode(), hashlib.sha256).hexdigest()[:32]


def users_of(dataset: Dataset) -> dict[tuple[int, ...], str]:
    """The user of each session, by its times."""
    tables = [dataset.read_file(path) for path in dataset.session_files(*SPLITS)]
    rows = (row for table in tables for row in table.to_pylist())
    return {tuple(row["times"]): row["user_id"] for row in rows}


def everything(directory: Path) -> str:
    """All that the files of a directory hold, byte by byte, and columns decompressed too."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    columns = [str(pq.ParquetFile(path).read().to_pydict()) for path in files if path.suffix == ".parquet"]
    return "\n".join([*columns, *(path.read_bytes().decode(errors="replace") for path in files)])


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda value: monkeypatch.setenv("RECSYS_PRIVACY__KEY", value)


def test_users_are_hashed_and_nothing_else_changes(
    run: Run, log: Callable[..., Path], secret: Callable[[str], None], tmp_path: Path
) -> None:
    bots = [f"u999,i{click % 3},{1_704_067_200_000 + 1000 * click}" for click in range(50)]
    path = log("u017,i1,never", "\x01u017,i1,1704067200000", "u017 u017 u017", *bots)
    flags = ("--bot-clicks-per-minute", "30", path)
    clear = run(*flags, out=tmp_path / "clear").dataset
    secret(SECRET)
    outcome = run(*flags)
    assert outcome.code == 0
    assert users_of(outcome.dataset) == {times: name_of(user) for times, user in users_of(clear).items()}
    assert outcome.dataset.manifest.counts == clear.manifest.counts
    said = everything(outcome.out) + outcome.stdout + outcome.stderr
    for word in ("u017", "u999", SECRET):
        assert word not in said
    assert name_of("u999") in (outcome.out / "bots.jsonl").read_text()
    assert [(letter["line"], letter["reason"]) for letter in outcome.dead_letters] == [
        (5, "timestamp.format"),
        (6, "user_id.control_character"),
        (7, "wrong_fields"),
    ]
    assert outcome.dataset.manifest.parameters["key"] == Pseudonyms(SECRET.encode()).key
    assert clear.manifest.parameters["key"] is None


def test_a_log_that_is_refused_names_nobody(run: Run, log: Callable[..., Path], secret: Callable[[str], None]) -> None:
    secret(SECRET)
    outcome = run(log(*["u017,i1,'u017'"] * 50))
    assert outcome.code == 65
    assert "line 5: timestamp.format" in outcome.stderr
    assert "u017" not in outcome.stderr
    assert "u017" not in outcome.out.with_name("dataset.dead-letter.jsonl").read_text()


def test_letters_without_text_are_tried_again_from_the_log(
    run: Run, log: Callable[..., Path], secret: Callable[[str], None], tmp_path: Path
) -> None:
    secret(SECRET)
    path = log(*(f"u017,i1,2024-01-01 0{hour}:00:00" for hour in range(5)))
    first = run(path)
    assert len(first.dead_letters) == 5
    again = run("--from-dead-letter", first.out, "--time-format", "%Y-%m-%d %H:%M:%S", out=tmp_path / "mended")
    assert again.code == 0, again.stderr
    assert again.dead_letters == []
    assert again.dataset.manifest.counts.read == first.dataset.manifest.counts.read


def test_logs_that_are_hashed_already_must_fit_the_key(
    run: Run, log: Callable[..., Path], secret: Callable[[str], None], tmp_path: Path
) -> None:
    clear, hashed = log(), tmp_path / "hashed.parquet"
    table = pa_csv.read_csv(clear)
    users = pa.array(map(name_of, table["user_id"].to_pylist()))
    key = Pseudonyms(SECRET.encode()).key
    pq.write_table(table.set_column(0, "user_id", users).replace_schema_metadata({KEY_METADATA: key}), hashed)
    mixed = run(hashed, clear, out=tmp_path / "mixed")
    assert mixed.code == 65
    assert "different keys, or in clear" in mixed.stderr
    alone = run(hashed, out=tmp_path / "alone").dataset.manifest
    assert alone.parameters["key"] == key
    secret(SECRET)
    same = run(clear, out=tmp_path / "same").dataset.manifest
    assert run(hashed, out=tmp_path / "again").dataset.manifest.content_hash == same.content_hash == alone.content_hash
    secret(OTHER)
    refused = run(hashed, out=tmp_path / "refused")
    assert refused.code == 78
    assert "privacy.key" in refused.stderr


def test_a_key_that_can_be_guessed_is_refused_and_not_repeated(
    run: Run, log: Callable[..., Path], secret: Callable[[str], None]
) -> None:
    secret("guess-me")
    outcome = run(log())
    assert outcome.code == 78
    assert "privacy: key has less than 16 characters" in outcome.stderr
    assert "guess-me" not in outcome.stderr
