"""Users that click more than people do are left out and listed, by limits that are set or learnt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.generator.files import write
from recsys.generator.process import Parameters
from tests.peak import PRINT_PEAK

from .conftest import HEADER, Outcome, Run, good_rows

MINUTE_MS, DAY_MS = 60_000, 86_400_000
START = 1_704_067_200_000
LEARNT = ("--bot-clicks-per-minute", "learnt", "--bot-clicks-per-day", "learnt")


def listed(outcome: Outcome) -> dict[str, dict[str, int]]:
    """What ``bots.jsonl`` says of each user."""
    rows = [json.loads(line) for line in (outcome.out / "bots.jsonl").read_text().splitlines()]
    return {row.pop("user_id"): row for row in rows}


def users_of(outcome: Outcome) -> set[str]:
    paths = [outcome.out / name for name in outcome.dataset.session_files("train", "validation", "test")]
    return {user for path in paths for user in pq.read_table(path, columns=["user_id"])["user_id"].to_pylist()}


def with_crawlers(tmp_path: Path) -> Path:
    """Forty people, one who clicks every second for half a minute, one every five minutes all day, twice in the log."""
    fast = [f"fast,i{n % 4},{START + n * 1000}" for n in range(30)]
    steady = [f"steady,i{n % 4},{START + n * 5 * MINUTE_MS}" for n in range(288)]
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join([HEADER, *good_rows(), *fast, *steady, *fast]) + "\n")
    return path


@pytest.mark.parametrize(
    ("options", "bots"),
    [
        ((), None),
        (("--bot-clicks-per-minute", "30"), set()),
        (("--bot-clicks-per-minute", "29"), {"fast"}),
        (("--bot-clicks-per-day", "287"), {"steady"}),
        (("--bot-clicks-per-day", "288"), set()),
        (("--bot-clicks-per-minute", "29", "--bot-clicks-per-day", "100"), {"fast", "steady"}),
        (LEARNT, {"fast", "steady"}),
    ],
)
def test_who_clicks_beyond_a_limit_is_left_out_and_listed(
    run: Run, tmp_path: Path, options: tuple[str, ...], bots: set[str] | None
) -> None:
    outcome = run(with_crawlers(tmp_path), *options, "--shards", "3")
    assert outcome.code == 0, outcome.stderr
    assert (outcome.out / "bots.jsonl").exists() == (bots is not None)
    if bots is not None:
        assert list(listed(outcome)) == sorted(bots), "in the order of ids, whatever the shards"
    bots = bots or set()
    assert users_of(outcome) == {"fast", "steady", *(f"u{n:03}" for n in range(40))} - bots
    found = listed(outcome) if options else {}
    assert found == {
        user: counts
        for user, counts in {
            "fast": {"clicks": 30, "most_in_a_minute": 30, "most_in_a_day": 30},
            "steady": {"clicks": 288, "most_in_a_minute": 1, "most_in_a_day": 288},
        }.items()
        if user in bots
    }
    assert outcome.dataset.manifest.counts.filtered.get("bot", 0) == sum(row["clicks"] for row in found.values())


def test_without_its_bots_a_log_gives_the_same_sessions(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("\n".join([HEADER, *good_rows()]) + "\n")
    split = ("--test-from", str(START + 30 * 3_600_000), "--validation-days", "0", "--min-item-support", "35")
    people = run(path, *LEARNT, *split, out=tmp_path / "people").dataset
    crawled = run(with_crawlers(tmp_path), *LEARNT, *split).dataset
    assert crawled.manifest.content_hash == people.manifest.content_hash
    assert crawled.vocabulary.counts.tolist() == people.vocabulary.counts.tolist()


def test_all_clicks_of_a_bot_count_as_a_bots(run: Run, tmp_path: Path) -> None:
    """Also those in sessions that would fall for their length."""
    long = [f"bot,i{n % 4},{START + n * 1000}" for n in range(30)]
    short = [f"bot,i1,{START + DAY_MS}", f"u001,i1,{START + 2 * DAY_MS}"]
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join([HEADER, *good_rows(), *long, *short]) + "\n")
    outcome = run(path, "--max-length", "20", "--bot-clicks-per-minute", "29")
    assert listed(outcome)["bot"]["clicks"] == 31
    assert outcome.dataset.manifest.counts.filtered == {"bot": 31, "too_short": 1}


def test_a_bot_is_one_across_the_sessions_of_the_log(run: Run, tmp_path: Path) -> None:
    people = [f"{row.replace(',', ',only,', 1)}" for row in good_rows()]
    bot = [f"bot,s{n % 20},i{n % 3},{START + n * 1000}" for n in range(60)]
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(["user_id,session_id,item_id,timestamp", *people, *bot]) + "\n")
    outcome = run(path, "--column", "session=session_id", "--bot-clicks-per-minute", "20")
    assert set(listed(outcome)) == {"bot"}


def test_the_summary_says_how_many_bots_there_are_and_by_which_limits(run: Run, tmp_path: Path) -> None:
    outcome = run(with_crawlers(tmp_path), *LEARNT)
    assert "2 users with more than 20 clicks a minute or 200 clicks a day are in" in outcome.stdout
    assert outcome.dataset.manifest.parameters["bot_clicks"] == {"minute": 20, "day": 200}


@pytest.mark.parametrize("seed", [1, 2])
def test_planted_bots_are_found_and_people_stay(run: Run, tmp_path: Path, seed: int) -> None:
    log = tmp_path / "clicks.csv"
    beside = write(Parameters(events=60_000, users=3_000, items=1_000, seed=seed, bots=0.01), log)
    planted = set(json.loads(beside.read_text())["bots"])
    outcome = run(log, *LEARNT, "--now", "2026-01-01")
    assert outcome.code == 0, outcome.stderr
    found = set(listed(outcome))
    assert len(planted) == 30
    assert len(found & planted) >= 0.95 * len(found)
    assert len(found & planted) >= 0.9 * len(planted)


@pytest.mark.parametrize("limit", ["-1", "never"])
def test_what_is_no_limit_is_refused(run: Run, tmp_path: Path, limit: str) -> None:
    outcome = run(with_crawlers(tmp_path), "--bot-clicks-per-day", limit)
    assert outcome.code == 78
    assert "sessions.bot_clicks_per_day: must be a whole number, 0 or more, or learnt" in outcome.stderr


@pytest.mark.parametrize(("options", "reason"), [(LEARNT, "bot"), ((), "too_long")])
def test_a_user_of_very_many_clicks_stays_within_the_memory(
    tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    clicks, users = 1_500_000, 2_000
    log = tmp_path / "clicks.csv"
    with log.open("w") as file:
        file.write(f"{HEADER}\n")
        file.writelines(f"hot,i{n % 997},{START + n * 100}\n" for n in range(clicks))
        file.writelines(f"u{n},i{c},{START + n * 60_000 + c * 9_000}\n" for n in range(users) for c in range(3))
    script = (
        "import runpy, sys; sys.argv[0] = 'recsys'\n"
        "try: runpy.run_module('recsys', run_name='__main__')\n"
        f"finally: {PRINT_PEAK}"
    )
    command = [sys.executable, "-c", script, "sessions", str(log), *options, "--out", str(tmp_path / "dataset")]
    command += ["--memory-mib", "768"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = Outcome(0, run.stdout, run.stderr, tmp_path / "dataset")
    assert reason == "too_long" or listed(found)["hot"]["clicks"] == clicks
    assert found.dataset.manifest.counts.filtered[reason] == clicks
    assert int(run.stdout.split()[-1]) / 1024 < 768
