"""``recsys sessions --append``: a dataset to which logs were added is the one that all logs together give."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import sizing
from recsys.forgetting.in_dataset import forget_in_dataset
from recsys.forgetting.users import Users

from .conftest import HEADER, NOW, Outcome, Run, good_rows

MIDNIGHT = 1_704_153_600_000  # of the second day
START = 1_704_067_200_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
ALL = ("--min-item-support", "1", "--test-days", "0", "--validation-days", "0")


def facts(outcome: Outcome) -> dict[str, object]:
    """What two datasets of the same clicks have in common, whatever the order of the logs."""
    assert outcome.code == 0, outcome.stderr
    dataset = outcome.dataset
    manifest = dataset.manifest
    letters = sorted((letter["reason"], letter["text"]) for letter in outcome.dead_letters)
    return {
        "content": manifest.content_hash,
        "counts": manifest.counts,
        "sizes": manifest.sizes,
        "split": manifest.split,
        "types": manifest.event_types,
        "vocabulary": dict(zip(dataset.vocabulary.ids, dataset.vocabulary.counts.tolist(), strict=True)),
        "bots": [path.read_text() for path in outcome.out.glob("bots.jsonl")],
        "letters": letters,
    }


def random_lines(seed: int, clicks: int = 400) -> list[str]:
    """A log of four days in any order: ties, repeats, duplicates, event ids that come again, bad lines, a crawler."""
    rng = random.Random(seed)
    lines = []
    for _ in range(clicks):
        user, item = f"u{rng.randrange(12)}", f"i{min(int(rng.expovariate(0.2)), 30)}"
        at = START + rng.randrange(24) * DAY_MS // 6 + rng.randrange(40) * MINUTE_MS
        event = rng.choice(["", "", "", f"e{rng.randrange(clicks)}"])
        lines.append(f"{user},s{rng.randrange(3)},{item},{at},{rng.choice(['view', 'cart'])},{event}")
    crawler = [f"bot,s0,i{n % 7},{START + n * 500},view," for n in range(60)]
    bad = [f"u1,s1,i1,never,view,{n}" for n in range(3)]
    lines += rng.sample(lines, clicks // 8) + crawler + bad
    rng.shuffle(lines)
    return lines


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(["user_id,visit,item_id,timestamp,event_type,event_id", *lines]) + "\n")
    return path


OPTIONS = {
    "bots and days": ("--bot-clicks-per-minute", "learnt", "--test-days", "1.5", "--min-item-support", "9"),
    "sessions of the log": ("--column", "session=visit", "--max-length", "20"),
    "repeats stay": ("--no-collapse-repeats", "--gap-minutes", "10", "--validation-days", "0"),
}


@pytest.mark.parametrize(("seed", "options"), enumerate(OPTIONS.values()), ids=OPTIONS)
def test_parts_of_a_log_in_any_order_give_what_the_whole_gives(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, options: tuple[str, ...]
) -> None:
    """Whether there are as many shards afterwards, or more."""
    if seed == 0:
        monkeypatch.setattr(sizing, "SHARD_BYTES", 4000)
    rng = random.Random(seed)
    lines = random_lines(seed)
    bounds = sorted([0, len(lines), *rng.sample(range(len(lines) // 2, len(lines)), 1 + (seed == 0))])
    parts = [write(tmp_path / f"{n}.csv", lines[begin:end]) for n, (begin, end) in enumerate(pairwise(bounds))]
    whole = facts(run(write(tmp_path / "whole.csv", lines), *options, out=tmp_path / "whole"))
    first = run(parts[0], *options, "--max-bad", "1", "--shards", "3")
    assert facts(first) != whole
    for part in parts[1:]:
        outcome = run(part, "--append", "--max-bad", "1")
    assert facts(outcome) == whole
    assert outcome.dataset.manifest.parameters["shards"] == (6 if seed == 0 else 3)


def clicks_of(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def clicks(path: Path, *rows: tuple[str, str, float]) -> Path:
    """A log of (user, item, minutes from midnight)."""
    return clicks_of(path, [f"{user},{item},{MIDNIGHT + round(at * MINUTE_MS)}" for user, item, at in rows])


def sessions_of(outcome: Outcome) -> list[list[str]]:
    dataset = outcome.dataset
    return [[dataset.vocabulary.ids[row] for row in items] for items in dataset.development()]


def test_sessions_go_on_after_midnight(run: Run, tmp_path: Path) -> None:
    monday = clicks(
        tmp_path / "monday.csv",
        *(("crosses", "a", -20), ("crosses", "b", -1)),
        *(("repeats", "a", -50), ("repeats", "a", -25)),  # the second adds nothing, but holds the session open
        *(("returns", "a", -50), ("returns", "b", -31)),
        *(("stays", "c", -700), ("stays", "d", -690)),
        ("late", "a", -100),
    )
    tuesday = clicks(
        tmp_path / "tuesday.csv",
        *(("crosses", "c", 10), ("crosses", "b", -1)),  # once more
        ("repeats", "c", 4),
        *(("returns", "c", 0), ("returns", "d", 1)),
        ("late", "b", -101),  # before the click that was known
        *(("new", "d", 5), ("new", "c", 6)),
    )
    first = run(monday, *ALL, "--gap-minutes", "30")
    assert sessions_of(first) == [["c", "d"], ["a", "b"], ["a", "b"]]
    outcome = run(tuesday, "--append")
    assert sessions_of(outcome) == [
        ["c", "d"], ["b", "a"], ["a", "c"], ["a", "b"], ["a", "b", "c"], ["c", "d"], ["d", "c"],
    ]  # fmt: skip
    counts = outcome.dataset.manifest.counts
    assert (counts.read, counts.kept, counts.duplicates, counts.repeats) == (17, 15, 1, 1)
    assert "8 clicks added to 9 in" in outcome.stdout


def test_items_become_frequent_and_boundaries_move_by_the_day_that_is_added(run: Run, tmp_path: Path) -> None:
    def day(number: int, item: str) -> list[tuple[str, str, float]]:
        visits = [(f"u{number}-{n}", 1440 * number + 20 * n) for n in range(6)]
        return [(user, each, at + place) for user, at in visits for place, each in enumerate(("a", "b", item))]

    days = [day(number, "rare" if number > 1 else "common") for number in range(4)]
    options = ("--test-days", "1", "--min-item-support", "10")
    first = run(clicks(tmp_path / "0.csv", *days[0], *days[1], *days[2]), *options)
    assert "rare" not in first.dataset.vocabulary.ids
    outcome = run(clicks(tmp_path / "1.csv", *days[3]), "--append")
    assert "rare" in outcome.dataset.vocabulary.ids
    last = MIDNIGHT + (3 * 1440 + 102) * MINUTE_MS
    assert outcome.dataset.manifest.split.test_from == last - DAY_MS
    assert facts(outcome) == facts(run(tmp_path / "[01].csv", *options, out=tmp_path / "whole"))


def test_only_clicks_of_users_who_come_are_written_until_these_are_many(run: Run, tmp_path: Path) -> None:
    """And who is forgotten is so in all files."""

    def day(number: int, *users: str) -> Path:
        rows = [(user, item, 1440 * number + at) for user in users for at, item in enumerate("abc")]
        return clicks(tmp_path / f"{number}.csv", *rows)

    many = [f"user-{number}" for number in range(20)]
    dataset = run(day(0, *many), *ALL, "--shards", "2").out
    kept = dataset / "kept"
    before = {path.name: path.stat().st_ino for path in kept.iterdir()}
    assert sorted(before) == ["00000.parquet", "00001.parquet"]
    run(day(1, "user-1"), "--append")
    (home,) = {path.stem for path in kept.iterdir()} - {Path(name).stem for name in before}
    after = {path.name: path.stat().st_ino for path in kept.iterdir()}
    assert after == before | {f"{home}.parquet": after[f"{home}.parquet"]}
    assert len(pq.read_table(kept / f"{home}.parquet")) == 6

    forget_in_dataset(dataset, Users({"user-1"}, None))
    assert "user-1'" not in str([pq.read_table(path)["user"].to_pylist() for path in kept.iterdir()])
    run(day(2, "user-1", *many[4:12]), "--append", "--work", tmp_path / "work")
    assert len(list(kept.iterdir())) > 2
    outcome = run(day(3, "user-1"), "--append")
    assert sorted(path.name for path in kept.iterdir()) == sorted(before)
    day(0, *(user for user in many if user != "user-1"))
    whole = run(tmp_path / "[023].csv", *ALL, out=tmp_path / "whole").dataset.manifest
    assert outcome.dataset.manifest.content_hash == whole.content_hash
    assert outcome.dataset.manifest.counts.forgotten == 6


def test_a_log_that_is_added_twice_is_made_of_duplicates(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "clicks.csv", random_lines(5))
    (tmp_path / "copy.csv").write_bytes(path.read_bytes())
    run(path, *ALL)
    appended = run(path, "--append")
    assert facts(appended) == facts(run(tmp_path / "*.csv", *ALL, out=tmp_path / "whole"))
    assert [log["inputs"] for log in appended.dataset.manifest.parameters["logs"]] == [[str(path)], [str(path)]]


def test_a_log_is_read_as_those_before_unless_options_say_otherwise(run: Run, tmp_path: Path) -> None:
    rows = [row.split(",") for row in good_rows()]
    texts = {
        "one.csv": "\n".join(f"{int(time) / 1000}|{item}|{user}" for user, item, time in rows[:80]),
        "two.csv": "\n".join(f"{int(time) / 1000}|{item}|{user}" for user, item, time in rows[80:120]),
        "three.csv": "\n".join([HEADER, *(",".join(row) for row in rows[120:])]),
        "whole.csv": "\n".join([HEADER, *(",".join(row) for row in rows)]),
    }
    one, two, three, whole = ((tmp_path / name) for name in texts)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    run(one, "--header", "t,item_id,user_id", "--delimiter", "|", "--column", "timestamp=t", "--time-unit", "s", *ALL)
    run(two, "--append")
    other = ("--delimiter", ",", "--header", "user_id,item_id,t", "--time-unit", "ms", "--max-bad", "0.1")
    outcome = run(three, "--append", *other)
    assert outcome.dataset.manifest.counts.rejected == {"timestamp.format": 1}  # what was a header
    assert outcome.dataset.manifest.content_hash == run(whole, *ALL, out=tmp_path / "w").dataset.manifest.content_hash
    again = run("--from-dead-letter", tmp_path / "dataset", out=tmp_path / "again")
    assert "not all read in one way" in again.stderr


def test_dead_letters_of_all_logs_are_tried_again(run: Run, tmp_path: Path) -> None:
    for name, rows in (("one.csv", good_rows()[:80]), ("two.csv", good_rows()[80:])):
        time = rows[0].rpartition(",")[2]
        (tmp_path / name).write_text("\n".join([HEADER, *rows, f"u1,i1,{time}000"]))
    run(tmp_path / "one.csv", *ALL)
    appended = run(tmp_path / "two.csv", "--append")
    assert [letter["file"] for letter in appended.dead_letters] == [str(tmp_path / n) for n in ("one.csv", "two.csv")]
    again = run("--from-dead-letter", tmp_path / "dataset", "--time-unit", "us", *ALL, out=tmp_path / "again")
    assert again.code == 0, again.stderr
    assert again.dataset.manifest.counts.rejected == {}


def test_what_cannot_be_added_is_refused(run: Run, tmp_path: Path) -> None:
    path = clicks(tmp_path / "clicks.csv", ("u", "a", 0), ("u", "b", 1))
    assert "no such" in run(path, "--append").stderr.lower()
    before = run(path, *ALL).dataset.manifest
    refusals: list[tuple[tuple[str, ...], int, str]] = [
        (("--gap-minutes", "20"), 78, "sessions.gap_minutes: is 20.0, but"),
        (("--no-collapse-repeats",), 78, "sessions.collapse_repeats: is False, but"),
        (("--column", "session=user_id"), 65, "has sessions of its own, but the logs of"),
        (("--overwrite",), 2, "--append excludes"),
        (("--shards", "9"), 2, "--append excludes"),
    ]
    for options, code, words in refusals:
        outcome = run(path, "--append", *options)
        assert outcome.code == code, outcome.stderr
        assert words in outcome.stderr.replace("\n", " ")
    altered = next((outcome.out / "kept").iterdir())
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    outcome = run(path, "--append")
    assert outcome.code == 65
    assert f"{altered.name}: has been altered" in outcome.stderr.replace("\n", " ")
    assert outcome.dataset.manifest == before


def test_a_dataset_need_not_keep_its_clicks(run: Run, tmp_path: Path) -> None:
    path = clicks(tmp_path / "clicks.csv", ("u", "a", 0), ("u", "b", 1))
    outcome = run(path, *ALL, "--no-keep-clicks")
    assert not (outcome.out / "kept").exists()
    assert "keeps no clicks" in run(path, "--append").stderr


def test_a_dataset_that_changes_meanwhile_is_not_replaced(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run ends between the beginning and the end of this one."""
    path = clicks(tmp_path / "clicks.csv", ("u", "a", 0), ("u", "b", 1))
    run(path, *ALL)
    from pipelines import build

    def finish(*arguments: object, **named: object) -> object:
        monkeypatch.undo()
        assert run(path, "--append").code == 0
        return build.finish(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "finish", finish)
    outcome = run(path, "--append")
    assert "was changed by another run" in outcome.stderr.replace("\n", " ")
    assert outcome.dataset.manifest.counts.read == 4


def test_a_run_that_is_killed_leaves_the_dataset_as_it_was(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join([HEADER, *good_rows(1000, clicks=60)]))
    before = run(path, *ALL).dataset
    command = [Path(sys.executable).with_name("recsys"), "sessions", path, "--out", before.path, "--append"]
    with subprocess.Popen([*command, "--now", NOW], stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob(".dataset-*/.work/tallies/write/*")):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert type(before).open(before.path).manifest == before.manifest
    moved = tmp_path / ".dataset-killed_0.old"  # as if the kill had come between the two steps of the replacement
    moved.mkdir()
    before.path.rename(moved / "dataset")
    assert run(path, "--append").dataset.manifest.counts.duplicates == 60_000
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
