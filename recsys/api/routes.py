"""The routes of ``/v1``: requests in, answers out; what they mean stands in the modules they call."""

from __future__ import annotations

import logging
import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from recsys.api.answers import Answer
from recsys.api.errors import RefusedError, json_response, unavailable
from recsys.api.requests import (
    check_query,
    checked_limit,
    json_body,
    query_id,
    query_limit,
    read_events,
    read_session,
)
from recsys.api.schemas import (
    EVENTS_BODY,
    ITEM_ID,
    LIMIT,
    SESSION_BODY,
    USER_ID,
    Accepted,
    Recommendations,
    json_request,
    query,
    refusals,
)
from recsys.api.services import services_of
from recsys.errors import UnavailableError

log = logging.getLogger(__name__)
router = APIRouter()


@router.get(
    "/v1/recommendations",
    response_model=Recommendations,
    responses=refusals(422, 503),
    openapi_extra=query(USER_ID, ITEM_ID, LIMIT),
    summary="Recommendations for a visitor or an item page",
)
async def recommendations(request: Request) -> Response:
    """The user's list if there is one (`user`); else what follows a click on the item (`item`); else popular items
    (`popular`). The item of the page is never in the answer, and short lists are filled up with popular items."""
    check_query(request, "user_id", "item_id", "limit")
    services = services_of(request)
    user_id, item_id = query_id(request, "user_id"), query_id(request, "item_id")
    limit = query_limit(request, services.settings.api.max_limit)
    return _written(await services.recommender.for_visitor(user_id, item_id, limit))


@router.post(
    "/v1/recommendations",
    response_model=Recommendations,
    responses=refusals(400, 408, 413, 422, 503),
    openapi_extra=json_request(SESSION_BODY),
    summary="Recommendations for an anonymous session",
)
async def session_recommendations(request: Request) -> Response:
    """What follows the clicks in the request (`session`), cut into sessions as the stream cuts them. Items that the
    model does not know are skipped and counted; if it knows none, popular items (`popular`)."""
    check_query(request)
    services = services_of(request)
    body = await json_body(request)
    clicks = read_session(body, services.settings.api.max_session_items)
    limit = checked_limit(body.get("limit"), services.settings.api.max_limit)
    return _written(await services.recommender.for_session(clicks, limit))


@router.get(
    "/v1/popular",
    response_model=Recommendations,
    responses=refusals(422, 503),
    openapi_extra=query(LIMIT),
    summary="Popular items",
)
async def popular(request: Request) -> Response:
    """The most clicked items of the training log."""
    check_query(request, "limit")
    services = services_of(request)
    return _written(services.recommender.popular(query_limit(request, services.settings.api.max_limit)))


@router.post(
    "/v1/events",
    status_code=202,
    response_model=Accepted,
    responses=refusals(400, 408, 413, 422, 503),
    openapi_extra=json_request(EVENTS_BODY),
    summary="Send clicks",
)
async def events(request: Request) -> Response:
    """One event or a list of them, all or nothing: if one is bad, none is taken. Accepted events are on the broker.
    After a 503 some may be on it all the same: give each event an `event_id`, and sending it again counts once."""
    services = services_of(request)
    settings, counted = services.settings, services.metrics.events
    now_ms = time.time_ns() // 1_000_000
    max_future_ms = round(settings.worker.max_future_seconds * 1000)
    body = await json_body(request)
    count = len(body) if isinstance(body, list) else 1
    try:
        clicks = read_events(body, now_ms, max_future_ms, settings.api.max_events)
        await services.producer.send(clicks)
    except RefusedError:
        counted.labels("refused").inc(count)
        raise
    except UnavailableError as error:
        counted.labels("unavailable").inc(count)
        log.warning("events refused: %s", error)
        raise unavailable("broker_unavailable", "the broker did not acknowledge the events: send them again") from None
    counted.labels("accepted").inc(count)
    return json_response({"accepted": count}, 202)


def _written(answer: Answer) -> Response:
    basis = answer.basis
    return json_response(
        {
            "items": [{"item_id": item, "score": score} for item, score in answer.items],
            "source": basis.source,
            "model_version": basis.model_version,
            "age_ms": basis.age_ms,
            "event_time": basis.event_time,
            "filled": answer.filled,
            "unknown_items": answer.unknown_items,
            "degraded": answer.degraded,
        }
    )
