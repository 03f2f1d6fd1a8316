"""Whatever a request holds, the answer is right or a refusal of one shape, and its cost is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.api import limits
from tests.api.running import Api, ids, running_api


def refused(answer: httpx.Response, status: int, code: str, field: str | None) -> dict[str, Any]:
    """The error of an answer, after a look at its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"code", "field", "message", "details"}
    assert (error["code"], error["field"]) == (code, field)
    assert "Traceback" not in answer.text
    return error


def test_unknown_paths_and_methods_are_refused_in_the_one_shape(api: Api) -> None:
    refused(api.client.get("/v2/popular"), 404, "not_found", None)
    refused(api.client.get("/v1/popular/"), 404, "not_found", None)
    answer = api.client.delete("/v1/popular")
    refused(answer, 405, "method_not_allowed", None)
    assert answer.headers["allow"] == "GET"
    refused(api.client.request("PROPFIND", "/v1/popular"), 405, "method_not_allowed", None)
    assert api.metric("recsys_api_requests_total", method="other", route="/v1/popular", status="405") == 1


@pytest.mark.parametrize("limit", [0, -1, 101, 10**30])
@pytest.mark.parametrize("path", ["/v1/popular", "/v1/recommendations"])
def test_a_limit_out_of_range_is_refused(api: Api, path: str, limit: int) -> None:
    error = refused(api.client.get(path, params={"limit": limit}), 422, "out_of_range", "limit")
    assert "1 to 100" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "/v1/recommendations", "user_id, item_id, limit"),
        ("GET", "/v1/popular", "limit"),
        ("POST", "/v1/recommendations", "none"),
    ],
)
def test_a_parameter_that_is_none_is_named(api: Api, method: str, path: str, known: str) -> None:
    body = None if method == "GET" else {"session": []}
    answer = api.client.request(method, path, params={"user": "ada"}, json=body)
    error = refused(answer, 422, "unknown_parameter", "user")
    assert error["message"] == f"user: no such parameter; there are: {known}"


@pytest.mark.parametrize("limit", ["", "ten", "1.5", "NaN"])
def test_a_limit_that_is_no_number_is_refused(api: Api, limit: str) -> None:
    refused(api.client.get("/v1/popular", params={"limit": limit}), 422, "invalid_parameter", "limit")


@pytest.mark.parametrize("limit", [0, 101, "5", 2.5, True, "", 10**30])
def test_a_limit_in_a_body_is_held_to_the_same(api: Api, limit: Any) -> None:
    answer = api.client.post("/v1/recommendations", content=json.dumps({"session": [], "limit": limit}))
    code = "out_of_range" if limit in {0, 101} else "invalid_parameter"
    refused(answer, 422, code, "limit")


@pytest.mark.parametrize("name", ["user_id", "item_id"])
@pytest.mark.parametrize("value", ["", "a\nb", "\x00", "é" * 129])
def test_an_id_that_no_event_may_have_is_refused(api: Api, name: str, value: str) -> None:
    refused(api.client.get("/v1/recommendations", params={name: value}), 422, "invalid_parameter", name)


def test_an_id_of_the_greatest_size_is_taken(api: Api) -> None:
    assert ids(api.get("/v1/recommendations", user_id="é" * 128, item_id="x" * 256))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[1,", b'{"session": [{"item_id": "\\ud800"}]}', b"NaN"])
@pytest.mark.parametrize("path", ["/v1/recommendations", "/v1/events"])
def test_a_body_that_is_no_json_is_refused(api: Api, path: str, body: bytes) -> None:
    refused(api.client.post(path, content=body), 400, "not_json", "body")


@pytest.mark.parametrize("body", [[], {}, None, 3, {"session": None}, {"session": {}}, {"session": "item-001"}])
def test_a_body_without_a_session_is_refused(api: Api, body: Any) -> None:
    refused(api.client.post("/v1/recommendations", content=json.dumps(body)), 422, "invalid_session", "session")


def test_every_bad_click_of_a_session_is_named(api: Api) -> None:
    session = [{"item_id": "item-001"}, {"item_id": None}, 7, {"item_id": "a", "timestamp": "yesterday"}]
    error = refused(
        api.client.post("/v1/recommendations", json={"session": session}),
        422,
        "invalid_session",
        "session[1].item_id",
    )
    found = [(problem["index"], problem["field"], problem["reason"]) for problem in error["details"]]
    assert found == [(1, "item_id", "missing"), (2, "", "not_an_object"), (3, "timestamp", "format")]


def test_a_session_with_times_for_some_clicks_is_refused(api: Api) -> None:
    session = [{"item_id": "item-001"}, {"item_id": "item-002", "timestamp": 1_700_000_000_000}]
    refused(api.client.post("/v1/recommendations", json={"session": session}), 422, "invalid_session", "session")


def test_a_session_beyond_the_bound_is_refused(api: Api) -> None:
    clicks = [{"item_id": "item-001"}] * 201
    assert api.client.post("/v1/recommendations", json={"session": clicks[:200]}).status_code == 200
    refused(api.client.post("/v1/recommendations", json={"session": clicks}), 422, "too_many_clicks", "session")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/recommendations", "/v1/events"])
def test_a_body_of_ten_megabytes_is_refused(api: Api, path: str, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(160):
            yield b" " * 65536

    refused(api.client.post(path, content=chunks() if chunked else b" " * (10 << 20)), 413, "too_large", "body")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_just_within_the_bound_is_taken(api: Api, chunked: bool) -> None:
    body = b'{"session": []}'.ljust(1 << 20)
    content = iter([body[:700_000], body[700_000:]]) if chunked else body
    assert api.client.post("/v1/recommendations", content=content).status_code == 200
    refused(api.client.post("/v1/recommendations", content=body + b" "), 413, "too_large", "body")


def test_a_body_that_does_not_end_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)

    async def dripping() -> bytes:
        url = api.client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(4096), 5)
        writer.close()
        return answer

    assert asyncio.run(dripping()).startswith(b"HTTP/1.1 408")


def test_requests_beyond_the_bound_are_told_to_come_back(bundles: Path, store_url: str) -> None:
    async def crowd(url: httpx.URL) -> list[int]:
        async with httpx.AsyncClient(base_url=url) as client:
            writers = [await asyncio.open_connection(url.host, url.port) for _ in range(2)]
            for _, writer in writers:  # two requests that stay in work
                writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
                await writer.drain()
            await asyncio.sleep(0.2)
            answers = [await client.get(path) for path in ("/v1/popular", "/health", "/metrics")]
            for _, writer in writers:
                writer.close()
            await asyncio.sleep(0.2)
            answers.append(await client.get("/v1/popular"))
            assert answers[0].headers["retry-after"] == "1"
            refused(answers[0], 503, "overloaded", None)
            return [answer.status_code for answer in answers]

    with running_api(bundles, store_url, max_requests=2) as api:
        assert asyncio.run(crowd(api.client.base_url)) == [503, 200, 200, 200]


def test_only_named_origins_may_call_from_a_browser(bundles: Path, store_url: str) -> None:
    with running_api(bundles, store_url, cors_origins="https://shop.example, https://m.shop.example") as api:
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        for origin, allowed in [("https://m.shop.example", True), ("https://evil.example", False)]:
            answer = api.client.options("/v1/events", headers={"Origin": origin, **ask})
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
            refusal = api.client.post("/v1/events", content=b"{", headers={"Origin": origin})
            assert (refusal.headers.get("access-control-allow-origin") == origin) is allowed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["user_id", "item_id", "timestamp", "event_type", "event_id", "context", "session", "limit"])
fields = st.dictionaries(names, json_values | st.sampled_from(["item-001", 5, "2024-01-01T00:00:00Z"]), max_size=6)
bodies = st.one_of(
    json_values, fields, st.lists(fields, max_size=3), st.fixed_dictionaries({"session": st.lists(fields)})
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["/v1/events", "/v1/recommendations"]),
    bodies.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=200),
)
@example("/v1/events", b"1e999")
@example("/v1/events", b'{"user_id": "u", "item_id": "i", "timestamp": 1e300}')
@example("/v1/recommendations", b"[" * 100_000)
@example("/v1/recommendations", b'{"session": [], "limit": ' + b"9" * 5000 + b"}")
def test_no_body_is_an_error_on_our_side(api: Api, path: str, body: bytes) -> None:
    answer = api.client.post(path, content=body)
    assert answer.status_code in {200, 202, 400, 422}, answer.text
    if answer.status_code >= 400:
        error = answer.json()["error"]
        refused(answer, answer.status_code, error["code"], error["field"])
        assert error["message"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["user_id", "item_id", "limit", "x"]), st.text(max_size=8), max_size=4))
def test_no_query_is_an_error_on_our_side(api: Api, query: dict[str, str]) -> None:
    answer = api.client.get("/v1/recommendations", params=query)
    assert answer.status_code in {200, 422}, answer.text
    assert answer.status_code == 422 or answer.json()["items"]
    assert answer.status_code == 422 or "x" not in query
