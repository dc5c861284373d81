"""Sync: one call that answers with a snapshot, or with every event after a cursor, if need be by waiting."""

from __future__ import annotations

import re

import trio

from engine import Cursor, Frame, Snapshot, Subscription
from engine.errors import Lagging, Stopping
from web.messages import Problem, Request, Response, json_response
from web.site import FeedPath, Site
from web.tokens import Identity

WAIT_S_MAX = 30
LIMIT_MAX = 1000
LIMIT = 500
"""Events in one answer when the request does not say."""

_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z", re.ASCII)


async def sync(site: Site, who: Identity, feed: FeedPath, request: Request) -> Response:
    """Answer one GET: with a snapshot, a delta, or a snapshot that says why it is one (`reset`).

    Raises:
        Problem: `malformed`: a parameter that cannot be read.
    """
    after = read_cursor("after", request.field("after"))
    wait_s = _read_number("wait", request.field("wait"), 0, 0, WAIT_S_MAX)
    limit = int(_read_number("limit", request.field("limit"), LIMIT, 1, LIMIT_MAX, whole=True))
    if after is None:
        snapshot = await site.node.read(feed.stream, seen=_read_seen(request))
        return _conditional(request, snapshot.cursor, _snapshot_body(feed, snapshot))
    if who.expires_ms is not None:
        wait_s = min(wait_s, max(0.0, (who.expires_ms - site.node.clock.now_ms()) / 1000))
    with await site.node.subscribe(feed.stream, after=after) as subscription:
        if subscription.snapshot is not None:
            body = _snapshot_body(feed, subscription.snapshot, subscription.reset)
            return _conditional(request, subscription.snapshot.cursor, body)
        try:
            frames = await _take(subscription, limit, wait_s)
        except Lagging:  # a fence went past the cursor while we waited
            snapshot = await site.node.read(feed.stream)
            return _conditional(request, snapshot.cursor, _snapshot_body(feed, snapshot, "expired"))
        site.gate.check(who)
        cursor = str(subscription.cursor)
        more = subscription.behind > 0
    body = b'{"feed":"%s","mode":"delta","cursor":"%s","events":[%s],"more":%s}' % (
        feed.stream.encode(),
        cursor.encode(),
        b",".join([frame.body for frame in frames]),
        b"true" if more else b"false",
    )
    return _conditional(request, cursor, body)


async def _take(subscription: Subscription, limit: int, wait_s: float) -> list[Frame]:
    """Return what there is, or what comes within the wait; a node that stops ends the wait early."""
    try:
        frames = subscription.take(limit)
        if not frames and wait_s > 0:
            with trio.move_on_after(wait_s):
                await subscription.wait()
            frames = subscription.take(limit)
    except Stopping:
        return []
    return frames


def _snapshot_body(feed: FeedPath, snapshot: Snapshot, reset: str | None = None) -> bytes:
    tail = b',"reset":{"reason":"%s"}}' % reset.encode() if reset else b"}"
    head = b'{"feed":"%s","mode":"snapshot","cursor":"%s","state":' % (
        feed.stream.encode(),
        snapshot.cursor.encode(),
    )
    return head + snapshot.state + tail


def _conditional(request: Request, cursor: str, body: bytes) -> Response:
    """Return the answer, or 304 when the client has this cursor's already."""
    headers = [("etag", f'"{cursor}"'), ("cache-control", "private, no-cache")]
    tags = _tags(request)
    if "*" in tags or f'"{cursor}"' in tags:
        return Response(304, headers)
    return json_response(body, 200, headers)


def _tags(request: Request) -> set[str]:
    known = request.headers.get("if-none-match", "")
    return {tag.strip().removeprefix("W/") for tag in known.split(",")} if known else set()


def _read_seen(request: Request) -> Cursor | None:
    """Return the newest cursor that the client has an answer of: no older one may follow."""
    seen: Cursor | None = None
    for tag in _tags(request):
        try:
            cursor = Cursor.parse(tag.strip('"'))
        except ValueError:  # `*`, or a tag that is not ours
            continue
        if seen is None or cursor.version > seen.version:
            seen = cursor
    return seen


def read_cursor(name: str, text: str | None) -> Cursor | None:
    """Return a cursor, `None` when none was given.

    Raises:
        Problem: `malformed`.
    """
    if text is None:
        return None
    try:
        return Cursor.parse(text)
    except ValueError:
        raise Problem("malformed", f"`{name}` is not a cursor") from None


def _read_number(
    name: str, text: str | None, default: float, low: float, high: float, *, whole: bool = False
) -> float:
    if text is None:
        return default
    kind = "a whole number" if whole else "a number"
    if not _NUMBER.match(text) or (whole and "." in text) or not low <= float(text) <= high:
        raise Problem("malformed", f"`{name}` must be {kind} from {low} to {high}")
    return float(text)
