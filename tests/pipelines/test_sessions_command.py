"""``recsys sessions`` end to end: any format, order and number of shards give one dataset, and it is the right one."""

from __future__ import annotations

import gzip
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.dataset import Dataset
from recsys.sessions import SessionRule, Sessions, is_repeat, starts_session

from .conftest import HEADER, Run, good_rows

Click = tuple[str, str, int, str]  # user, item, time, type
Session = tuple[str, list[tuple[str, int, str]]]

DAY_MS = 86_400_000
START = 1_704_067_200_000


def random_log(seed: int, clicks: int = 3000) -> list[Click]:
    """Clicks of a few days with ties, duplicates and repeats, in no order."""
    rng = random.Random(seed)
    times = [START + rng.randrange(4 * 24 * 12) * 300_000 for _ in range(clicks)]
    items = ["é", "z", "item 10", "item 9", *(str(n) for n in range(40))]
    log = [
        (f"u{rng.randrange(40)}", items[min(int(rng.expovariate(0.1)), 43)], at, rng.choice(["view", "cart"]))
        for at in times
    ]
    log += rng.sample(log, clicks // 20)
    rng.shuffle(log)
    return log


def write_csv(path: Path, log: list[Click]) -> Path:
    path.write_text("\n".join(["user_id,item_id,timestamp,event_type", *(",".join(map(str, click)) for click in log)]))
    return path


def cut_by_hand(log: list[Click], rule: SessionRule) -> list[Session]:
    """The rule event by event, as the stream applies it."""
    sessions: list[Session] = []
    last: dict[str, tuple[int, str]] = {}
    for user, item, at, kind in sorted(set(log), key=lambda click: (click[0], click[2], click[1].encode(), click[3])):
        if user not in last or starts_session(last[user][0], at, rule.gap_ms):
            sessions.append((user, [(item, at, kind)]))
        elif not is_repeat(last[user][1], item):
            sessions[-1][1].append((item, at, kind))
        last[user] = at, item
    return sessions


def filter_by_hand(sessions: list[Session], support: int, shortest: int, longest: int) -> list[Session]:
    sessions = [(user, events) for user, events in sessions if len(events) <= longest]
    while True:
        sessions = [(user, events) for user, events in sessions if len(events) >= shortest]
        counts = Counter(item for _, events in sessions for item, _, _ in events)
        if all(count >= support for count in counts.values()):
            return sessions
        sessions = [(user, [event for event in events if counts[event[0]] >= support]) for user, events in sessions]


def by_hand(log: list[Click], validation: int, test: int, support: int) -> dict[str, list[Session]]:
    """Training, validation and test sessions as the contract of the dataset words them."""
    sessions = filter_by_hand(cut_by_hand(log, SessionRule()), support, 2, 1000)

    def part(begin: int, end: int, before: int, items: set[str] | None = None) -> list[Session]:
        chosen = [(user, events) for user, events in sessions if begin <= events[0][1] < end]
        cut = [
            (user, [event for event in events if event[1] < before and (items is None or event[0] in items)])
            for user, events in chosen
        ]
        return [session for session in cut if len(session[1]) >= 2]

    training = part(0, validation, validation)
    development = part(0, test, test)
    known, all_known = ({item for _, events in some for item, _, _ in events} for some in (training, development))
    never = 1 << 60
    return {
        "training": training,
        "validation": part(validation, test, test, known),
        "development": development,
        "test": part(test, never, never, all_known),
    }


def read_back(dataset: Dataset, sessions: Sessions) -> list[list[tuple[str, int, str]]]:
    items = [dataset.vocabulary.ids[row] for row in sessions.items]
    kinds = [dataset.event_types[code] for code in sessions.types]
    events = list(zip(items, sessions.times.tolist(), kinds, strict=True))
    return [events[start:end] for start, end in pairwise(sessions.starts.tolist())]


def in_order(sessions: list[Session]) -> list[list[tuple[str, int, str]]]:
    return [events for _, events in sorted(sessions, key=lambda session: (session[1][0][1], session[0].encode()))]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_dataset_is_what_the_rules_say_click_by_click(run: Run, tmp_path: Path, seed: int) -> None:
    log = random_log(seed)
    validation, test = START + 2 * DAY_MS, START + 3 * DAY_MS
    path = write_csv(tmp_path / "clicks.csv", log)
    boundaries = ("--validation-from", "2024-01-03", "--test-from", "2024-01-04T00:00:00Z")
    outcome = run(path, *boundaries, "--min-item-support", "40")
    assert outcome.code == 0, outcome.stderr
    dataset = outcome.dataset
    expected = by_hand(log, validation, test, 40)
    for name in ("training", "validation", "development", "test"):
        assert expected[name], "the log is too small to show anything"
        assert read_back(dataset, getattr(dataset, name)()) == in_order(expected[name]), name
    order = sorted(expected["test"], key=lambda session: (session[1][0][1], session[0].encode()))
    assert dataset.test_users() == [user for user, _ in order]
    counts = Counter(item for _, events in expected["development"] for item, _, _ in events)
    assert dict(zip(dataset.vocabulary.ids, dataset.vocabulary.counts.tolist(), strict=True)) == counts
    assert dataset.manifest.counts.duplicates == len(log) - len(set(log))
    assert set(dataset.manifest.counts.filtered) == {"rare_item", "too_short"}
    assert set(dataset.manifest.counts.cut) <= {"after_test_boundary", "too_short", "unknown_item"}


def as_json(log: list[Click], **names: str) -> bytes:
    fields = [names.get(name, name) for name in ("user_id", "item_id", "timestamp", "event_type")]
    return "\n".join(json.dumps(dict(zip(fields, click, strict=True))) for click in log).encode()


def test_formats_orders_files_and_shards_do_not_matter(run: Run, tmp_path: Path) -> None:
    log = random_log(7, 1500)
    users, items, times, kinds = (list(column) for column in zip(*log, strict=True))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    text = write_csv(tmp_path / "clicks.csv", log).read_bytes()
    (folder / "a.csv.gz").write_bytes(gzip.compress(text, mtime=0))
    zstd = pa.compress(as_json(log), "zstd", asbytes=True)
    (tmp_path / "clicks.jsonl.zst").write_bytes(zstd)
    (tmp_path / "clicks.tsv").write_bytes(b"\xef\xbb\xbf" + text.replace(b",", b"\t").replace(b"\n", b"\r\n"))
    (tmp_path / "half-1.jsonl").write_bytes(as_json(log[700:]))
    (tmp_path / "half-2.csv").write_bytes(write_csv(tmp_path / "x.csv", log[:700]).read_bytes())
    moments = pa.array(times, pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
    columns = {"who": users, "item_id": pa.array(items).dictionary_encode(), "timestamp": moments, "event_type": kinds}
    pq.write_table(pa.table(columns), tmp_path / "clicks.parquet")
    random.Random(1).shuffle(log)
    (tmp_path / "shuffled.jsonl").write_bytes(as_json(log, item_id="product_id"))
    (tmp_path / "seconds.csv").write_text(
        "\n".join(["visitorid,itemid,timestamp,event", *(f"{u},{i},{t // 1000},{k}" for u, i, t, k in log)])
    )
    ways: list[list[str | Path]] = [
        [tmp_path / "clicks.csv"],
        [tmp_path / "clicks.csv", "--shards", "1"],
        [tmp_path / "clicks.csv", "--shards", "37"],
        [folder],
        [tmp_path / "clicks.jsonl.zst"],
        [tmp_path / "clicks.tsv"],
        [tmp_path / "half-*"],
        [tmp_path / "half-2.csv", tmp_path / "half-1.jsonl"],
        [tmp_path / "clicks.parquet", "--column", "user=who"],
        [tmp_path / "shuffled.jsonl", "--column", "item=product_id"],
        [tmp_path / "seconds.csv", "--time-unit", "s"],
        [tmp_path / "clicks.csv", "--memory-mib", "768", "--", "--direct_num_workers=5"],
        [tmp_path / "clicks.csv", "--", "--direct_running_mode=multi_threading"],
        [tmp_path / "clicks.csv", "--", "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"],
    ]
    hashes = []
    for way in ways:
        outcome = run("--overwrite", *way)
        assert outcome.code == 0, outcome.stderr
        assert outcome.dataset.manifest.counts.read == len(log)
        hashes.append(outcome.dataset.manifest.content_hash)
    assert set(hashes) == {hashes[0]}


def test_the_same_input_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "clicks.csv", [*random_log(5, 1500), ("", "bad", 1, "view")])
    first, second = (run(path, out=tmp_path / name).out for name in ("one", "two"))
    names = sorted(file.relative_to(first) for file in first.rglob("*") if file.is_file())
    assert names == sorted(file.relative_to(second) for file in second.rglob("*") if file.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert {name.parts[0] for name in names} == {
        "manifest.json", "vocabulary.json", "dead-letter.jsonl", "train", "validation", "test", "kept"
    }  # fmt: skip


def test_the_sessions_of_the_log_itself_replace_the_gap(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    clicks = [("u,s1,a", 0), ("u,s2,b", 1), ("u,s1,c", DAY_MS), ("u,s2,d", 2), ("v,s1,a", 3), ("v,s1,b", 4)]
    rows = [f"{click},{1_700_000_000_000 + time}" for click, time in clicks]
    path.write_text("\n".join(["user_id,session_id,item_id,timestamp", *rows]))
    options = (
        "--column",
        "session=session_id",
        "--min-item-support",
        "1",
        "--test-days",
        "0",
        "--validation-days",
        "0",
    )
    dataset = run(path, *options).dataset
    found = [[item for item, _, _ in session] for session in read_back(dataset, dataset.development())]
    assert found == [["a", "c"], ["b", "d"], ["a", "b"]]


@pytest.mark.parametrize(
    ("options", "validation", "test"),
    [
        ((), 2.0, 3.0),
        (("--test-days", "1.5"), 1.0, 2.5),
        (("--test-days", "0.5", "--validation-days", "1"), 2.5, 3.5),
        (("--validation-days", "0"), None, 3.0),
        (("--test-days", "0"), 3.0, None),
        (("--test-days", "0", "--validation-days", "0"), None, None),
        (("--test-from", "2024-01-04"), 2.0, 3.0),
        (("--test-from", str(START + DAY_MS)), -1, -1),
        (("--validation-from", "2024-01-02", "--test-days", "1"), 1.0, 3.0),
    ],
)
def test_time_is_split_where_the_options_say(
    run: Run, tmp_path: Path, options: tuple[str, ...], validation: float | None, test: float | None
) -> None:
    log = [
        (f"u{hour}", f"i{click}", START + hour * 3_600_000 + click, "view") for hour in range(97) for click in range(2)
    ]
    log = [(user, item, min(at, START + 4 * DAY_MS), kind) for user, item, at, kind in log]
    outcome = run(write_csv(tmp_path / "clicks.csv", log), *options)
    if test == -1:
        assert outcome.code == 78
        assert "validation would begin at 2023-12-30T00:00:00.000+00:00" in outcome.stderr
        return
    assert outcome.code == 0, outcome.stderr
    split = outcome.dataset.manifest.split
    assert split.validation_from == (None if validation is None else START + round(validation * DAY_MS))
    assert split.test_from == (None if test is None else START + round(test * DAY_MS))


def test_a_short_log_is_split_by_tenths(run: Run, tmp_path: Path) -> None:
    log = [
        (f"u{n}", f"i{click}", START + n * 60_000 + click * 60_000, "view") for n in range(100) for click in range(2)
    ]
    split = run(write_csv(tmp_path / "clicks.csv", log)).dataset.manifest.split
    assert (split.validation_from, split.test_from) == (START + 80 * 60_000, START + 90 * 60_000)


def test_stray_clicks_after_the_end_do_not_make_the_test_split(run: Run, tmp_path: Path) -> None:
    log = [
        (f"u{hour}", f"i{click}", START + hour * 3_600_000 + click, "view") for hour in range(97) for click in range(4)
    ]
    path = write_csv(tmp_path / "clicks.csv", [*log, ("late", "i1", START + 20 * DAY_MS, "view")])
    manifest = run(path).dataset.manifest
    assert manifest.split.test_from == START + 3 * DAY_MS + 3_600_000
    assert manifest.sizes["test"].sessions == 24
    assert manifest.sizes["validation"].sessions == 24
    outcome = run(path, "--test-from", "2024-01-15", "--overwrite")
    assert "no test session begins" in outcome.stdout


def test_sessions_that_are_too_long_go_whole_and_first(run: Run, tmp_path: Path) -> None:
    log = [("bot", f"i{n % 2}", START + n, "view") for n in range(30)]
    log += [(f"u{n}", f"i{click}", START + n, "view") for n in range(5) for click in range(2)]
    options = ("--max-length", "29", "--test-days", "0", "--validation-days", "0")
    outcome = run(write_csv(tmp_path / "clicks.csv", log), *options)
    assert outcome.dataset.manifest.counts.filtered == {"too_long": 30}
    assert outcome.dataset.manifest.sizes["train"].sessions == 5


def test_filters_that_take_everything_are_an_error(run: Run, log: Callable[..., Path]) -> None:
    outcome = run(log(), "--min-item-support", "100000")
    assert outcome.code == 65
    assert re.search(
        r"no sessions are left to train on: [\d,]+ read, 0 kept, .*[\d,]+ filtered: rare item", outcome.stderr
    )


def test_an_existing_dataset_is_kept_unless_it_may_be_overwritten(run: Run, log: Callable[..., Path]) -> None:
    path = log()
    before = run(path).dataset.manifest
    outcome = run(path, "--min-item-support", "1")
    assert outcome.code == 1
    assert "--overwrite" in outcome.stderr
    assert outcome.dataset.manifest == before
    assert run(path, "--overwrite").dataset.manifest == before


def test_the_summary_says_what_became_of_every_click(run: Run, log: Callable[..., Path]) -> None:
    outcome = run(log("u1,i1,never"))
    rows = {
        line.split("│")[1].strip(): line.split("│")[2].strip() for line in outcome.stdout.splitlines() if "│" in line
    }
    assert rows["read"] == "161"
    assert rows["rejected, timestamp: in no form that is known"] == "1"
    assert "1 bad lines are in" in outcome.stdout


@pytest.mark.parametrize("moment", ["progress", "tallies/drop-0", "tallies/write"])
def test_a_run_that_is_killed_leaves_no_dataset(run: Run, tmp_path: Path, moment: str) -> None:
    path = tmp_path / "clicks.csv"
    rows = [*good_rows(1000, clicks=200), f"u000,rare,{START + 1}"]
    path.write_text("\n".join([HEADER, *rows]))
    out = tmp_path / "dataset"
    command = Path(sys.executable).with_name("recsys")
    with subprocess.Popen([command, "sessions", path, "--out", out], stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob(f".dataset-*/.work/{moment}/*")):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    left = list(tmp_path.glob(".dataset-*"))
    neighbours = [tmp_path / ".dataset-backup", tmp_path / ".dataset-b-abcdefgh.part"]
    for neighbour in neighbours:
        neighbour.mkdir()
    assert len(left) == 1
    assert run(path).code == 0
    assert sorted(tmp_path.glob(".dataset-*")) == sorted(neighbours)
    names = {file.name for file in out.iterdir()}
    assert names == {"manifest.json", "vocabulary.json", "dead-letter.jsonl", "train", "validation", "test", "kept"}


def test_counts_of_a_shop_are_those_of_the_protocol(run: Run, data: Path) -> None:
    options = ("--column", "session=session_id", "--validation-days", "0", "--test-days", "1")
    manifest = run(data / "yoochoose_april.csv.gz", *options).dataset.manifest
    train, test = manifest.sizes["train"], manifest.sizes["test"]
    assert (train.events, train.sessions, train.items) == (109_580, 29_018, 3_791)
    assert (test.events, test.sessions, test.items) == (52_108, 14_223, 3_489)
    assert manifest.counts.read == 226_430


def test_counts_of_a_news_portal_are_those_of_the_protocol(run: Run, data: Path, tmp_path: Path) -> None:
    begin, end = 1_508_112_000_000, 1_508_209_200_000  # sessions that begin in 2017-10-16 00:00 to 10-17 03:00
    with gzip.open(data / "globo_clicks.csv.gz", "rt") as file:
        header = next(file)
        rows = [row for row in file if int(row.split(",", 6)[5]) < end]
    starts: dict[str, int] = {}
    for row in rows:
        fields = row.split(",", 6)
        starts[fields[1]] = min(starts.get(fields[1], end), int(fields[5]))
    path = tmp_path / "globo_dev.csv"
    path.write_text(header + "".join(row for row in rows if starts[row.split(",", 2)[1]] >= begin))
    names = ["user=user_id", "session=session_id", "item=click_article_id", "timestamp=click_timestamp"]
    columns = [part for name in names for part in ("--column", name)]
    manifest = run(path, *columns, "--validation-days", "0", "--test-from", "2017-10-16T21:00:00Z").dataset.manifest
    train, test = manifest.sizes["train"], manifest.sizes["test"]
    assert (train.events, train.sessions, train.items) == (160_629, 56_833, 1_421)
    assert (test.events, test.sessions, test.items) == (30_167, 11_598, 932)
