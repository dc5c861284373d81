"""Customers who were recognized by a beacon or a code: `/v1/customers/…`.

POST /v1/customers/identify    the event `CustomerIdentified`, as subscribers get it
GET  /v1/customers/visits      how often customers were recognized, by place and hour
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from engine.customers import VISITS, message_of
from engine.domain.customer import (
    EVENT_TYPE,
    TOPIC,
    VERSION,
    Beacon,
    Text,
    read_event_id,
    read_sighting,
    read_utc,
)
from engine.domain.fields import Id
from engine.errors import Rejected
from web.messages import Headers, Problem, Request, Response, allow, json_response
from web.site import Site
from web.tokens import Identity
from web.topics import read_body

_NO_STORE: Headers = [("cache-control", "no-store")]
_HOUR_CHARS = 13


class SeenBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Who was recognized, where, and how surely (0 to 1); `store`: at which shop, when that is known."""

    customer_id: Text
    location: Text
    confidence: float
    detected_at: Text
    beacon: Beacon | None = None
    store: Id | None = None


class IdentifyBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A customer was recognized. An `event_id` (a UUID) counts once within 24 h; times are UTC."""

    event_id: Text
    timestamp: Text
    data: SeenBody
    event_type: Annotated[str, Meta(max_length=64)] = EVENT_TYPE
    version: Annotated[str, Meta(max_length=16)] = VERSION


async def customers(site: Site, request: Request, rest: list[str]) -> Response:
    """Answer `/v1/customers/…`.

    Raises:
        Problem: `not_found`, `forbidden`, `unknown_store`, and as `read_body`.
        Rejected: `event_id_invalid`, `event_type_invalid`, `version_invalid`, and as `read_sighting`.
    """
    match rest:
        case ["identify"]:
            if done := allow(request, "POST"):
                return done
            return await _identify(site, site.gate.identify(request), read_body(request, IdentifyBody))
        case ["visits"]:
            if done := allow(request, "GET", "HEAD"):
                return done
            return await _visits(site, site.gate.identify(request), request)
        case _:
            raise Problem("not_found", "there is nothing at this path")


async def _identify(site: Site, who: Identity, body: IdentifyBody) -> Response:
    event_id = read_event_id(body.event_id)
    if body.event_type != EVENT_TYPE:
        raise Rejected("event_type_invalid", f"`event_type` is {EVENT_TYPE}")
    if body.version != VERSION:
        raise Rejected("version_invalid", f"`version` is {VERSION}")
    timestamp = read_utc(body.timestamp)
    data = body.data
    seen = read_sighting(data.customer_id, data.location, data.confidence, data.detected_at, data.beacon)
    store = await _store(site, who, data.store)
    message = message_of(event_id, timestamp, seen, store)
    [placed] = await site.node.topics.publish(TOPIC, [message], by=who.by)
    return _answer({"topic": TOPIC, **placed._asdict()})


async def _store(site: Site, who: Identity, store: str | None) -> str | None:
    """Return the shop that it is about: staff can speak of their own only."""
    if who.role in ("owner", "staff") and who.store != "*":
        if store not in (None, who.store):
            raise Problem("forbidden", "the token is for another shop")
        store = who.store
    elif who.role != "service" and who.store != "*":
        raise Problem("forbidden", f"this is for owner, service, staff, not for {who.role}")
    if store is not None and not await site.node.exists(f"store:{store}"):
        raise Problem("unknown_store", f"nobody has made the store {store}")
    return store


async def _visits(site: Site, who: Identity, request: Request) -> Response:
    if who.role != "service" and who.store != "*":
        raise Problem("forbidden", "visits of all shops are for services")
    start, end = request.field("from") or "", request.field("to") or "~"

    def look(state: Any, version: int) -> dict[str, dict[str, int]]:
        first, last = start[:_HOUR_CHARS], end[:_HOUR_CHARS]
        return {hour: dict(places) for hour, places in sorted(state.hours.items()) if first <= hour < last}

    return _answer({"hours": await site.node.examine(VISITS, look)})


def _answer(value: Any) -> Response:
    return json_response(msgspec.json.encode(value), 200, _NO_STORE)
