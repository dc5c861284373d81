"""Every route of the API, from a request to its answer, and which error has which status.

Sole owner of HTTP status codes for errors. Errors go out as `application/problem+json` (RFC 9457).
"""

from __future__ import annotations

import msgspec
import structlog

from engine.errors import OndaError, Rejected, Unavailable
from web import (
    commands,
    customers,
    hints,
    history,
    ops,
    progress,
    reading,
    reference,
    streaming,
    topics,
    user_events,
)
from web.messages import (
    BODY_BYTES_MAX,
    TARGET_BYTES_MAX,
    Headers,
    Problem,
    Request,
    Response,
    allow,
    json_response,
)
from web.outcomes import Refusal
from web.site import FeedPath, Site, check_feed, parse_feed

STATUS = {
    "malformed": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "unknown_command": 404,
    "unknown_store": 404,
    "unknown_topic": 404,
    "unknown_task": 404,
    "history_off": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "conflict": 409,
    "too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "idempotency_mismatch": 422,
    "upgrade_required": 426,
    "too_many_requests": 429,
    "headers_too_large": 431,
    "internal": 500,
    "not_implemented": 501,
    "history_unavailable": 503,
    "log_unavailable": 503,
    "overloaded": 503,
    "read_only": 503,
    "unavailable": 503,
    "unknown_outcome": 504,
    "http_version": 505,
}
"""Code of an error -> status. Refusals by the domain are 422 but for `_FROM_DOMAIN`; other codes are 500."""

_FROM_DOMAIN = frozenset({"conflict", "forbidden", "unknown_store"})
"""Codes with which the domain's refusals are not 422."""

_READ = ("GET", "HEAD")
_log = structlog.get_logger("onda.web")


async def respond(site: Site, request: Request) -> Response:
    """Answer a request; errors become problems, and a fault in the server is a 500 without its trace."""
    try:
        response = await _route(site, request)
    except (Problem, Refusal, OndaError) as error:
        response = problem(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, this request alone must fail
        _log.error("request failed", method=request.method, path=request.path, exc_info=error)
        response = problem_response("internal", "A fault in the server.", [])
    site.responses[response.status] += 1
    return response


def problem(error: Problem | Refusal | OndaError) -> Response:
    """Return the answer to an error."""
    headers: Headers = []
    code = error.code
    if isinstance(error, Problem):
        headers = error.headers
    elif isinstance(error, Refusal) and error.replayed:
        headers = [("idempotent-replayed", "true")]
    elif isinstance(error, Unavailable):
        headers = [("retry-after", str(error.retry_after_s))]
    if isinstance(error, Refusal) or (isinstance(error, Rejected) and code not in _FROM_DOMAIN):
        return problem_response(code, error.detail, headers, 422)
    return problem_response(code, error.detail, headers)


def problem_response(code: str, detail: str, headers: Headers, status: int | None = None) -> Response:
    """Return a problem as an answer; the status follows from the code unless it is given."""
    status = status or STATUS.get(code, 500)
    body = {
        "type": f"urn:onda:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
    }
    shown = [("content-type", "application/problem+json"), ("cache-control", "no-store"), *headers]
    return Response(status, shown, msgspec.json.encode(body))


async def _route(site: Site, request: Request) -> Response:
    if len(request.path) + len(request.query) > TARGET_BYTES_MAX:
        raise Problem("uri_too_long", f"path and query may have {TARGET_BYTES_MAX} bytes")
    if len(request.body) > BODY_BYTES_MAX:
        raise Problem("too_large", f"a body may have {BODY_BYTES_MAX} bytes")
    match request.segments():
        case ["v1", "stream"]:
            if done := allow(request, *_READ):
                return done
            return await streaming.stream_many(site, site.gate.identify(request), request)
        case ["v1", "ws"]:
            if done := allow(request, "GET"):
                return done
            raise Problem("upgrade_required", "this is a WebSocket", [("upgrade", "websocket")])
        case ["v1", "payments", "methods"]:
            if done := allow(request, *_READ):
                return done
            site.gate.identify(request)
            return json_response(msgspec.json.encode({"methods": site.node.methods}))
        case ["v1", "payments", provider, "webhook", *rest]:
            return await hints.hint(site, request, provider, rest)
        case ["v1", "history", *rest]:
            return await history.history(site, request, rest)
        case ["v1", "ops", *rest]:
            return await ops.operate(site, request, rest)
        case ["v1", "topics", *rest]:
            return await topics.topics(site, request, rest)
        case ["v1", "customers", *rest]:
            return await customers.customers(site, request, rest)
        case ["v1", *parts, last] if feed := parse_feed(parts):
            return await _feed(site, request, feed, last)
        case ["api", "v2", "progress", *rest]:
            return await progress.progress(site, request, rest)
        case ["events", *rest] | ["api", "events", *rest]:
            return await user_events.events(site, request, rest)
        case ["healthz" | "readyz" | "metrics" as page]:
            return allow(request, *_READ) or ops.watch(site, request, page)
        case ["openapi.json"]:
            return allow(request, *_READ) or reference.openapi(request)
        case ["docs"]:
            return allow(request, *_READ) or reference.page(request)
        case _:
            return await site.routes.answer(site, request)


async def _feed(site: Site, request: Request, feed: FeedPath, last: str) -> Response:
    if last in ("sync", "stream"):
        if done := allow(request, *_READ):
            return done
        who = site.gate.identify(request)
        await check_feed(site, who, feed)
        handle = reading.sync if last == "sync" else streaming.stream
        return await handle(site, who, feed, request)
    if last == "report" and feed.kind == "store":
        return await history.report(site, request, feed)
    if commands.find_command(feed.kind, last) is None:
        raise Problem("unknown_command", f"{feed.kind} has no command {last[:64]}")
    if done := allow(request, "POST"):
        return done
    return await commands.command(site, site.gate.identify(request), feed, last, request)
