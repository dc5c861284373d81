"""Looking back: a stream's events out of the history, and the end-of-day report of a shop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from engine.domain.times import to_ms, to_text
from engine.errors import ConfigError
from web.messages import Problem, Request, Response, allow, json_response
from web.rights import may_read
from web.site import KINDS, FeedPath, Site, make_feed, parse_feed

if TYPE_CHECKING:
    from engine.history import History
    from engine.history.database import Database
    from engine.history.reading import Page
    from engine.history.report import Report

LIMIT = 100
LIMIT_MAX = 1000
VERSION_MAX = 1 << 62
TYPE_CHARS_MAX = 64

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_NO_STORE = [("cache-control", "no-store")]


async def history(site: Site, request: Request, rest: list[str]) -> Response:
    """Answer `/v1/history/{stream}`.

    Raises:
        Problem: `history_off`, `malformed`, `forbidden`, `not_found`.
        DatabaseDown: the database does not answer.
    """
    if done := allow(request, "GET", "HEAD"):
        return done
    who = site.gate.identify(request)
    feed = _parse_stream(rest)
    if feed is None:
        raise Problem("not_found", "name a stream: store:s1, table:s1/3 or user:u1")
    if who.role == "table" or not may_read(who, feed.kind, feed.ids):
        raise Problem("forbidden", f"the token is not for the history of {feed.path}")
    keeper = _keeper(site)
    after = _read_count(request, "after", 0, VERSION_MAX)
    limit = _read_count(request, "limit", LIMIT, LIMIT_MAX, low=1)
    start, end, type_ = _read_time(request, "from"), _read_time(request, "to"), _read_type(request)

    def ask(database: Database) -> Page:
        from engine.history.reading import read_events  # here, as SQLAlchemy takes its time to load

        with database.connect() as connection:
            return read_events(
                connection, feed.stream, after=after, start=start, end=end, type_=type_, limit=limit
            )

    page = await keeper.query(ask)
    events = [msgspec.Raw(body) for body in page.bodies]
    body = {"stream": feed.stream, "events": events, "next": page.next, "lag": keeper.lag}
    return json_response(msgspec.json.encode(body), 200, _NO_STORE)


async def report(site: Site, request: Request, feed: FeedPath) -> Response:
    """Answer `/v1/stores/{store}/report`.

    Raises:
        Problem: `history_off`, `malformed`, `forbidden`, `unknown_store`.
        DatabaseDown: the database does not answer.
    """
    if done := allow(request, "GET", "HEAD"):
        return done
    who = site.gate.identify(request)
    if who.role not in ("owner", "service") or not may_read(who, feed.kind, feed.ids):
        raise Problem("forbidden", "the report is for the shop's owner")
    if not await site.node.exists(feed.stream):
        raise Problem("unknown_store", f"nobody has made the store {feed.ids[0]}")
    keeper, config = _keeper(site), site.config
    from engine.history.report import day_bounds, day_of, make_report

    day = request.field("day")
    if day is None:
        day = day_of(site.node.clock.now_ms(), config.timezone, config.day_starts_at)
    try:
        day_bounds(day, config.timezone, config.day_starts_at)
    except ConfigError as error:
        raise Problem("malformed", f"`day`: {error.detail}") from None

    def ask(database: Database) -> Report:
        with database.connect() as connection:
            return make_report(connection, feed.ids[0], day, config.timezone, config.day_starts_at)

    told = msgspec.to_builtins(await keeper.query(ask)) | {"lag": keeper.lag}
    return json_response(msgspec.json.encode(told), 200, _NO_STORE)


def _keeper(site: Site) -> History:
    if site.node.history is None:
        raise Problem("history_off", "this server keeps no history: see the setting db")
    return site.node.history


def _parse_stream(rest: list[str]) -> FeedPath | None:
    """Return the stream of `store:s1`, `table:s1/3`, also with its slash as part of the path, or of
    `stores/s1`.
    """
    if feed := parse_feed(rest):
        return feed
    kind, _, name = "/".join(rest).partition(":")
    ids = tuple(name.split("/"))
    return make_feed(kind, ids) if (kind, len(ids)) in KINDS.values() else None


def _read_time(request: Request, name: str) -> str | None:
    text = request.field(name)
    if text is None:
        return None
    text = text.upper().replace(" ", "+")  # a plus that nobody escaped
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)
        return to_text(to_ms(text))
    except (ValueError, OverflowError):
        raise Problem("malformed", f"`{name}` must be a time as 2026-11-20T18:15:30Z") from None


def _read_type(request: Request) -> str | None:
    text = request.field("type")
    if text is not None and not (text.isascii() and text.isalnum() and len(text) <= TYPE_CHARS_MAX):
        raise Problem("malformed", "`type` must be a type of event as OrderPlaced")
    return text


def _read_count(request: Request, name: str, default: int, high: int, *, low: int = 0) -> int:
    text = request.field(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
        raise Problem("malformed", f"`{name}` must be a whole number from {low} to {high}")
    return int(text)
