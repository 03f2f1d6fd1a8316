"""``--from-dead-letter``: rejected lines tried again give the dataset of a log in which they were mended."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import HEADER, Outcome, Run, good_rows

Log = Callable[..., Path]
ALL = ("--min-item-support", "1", "--max-bad", "0.2")
NOTE = f"{HEADER},note"


def mend(letters: Path, target: Path, mended: dict[int, str]) -> Path:
    """A copy of dead letters with these texts on these lines."""
    found = [json.loads(line) for line in letters.read_text().splitlines()]
    for letter in found:
        letter["text"] = mended.get(letter["line"], letter["text"])
    target.write_text("".join(f"{json.dumps(letter)}\n" for letter in found))
    return target


def same(outcome: Outcome, expected: Outcome) -> None:
    """The datasets have the same sessions, counts and dead letters (of other files)."""
    assert outcome.code == expected.code == 0, outcome.stderr + expected.stderr
    manifest, other = outcome.dataset.manifest, expected.dataset.manifest
    assert (manifest.content_hash, manifest.counts, manifest.sizes) == (other.content_hash, other.counts, other.sizes)
    assert [letter | {"file": ""} for letter in outcome.dead_letters] == [
        letter | {"file": ""} for letter in expected.dead_letters
    ]


def test_mended_lines_count_as_in_a_log_that_was_right(run: Run, log: Log, tmp_path: Path) -> None:
    bad = ["u000;i1;1704067500000", "u1,i1,never", "u2", "u000,i2,1704067500000", '"u3"x,i2,1704067800000']
    mended = {5: "u000,i1,1704067500000", 6: "u001,i1,1704067560000\r", 9: '"u003",i2,1704067800000'}
    run(log(*bad), *ALL)
    letters = mend(tmp_path / "dataset/dead-letter.jsonl", tmp_path / "by-hand.jsonl", mended)
    again = run("--from-dead-letter", tmp_path / "dataset", "--letters", letters, *ALL, out=tmp_path / "again")
    right = [mended.get(line, text) for line, text in enumerate(bad, 5)]
    same(again, run(log(*right, name="right.csv"), *ALL, out=tmp_path / "right"))
    assert again.dataset.manifest.counts.rejected == {"wrong_fields": 1}
    shown = "".join(again.stdout.split())  # long paths are wrapped
    assert f"1badlinesarein{tmp_path / 'again' / 'dead-letter.jsonl'}" in shown


def test_letters_are_read_by_the_options_of_now_and_other_lines_as_they_were(run: Run, tmp_path: Path) -> None:
    """A log, of several files and without a header, whose clicks of one day tell time otherwise."""
    rows = [row.split(",") for row in good_rows()]
    logs, rights = tmp_path / "logs", tmp_path / "rights"
    for directory in (logs, rights):
        directory.mkdir()
    for part in range(4):
        lines = [f"{time}|{item}|{user}" for user, item, time in rows[part::4]]
        (rights / f"{part}.csv").write_text("\n".join(lines))
        lines[3:5] = [line.replace("|", ".000|", 1).replace("000.000", "", 1) for line in lines[3:5]]
        (logs / f"{part}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    layout = ["--header", "t,item_id,user_id", "--delimiter", "|", "--column", "timestamp=t"]
    first = run(logs, *layout, *ALL)
    assert first.dataset.manifest.counts.rejected == {"timestamp.out_of_range": 8}
    again = run("--from-dead-letter", tmp_path / "dataset", "--time-unit", "s", *ALL, out=tmp_path / "again")
    same(again, run(rights, *layout, *ALL, out=tmp_path / "right"))


@pytest.mark.parametrize("shards", [1, 8])
def test_letters_that_nobody_mended_are_rejected_as_before(run: Run, log: Log, tmp_path: Path, shards: int) -> None:
    """Though the text of a letter may be read where its line cannot: it is cut, and has no bytes that are no text."""
    bad = [b"u1,caf\xe9,1704067200000,x", b"u1,i1,1704067200000," + b"x" * 5000 + b",", b"u1,i1,yes,x"]
    bad += [b"u1,i1,1704067200000," + b"x" * 10_000_000]
    path = tmp_path / "clicks.csv"
    path.write_bytes(b"\n".join([NOTE.encode(), *(f"{row},".encode() for row in good_rows()), *bad]))
    first = run(path, *ALL, "--shards", shards)
    assert len(first.dead_letters) == len(bad)
    same(run("--from-dead-letter", tmp_path / "dataset", *ALL, out=tmp_path / "again"), first)


def test_a_line_that_was_too_long_is_mended(run: Run, log: Log, tmp_path: Path) -> None:
    run(log("x" * 10_000_000), *ALL)
    mended = {5: "u000,i1,1704067500000"}
    letters = mend(tmp_path / "dataset/dead-letter.jsonl", tmp_path / "by-hand.jsonl", mended)
    again = run("--from-dead-letter", tmp_path / "dataset", "--letters", letters, *ALL, out=tmp_path / "again")
    same(again, run(log(mended[5], name="right.csv"), *ALL, out=tmp_path / "right"))


def test_a_line_of_many_events_is_one_line(run: Run, tmp_path: Path) -> None:
    """Its good events, which were read before, count once, and of its two letters either stands for it."""
    lines = []
    for number in range(40):
        events = [
            {"aid": click % 4, "ts": 1_704_067_200_000 + 3_600_000 * number + 60_000 * click, "type": "clicks"}
            for click in range(4)
        ]
        lines.append(json.dumps({"session": number, "events": events}))
    bad = [*lines[:7], lines[7].replace('"aid": 1', '"aid": ""').replace('"aid": 2', '"aid": ""'), *lines[8:]]
    (tmp_path / "bad.jsonl").write_text("\n".join(bad))
    (tmp_path / "right.jsonl").write_text("\n".join(lines))
    first = run(tmp_path / "bad.jsonl", "--preset", "otto", *ALL)
    assert [letter["line"] for letter in first.dead_letters] == [8, 8]
    letters = mend(tmp_path / "dataset/dead-letter.jsonl", tmp_path / "by-hand.jsonl", {8: lines[7]})
    again = run("--from-dead-letter", tmp_path / "dataset", "--letters", letters, *ALL, out=tmp_path / "again")
    same(again, run(tmp_path / "right.jsonl", "--preset", "otto", *ALL, out=tmp_path / "right"))


def test_a_record_of_several_lines_is_mended(run: Run, tmp_path: Path) -> None:
    rows = [f"{row},a" for row in good_rows()]
    for name, time in (("bad.csv", "never"), ("right.csv", "1704067500000")):
        (tmp_path / name).write_text("\n".join([NOTE, *rows[:5], f'u000,i1,{time},"b\nc"', *rows[5:]]))
    run(tmp_path / "bad.csv", *ALL)
    mended = {7: 'u000,i1,1704067500000,"b\nc"'}
    letters = mend(tmp_path / "dataset/dead-letter.jsonl", tmp_path / "by-hand.jsonl", mended)
    again = run("--from-dead-letter", tmp_path / "dataset", "--letters", letters, *ALL, out=tmp_path / "again")
    same(again, run(tmp_path / "right.csv", *ALL, out=tmp_path / "right"))


def letter(**fields: object) -> str:
    return json.dumps({"file": "clicks.csv", "line": 5, "text": "u1,i1,1704067200000"} | fields)


@pytest.mark.parametrize(
    ("letters", "words"),
    [
        (["no letter"], "no dead letter: no letter"),
        ([letter(line="5")], "no dead letter"),
        (["[]"], "no dead letter: []"),
        ([letter(file="other.csv")], "other.csv is no input"),
        ([letter(line=6), letter()], "not in the order in which they were written: clicks.csv line 5"),
        ([letter(), letter(text="u2")], "line 5 has letters with different texts"),
        ([letter(line=1)], "no record begins on line 1"),
        ([letter(), letter(line=1000)], "no record begins on line 1000"),
    ],
)
def test_letters_of_another_log_are_refused(
    run: Run, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letters: list[str], words: str
) -> None:
    log("bad")
    monkeypatch.chdir(tmp_path)
    assert run("clicks.csv", *ALL).code == 0
    (tmp_path / "letters.jsonl").write_text("\n".join(letters))
    outcome = run("--from-dead-letter", "dataset", "--letters", "letters.jsonl", *ALL, out=tmp_path / "again")
    assert outcome.code == 65
    assert words in outcome.stderr.replace("\n", " ")
    assert not outcome.out.exists()


def test_rows_that_have_no_text_are_refused(run: Run, tmp_path: Path) -> None:
    users, items, times = zip(*(row.split(",") for row in good_rows()), strict=True)
    table = pa.table({"user_id": ["", *users[1:]], "item_id": items, "timestamp": [int(time) for time in times]})
    pq.write_table(table, tmp_path / "clicks.parquet")
    assert len(run(tmp_path / "clicks.parquet", *ALL).dead_letters) == 1
    outcome = run("--from-dead-letter", tmp_path / "dataset", *ALL, out=tmp_path / "again")
    assert outcome.code == 65
    assert "is Parquet, whose rows have no text" in outcome.stderr.replace("\n", " ")


def test_what_a_dataset_holds_of_mended_lines_is_not_lost_by_going_on_from_it(
    run: Run, log: Log, tmp_path: Path
) -> None:
    run(log("bad"), *ALL)
    assert run("--from-dead-letter", tmp_path / "dataset", *ALL, out=tmp_path / "again").code == 0
    outcome = run("--from-dead-letter", tmp_path / "again", *ALL, out=tmp_path / "third")
    assert outcome.code == 65
    assert "go on from that dataset instead" in outcome.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either INPUT or --from-dead-letter is needed"),
        (["clicks.csv", "--letters", "letters.jsonl"], "--letters goes with --from-dead-letter"),
        (["clicks.csv", "--from-dead-letter", "old"], "either INPUT or --from-dead-letter"),
        (["--from-dead-letter", "dataset"], "--out must be another one"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)
    assert outcome.code == 2
    assert words in outcome.stderr
