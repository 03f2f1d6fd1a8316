"""The click topic read by Beam: all records, each once, wherever the runner goes on, and time told by the clicks."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from confluent_kafka import Producer, TopicPartition

from pipelines.live.arrivals import Intake
from pipelines.live.run import StreamRequest, stream_sessions
from pipelines.live.topic import NEVER, Offsets, ReadClicks, Reader
from recsys.errors import RecsysError, SettingsError, UnavailableError
from recsys.settings import KafkaSettings
from recsys.settings_in_force import load_settings
from tests.pipelines.conftest import Run
from tests.pipelines.test_streaming import START, click, random_log


def produce(broker: str, topic: str, values: list[bytes], partition: int | None = None) -> None:
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for value in values:
        producer.produce(topic, value, **({} if partition is None else {"partition": partition}))
    assert producer.flush(10) == 0


def settings_of(broker: str, topic: str, **more: Any) -> Any:
    return load_settings({"kafka": {"bootstrap_servers": broker, "topic": topic}, **more})


@pytest.fixture
def topic() -> str:
    return f"clicks-{uuid.uuid4().hex}"


def today() -> str:
    return datetime.now(UTC).date().isoformat()


@pytest.mark.parametrize("secret", ["", "a secret of many characters"])
def test_a_topic_gives_the_dataset_of_its_log(broker: str, topic: str, run: Run, tmp_path: Path, secret: str) -> None:
    log = [json.dumps(value) for value in random_log(random.Random(5))]
    produce(broker, topic, [line.encode() for line in [*log, "nonsense"]])
    (tmp_path / "log.jsonl").write_text("\n".join(log) + "\nnonsense\n")
    request = StreamRequest(tmp_path / "closed", settings_of(broker, topic, privacy={"key": secret}), until_now=True)
    began = today()
    counts = stream_sessions(request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_PRIVACY__KEY", secret)
        made = run(tmp_path / "log.jsonl", out=tmp_path / "batch").dataset.manifest
    again = run(tmp_path / "closed", "--column", "session=session_id", out=tmp_path / "stream").dataset.manifest
    assert again.content_hash == made.content_hash
    assert (counts["records"], counts["rejected"], counts["open"]) == (len(log) + 1, 1, 0)
    assert counts["duplicates"] == made.counts.duplicates
    (letters,) = (tmp_path / "closed").rglob("_*.jsonl")
    assert (b"nonsense" in letters.read_bytes()) == (not secret)
    assert began <= letters.parent.name <= today(), "the day on which it was read"
    with pytest.raises(RecsysError, match="closed holds something"):
        stream_sessions(request)
    for section, value in (("streaming", {"shards": 7}), ("privacy", {"key": "another of many characters"})):
        other = replace(request, settings=settings_of(broker, topic, **{section: value}), resume=True)
        with pytest.raises(SettingsError, match=rf"{section}\.{next(iter(value))}: is .*, but .* was begun with"):
            stream_sessions(other)


class Runner:
    """Calls the source for one partition as a runner does, and goes on from where it stopped."""

    def __init__(self, broker: str, topic: str) -> None:
        kafka: KafkaSettings = settings_of(broker, topic).kafka
        self.source = ReadClicks(kafka, Intake(shards=1, max_future_ms=0))
        self.source.setup()
        self.offset, self.watermark = 0, MIN_TIMESTAMP

    def call(self) -> Iterator[TimestampedValue[tuple[int, bytes]]]:
        tracker = ThreadsafeRestrictionTracker(Offsets(OffsetRange(self.offset, NEVER)))
        estimator = ManualWatermarkEstimator(self.watermark)
        yield from self.source.process((0, 0, 0), RestrictionTrackerView(tracker), estimator)
        residual, _ = tracker.deferred_status()
        self.offset, self.watermark = residual.start, estimator.current_watermark()

    def until(self, records: int) -> list[Any]:
        found: list[Any] = []
        deadline = time.monotonic() + 20
        while len(found) < records:
            assert time.monotonic() < deadline
            found += [json.loads(element.value[1]) for element in self.call()]
        return found


def test_reading_goes_on_where_it_stopped_and_the_watermark_is_the_newest_click(broker: str, topic: str) -> None:
    values = [json.dumps(click(minute, item=f"i{minute}")).encode() for minute in (3, 9, 5)]
    produce(broker, topic, values, partition=0)
    runner = Runner(broker, topic)
    assert [line[2] for line in runner.until(3)] == ["i3", "i9", "i5"]
    assert runner.watermark == Timestamp((START + 9 * 60_000) / 1000)
    before = runner.offset, runner.watermark
    produce(broker, topic, [json.dumps(click(7, item="i7")).encode(), b"nonsense"], partition=0)
    first, second = runner.until(2)
    assert first[2] == "i7"
    assert second["reason"] == "not_json"
    runner.offset, runner.watermark = before  # as after a crash, from the last checkpoint
    assert runner.until(2) == [first, second]
    runner.source.teardown()


def test_records_that_went_away_are_no_end_of_the_topic(broker: str, topic: str) -> None:
    """Whoever asks again is told again, instead of waiting for clicks that do not come any more."""
    produce(broker, topic, [b"0", b"1"], partition=0)
    reader = Reader(settings_of(broker, topic).kafka, 0)
    while not (records := reader.read(0)):
        continue
    start = records[-1].offset + 1
    here = [TopicPartition(topic, 0)]
    reader._client.pause(here)
    produce(broker, topic, [bytes(900_000)] * 12, partition=0)  # more than this broker keeps
    reader._client.resume(here)

    def read_on() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert reader.read(start) == []

    for _ in range(2):
        with pytest.raises(UnavailableError, match="requested offset not available"):
            read_on()
    reader.close()


def test_a_partition_in_which_nobody_clicks_holds_nobody_up(broker: str, topic: str) -> None:
    produce(broker, topic, [json.dumps(click(0)).encode()] * 3, partition=0)
    runner = Runner(broker, topic)
    for _ in range(2):
        list(runner.call())
    began = Timestamp.now()
    for _ in count():
        assert list(runner.call()) == []
        if runner.watermark >= began:
            break
    assert runner.offset == 3
    runner.source.teardown()
