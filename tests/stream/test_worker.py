"""The worker as a process, against a real broker and a real store, through stops, crashes and outages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from recsys.demo.commands import get_text
from recsys.errors import RecsysError
from recsys.published import Bundles
from recsys.state import RecommendationList
from stream.embedded import free_port
from tests.conftest import publish, random_model
from tests.stream.world import START, World, clicks, metrics, on_embedded_servers, wait_until_dealt_with


def test_clicks_become_states_and_lists_and_every_one_is_accounted_for(world: World) -> None:
    made = clicks(400, seed=1)
    world.produce(made)
    with world.worker() as worker:
        world.wait_for(world.clean_run(len(made)))
        reading = metrics(worker)
        assert reading.dealt_with == len(made)
        dead = round(reading.clicks["clicks_dead_lettered"])
        letters = [json.loads(record.value or b"") for record in world.records(dead, world.dead_letter_topic)]
        assert {"not_json", "unknown_item"} <= {letter["reason"] for letter in letters}
        source = {(record.partition, record.offset): record.value for record in world.records(len(made))}
        assert all(source[letter["partition"], letter["offset"]] == letter["value"].encode() for letter in letters)


def test_sigterm_finishes_the_batch_and_ends_with_code_0(world: World) -> None:
    made = clicks(300, seed=2)
    with world.worker() as worker:
        world.produce(made[:200])
        wait_until_dealt_with(worker, 200)
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0
        assert time.monotonic() - began < 5
    world.produce(made[200:])
    with world.worker() as worker:
        world.wait_for(world.clean_run(len(made)))
        wait_until_dealt_with(worker, 100)
        time.sleep(0.5)
        assert metrics(worker).dealt_with == 100  # what the first had done was committed: none came a second time


def test_sigterm_amid_a_long_backlog_ends_the_worker_soon(real_world: World) -> None:
    """What was begun is finished and committed, and the rest, which as one batch would take longer, is left."""
    count = 20_000
    world = real_world
    publish(world.bundles, random_model(items=40_000, units=64))
    world.commands.environment["RECSYS_WORKER__CATCH_UP_BATCH"] = str(count)
    click = '{"user_id": "u-%d", "item_id": "item-%05d", "timestamp": %d}'
    world.produce([(f"u-{number}", (click % (number, number, START)).encode()) for number in range(count)])
    with world.worker() as worker:
        wait_until_dealt_with(worker, 1)
        time.sleep(0.5)  # for the rest to be fetched
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(30) == 0
        assert time.monotonic() - began < 5
    states = sum(1 for _ in redis.Redis.from_url(world.store).scan_iter(f"{world.prefix}:s:*", count=5000))
    assert 0 < sum(world.offsets()[0].values()) == states < count


@on_embedded_servers
def test_the_worker_gives_up_on_a_store_that_stays_away_and_loses_nothing(world: World, tmp_path: Path) -> None:
    shared = world.commands.environment["REDIS_URL"]
    made = clicks(50, seed=5)
    with world.servers.own_store(tmp_path / "store") as store:
        world.commands.environment["REDIS_URL"] = store.url
        with world.worker("--retry-seconds", "1") as worker:
            store.stop()
            world.produce(made)
            assert worker.process.wait(20) == 69
            assert "no click is lost" in worker.log.read_text()
    world.commands.environment["REDIS_URL"] = shared
    with world.worker():
        world.wait_for(world.clean_run(len(made)))


@on_embedded_servers
def test_the_worker_gives_up_on_a_broker_that_stays_away(world: World) -> None:
    topics = (world.topic, world.dead_letter_topic)
    with world.servers.own_broker(world.commands, topics) as (address, stop):
        world.commands.environment["KAFKA_BOOTSTRAP_SERVERS"] = address
        with world.worker("--retry-seconds", "2") as worker:
            stop()
            assert worker.process.wait(30) == 69
            assert "the broker has been away" in worker.log.read_text()


@on_embedded_servers
@pytest.mark.parametrize("absent", ["REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"])
def test_a_server_absent_at_the_start_is_named(world: World, absent: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    world.commands.environment[absent] = f"redis://{address}" if absent == "REDIS_URL" else address
    with pytest.raises(RecsysError, match=f"{address} does not answer") as caught, world.worker():
        pass
    assert caught.value.exit_code == 69


@on_embedded_servers
def test_a_worker_without_a_bundle_says_so(world: World, tmp_path: Path) -> None:
    world.bundles = tmp_path / "nothing"
    with pytest.raises(RecsysError, match="no bundle is published") as caught, world.worker():
        pass
    assert caught.value.exit_code == 66


@on_embedded_servers
def test_a_bundle_with_a_flipped_bit_is_refused(world: World) -> None:
    weights = next(world.bundles.glob("*/weights.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RecsysError, match=r"weights\.safetensors: altered") as caught, world.worker():
        pass
    assert caught.value.exit_code == 65


@on_embedded_servers
def test_a_new_bundle_takes_over_while_clicks_flow(world: World) -> None:
    made = clicks(300, seed=6)
    with world.worker("--bundle-poll-seconds", "0.2") as worker:
        world.produce(made[:150])
        time.sleep(1.0)
        version = publish(world.bundles, random_model(items=60, seed=9))
        deadline = time.monotonic() + 10
        address = worker.wait_for_line("worker: metrics on ")[0]
        while version not in get_text(address) and time.monotonic() < deadline:
            time.sleep(0.1)
        world.produce(made[150:])
        digest = Bundles(world.bundles).open().digest
        users = {json.loads(value)["user_id"] for _, value in made[150:] if value != b"not json"}
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lists = {name: value for name, value in world.contents().items() if name.startswith("l:")}
            new = {name for name, value in lists.items() if RecommendationList.unpack(value).model == digest}
            if {f"l:{{{user}}}" for user in users} <= new:
                break
            time.sleep(0.2)
        assert {f"l:{{{user}}}" for user in users} <= new


@on_embedded_servers
def test_a_record_of_hostile_size_is_dead_lettered_and_the_rest_goes_on(world: World) -> None:
    good = json.dumps({"user_id": "u", "item_id": "item-001", "timestamp": START}).encode()
    hostile = [
        ("u", b"\0" * 200_000),  # as JSON six times as long
        ("u", b'"' * 900_000),
        ("u", b"\xff" * 900_000),
        ("k" * 300_000, good),
        ("u", good),
    ]
    world.produce(hostile)
    with world.worker() as worker:
        wait_until_dealt_with(worker, len(hostile))
        assert metrics(worker).clicks["clicks_applied"] == 1
    letters = [json.loads(record.value or b"") for record in world.records(4, world.dead_letter_topic)]
    assert sorted(letter["reason"] for letter in letters) == ["key.mismatch", "too_large", "too_large", "too_large"]
    assert sum(letter["truncated"] for letter in letters) == 2


@on_embedded_servers
def test_a_crash_inside_faust_ends_the_worker(world: World) -> None:
    """Faust stops consuming when a service of its crashes, but lives on."""
    script = (
        "import asyncio, stream.worker as worker\n"
        "from recsys.cli import main\n"
        "build = worker.build_app\n"
        "def sabotaged(*arguments):\n"
        "    app, processor = build(*arguments)\n"
        "    async def crash():\n"
        "        await asyncio.sleep(1)\n"
        "        await app.consumer.crash(RuntimeError('planted'))\n"
        "    asyncio.get_running_loop().create_task(crash())\n"
        "    return app, processor\n"
        "worker.build_app = sabotaged\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "worker", "--bundles", str(world.bundles), "--metrics-port", "0"]
    done = subprocess.run(command, env=world.commands.environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 70
    assert b"planted" in done.stderr


@on_embedded_servers
def test_a_worker_joins_its_group_again_after_an_error(world: World, tmp_path: Path) -> None:
    """aiokafka waits for its caller to see the error, and Faust does not look."""
    script = (
        "from aiokafka.consumer.group_coordinator import GroupCoordinator\n"
        "from aiokafka.errors import KafkaError\n"
        "from recsys.cli import main\n"
        "beat, beats = GroupCoordinator._do_heartbeat, iter([None, KafkaError('planted')])\n"
        "async def sabotaged(coordinator):\n"
        "    if error := next(beats, None):\n"
        "        raise error  # as at an answer that the group is being loaded\n"
        "    return await beat(coordinator)\n"
        "GroupCoordinator._do_heartbeat = sabotaged\n"
        "main()\n"
    )
    path = tmp_path / "log"
    command = [sys.executable, "-c", script, "worker", "--bundles", str(world.bundles), "--metrics-port", "0"]
    with path.open("wb") as log, subprocess.Popen(command, env=world.commands.environment, stderr=log) as worker:
        try:
            deadline = time.monotonic() + 30
            while path.read_text().count("worker: reading partitions [0") < 2:
                assert time.monotonic() < deadline, path.read_text()
                time.sleep(0.1)
        finally:
            worker.terminate()
        assert worker.wait(10) == 0
