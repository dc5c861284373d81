"""Events of any type for one user, as pages and scripts follow them: `/events/…` and `/api/events/…`.

GET sse?userId=&types=   SSE: `data: {"eventType", …}` for each event from now on; pings are data too
GET status               who is connected, for operators

A block's id is a cursor into the user's stream. A client that comes back with `Last-Event-ID` first gets what
it has missed: out of the feed, or, further back, out of the history; where neither has it, an `event: reset`
says so. Such a stream does not close by itself, as nobody has to come back with plain `curl -N`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from engine import Cursor, Subscription
from engine.codec import decode_envelope, decode_event
from engine.domain.user.messages import EventSent, shown_data
from engine.errors import Lagging, Stopping, Unavailable
from engine.records import ID, stream_name
from web import wire
from web.messages import Problem, Request, Response, allow, json_response
from web.reading import read_cursor
from web.rights import may_read
from web.site import Site
from web.sources import TAKE_MAX
from web.streaming import HEADERS, TYPES_MAX, EventStream
from web.tokens import Identity

if TYPE_CHECKING:  # SQLAlchemy takes its time to load
    from engine.history.database import Database
    from engine.history.reading import Page

OPEN_USER = "123"
"""Whose events they are when the server runs with `--open` and nobody is named."""

RETRY_MS = 1_000
"""After which browsers come back when the connection is lost."""

PAGE = 500
"""Events that are asked of the history at a time."""

LOOK_BACK_BYTES_MAX = 8 << 20
"""Of events from the history that one client gets when it comes back."""

_EVENT = EventSent.__name__
_TYPE = re.compile(r"[A-Za-z0-9_.:-]{1,100}\Z")


async def events(site: Site, request: Request, rest: list[str]) -> Response:
    """Answer one request.

    Raises:
        Problem: `malformed`, `unauthorized`, `forbidden`, `not_found`.
    """
    if rest not in (["sse"], ["status"]):
        raise Problem("not_found", "there is nothing at this path")
    if done := allow(request, "GET", "HEAD"):
        return done
    who = site.gate.identify(request)
    if rest == ["status"]:
        return _status(site, who)
    user, types = user_of(site, who, request), _read_types(request)
    after = read_cursor("Last-Event-ID", request.headers.get("last-event-id") or None)
    if request.method == "HEAD":
        return Response(200, list(HEADERS))
    source = await open_events(site, user, types, after)
    stream = EventStream(site, who, source, ping=lambda: ping(site, source.cursor), rotates=False)
    return Response(200, list(HEADERS), stream=stream)


def user_of(site: Site, who: Identity, request: Request) -> str:
    """Return the user that a request is about: `userId`, else the token's own, else, with `--open`, 123.

    Raises:
        Problem: `malformed`: nobody is named; `forbidden`: the token is not for this user.
    """
    user = request.field("userId")
    if user is None and who.role == "user":
        user = who.sub
    if user is None and site.gate.open:
        user = OPEN_USER
    if user is None or not ID.match(user):
        raise Problem("malformed", "`userId` must be 1-64 characters of A-Z, a-z, 0-9, `_`, `.`, `-`")
    if not may_read(who, "user", (user,)):
        raise Problem("forbidden", f"the token is not for user {user}")
    return user


def _read_types(request: Request) -> frozenset[str] | None:
    text = request.field("types")
    if text is None:
        return None
    types = text.split(",")
    if len(types) > TYPES_MAX or not all(_TYPE.match(name) for name in types):
        raise Problem("malformed", f"`types` must be up to {TYPES_MAX} event types with commas between them")
    return frozenset(types)


def ping(site: Site, cursor: str) -> bytes:
    """Return a ping as clients of these streams know it: data like everything else. It moves their cursor,
    too, past what they were not sent.
    """
    data = {"type": "ping", "serverId": site.node.node_id, "timestamp": site.node.clock.now_ms()}
    if not site.writable:
        data["writable"] = False
    return wire.block(msgspec.json.encode(data), id=cursor)


def _status(site: Site, who: Identity) -> Response:
    if who.role != "service" and who.store != "*":
        raise Problem("forbidden", "this is for the role service")
    listeners = {user: count for user, count in site.listeners.items() if count > 0}
    status = {
        "connectedUsers": list(listeners),
        "activeStreams": sum(listeners.values()),
        "serverId": site.node.node_id,
        "redisConnected": site.node.redis_up(),
    }
    return json_response(msgspec.json.encode(status), 200, [("cache-control", "no-store")])


class EventSource:
    """The events of one user, of some types."""

    def __init__(
        self,
        site: Site,
        user: str,
        types: frozenset[str] | None,
        subscription: Subscription,
        missed: list[bytes],
        reset: str | None,
    ) -> None:
        self._site = site
        self._user = user
        self._types = types
        self._subscription = subscription
        self._missed = missed
        self._reset = reset
        self._epoch = subscription.cursor.epoch
        self._open = True
        site.listeners[user] += 1

    def opening(self) -> bytes:
        """Return what was missed, and then where the client stands."""
        blocks = [b"retry: %d\n" % RETRY_MS]
        if self._reset is not None:
            blocks.append(wire.block(msgspec.json.encode({"reason": self._reset}), event="reset"))
        blocks += [self._block(body) for body in self._missed]
        self._missed = []
        return b"".join(blocks) + wire.id_block(self.cursor)

    def take(self) -> list[bytes]:
        blocks = []
        for frame in self._subscription.take(TAKE_MAX):
            if frame.type == _EVENT:
                blocks.append(self._block(frame.body))
        return [block for block in blocks if block]

    def _block(self, body: bytes) -> bytes:
        envelope = decode_envelope(body)
        event: Any = decode_event("user", envelope.type, envelope.data)
        if self._types is not None and event.event_type not in self._types:
            return b""
        shown = shown_data(event, self._site.node.node_id)
        data = {"eventType": ""} | shown | {"eventType": event.event_type}  # first, and not the data's own
        return wire.block(msgspec.json.encode(data), id=str(Cursor(self._epoch, envelope.version)))

    async def wait(self) -> None:
        with suppress(Stopping, Lagging):  # `take` raises it again
            await self._subscription.wait()

    @property
    def cursor(self) -> str:
        return str(self._subscription.cursor)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._site.listeners[self._user] -= 1
            if not self._site.listeners[self._user]:
                del self._site.listeners[self._user]
        self._subscription.close()


async def open_events(
    site: Site, user: str, types: frozenset[str] | None, after: Cursor | None
) -> EventSource:
    """Follow a user's events: from now on, or after the cursor that the client has.

    Raises:
        Stopping: the node is going down.
    """
    stream = stream_name("user", user)
    subscription = await site.node.subscribe(stream, after=after)
    missed: list[bytes] = []
    if after is not None and subscription.reset == "expired":
        subscription.close()
        try:
            missed, upto = await _look_back(site, stream, after.version, subscription.version)
        except Unavailable:
            upto = after.version
        subscription = await site.node.subscribe(stream, after=Cursor(after.epoch, upto))
    reset = subscription.reset
    return EventSource(site, user, types, subscription, [] if reset else missed, reset)


async def _look_back(site: Site, stream: str, after: int, upto: int) -> tuple[list[bytes], int]:
    """Return the events that the history has of a stream between two versions, and up to which version that
    is all; the rest may be in the feed.
    """
    history = site.node.history
    if history is None:
        return [], after
    found: list[bytes] = []
    size = 0
    while after < upto and size <= LOOK_BACK_BYTES_MAX:
        page = await history.query(_page(stream, after))
        for body in page.bodies:
            envelope = decode_envelope(body)
            after = envelope.version
            if envelope.type == _EVENT:
                found.append(body)
                size += len(body)
        if page.next is None:
            break
    return found, after


def _page(stream: str, after: int) -> Callable[[Database], Page]:
    from engine.history.reading import read_events  # here, as SQLAlchemy takes its time to load

    def ask(database: Database) -> Page:
        with database.connect() as connection:
            return read_events(connection, stream, after=after, limit=PAGE)

    return ask
