"""``recsys dead-letter``: what is listed, what is put back, and that it is put back once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from stream.dead_letter import DeadLetter, Record
from stream.letter_log import LetterLog
from stream.letters_cli import dead_letter
from tests.servers.pairs import Servers
from tests.stream.conftest import make_world
from tests.stream.world import START, World, wait_until_dealt_with


@pytest.fixture
def embedded_world(embedded_servers: Servers, bundles: Path, tmp_path: Path) -> World:
    """Topics and keys of a test's own on the embedded servers."""
    return make_world(embedded_servers, bundles, tmp_path)


def click(user: str, item: str, second: int) -> bytes:
    return json.dumps({"user_id": user, "item_id": item, "timestamp": START + 1000 * second}).encode()


def run(world: World, *arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(dead_letter, arguments, input=answer, env=world.commands.environment)


def listed(world: World, *flags: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(world, "list", "--json", *flags).stdout.splitlines()]


def replayed(world: World, *flags: str) -> dict[str, Any]:
    done = run(world, "replay", "--yes", *flags)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def write_letters(world: World, letters: Sequence[DeadLetter]) -> None:
    """Into the first partition, in this order."""
    producer = Producer({"bootstrap.servers": world.broker, "log_level": 0})
    for letter in letters:
        producer.produce(world.dead_letter_topic, key=letter.key, value=letter.encode(world.topic), partition=0)
    assert producer.flush(60) == 0


def strangers(count: int) -> list[DeadLetter]:
    """Letters of clicks on items that no model knew."""
    records = [Record(b"u", click("u", f"stranger-{n}", n), 0, n, START) for n in range(count)]
    return [DeadLetter(record, "unknown_item", "not in the vocabulary") for record in records]


def test_what_a_worker_wrote_is_listed_and_replayed_once(world: World) -> None:
    good, unknown, huge = click("u", "item-001", 0), click("u", "item-055", 60), b"\xff" * 900_000
    world.produce([("u", good), ("u", unknown), ("another", unknown), ("u", b"not json"), ("u", huge)])
    with world.worker() as worker:
        wait_until_dealt_with(worker, 5)
    assert listed(world, "--counts") == [{"unknown_item": 1, "key.mismatch": 1, "not_json": 1, "too_large": 1}]
    (letter,) = listed(world, "--reason", "unknown_item")
    assert (letter["value"].encode(), letter["truncated"]) == (unknown, False)
    assert listed(world, "--since", "2099-01-01") == []
    times = [each["time"] for each in listed(world)]
    assert times == sorted(times, reverse=True)
    assert "key.mismatch" in run(world, "list").stdout

    assert replayed(world, "--reason", "unknown_item") == {"replayed": {"unknown_item": 1}, "refused": {}}
    assert replayed(world, "--reason", "unknown_item") == {"replayed": {}, "refused": {}}
    rest = replayed(world)["replayed"]
    assert rest == {"key.mismatch": 1, "not_json": 1, "too_large": 1}
    first = [(b"u", good), (b"u", unknown), (b"another", unknown), (b"u", b"not json"), (b"u", huge)]
    again = [(b"u", unknown), (b"u", unknown), (b"u", b"not json"), (b"u", huge)]  # under the user's key, and whole
    assert sorted((record.key, record.value) for record in world.records(9)) == sorted(first + again)


def test_what_is_passed_over_is_said_and_comes_back_when_asked_for(embedded_world: World) -> None:
    world = embedded_world
    write_letters(world, strangers(4))
    only = ("--offsets", "0:2-2")
    done = run(world, "replay", *only, answer="y\n")
    assert "2 older ones are not chosen and count as replayed from now on" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["replayed"] == {"unknown_item": 1}
    assert replayed(world)["replayed"] == {"unknown_item": 1}
    assert replayed(world, *only) == {"replayed": {}, "refused": {}}
    assert replayed(world, *only, "--again")["replayed"] == {"unknown_item": 1}
    assert replayed(world, "--again")["replayed"] == {"unknown_item": 4}


def test_reasons_are_remembered_apart(embedded_world: World) -> None:
    world = embedded_world
    letters = strangers(3)
    late = DeadLetter(letters[1].record, "late", "came late")
    write_letters(world, [letters[0], late, letters[2]])
    assert replayed(world, "--reason", "unknown_item")["replayed"] == {"unknown_item": 2}
    assert replayed(world)["replayed"] == {"late": 1}


def test_nothing_is_replayed_without_a_yes(embedded_world: World) -> None:
    write_letters(embedded_world, strangers(1))
    assert run(embedded_world, "replay", answer="n\n").exit_code == 1
    assert run(embedded_world, "replay", answer="").exit_code == 1
    assert replayed(embedded_world)["replayed"] == {"unknown_item": 1}


def test_a_truncated_letter_whose_record_is_gone_is_refused_by_name(embedded_world: World) -> None:
    world = embedded_world
    world.produce([("u", b"\xff" * 600_000)])
    (record,) = world.records(1)
    elsewhere = Record(b"u", b"\xfe" * 600_000, record.partition, record.offset, START)
    beyond = Record(b"u", b"\xff" * 600_000, record.partition, 17, START)
    write_letters(world, [DeadLetter(each, "too_large", "600000 bytes") for each in (record, elsewhere, beyond)])
    done = replayed(world)
    assert done["replayed"] == {"too_large": 1}
    assert list(done["refused"]) == ["0:1", "0:2"]
    assert done["refused"]["0:2"].endswith(f"{world.topic} at {record.partition}:17 any more")


def test_what_is_no_letter_is_passed_by(embedded_world: World) -> None:
    producer = Producer({"bootstrap.servers": embedded_world.broker, "log_level": 0})
    for value in (b"", b"[]", b"{}", b'{"value": 7, "encoding": "utf-8"}'):
        producer.produce(embedded_world.dead_letter_topic, value=value, partition=0)
    assert producer.flush(60) == 0
    write_letters(embedded_world, strangers(1))
    assert [letter["reason"] for letter in listed(embedded_world)] == ["unknown_item"]


def test_the_log_says_a_reason_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = LetterLog()
    log.say(strangers(3))
    log.say(strangers(4))
    log.say([DeadLetter(Record(None, b"", 0, 9, START), "not_json", "nothing")])
    said = [(vars(each)["reason"], vars(each)["letters"], vars(each)["user_id"]) for each in caplog.records]
    assert said == [("unknown_item", 3, "u"), ("not_json", 1, None)]
    restless = LetterLog(quiet_seconds=0)
    restless.say(strangers(2))
    restless.say(strangers(1))
    assert [vars(each)["letters"] for each in caplog.records[2:]] == [2, 1]
