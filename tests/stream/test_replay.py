"""A click log into a real broker: all of it, in order, at the pace asked for."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from recsys.events import decode
from stream.embedded import free_port

START = 1_700_000_000_000


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Clicks one second apart, not in order, with a bad line among them."""
    numbers = [3, 1, 2, *range(4, 20), 0]
    rows = [f"v-{number % 3},item-{number},{START + 1000 * number},e{number}" for number in numbers]
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(["visitor,sku,when,event_id", *rows, "v-1,item-1,yesterday,e99"]) + "\n")
    return path


class Replay:
    def __init__(self, broker: str) -> None:
        self.broker, self.topic = broker, f"replay-{uuid.uuid4().hex}"

    def run(self, log: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        columns = ("--column", "user=visitor", "--column", "item=sku", "--column", "timestamp=when")
        address = ("--kafka-bootstrap-servers", self.broker, "--kafka-topic", self.topic)
        command = [sys.executable, "-m", "recsys", "replay", str(log), *columns, *address, *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def sent(self, log: Path, *flags: str) -> dict[str, Any]:
        done = self.run(log, *flags)
        assert done.returncode == 0, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def received(self) -> list[tuple[bytes, bytes, int, int]]:
        """Key, value, offset and partition of every message, partition by partition."""
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": uuid.uuid4().hex})
        found = []
        for partition in range(4):
            _, end = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=5)
            consumer.assign([TopicPartition(self.topic, partition, 0)])
            for _ in range(end):
                message = consumer.poll(5)
                assert message is not None
                found.append((message.key(), message.value(), message.offset(), partition))
        consumer.close()
        return found


def test_every_click_is_sent_once_and_each_users_in_order_of_time(broker: str, log: Path) -> None:
    replay = Replay(broker)
    summary = replay.sent(log)
    assert (summary["sent"], summary["next"]) == (20, START + 19_001)
    events = [(key, decode(value)) for key, value, *_ in replay.received()]
    assert sorted(event.item_id for _, event in events) == sorted(f"item-{number}" for number in range(20))
    for user in ("v-0", "v-1", "v-2"):
        times = [event.timestamp for key, event in events if key == user.encode()]
        assert times == sorted(times)
        assert len(times) >= 6
    assert {event.event_id for _, event in events} == {f"e{number}" for number in range(20)}


def test_a_log_is_laid_out_as_the_flags_of_sessions_say(broker: str, tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("03.03.2025 00:01;v-1;item-1\n03.03.2025 00:02;v-1;item-2\n")
    replay = Replay(broker)
    sent = replay.sent(tmp_path / "clicks.csv", "--header", "when,visitor,sku", "--time-format", "%d.%m.%Y %H:%M")
    assert (sent["sent"], sent["next"]) == (2, 1_740_960_120_001)
    assert [decode(value).item_id for _, value, *_ in replay.received()] == ["item-1", "item-2"]
    (tmp_path / "yoochoose.dat").write_text("7,2014-04-07T10:51:09.277Z,item-3,0\n")
    command = [sys.executable, "-m", "recsys", "replay", str(tmp_path / "yoochoose.dat"), "--preset", "yoochoose"]
    address = ("--kafka-bootstrap-servers", broker, "--kafka-topic", replay.topic)
    assert json.loads(subprocess.run([*command, *address], capture_output=True, check=True).stdout)["sent"] == 1


def test_both_doors_put_a_user_on_the_same_partition(broker: str, tmp_path: Path) -> None:
    """The API's producer and replay's are two libraries with two ideas of a partitioner."""
    from aiokafka import AIOKafkaProducer

    users = [f"user-{number}" for number in range(60)]
    rows = "".join(f"{user},item-1,{START}\n" for user in users)
    (tmp_path / "clicks.csv").write_text("visitor,sku,when\n" + rows)
    replay = Replay(broker)
    replay.sent(tmp_path / "clicks.csv")

    async def through_the_other_door() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=broker)
        await producer.start()
        for user in users:
            await producer.send_and_wait(replay.topic, b"x", key=user.encode())
        await producer.stop()

    before = replay.received()
    asyncio.run(through_the_other_door())
    partitions: dict[bytes, set[int]] = {}
    for key, _, _, partition in replay.received():
        partitions.setdefault(key, set()).add(partition)
    assert len(before) == len(partitions) == 60
    assert all(len(found) == 1 for found in partitions.values())


def test_lines_that_are_no_clicks_are_said(broker: str, log: Path) -> None:
    assert "1 lines are no clicks" in Replay(broker).run(log).stderr


def test_a_click_that_nests_too_deep_to_be_written_is_left_out(broker: str, tmp_path: Path) -> None:
    path, replay = tmp_path / "clicks.jsonl", Replay(broker)
    clicks = [{"visitor": "v-1", "sku": f"item-{number}", "when": START + number} for number in range(3)]
    lines = [json.dumps(click) for click in clicks]
    lines[1] = lines[1][:-1] + ', "context": ' + '{"a":' * 400 + "1" + "}" * 401
    path.write_text("\n".join(lines))
    done = replay.run(path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["sent"], summary["left_out"], summary["next"]) == (2, 1, START + 3)
    assert "1 clicks nest too deep to be written as JSON and were left out" in done.stderr
    assert [decode(value).item_id for _, value, *_ in replay.received()] == ["item-0", "item-2"]


def test_a_stretch_of_time_is_cut_out(broker: str, log: Path) -> None:
    replay = Replay(broker)
    summary = replay.sent(log, "--since", str(START + 5000), "--until", str(START + 8000))
    assert summary["sent"] == 3
    assert sorted(decode(value).item_id for _, value, *_ in replay.received()) == ["item-5", "item-6", "item-7"]


def test_the_rate_is_kept_and_a_second_replay_goes_on_where_the_first_ended(broker: str, log: Path) -> None:
    replay = Replay(broker)
    first = replay.sent(log, "--rate", "10", "--seconds", "0.95")
    assert first["sent"] == 10  # at 0.0, 0.1, …, 0.9 s
    assert first["next"] == START + 10_000
    second = replay.sent(log, "--since", str(first["next"]))
    assert first["sent"] + second["sent"] == 20
    assert len(replay.received()) == 20


def test_speed_keeps_the_gaps_of_the_log(broker: str, log: Path) -> None:
    summary = Replay(broker).sent(log, "--speed", "20")
    assert 19 / 20 <= summary["seconds"] < 19 / 20 + 1


def test_a_log_that_breaks_off_is_refused(broker: str, tmp_path: Path) -> None:
    rows = "".join(f"u{number % 97},item-{number % 89},{START + number * 7919}\n" for number in range(9000))
    whole = gzip.compress(f"visitor,sku,when\n{rows}".encode())
    path = tmp_path / "clicks.csv.gz"
    path.write_bytes(whole[: len(whole) * 9 // 10])
    done = Replay(broker).run(path)
    assert (done.returncode, str(path) in done.stderr, "Traceback" in done.stderr) == (65, True, False)


def test_what_cannot_work_is_named(broker: str, log: Path) -> None:
    replay = Replay(broker)
    done = replay.run(log, "--rate", "1", "--speed", "1")
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)
    done = replay.run(log, "--since", "the day before")
    assert (done.returncode, "--since" in done.stderr) == (2, True)
    done = replay.run(log, "--since", "2030-01-01")
    assert (done.returncode, "no click of the log" in done.stderr) == (66, True)
    replay.broker = f"127.0.0.1:{free_port()}"
    done = replay.run(log)
    assert (done.returncode, "does not answer" in done.stderr) == (69, True)
