"""``recsys forget``: afterwards no byte names the user, and all else is as if the user had never clicked."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.archive import SCHEMA, Archive, Counts, Position, write_clicks
from recsys.cli.forget import forget
from recsys.dataset import Dataset
from recsys.errors import DatasetError, InputError
from recsys.events import ClickEvent, encode
from recsys.forgetting.in_dataset import forget_in_dataset
from recsys.forgetting.users import Users, rows_of, without
from recsys.pseudonyms import Pseudonyms
from recsys.settings import RedisSettings
from recsys.store import Store, Write
from stream.dead_letter import DeadLetter, Record
from tests.conftest import STORES
from tests.pipelines.conftest import Run, good_rows
from tests.pipelines.test_privacy import SECRET, everything, name_of

START = 1_704_067_200_000
USER = "u017"
FLAGS = ("--bot-clicks-per-minute", "30", "--test-from", "2024-01-02", "--validation-days", "0")


@pytest.fixture(params=["", SECRET], ids=["clear", "hashed"])
def secret(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key by which ids are hashed, or none."""
    monkeypatch.setenv("RECSYS_PRIVACY__KEY", request.param)
    value: str = request.param
    return value


def run_forget(*arguments: str | Path) -> Result:
    return CliRunner().invoke(forget, [*map(str, arguments), "--yes", "--json"], catch_exceptions=False)


def removed_from(place: Path, *arguments: str | Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(run_forget(*arguments).stdout)[str(place)]
    return {name: n for name, n in found.items() if n}


def bot(user: str) -> list[str]:
    return [f"{user},i{click % 3},{START + 1000 * click}" for click in range(50)]


def write_log(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    return path


def test_a_dataset_is_as_if_the_user_had_never_clicked(run: Run, secret: str, tmp_path: Path) -> None:
    """But for what was read, which stays, and for letters whose text the key has withheld, which name nobody."""
    bad = "i1,never"
    others = [row for row in good_rows() if USER not in row] + [*bot("u888"), f"u888,{bad}", f"u0170,{bad}"]
    hers = [row for row in good_rows() if USER in row] + [*bot("u999"), f"{USER},{bad}", f'"{USER}",{bad}']
    dataset = run(write_log(tmp_path / "all.csv", *others[:9], *hers, *others[9:]), *FLAGS).out
    rebuilt = run(write_log(tmp_path / "rest.csv", *others), *FLAGS, out=tmp_path / "rebuilt").dataset.manifest
    before = Dataset.open(dataset).manifest

    letters = 0 if secret else 2
    found = removed_from(dataset, USER, "u999", "--dataset", dataset)
    assert found.pop("dead_letters", 0) == letters
    assert found == {"clicks": 4, "sessions": 1, "bots": 1, "files": 4 if secret else 5}
    after = Dataset.open(dataset).manifest
    assert after.content_hash == rebuilt.content_hash
    assert after.sizes == rebuilt.sizes
    assert after.parameters == before.parameters
    after.counts.check()
    assert (after.counts.read, after.counts.forgotten) == (before.counts.read, 4 + letters)
    assert after.counts.kept == rebuilt.counts.kept
    said = everything(dataset).replace("u0170", "")
    for name in (USER, "u999", name_of(USER), name_of("u999")):
        assert name not in said
    assert (name_of("u888") if secret else "u888") in said
    assert removed_from(dataset, USER, "--dataset", dataset) == {}
    assert Dataset.open(dataset).manifest == after

    more = write_log(tmp_path / "more.csv", *good_rows(users=9, start=START + 86_400_000 * 2))
    ours, theirs = (run("--append", more, out=out).dataset.manifest for out in (dataset, tmp_path / "rebuilt"))
    assert ours.content_hash == theirs.content_hash
    assert ours.counts.forgotten == len(hers) - 2 + letters
    assert (ours.counts.kept, ours.counts.filtered) == (theirs.counts.kept, theirs.counts.filtered)


def test_a_log_is_added_when_some_are_forgotten_whose_clicks_were_all_filtered(run: Run, tmp_path: Path) -> None:
    """None of these is in a session, but all are among those that the dataset keeps."""
    others = [*good_rows(), *bot("u888")]
    theirs = [*bot("u999"), f"once,i1,{START}"]
    dataset = run(write_log(tmp_path / "all.csv", *others, *theirs), *FLAGS).out
    run(write_log(tmp_path / "rest.csv", *others), *FLAGS, out=tmp_path / "rebuilt")
    assert removed_from(dataset, "u999", "once", "--dataset", dataset)["bots"] == 1
    more = write_log(tmp_path / "more.csv", *good_rows(users=9, start=START + 86_400_000 * 2))
    ours, rest = (run("--append", more, out=out).dataset.manifest for out in (dataset, tmp_path / "rebuilt"))
    assert ours.content_hash == rest.content_hash
    assert ours.counts.forgotten == len(theirs)


def test_a_dataset_that_is_added_to_meanwhile_loses_nothing(run: Run, log: Callable[..., Path]) -> None:
    clicks = log(f"{USER},i1,never")
    dataset = run(clicks).out

    class Slow(Users):
        asked = 0

        def named_in(self, text: str | None) -> bool:
            """Asked of the dead letter when it is looked for, and again when it goes."""
            self.asked += 1
            assert self.asked != 2 or run("--append", clicks).code == 0
            return super().named_in(text)

    with pytest.raises(DatasetError, match="was changed by another run"):
        forget_in_dataset(dataset, Slow([USER], None))
    assert Dataset.open(dataset).manifest.counts.duplicates == len(good_rows())


def test_an_altered_file_is_not_made_good(run: Run, log: Callable[..., Path]) -> None:
    dataset = run(log()).out
    kept = next((dataset / "kept").iterdir())
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(DatasetError, match=r"\.parquet: has been altered"):
        run_forget(USER, "--dataset", dataset)


def test_a_dataset_whose_replacement_a_kill_broke_off_is_there_again(run: Run, log: Callable[..., Path]) -> None:
    dataset = run(log()).out
    moved = dataset.parent / ".dataset-killed_0.old"
    moved.mkdir()
    dataset.rename(moved / "dataset")
    assert removed_from(dataset, USER, "--dataset", dataset)["sessions"] == 1
    assert not moved.exists()


def test_what_was_removed_is_said_though_the_next_place_fails(run: Run, log: Callable[..., Path]) -> None:
    dataset = run(log()).out
    arguments = [USER, "--dataset", str(dataset), "--archive", str(dataset), "--yes", "--json"]
    result = CliRunner().invoke(forget, arguments)
    assert isinstance(result.exception, InputError)
    assert json.loads(result.stdout)[str(dataset)]["sessions"] == 1


def test_models_keep_their_rows(run: Run, tmp_path: Path) -> None:
    """An item that nobody else clicked stays, with a count of 0."""
    only = [f"only,rare,{START + 60_000 * click}" for click in range(0, 60, 2)]
    alone = ("--no-collapse-repeats", "--test-days", "0", "--validation-days", "0")
    dataset = run(write_log(tmp_path / "clicks.csv", *good_rows(), *only), *alone).dataset
    assert removed_from(dataset.path, "only", "--dataset", dataset.path)["sessions"] == 1
    after = Dataset.open(dataset.path)
    assert list(after.vocabulary.ids) == list(dataset.vocabulary.ids)
    assert after.vocabulary.counts[after.vocabulary.row("rare")] == 0
    assert int(after.vocabulary.counts.sum()) == after.development().events


def test_what_is_not_the_datasets_own_is_not_thrown_away(run: Run, log: Callable[..., Path]) -> None:
    dataset = run(log()).out
    (dataset / "notes.txt").write_text("mine")
    with pytest.raises(Exception, match=r"notes\.txt: is no file of the dataset"):
        run_forget(USER, "--dataset", dataset)
    assert (dataset / "notes.txt").read_text() == "mine"


def test_what_a_killed_run_left_of_the_dataset_goes(run: Run, log: Callable[..., Path]) -> None:
    dataset = run(log()).out
    for name in (".dataset-killed_0.part", ".dataset-killed_0.old"):
        shutil.copytree(dataset, dataset.parent / name / "dataset")
    run_forget("nobody", "--dataset", dataset)
    assert sorted(each.name for each in dataset.parent.iterdir()) == ["clicks.csv", "dataset"]


def test_the_letters_of_a_refused_build_are_searched(run: Run, log: Callable[..., Path]) -> None:
    clicks = log()
    dataset = run(clicks).out
    assert run(log(*[f"{USER},i1,never", "u018,i1,never"] * 40, name="bad.csv"), "--overwrite").code == 65
    beside = dataset.with_name("dataset.dead-letter.jsonl")
    assert removed_from(dataset, USER, "--dataset", dataset)["dead_letters"] == 40
    assert USER not in beside.read_text()
    assert len(beside.read_text().splitlines()) == 40
    assert f"built from {clicks}: these still have" in run_forget(USER, "--dataset", dataset).stderr


def make_archive(path: Path, secret: str) -> None:
    """Two days of three users' clicks, one of whom speaks of another, and a dead letter of each and of nobody."""
    pseudonyms = Pseudonyms(secret.encode()) if secret else None
    key = pseudonyms.key if pseudonyms else None
    rows: list[dict[str, Any]] = []
    for offset, user in enumerate([USER, "u018", "u0170", USER]):
        context = json.dumps({"friend": USER}) if user == "u018" and not secret else None
        fields = {"user_id": pseudonyms.of(user) if pseudonyms else user, "item_id": "i", "context": context}
        rows.append(fields | {"timestamp": START, "event_type": "view", "partition": 0, "offset": offset})
    records = [Record(None, value, 0, 9, START) for value in (f'{{"user_id":"{USER}"}}'.encode(), b"\xffu017", b"not")]
    letters = [line_of(DeadLetter(record, "reason", "detail"), secret) for record in records]
    with Archive.open(path, create=True) as archive, archive.change(Position(topic="clicks", key=key)) as change:
        write_clicks(change.new_file(f"2024-01-01/{change.name}.parquet"), pa.Table.from_pylist(rows, SCHEMA), key)
        write_clicks(change.new_file(f"2024-01-02/{change.name}.parquet"), pa.Table.from_pylist(rows[:1], SCHEMA), key)
        change.new_dead_letters().write_text("".join(letters))
        counts = Counts(records=8, clicks=5, dead_letters=3)
        change.position = change.position.model_copy(update={"counts": counts, "offsets": {0: 10}})


def line_of(letter: DeadLetter, secret: str) -> str:
    return ('{"reason": "reason", "partition": 0, "offset": 9}' if secret else letter.encode("clicks").decode()) + "\n"


def test_an_archive_is_without_the_user(secret: str, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    make_archive(path, secret)
    letters, texts = (0, 0) if secret else (2, 1)
    found = removed_from(path, USER, "--archive", path)
    assert (found["clicks"], found.get("dead_letters", 0), found.get("texts", 0)) == (3, letters, texts)
    with Archive.open(path) as archive:
        assert [file.parent.name for file in archive.clicks()] == ["2024-01-01"]
        assert archive.position is not None
        assert archive.position.offsets == {0: 10}
        counts = Counts(records=8, clicks=2, dead_letters=3 - letters, forgotten=3 + letters)
        assert archive.position.counts == counts
        assert pq.read_schema(archive.clicks()[0]).metadata == (pq_metadata(archive.position.key))
    said = everything(path).replace("u0170", "")
    assert USER not in said
    assert name_of(USER) not in said
    assert not (path / "2024-01-02").exists()
    assert removed_from(path, USER, "--archive", path) == {}


@pytest.mark.parametrize("damaged", ["2024-01-01/000000000001.parquet", "_dead-letter/000000000001.jsonl"])
def test_a_damaged_file_is_named_and_nothing_changes(tmp_path: Path, damaged: str) -> None:
    make_archive(tmp_path / "archive", "")
    file = tmp_path / "archive" / damaged
    file.write_bytes(b"{}\nhalf of")
    before = files_of(tmp_path / "archive")
    with pytest.raises(InputError, match=re.escape(damaged)):
        run_forget(USER, "--archive", tmp_path / "archive")
    assert files_of(tmp_path / "archive") == before


def files_of(path: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_an_archive_is_not_taken_for_closed_sessions(tmp_path: Path) -> None:
    make_archive(tmp_path / "archive", "")
    before = files_of(tmp_path / "archive")
    with pytest.raises(InputError, match=r"000000000001\.parquet: holds no closed sessions"):
        run_forget(USER, "--closed", tmp_path / "archive")
    assert files_of(tmp_path / "archive") == before


def pq_metadata(key: str | None) -> dict[bytes, bytes] | None:
    return None if key is None else {b"recsys.pseudonyms": key.encode()}


def test_closed_sessions_are_without_the_user(secret: str, tmp_path: Path) -> None:
    path, key = tmp_path / "closed", Pseudonyms(secret.encode()).key if secret else None
    users = [USER, USER, "u018", USER]
    ids = list(map(name_of, users)) if secret else users
    rows = {"user_id": ids, "session_id": [START, START, START, START + 1], "item_id": ["i"] * 4}
    for day, size in (("2024-01-01", 4), ("2024-01-02", 2)):
        (path / day).mkdir(parents=True)
        write_clicks(path / day / "00000-run-00000000.parquet", pa.table(rows).slice(0, size), key)
    letters = [{"text": text, "detail": "late"} for text in (f"{USER},i", "u0170,i")]
    (path / "2024-01-01" / "_00000-run-00000000.jsonl").write_text("".join(json.dumps(each) + "\n" for each in letters))
    expected = {"clicks": 5, "sessions": 3, "dead_letters": 1, "files": 3}
    assert removed_from(path, USER, "--closed", path) == expected
    assert sorted(each.name for each in path.iterdir()) == ["2024-01-01", "2024-01-02"]
    assert USER not in everything(path).replace("u0170", "")
    assert name_of(USER) not in everything(path)
    (left,) = path.glob("*/*.parquet")
    assert pq.ParquetFile(left).read()["user_id"].to_pylist() == ids[2:3]
    assert pq.read_schema(left).metadata == pq_metadata(key)
    assert removed_from(path, USER, "--closed", path) == {}


def test_hashed_ids_want_their_key(run: Run, log: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_PRIVACY__KEY", SECRET)
    dataset = run(log()).out
    for other in ("", "another secret of a shop"):
        monkeypatch.setenv("RECSYS_PRIVACY__KEY", other)
        with pytest.raises(Exception, match=r"privacy\.key: .* has user ids hashed by the key"):
            run_forget(USER, "--dataset", dataset)


@pytest.mark.parametrize("kind", STORES)
def test_the_store_forgets(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_url = request.getfixturevalue(kind)
    prefix = uuid.uuid4().hex
    monkeypatch.setenv("REDIS_URL", store_url)
    monkeypatch.setenv("RECSYS_REDIS__PREFIX", prefix)

    async def states() -> list[bytes | None]:
        store = Store(RedisSettings(url=store_url, prefix=prefix))
        await store.save([Write(user, None, b"state", b"list") for user in ("odd}%id", "other")])
        (tmp_path / "gone.txt").write_text("odd}%id\nnobody\n")
        result = await asyncio.to_thread(run_forget, "--users-from", tmp_path / "gone.txt", "--store")
        assert json.loads(result.stdout) == {"store": {"keys": 2}}
        found = [*await store.states(["odd}%id", "other"]), *await store.lists(["odd}%id", "other"])]
        await store.close()
        return found

    assert asyncio.run(states()) == [None, b"state", None, b"list"]


def test_nothing_happens_without_a_yes_or_a_place(tmp_path: Path) -> None:
    make_archive(tmp_path / "archive", "")
    asked = CliRunner().invoke(forget, [USER, "--archive", str(tmp_path / "archive")], input="n\n")
    assert asked.exit_code == 1
    assert "Take 1 user out of" in asked.stderr
    assert USER in everything(tmp_path / "archive")
    assert CliRunner().invoke(forget, [USER]).exit_code == 2
    assert CliRunner().invoke(forget, ["--store"]).exit_code == 2


@pytest.mark.parametrize(
    ("user", "text", "named"),
    [
        ("u1", '{"user_id":"u1"}', True),
        ("u1", "u1,i", True),
        ("u1", "u12,i", False),
        ("u1", "nu1", False),
        ('a"b', '"a""b",i', True),
        ('a"b', r'{"user_id": "a\"b"}', True),
        ("é", r'{"user_id": "\u00e9"}', True),
        ("1", "1,17,1704067200000", True),
        ("a.b", "aXb", False),
        ("u1", r'{"line": "i\tu1\n"}', True),
        ("u1", r'{"line": "\u0009u1"}', True),
        ("nice", r"C:\nice", True),
        ("u1", "", False),
        ("(", "a ( b", True),
    ],
)
def test_texts_name_users_as_words(user: str, text: str, named: bool) -> None:
    assert Users([user], None).named_in(text) is named


ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(deadline=None)
@given(ids, ids)
def test_users_are_found_however_a_line_is_written(user: str, other: str) -> None:
    sheet = io.StringIO()
    csv.writer(sheet).writerow([user, other, "1704067200000"])
    lines = [sheet.getvalue(), encode(ClickEvent(user, other, START)).decode(), json.dumps({"who": [user]})]
    users = Users([user], None)
    assert all(map(users.named_in, [*lines, *map(json.dumps, lines)]))
    assert not users.named_in(f"{user}x" if user.isalnum() else "")


def test_words_of_a_dictionary_go_too() -> None:
    table = pa.table({"user": pa.array(["gone", "here", "gone"]).dictionary_encode(), "n": [1, 2, 3]})
    kept = without(table, rows_of(table["user"], {"gone"}))
    assert kept.to_pylist() == [{"user": "here", "n": 2}]
    assert kept.schema == table.schema
    assert "gone" not in str(kept["user"].chunk(0).dictionary)
