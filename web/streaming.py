"""Event streams (SSE): blocks of one or several feeds, pings, and a `bye` whenever the server ends it.

A stream is pulled: its front end asks for the next write, which is everything that has come since the last
one, bounded in bytes. A client that reads slowly thus makes its own stream wait, holds at most one round of
frames, and is told `lagging` once the feed's ring has moved past it. Streams of one feed are given to the
hub instead where there is one (`web.fanout`): the same blocks, for all clients at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import trio

from engine import Cursor
from engine.domain.times import to_text
from engine.errors import Lagging, Stopping
from web import wire
from web.ending import Ending, reason_of
from web.messages import Headers, Problem, Request, Response
from web.reading import read_cursor
from web.site import FeedPath, Site, check_feed, parse_feed
from web.sources import OneFeed, Source, open_many
from web.tokens import Identity

WRITE_BYTES_MAX = 64 * 1024
"""Blocks are joined into one write up to this; one block may be larger."""

FEEDS_MAX = 32
"""Feeds on one connection."""

TYPES_MAX = 64

HEADERS: Headers = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),
]


class EventStream:
    """The body of one event stream. `ping` makes its pings, where they are not the usual ones; with
    `rotates=False` it does not close by itself.

    It is pulled, or it is the hub's (`web.fanout`), which takes its opening and then goes by `due`, `reason`,
    `wants_ping`, `ping` and `bye`.
    """

    __slots__ = ("_closed", "_make_ping", "_over", "_ping_at", "_site", "_waiting", "ending", "source")

    def __init__(
        self,
        site: Site,
        who: Identity,
        source: Source,
        *,
        ping: Callable[[], bytes] | None = None,
        rotates: bool = True,
    ) -> None:
        self.source = source
        self.ending = Ending(site, who, site.config.rotate_s if rotates else 0.0)
        self._site = site
        self._make_ping = ping
        self._waiting: deque[bytes] | None = deque([source.opening()])
        self._over = False
        self._closed = False
        self._ping_at = trio.current_time() + (site.config.ping_s or math.inf)
        site.streams["sse"] += 1

    async def pull(self) -> bytes:
        """Return what comes next in one write; after a `bye`, `b""`."""
        waiting = self._waiting
        assert waiting is not None, "the hub has it"
        while not self._over:
            reason = self.reason()
            if reason:
                return self.bye(reason)
            if waiting:
                await trio.lowlevel.checkpoint()
                return _join(waiting)
            if self.wants_ping():
                return self.ping()
            try:
                waiting.extend(self.source.take())
            except Lagging:
                return self.bye("lagging")
            except Stopping as end:
                return self.bye(reason_of(type(end)))
            if not waiting:
                await self.ending.wait(self.source.wait, self._ping_at)
        return b""

    def take_opening(self) -> bytes:
        """Return what is to be written first; the stream cannot be pulled any more."""
        assert self._waiting, "it was pulled already"
        opening = self._waiting.popleft()
        self._waiting = None
        return opening

    @property
    def due(self) -> float:
        """When there is a ping to send, or a `bye` (trio's time; `math.inf`: never)."""
        return min(self._ping_at, self.ending.at)

    def reason(self) -> str | None:
        """Return why the stream has to end now, `None` when it may go on."""
        return self.ending.reason()

    def wants_ping(self) -> bool:
        return self.ending.news or trio.current_time() >= self._ping_at

    def ping(self) -> bytes:
        """Return a ping; its cursor is right because nothing that was taken waits to be written.

        One out of turn, with news, leaves the usual ones where they are: spread over time.
        """
        self.ending.news = False
        if (now_s := trio.current_time()) >= self._ping_at:
            self._ping_at = now_s + (self._site.config.ping_s or math.inf)
        return self._make_ping() if self._make_ping else _usual_ping(self._site, self.source.cursor)

    def bye(self, reason: str) -> bytes:
        """End the stream; return the last block."""
        self._over = True
        self._site.ends[reason] += 1
        return wire.bye_block(reason)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.ending.close()
            self.source.close()
            self._site.streams["sse"] -= 1


def _join(waiting: deque[bytes]) -> bytes:
    """Take as many blocks as make one write."""
    first = waiting.popleft()
    if not waiting or len(first) + len(waiting[0]) > WRITE_BYTES_MAX:
        return first
    blocks = [first]
    size = len(first)
    while waiting and size + len(waiting[0]) <= WRITE_BYTES_MAX:
        blocks.append(waiting.popleft())
        size += len(blocks[-1])
    return b"".join(blocks)


def _usual_ping(site: Site, cursor: str) -> bytes:
    """Return the usual ping for a client that has everything up to the cursor."""
    now = to_text(site.node.clock.now_ms())
    data = (
        f'{{"time":"{now}","node":"{site.node.node_id}","cursor":"{cursor}"{wire.standing(site.writable)}}}'
    )
    return wire.block(data.encode(), event="ping")


async def stream(site: Site, who: Identity, feed: FeedPath, request: Request) -> Response:
    """Answer with the events of one feed.

    Raises:
        Problem: `malformed`: a cursor or `types` that cannot be read.
    """
    after = read_cursor("Last-Event-ID", request.headers.get("last-event-id") or None)
    if after is None:
        after = read_cursor("after", request.field("after"))
    types = read_types(request)
    if request.method == "HEAD":
        return Response(200, list(HEADERS))
    source = OneFeed(await site.node.subscribe(feed.stream, after=after), types)
    return Response(200, list(HEADERS), stream=EventStream(site, who, source))


async def stream_many(site: Site, who: Identity, request: Request) -> Response:
    """Answer with the events of several feeds; `after` is one composite cursor, or one cursor for each feed.

    Raises:
        Problem: `malformed`: no feeds, too many, one twice, or cursors that cannot be read; and as
        `check_feed`.
    """
    feeds = []
    for text in request.fields.get("feed", []):
        feed = parse_feed(text.split("/"))
        if feed is None:
            raise Problem("malformed", "`feed` must be stores/ID, tables/ID/ID or users/ID")
        feeds.append(feed)
    if not 1 <= len(set(feeds)) == len(feeds) <= FEEDS_MAX:
        raise Problem("malformed", f"`feed` must be given 1 to {FEEDS_MAX} times, each another one")
    after = _read_after(request, [feed.stream for feed in feeds])
    types = read_types(request)
    for feed in feeds:
        await check_feed(site, who, feed)
    if request.method == "HEAD":
        return Response(200, list(HEADERS))
    source = await open_many(site.node, [feed.stream for feed in feeds], after, types)
    return Response(200, list(HEADERS), stream=EventStream(site, who, source))


def _read_after(request: Request, streams: list[str]) -> dict[str, Cursor]:
    texts = request.fields.get("after", [])
    last = request.headers.get("last-event-id")
    try:
        if last:
            return wire.read_composite(last, streams)
        if len(texts) == 1 and "~" in texts[0]:
            return wire.read_composite(texts[0], streams)
        if texts and len(texts) != len(streams):
            raise ValueError("as many as feeds")
        return {stream: Cursor.parse(text) for stream, text in zip(streams, texts, strict=False) if text}
    except ValueError:
        raise Problem(
            "malformed", "`after` must be the composite cursor of these feeds, or given once for each feed"
        ) from None


def read_types(request: Request) -> frozenset[str] | None:
    """Return the event types that a stream is narrowed to, `None` for all.

    Raises:
        Problem: `malformed`.
    """
    text = request.field("types")
    if text is None:
        return None
    types = text.split(",")
    if len(types) > TYPES_MAX or not all(name.isascii() and name.isalnum() for name in types):
        raise Problem("malformed", f"`types` must be up to {TYPES_MAX} event types with commas between them")
    return frozenset(types)
