"""Clicks through the door, onto the topic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message

from recsys.events import MAX_EVENT_BYTES, ClickEvent, decode
from stream.embedded import embedded_broker
from tests.api.running import NOWHERE, Api, eventually, running_api


class Topic:
    """What has arrived on the API's topic since the last look."""

    def __init__(self, api: Api) -> None:
        kafka = api.services.settings.kafka
        self._consumer = Consumer(
            {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "test", "auto.offset.reset": "earliest"}
        )
        self._consumer.subscribe([kafka.topic])

    def read(self, count: int) -> list[Message]:
        messages: list[Message] = []
        deadline = time.monotonic() + 20
        while len(messages) < count and time.monotonic() < deadline:
            messages += [m for m in self._consumer.consume(count, timeout=0.2) if not m.error()]
        assert len(messages) == count
        return messages

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture(scope="module")
def topic(api: Api) -> Iterator[Topic]:
    eventually(lambda: api.services.producer.health == "ok")
    assert api.client.post("/v1/events", json={"user_id": "warm", "item_id": "up"}).status_code == 202
    topic = Topic(api)
    topic.read(1)
    yield topic
    topic.close()


def post(api: Api, body: Any) -> Any:
    return api.client.post("/v1/events", json=body)


def test_an_event_arrives_under_its_user_as_it_was_sent(api: Api, topic: Topic) -> None:
    event = {
        "user_id": "ünal",
        "item_id": 17,
        "timestamp": "2024-05-01T10:00:00+02:00",
        "event_type": "cart",
        "event_id": "e-1",
        "context": {"page": "home"},
        "price": 9.5,
    }
    answer = post(api, event)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    (message,) = topic.read(1)
    assert message.key() == "ünal".encode()
    assert decode(message.value()) == ClickEvent(
        "ünal", "17", 1714550400000, "cart", "e-1", {"page": "home"}, {"price": 9.5}
    )


def test_missing_timestamps_become_the_time_of_arrival_in_order(api: Api, topic: Topic) -> None:
    before = time.time_ns() // 1_000_000
    assert post(api, [{"user_id": "u", "item_id": item} for item in "dcba"]).json() == {"accepted": 4}
    now = time.time_ns() // 1_000_000
    events = [decode(message.value()) for message in topic.read(4)]
    assert [event.item_id for event in sorted(events, key=lambda event: event.timestamp)] == list("dcba")
    assert all(before - 3 <= event.timestamp <= now for event in events)
    assert len({event.timestamp for event in events}) == 4


def test_one_bad_event_refuses_all_and_every_bad_one_is_named(api: Api, topic: Topic) -> None:
    refused = api.metric("recsys_api_events_total", outcome="refused")
    future = time.time_ns() // 1_000_000 + 3_600_000
    bodies = [
        {"user_id": "ok", "item_id": "ok"},
        {"user_id": "a\nb", "item_id": "i"},
        {"user_id": "a", "item_id": "i" * 257},
        {"item_id": "i"},
        {"user_id": "a", "item_id": "i", "timestamp": -1},
        {"user_id": "a", "item_id": "i", "timestamp": future},
        "no object",
        {"user_id": "a", "item_id": "i", "pad": "x" * MAX_EVENT_BYTES},
        {"user_id": "a", "item_id": ""},
    ]
    answer = post(api, bodies)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("invalid_events", "events[1].user_id")
    assert [(problem["index"], problem["field"], problem["reason"]) for problem in error["details"]] == [
        (1, "user_id", "control_character"),
        (2, "item_id", "too_long"),
        (3, "user_id", "missing"),
        (4, "timestamp", "negative"),
        (5, "timestamp", "future"),
        (6, "", "not_an_object"),
        (7, "", "too_large"),
        (8, "item_id", "empty"),
    ]
    assert api.metric("recsys_api_events_total", outcome="refused") == refused + len(bodies)
    post(api, {"user_id": "next", "item_id": "i"})
    (message,) = topic.read(1)  # and nothing of the refused ones before it
    assert message.key() == b"next"


def test_what_cannot_be_written_again_is_refused(api: Api) -> None:
    deep = '{"a":' * 400 + "1" + "}" * 400
    answer = api.client.post("/v1/events", content=f'{{"user_id": "u", "item_id": "i", "context": {deep}}}')
    assert answer.status_code == 422
    assert answer.json()["error"]["details"][0]["reason"] == "not_json"


def test_an_empty_list_and_too_many_events_are_refused(bundles: Path, store_url: str, broker: str) -> None:
    with running_api(bundles, store_url, broker, max_events=2) as api:
        assert post(api, []).json()["error"]["code"] == "invalid_events"
        assert post(api, [{"user_id": "u", "item_id": "i"}] * 3).json()["error"]["code"] == "too_many_events"


def test_without_a_broker_events_are_refused_and_lookups_served(bundles: Path, store_url: str) -> None:
    with running_api(bundles, store_url, NOWHERE) as api:
        start = time.monotonic()
        answer = post(api, {"user_id": "u", "item_id": "i"})
        assert time.monotonic() - start < 1
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["code"] == "broker_unavailable"
        assert "127.0.0.1" not in answer.text
        assert api.get("/v1/popular")["items"]
        health = api.get("/health/ready")
        assert health["checks"] == {"model": "ok", "store": "ok", "broker": "not reached yet"}
        assert api.metric("recsys_api_events_total", outcome="unavailable") == 1


def test_a_broker_lost_while_running_costs_a_bounded_wait(bundles: Path, store_url: str) -> None:
    with ExitStack() as broker:
        address = broker.enter_context(embedded_broker())
        with running_api(bundles, store_url, address) as api:
            eventually(lambda: api.services.producer.health == "ok")
            assert post(api, {"user_id": "u", "item_id": "i"}).status_code == 202
            broker.close()
            start = time.monotonic()
            assert post(api, {"user_id": "u", "item_id": "i"}).status_code == 503
            assert time.monotonic() - start < 4
            assert api.get("/v1/popular")["items"]


def test_events_that_wait_for_the_broker_are_bounded(bundles: Path, store_url: str, broker: str) -> None:
    with running_api(bundles, store_url, broker, max_pending_events=2) as api:
        eventually(lambda: api.services.producer.health == "ok")
        assert post(api, [{"user_id": "u", "item_id": "i"}] * 3).status_code == 503
        assert post(api, [{"user_id": "u", "item_id": "i"}] * 2).status_code == 202
