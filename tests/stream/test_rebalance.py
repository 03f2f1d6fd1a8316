"""Workers that come and go, partitions that are added, a broker that dies: on Apache Kafka, under load, from a seed."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from recsys.demo.commands import Service
from tests.servers.kafka import PARTITIONS, Kafka
from tests.servers.pairs import RealServers
from tests.stream.conftest import make_world
from tests.stream.world import (
    World,
    clicks,
    first_deliveries,
    single_sessions,
    wait_until_dealt_with,
    without_positions,
)

MOST_WORKERS = 3

Running = tuple[Service, ExitStack]


@dataclass
class Crew:
    """The workers of a test; ``steps`` is what happened to them."""

    world: World
    chance: random.Random
    running: list[Running] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def join(self) -> None:
        """One more worker."""
        stack = ExitStack()
        self.running.append((stack.enter_context(self.world.worker()), stack))

    def leave(self) -> None:
        """One of them is asked to stop, and ends with code 0."""
        worker, stack = self._pick()
        stack.close()
        assert worker.process.returncode == 0, worker.log.read_text()

    def die(self) -> None:
        """One of them is killed."""
        worker, stack = self._pick()
        worker.process.kill()
        worker.process.wait()
        stack.close()
        self.world.assert_states_are_at_least(self.world.offsets()[0])

    def step(self) -> None:
        """What may happen next, by chance; one worker at least is left."""
        possible = ["join"] * (len(self.running) < MOST_WORKERS) + ["leave", "die"] * (len(self.running) > 1)
        self.steps.append(self.chance.choice(possible))
        getattr(self, self.steps[-1])()

    def wait_until_shared(self, among: Sequence[Running] | None = None) -> None:
        """Wait until every partition has one reader, and every worker (of ``among``, where given) reads some."""
        workers = [worker for worker, _ in among or self.running]
        deadline = time.monotonic() + 60
        while not self._shared(workers):
            assert time.monotonic() < deadline, [_partitions(worker) for worker in workers]
            time.sleep(0.1)

    def _shared(self, workers: Sequence[Service]) -> bool:
        read = [_partitions(worker) for worker in workers]
        return all(read) and sorted(chain.from_iterable(read)) == list(range(self.world.partitions))

    def _pick(self) -> Running:
        return self.running.pop(self.chance.randrange(len(self.running)))


def _partitions(worker: Service) -> list[int]:
    """What a worker reads now, by the last line of its log that says so."""
    worker.check()
    lines = re.findall(r"^worker: reading partitions \[(.*)\]", worker.log.read_text(), re.MULTILINE)
    return [int(number) for number in lines[-1].split(", ") if number] if lines else []


@contextmanager
def crew_of(world: World, seed: int, workers: int = 1) -> Iterator[Crew]:
    """Workers that end with the block."""
    crew = Crew(world, random.Random(seed))
    try:
        for _ in range(workers):
            crew.join()
        yield crew
    finally:
        for _, stack in crew.running:
            stack.close()


def test_workers_come_and_go_and_nothing_is_lost_or_done_twice(real_world: World) -> None:
    made = clicks(2500, seed=11, users=60)
    with crew_of(real_world, 11) as crew:
        with real_world.producing(made, pause=0.01) as producing:
            while producing.is_alive():
                crew.step()
                time.sleep(crew.chance.uniform(0.2, 2))
        assert {"join", "leave", "die"} <= set(crew.steps)
        real_world.wait_for(real_world.clean_run(len(made)), seconds=60)
        crew.wait_until_shared()


def test_a_worker_frozen_past_its_session_overwrites_nothing(real_world: World) -> None:
    """Thawed, it goes on with a batch of partitions that are another's now."""
    made = clicks(2500, seed=17, users=60)
    with crew_of(real_world, 17, workers=2) as crew:
        with real_world.producing(made, pause=0.005):
            for frozen, other in (crew.running, reversed(crew.running)):
                crew.wait_until_shared()
                frozen[0].process.send_signal(signal.SIGSTOP)
                crew.wait_until_shared([other])
                frozen[0].process.send_signal(signal.SIGCONT)
        real_world.wait_for(real_world.clean_run(len(made)), seconds=60)
        crew.wait_until_shared()


def test_partitions_may_be_added_under_load(real_world: World, real_servers: RealServers) -> None:
    """Workers find them, users move, and every click is applied once."""
    made = single_sessions(3000, seed=13, users=100)
    with crew_of(real_world, 13, workers=2) as crew:
        crew.wait_until_shared()
        with real_world.producing(made, pause=0.005):
            wait_until_dealt_with(crew.running[0][0], 100)
            real_world.partitions = PARTITIONS + 4
            real_servers.kafka.grow_topic(real_world.topic, real_world.partitions)
        crew.wait_until_shared()
        records = real_world.all_records()
        assert len(records) == len(made)
        assert {record.partition for record in records} == set(range(real_world.partitions))
        real_world.wait_until_committed()
        assert sum(first_deliveries(worker) for worker, _ in crew.running) == len(records)
        assert without_positions(real_world.contents()) == without_positions(real_world.clean_run_of(records)[0])


def test_a_broker_that_dies_stops_and_freezes_under_load_comes_back_to_the_same_workers(
    real_servers: RealServers, bundles: Path, tmp_path: Path
) -> None:
    with Kafka(tmp_path / "kafka") as kafka:
        world = make_world(RealServers(kafka, real_servers.redis), bundles, tmp_path)
        made = clicks(3000, seed=14, users=60)
        with crew_of(world, 14, workers=2) as crew, world.producing(made, pause=0.005) as producing:
            crew.wait_until_shared()
            for end in (kafka.kill, kafka.stop):
                time.sleep(2)
                end()
                time.sleep(2)
                kafka.start()
            with kafka.frozen():
                time.sleep(4)  # longer than the workers' sessions
            producing.join()
            world.produce(clicks(200, seed=18, users=60))  # whoever reads now goes on
            sent = sum(world.offsets()[1].values())  # a click whose answer the broker took to its grave is sent again
            assert sent >= len(made) + 200
            world.wait_for(world.clean_run(sent), seconds=90)
            for worker, _ in crew.running:
                worker.check()


def test_a_topic_created_anew_is_read_from_its_beginning(real_world: World, real_servers: RealServers) -> None:
    """And its clicks, whose offsets the states have long passed, go on from the old ones'."""
    first, second = single_sessions(400, seed=15, users=20), single_sessions(100, seed=16, users=20)
    real_world.produce(first)
    with real_world.worker() as worker:
        real_world.wait_for(real_world.clean_run(len(first)))
        old = real_world.records(len(first))
        real_servers.kafka.delete_topic(real_world.topic)
        real_servers.kafka.create_topic(real_world.topic)
        assert worker.process.wait(60) == 69
        assert "the topic has been created anew" in worker.log.read_text()
    real_world.produce(second)
    expected, _ = real_world.clean_run_of(old, real_world.records(len(second)))
    for applied in (True, False):  # the second worker finds nothing to do
        with real_world.worker() as worker:
            real_world.wait_for(expected)
            if applied:
                wait_until_dealt_with(worker, len(second))
