"""What requests and answers look like, for the OpenAPI document.

Answers are written without passing through these models, and requests are read by the decoder of events: the tests
hold both to what is said here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from recsys.api.requests import DEFAULT_LIMIT
from recsys.events import MAX_ID_BYTES, MAX_TIMESTAMP_MS, MAX_TYPE_BYTES


class RecommendedItem(BaseModel):
    """One item of an answer."""

    item_id: str
    score: float | None = Field(
        description="The model's score; in the source `popular`, clicks of the last half hour where workers know them, "
        "and less than one for those in the training log, else these; null for a filled item."
    )


class Recommendations(BaseModel):
    """An answer with recommendations, best first."""

    items: list[RecommendedItem]
    source: Literal["user", "item", "session", "popular"] = Field(
        description="What the answer rests on: the user's own list, the item of the page, the session in the request, "
        "or popular items."
    )
    model_version: str | None = Field(
        description="The model that made the answer; null for a stored list of a model that is no longer here by name."
    )
    age_ms: int | None = Field(description="Milliseconds since the list was stored; null where it was not stored.")
    event_time: int | None = Field(
        description="Time of the click that the stored list follows from, in epoch milliseconds; null where not stored."
    )
    filled: int = Field(description="How many items, at the end, were filled in from the popular ones.")
    unknown_items: int = Field(description="How many items of the request the model does not know.")
    degraded: bool = Field(description="Whether the store was away, so that the user's own list could not be had.")

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "items": [{"item_id": "214748", "score": 7.31}, {"item_id": "214690", "score": 6.98}],
                    "source": "user",
                    "model_version": "20261104T091500000000Z-3f2a90c41b7de658",
                    "age_ms": 412,
                    "event_time": 1793783700000,
                    "filled": 0,
                    "unknown_items": 0,
                    "degraded": False,
                }
            ]
        }
    }


class Accepted(BaseModel):
    """Events that the broker has acknowledged."""

    accepted: int = Field(description="How many events.")


class ErrorDetails(BaseModel):
    """What was wrong with a request."""

    code: str = Field(description="A short stable word for programs.")
    field: str | None = Field(description="What in the request is wrong.")
    message: str = Field(description="A sentence for people.")
    details: list[dict[str, Any]] = Field(description="Index, field, reason and message of each wrong list element.")


class ErrorAnswer(BaseModel):
    """The shape of every 4xx and 5xx answer."""

    error: ErrorDetails


class About(BaseModel):
    """What the API is."""

    name: str
    version: str
    docs: str = Field(description="Path of the description, to read.")
    openapi: str = Field(description="Path of the description, for programs.")


class Health(BaseModel):
    """Whether the API can do its work."""

    status: Literal["ready", "not ready"]
    model_version: str
    checks: dict[str, str] = Field(
        description="`ok`, or what is wrong, for each part. The broker is not needed to be ready."
    )


_ID: dict[str, Any] = {
    "anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES}, {"type": "integer"}],
    "description": f"1 to {MAX_ID_BYTES} bytes of UTF-8 without control characters.",
}
_TIMESTAMP: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_TIMESTAMP_MS}, {"type": "string"}, {"type": "null"}],
    "description": "Epoch milliseconds, or RFC 3339 with its offset.",
}
_LIMIT: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 1, "maximum": 1000}, {"type": "null"}],
    "default": DEFAULT_LIMIT,
    "description": "How many items; the server's `max_limit` (100 unless set otherwise) at most.",
}

SESSION_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["session"],
    "properties": {
        "session": {
            "type": "array",
            "description": "The visitor's clicks. Either all carry a timestamp or none; without, their order counts.",
            "items": {
                "type": "object",
                "required": ["item_id"],
                "properties": {"item_id": _ID, "timestamp": _TIMESTAMP},
            },
        },
        "limit": _LIMIT,
    },
    "examples": [{"session": [{"item_id": "214748"}, {"item_id": "214690"}], "limit": 20}],
}

_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["user_id", "item_id"],
    "properties": {
        "user_id": _ID,
        "item_id": _ID,
        "timestamp": _TIMESTAMP | {"description": "Epoch milliseconds or RFC 3339; the time of arrival if missing."},
        "event_type": {"type": ["string", "null"], "maxLength": MAX_TYPE_BYTES, "default": "view"},
        "event_id": {"anyOf": [*_ID["anyOf"], {"type": "null"}], "description": "Events of one id count once."},
        "context": {"type": ["object", "null"]},
    },
    "additionalProperties": True,
}
EVENTS_BODY: dict[str, Any] = {
    "anyOf": [_EVENT, {"type": "array", "minItems": 1, "items": _EVENT}],
    "examples": [
        {"user_id": "u-1", "item_id": "214748", "event_type": "view"},
        [{"user_id": "u-1", "item_id": "214748", "timestamp": "2026-11-04T09:15:00Z", "event_id": "c-771"}],
    ],
}


USER_ID: dict[str, Any] = {
    "name": "user_id",
    "description": "The visitor, as events name them.",
    "schema": _ID,
    "example": "u-1",
}
ITEM_ID: dict[str, Any] = {
    "name": "item_id",
    "description": "The item of the page.",
    "schema": _ID,
    "example": "214748",
}
LIMIT: dict[str, Any] = {
    "name": "limit",
    "description": _LIMIT["description"],
    "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": DEFAULT_LIMIT},
}


def query(*parameters: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI entry of an operation's query parameters, all of them optional."""
    return {"parameters": [{"in": "query", "required": False, **parameter} for parameter in parameters]}


def json_request(schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI entry of an operation that takes a JSON body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of error answers."""
    return {status: {"model": ErrorAnswer} for status in statuses}
