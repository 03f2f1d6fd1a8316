"""Sessions closed by watermarks, in Beam: what comes when, what is late, and that nothing is lost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing import test_stream
from apache_beam.utils.timestamp import Timestamp

from pipelines.live.arrivals import Intake, Record, sort
from pipelines.live.closed_files import ClosedFiles, read_counts
from pipelines.live.closing import Standing, close
from pipelines.live.pipeline import Streaming, close_sessions, keyed
from tests.pipelines.conftest import Run

START = 1_710_000_000_000  # 2024-03-09T16:00:00Z
NOW = START + 7 * 86_400_000
MINUTE = 60_000
INTAKE = Intake(shards=2, max_future_ms=0)
GAP, LATENESS = 30 * MINUTE, 20 * MINUTE


def click(minute: float, user: str = "u", item: str = "a", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "timestamp": START + round(minute * MINUTE), **more}


class Stream:
    """Clicks and watermarks in the order in which they come, and the directory that they leave."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._test = test_stream.TestStream()
        self._offset = 0

    def clicks(self, *values: dict[str, Any] | bytes) -> Stream:
        raws = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
        records = [Record(0, self._offset + place, raw) for place, raw in enumerate(raws)]
        self._offset += len(records)
        self._test = self._test.add_elements([keyed(INTAKE.read(record, NOW), START) for record in records])
        return self

    def watermark(self, minute: float) -> Stream:
        self._test = self._test.advance_watermark_to(Timestamp(micros=(START + round(minute * MINUTE)) * 1000))
        return self

    def run(self) -> Stream:
        """To the end, when the watermark has passed all time."""
        streaming = Streaming(self.out, "run", GAP, LATENESS, 24 * 60 * MINUTE, tick_ms=MINUTE)
        with beam.Pipeline(BundleBasedDirectRunner(), PipelineOptions(["--streaming"])) as pipeline:
            close_sessions(pipeline | self._test.advance_watermark_to_infinity(), streaming)
        return self

    @property
    def sessions(self) -> dict[tuple[str, float], list[tuple[str, float]]]:
        """Items and minutes, by user and minute in which the session began."""
        found: dict[tuple[str, float], list[tuple[str, float]]] = {}
        for path in sorted(self.out.glob("2*/[!_]*.parquet")):
            for row in pq.read_table(path).to_pylist():
                key = row["user_id"], (row["session_id"] - START) / MINUTE
                found.setdefault(key, []).append((row["item_id"], (row["timestamp"] - START) / MINUTE))
        return found

    @property
    def letters(self) -> list[dict[str, Any]]:
        paths = sorted(self.out.glob("2*/_*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in read_counts(self.out).items() if count}


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return Stream(tmp_path / "closed")


def test_clicks_in_order_make_sessions_by_the_gap(stream: Stream) -> None:
    stream.clicks(click(0), click(30, item="b")).watermark(30).clicks(click(60.5, item="c")).watermark(60).run()
    assert stream.sessions == {("u", 0): [("a", 0), ("b", 30)], ("u", 60.5): [("c", 60.5)]}
    assert stream.counts == {"records": 3, "sessions": 2, "clicks": 3}


def test_clicks_out_of_order_within_the_lateness_stand_in_order(stream: Stream) -> None:
    stream.clicks(click(20, item="c")).watermark(29).clicks(click(10, item="b"), click(9, "v")).watermark(30)
    stream.clicks(click(10.5, item="a"), click(41, item="d"), click(35, "v", "b")).run()
    assert stream.sessions == {
        ("u", 10): [("b", 10), ("a", 10.5), ("c", 20), ("d", 41)],
        ("v", 9): [("a", 9), ("b", 35)],
    }


def test_a_click_that_comes_late_joins_two_sessions_into_one(stream: Stream) -> None:
    stream.clicks(click(0), click(50, item="c")).watermark(44).clicks(click(25, item="b")).run()
    assert stream.sessions == {("u", 0): [("a", 0), ("b", 25), ("c", 50)]}


@pytest.mark.parametrize(("watermark", "joins"), [(80, True), (81, False)])
def test_a_session_is_closed_when_the_gap_and_the_lateness_are_over(
    stream: Stream, watermark: int, joins: bool
) -> None:
    # The gap after minute 30 ends with minute 60, which is sure when the watermark is past 80; it looks every minute.
    stream.clicks(click(0), click(30, item="b")).watermark(watermark).clicks(click(60, item="c")).run()
    assert stream.sessions == {("u", 0): [("a", 0), ("b", 30), *([("c", 60)] if joins else [])]}
    assert [letter["reason"] for letter in stream.letters] == [] if joins else ["late"]


def test_a_click_beyond_the_lateness_is_a_dead_letter_and_changes_nothing(stream: Stream) -> None:
    stream.clicks(click(0), click(30, item="b"), click(70, item="d")).watermark(81).clicks(click(55, item="c")).run()
    assert stream.sessions == {("u", 0): [("a", 0), ("b", 30)], ("u", 70): [("d", 70)]}
    (letter,) = stream.letters
    assert (letter["reason"], letter["partition"], letter["offset"]) == ("late", 0, 3)
    assert json.loads(letter["text"]) == click(55, item="c", event_type="view")
    assert stream.counts == {"records": 4, "sessions": 2, "clicks": 3, "late": 1}


def test_what_counts_already_counts_once_and_direct_repeats_stay_in(stream: Stream) -> None:
    stream.clicks(click(0), click(0), click(1, event_type="cart"), click(2, item="b", event_id="7")).watermark(15)
    stream.clicks(click(0), click(3, item="c", event_id="7"), click(3, "v", "c", event_id="7")).watermark(400)
    stream.clicks(click(500, item="d", event_id="7"), click(500, item="e")).run()
    assert stream.sessions == {("u", 0): [("a", 0), ("a", 1), ("b", 2)], ("v", 3): [("c", 3)], ("u", 500): [("e", 500)]}
    assert stream.counts == {"records": 9, "sessions": 3, "clicks": 5, "duplicates": 4}


def test_a_watermark_that_jumps_to_the_end_closes_all(stream: Stream) -> None:
    stream.clicks(
        *(click(100 * place + 10 * part, f"u{place % 7}", f"i{part}") for place in range(20) for part in range(3))
    )
    stream.run()
    assert len(stream.sessions) == 20
    assert stream.counts == {"records": 60, "sessions": 20, "clicks": 60}


def test_records_that_are_no_clicks_are_dead_letters(stream: Stream) -> None:
    stream.clicks(click(0), b"not json", click(0, item=""), click(8 * 24 * 60)).run()
    assert sorted(letter["reason"] for letter in stream.letters) == ["item_id.empty", "not_json", "timestamp.future"]
    assert "not json" in [letter["text"] for letter in stream.letters]
    assert stream.counts == {"records": 4, "sessions": 1, "clicks": 1, "rejected": 3}


def test_sessions_lie_by_the_day_on_which_they_end(stream: Stream) -> None:
    stream.clicks(click(479), click(481, item="b"), click(100, "v")).run()  # midnight is at minute 480
    assert {path.parent.name: pq.read_table(path).num_rows for path in stream.out.glob("2*/*.parquet")} == {
        "2024-03-09": 1,
        "2024-03-10": 2,
    }


def test_no_state_is_kept_of_users_that_are_gone_and_shards_close_apart(stream: Stream) -> None:
    for hour in range(10):
        stream.clicks(*(click(60 * hour, f"u{hour}-{user}") for user in range(20))).watermark(60 * hour)
    stream.run()
    writings = {path.name: pq.read_table(path).num_rows for path in stream.out.glob("2*/*.parquet")}
    assert sum(writings.values()) == 200
    assert max(writings.values()) <= 20


@pytest.mark.parametrize("seed", range(3))
def test_shuffles_within_the_lateness_give_the_dataset_of_the_batch(stream: Stream, run: Run, seed: int) -> None:
    directory = stream.out.parent
    chance = random.Random(seed)
    log = random_log(chance)
    newest = 0.0
    arrivals = sorted(log, key=lambda value: value["timestamp"] + chance.randrange(LATENESS))
    while arrivals:
        batch, arrivals = arrivals[:20], arrivals[20:]
        newest = max([newest, *((value["timestamp"] - START) / MINUTE for value in batch)])
        stream.clicks(*batch).watermark(newest)
    stream.run()
    assert stream.letters == []
    (directory / "log.jsonl").write_text("".join(json.dumps(value) + "\n" for value in log))
    batch_made = run(directory / "log.jsonl", out=directory / "batch")
    closed_made = run(stream.out, "--column", "session=session_id", out=directory / "stream")
    assert batch_made.code == closed_made.code == 0
    batch, closed = batch_made.dataset.manifest, closed_made.dataset.manifest
    assert batch.content_hash == closed.content_hash
    assert batch.counts.duplicates == stream.counts.get("duplicates", 0)
    assert batch.counts.kept == closed.counts.kept > 0


def random_log(chance: random.Random) -> list[dict[str, Any]]:
    """Two days of clicks with repeats, carts, ties of time, duplicates and event ids that come again."""
    log: list[dict[str, Any]] = []
    for _ in range(150):
        more = {"event_id": f"e{chance.randrange(200)}"} if chance.random() < 0.3 else {}
        kind = chance.choice(["view", "view", "cart"])
        minute = chance.choice([chance.randrange(900), chance.randrange(90000) / 100])
        log.append(click(minute, f"u{chance.randrange(6)}", f"i{chance.randrange(4)}", event_type=kind, **more))
    return log + chance.sample(log, 20)


def test_what_an_older_state_wrote_is_taken_back(tmp_path: Path) -> None:
    def write(number: int, standing: Standing, *minutes: int) -> Standing:
        lines = [INTAKE.read(Record(0, 0, json.dumps(click(minute)).encode()), NOW).line for minute in minutes]
        closing = close(standing, sort(lines)[0], NOW, GAP, 0)
        files.write(number, standing.closed_ms - GAP, closing, [{"reason": "none"}])
        return Standing(START + max(minutes) * MINUTE)

    files = ClosedFiles(tmp_path, "run", 3)
    first = write(0, Standing(), 0)
    write(2, write(1, first, 100), 1000)
    write(1, first, 500)
    stream = Stream(tmp_path)
    assert stream.sessions == {("u", 0): [("a", 0)], ("u", 500): [("a", 500)]}
    assert len(stream.letters) == 2
