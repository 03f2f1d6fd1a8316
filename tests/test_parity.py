"""The pillar: what the stream keeps online is what the training graph computes offline on the same sessions.

Raw clicks go through broker, worker and store; the sessions they are compared with were cut by Beam from the same log,
and their hidden states computed by TensorFlow.
"""

from __future__ import annotations

import csv
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import redis
from confluent_kafka import Producer

from recsys.bundle import Bundle
from recsys.dataset import Dataset
from recsys.demo.commands import Commands
from recsys.errors import EventError
from recsys.events import ClickEvent, encode, from_mapping
from recsys.published import Bundles
from recsys.sessions import Sessions
from recsys.state import RecommendationList, UserState, sequence
from recsys.trail import trails
from tests.conftest import with_added

PREFIX, TOPIC = "parity", "parity-clicks"


@dataclass(frozen=True)
class Trained:
    """A log, the sessions Beam cut from it, and the bundle trained on them."""

    log: list[ClickEvent]
    sessions: Sessions
    users: list[str]
    bundle: Bundle
    directory: Path


@pytest.fixture(scope="module", params=["", "--layers 2 --embedding separate", "--embedding one-hot"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    directory = tmp_path_factory.mktemp("parity")
    commands = Commands(directory)
    clicks, dataset, run = str(directory / "clicks.csv"), str(directory / "dataset"), str(directory / "run")
    commands.run("generate", "--events", "12000", "--users", "600", "--items", "300", "--seed", "5", "--out", clicks)
    commands.run("sessions", clicks, "--out", dataset, "--max-bad", "0.5")
    quick = ("--epochs", "2", "--units", "32", "--clicks-per-step", "4", "--no-refit")
    commands.run("train", dataset, "--out", run, *quick, *request.param.split())
    commands.run("publish", f"{run}/model", "--bundles", str(directory / "bundles"))
    data = Dataset.open(dataset)
    bundle = Bundles(directory / "bundles").open()
    return Trained(_read(clicks), data.test(), data.test_users(), bundle, directory)


def _read(path: str) -> list[ClickEvent]:
    """The log's events by the one decoder, in order of time."""
    events = []
    with Path(path).open(newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            try:
                events.append(from_mapping({name: value for name, value in row.items() if name is not None}))
            except EventError:
                continue
    return sorted(events, key=lambda event: (event.timestamp, event.item_id))


def test_online_state_and_list_equal_the_graph_for_every_session(trained: Trained, broker: str, store_url: str) -> None:
    from recsys.model.network import hidden_states

    graph = hidden_states(dict(trained.bundle.model.weights), trained.sessions)
    by_user: dict[str, list[int]] = defaultdict(list)
    for index, user in enumerate(trained.users):
        by_user[user].append(index)
    compared = 0
    with Stream(trained, broker, store_url) as stream:
        rounds = max(map(len, by_user.values()))
        for number in range(rounds):
            ends = {
                user: int(trained.sessions.times[trained.sessions.starts[indices[number] + 1] - 1])
                for user, indices in by_user.items()
                if number < len(indices)
            }
            stream.send_until(ends)
            for user in ends:
                _compare(trained, stream, graph, user, by_user[user][number])
                compared += 1
    assert compared == len(trained.sessions) > 100


def _compare(trained: Trained, stream: Stream, graph: np.ndarray, user: str, index: int) -> None:
    first, end = trained.sessions.starts[index], trained.sessions.starts[index + 1]
    state, ranked = stream.state(user), stream.list(user)
    model = trained.bundle.model
    assert sequence(state.recent, model.description.sessions.rule) == trained.sessions.items[first:end].tolist()
    np.testing.assert_allclose(state.hidden[: graph.shape[1]], graph[end - 1], atol=1e-5, rtol=0)
    memory, units = model.description.model.memory, model.description.model.units
    trail = trails(trained.sessions, memory)[end - 1]
    assert state.hidden[graph.shape[1] :].tolist() == trail.tolist()
    output = model.weights["output" if "output" in model.weights else "embedding"]
    scores = graph[end - 1, -units:] @ output.T + model.weights["bias"]
    scores = with_added(scores, model.weights, trail)
    np.testing.assert_allclose(ranked.scores, np.sort(scores)[::-1][:20], atol=1e-4, rtol=0)
    # Ties aside: wherever neighbouring scores differ at all, so does their order.
    np.testing.assert_allclose(scores[ranked.rows], ranked.scores, atol=1e-4, rtol=0)
    distinct = np.diff(ranked.scores) < -1e-4
    order = np.argsort(-scores, kind="stable")[:20]
    agree = order == ranked.rows
    assert agree[np.flatnonzero(np.append(distinct, False) & np.insert(distinct, 0, True))].all()


class Stream:
    """A worker over the test part of the log, fed session by session."""

    def __init__(self, trained: Trained, broker: str, store_url: str) -> None:
        since = int(trained.sessions.times.min())
        self._waiting: dict[str, list[ClickEvent]] = defaultdict(list)
        for event in trained.log:
            if event.timestamp >= since:
                self._waiting[event.user_id].append(event)
        prefix = f"{PREFIX}-{trained.directory.name}"
        self._topic = f"{TOPIC}-{trained.directory.name}"
        environment = dict(os.environ) | {
            "KAFKA_BOOTSTRAP_SERVERS": broker,
            "REDIS_URL": store_url,
            "RECSYS_KAFKA__TOPIC": self._topic,
            "RECSYS_KAFKA__GROUP": self._topic,
            "RECSYS_REDIS__PREFIX": prefix,
        }
        commands = Commands(trained.directory, environment)
        flags = ("--bundles", str(trained.directory / "bundles"), "--metrics-port", "0", "--recent-items", "1000")
        self._worker = commands.service("worker", *flags)
        self._producer = Producer({"bootstrap.servers": broker, "linger.ms": 5})
        self._redis = redis.Redis.from_url(store_url)
        self._prefix = prefix

    def __enter__(self) -> Stream:
        self._worker.__enter__().wait_for_line("worker: metrics on ")
        return self

    def __exit__(self, *error: object) -> None:
        self._worker.__exit__(None, None, None)

    def send_until(self, ends: Mapping[str, int]) -> None:
        """Send each user's clicks up to a time, and wait until the worker has dealt with them."""
        last: dict[str, int] = {}

        def delivered(user: str) -> object:
            return lambda _, message: last.update({user: max(last.get(user, -1), message.offset())})

        for user, end in ends.items():
            events = self._waiting[user]
            while events and events[0].timestamp <= end:
                event = events.pop(0)
                self._producer.produce(self._topic, key=user, value=encode(event), on_delivery=delivered(user))
                self._producer.poll(0)
        assert self._producer.flush(20) == 0
        deadline = time.monotonic() + 30
        while any(self._offset(user) < offset for user, offset in last.items()):
            assert time.monotonic() < deadline, "the worker does not keep up"
            time.sleep(0.05)

    def _offset(self, user: str) -> int:
        data = self._redis.get(f"{self._prefix}:s:{{{user}}}")
        return UserState.unpack(data).position.offset if isinstance(data, bytes) else -1

    def state(self, user: str) -> UserState:
        data = self._redis.get(f"{self._prefix}:s:{{{user}}}")
        assert isinstance(data, bytes)
        return UserState.unpack(data)

    def list(self, user: str) -> RecommendationList:
        data = self._redis.get(f"{self._prefix}:l:{{{user}}}")
        assert isinstance(data, bytes)
        return RecommendationList.unpack(data)
