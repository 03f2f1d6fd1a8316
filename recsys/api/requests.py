"""Requests read by the one decoder of events; every problem is named, with the index of its element.

FastAPI's own parameters would do part of this and make a lookup about a fifth more expensive; what they would
document stands in :mod:`recsys.api.schemas`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import orjson
from fastapi import Request

from recsys.api.errors import RefusedError
from recsys.errors import EventError
from recsys.events import ClickEvent, check_clock, decode, encode, from_mapping, identifier, parse_timestamp

T = TypeVar("T")

DEFAULT_LIMIT = 20
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,40}")


class SessionClick(NamedTuple):
    """A click of an anonymous session; ``timestamp`` is epoch milliseconds."""

    item_id: str
    timestamp: int | None


def check_query(request: Request, *known: str) -> None:
    """Refuse a query that holds anything else: who misspells a parameter would get another answer than he asked for.

    Raises:
        RefusedError: 422, names the parameter.
    """
    for name in request.query_params:
        if name not in known:
            there = ", ".join(known) or "none"
            raise RefusedError(422, "unknown_parameter", f"{name}: no such parameter; there are: {there}", field=name)


def query_id(request: Request, name: str) -> str | None:
    """The id that the query gives under ``name``, None where it gives none.

    Raises:
        EventError: no event may have such an id.
    """
    value = request.query_params.get(name)
    return None if value is None else identifier(name, value)


def query_limit(request: Request, most: int) -> int:
    """The ``limit`` of the query.

    Raises:
        RefusedError: 422, not a whole number of 1 to ``most``.
    """
    value = request.query_params.get("limit")
    if value is None:
        return checked_limit(None, most)
    return checked_limit(int(value) if _WHOLE_NUMBER.fullmatch(value) else value, most)


def checked_limit(limit: Any, most: int) -> int:
    """A limit from query or body, the default where it is None.

    Raises:
        RefusedError: 422, not a whole number of 1 to ``most``.
    """
    if limit is None:
        return min(DEFAULT_LIMIT, most)
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise RefusedError(422, "invalid_parameter", "limit: must be a whole number", field="limit")
    if not 1 <= limit <= most:
        raise RefusedError(422, "out_of_range", f"limit: must be 1 to {most}, is {limit}", field="limit")
    return limit


async def json_body(request: Request) -> Any:
    """The body as JSON, whatever its content type says: beacons of browsers call it plain text.

    Raises:
        RefusedError: 400, it is no JSON.
    """
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "not_json", f"the body is no JSON: {error}", field="body") from None


def read_events(body: Any, now_ms: int, max_future_ms: int, max_events: int) -> list[ClickEvent]:
    """The events of a ``POST /v1/events``: one object or a list of them.

    An event without a timestamp is stamped with the time of arrival. Those of one list are stamped one millisecond
    apart, the last of them ``now_ms``, so that their order stands.

    Raises:
        RefusedError: 422, names index, field and reason of each bad event.
    """
    values = body if isinstance(body, list) else [body]
    if not values:
        raise RefusedError(422, "invalid_events", "the list of events is empty", field="body")
    if len(values) > max_events:
        message = f"{len(values)} events in one request, at most {max_events} are allowed"
        raise RefusedError(422, "too_many_events", message, field="body")

    def read(index: int, fields: dict[str, Any]) -> ClickEvent:
        if fields.get("timestamp") in (None, ""):
            fields = {**fields, "timestamp": now_ms - (len(values) - 1 - index)}
        event = from_mapping(fields)
        check_clock(event, now_ms, max_future_ms)
        return decode(encode(event))  # as the worker reads it, so that nothing taken here ends as a dead letter

    return _each(values, read, "invalid_events", "events")


def read_session(body: Any, max_items: int) -> list[SessionClick]:
    """The clicks of a ``POST /v1/recommendations``; either all of them carry a timestamp or none.

    Raises:
        RefusedError: 422, names index, field and reason of each bad click.
    """
    values = body.get("session") if isinstance(body, dict) else None
    if not isinstance(values, list):
        raise RefusedError(422, "invalid_session", 'the body must be {"session": [{"item_id": …}, …]}', field="session")
    if len(values) > max_items:
        message = f"session has {len(values)} clicks, at most {max_items} are allowed"
        raise RefusedError(422, "too_many_clicks", message, field="session")

    def read(index: int, fields: dict[str, Any]) -> SessionClick:
        time = fields.get("timestamp")
        return SessionClick(
            identifier("item_id", fields.get("item_id")), None if time is None else parse_timestamp(time)
        )

    clicks = _each(values, read, "invalid_session", "session")
    if len({click.timestamp is None for click in clicks}) > 1:
        message = "timestamp: either every click of a session has one or none has"
        raise RefusedError(422, "invalid_session", message, field="session")
    return clicks


def _each(values: list[Any], read: Callable[[int, dict[str, Any]], T], code: str, name: str) -> list[T]:
    results, problems = [], []
    for index, value in enumerate(values):
        try:
            if not isinstance(value, dict):
                raise EventError("", "not_an_object", "must be a JSON object")
            results.append(read(index, value))
        except EventError as error:
            problems.append({"index": index, "field": error.field, "reason": error.reason, "message": str(error)})
    if problems:
        first = problems[0]
        field = f"{name}[{first['index']}]" + (f".{first['field']}" if first["field"] else "")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RefusedError(
            422, code, f"{name}[{first['index']}]: {first['message']}{more}", field=field, details=problems
        )
    return results
