"""The Quart app: turns ASGI requests into our own and our answers back; it decides nothing.

What Quart refuses by itself (a body that is too large, say) goes out as a problem like every other error.
What a stream holds is let go by the outermost layer, however the request ends.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from quart import Response as QuartResponse
from quart import request as quart_request
from quart import websocket as quart_websocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from web import assets
from web.conversation import Conversation
from web.handlers import problem, problem_response, respond
from web.http1 import SAFETY
from web.messages import BODY_BYTES_MAX, DETAILS, Problem, Request, Response, Stream
from web.site import Site

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_OPEN = "onda.stream"
_CODES = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "too_large", 414: "uri_too_long"}

ASGI = Callable[
    [dict[str, Any], Callable[..., Awaitable[Any]], Callable[..., Awaitable[None]]], Awaitable[None]
]


class _Body:
    """A stream as Quart iterates over it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        block = await self._stream.pull()
        if not block:
            raise StopAsyncIteration
        return block

    async def aclose(self) -> None:
        self._stream.close()


def make_app(site: Site) -> QuartTrio:
    """Assemble the app of one site."""
    app = QuartTrio("onda", static_folder=None)
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX
    app.config["BODY_TIMEOUT"] = site.config.body_timeout_s

    @app.route("/<path:path>", methods=METHODS, provide_automatic_options=False)
    async def api(path: str) -> QuartResponse:
        body = await quart_request.get_data(cache=False, as_text=False, parse_form_data=False)
        return _give(await respond(site, _take(site, quart_request, body)))

    @app.websocket("/v1/ws")
    async def socket() -> QuartResponse | None:
        return await _converse(site)

    @app.errorhandler(HTTPException)
    async def refused(error: HTTPException) -> QuartResponse:
        code = _CODES.get(error.code or 500, "internal" if (error.code or 500) >= 500 else "malformed")
        headers = [("allow", ", ".join(sorted(METHODS)))] if code == "method_not_allowed" else []
        detail = DETAILS.get(code) or error.description or code
        return _give(problem_response(code, detail, headers))

    @app.after_request
    async def guard(response: QuartResponse) -> QuartResponse:
        for name, value in SAFETY.items():
            response.headers.setdefault(name, value)
        return response

    assets.add_assets(app)
    pages = importlib.util.find_spec("web.pages")
    if pages is not None and pages.origin is not None:
        importlib.import_module("web.pages").add_pages(app, site)
    app.asgi_app = _closing(app.asgi_app)  # type: ignore[method-assign, assignment, arg-type]
    return app


def _take(site: Site, given: Any, body: bytes = b"", *, is_websocket: bool = False) -> Request:
    scope = given.scope
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path = scope["raw_path"].decode("ascii")
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    query = scope["query_string"].decode("ascii", "replace")
    peer, headers = site.proxies.look_through((scope.get("client") or ("",))[0], headers)
    return Request(scope.get("method", "GET"), path, query, headers, body, peer, is_websocket)


def _give(response: Response) -> QuartResponse:
    if response.stream is None:
        given = QuartResponse(response.body, response.status, dict(response.headers))
        if response.status in (204, 304):
            given.headers.pop("content-length", None)
        if "content-type" not in dict(response.headers):
            given.headers.pop("content-type", None)
        return given
    scope: Any = quart_request.scope
    scope[_OPEN] = response.stream
    given = QuartResponse(_Body(response.stream), response.status, dict(response.headers))
    given.timeout = None
    return given


def _closing(app: ASGI) -> ASGI:
    """Close a request's stream when the request is over, also when it was cancelled before the first byte."""

    async def call(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        try:
            await app(scope, receive, send)
        finally:
            stream = scope.get(_OPEN)
            if stream is not None:
                stream.close()

    return call


async def _converse(site: Site) -> QuartResponse | None:
    """Let a WebSocket in, or refuse it with a plain answer."""
    try:
        who = site.gate.identify(_take(site, quart_websocket, is_websocket=True))
    except Problem as error:
        return _give(problem(error))
    await quart_websocket.accept()
    code = await Conversation(site, who, _receive, quart_websocket.send).run()
    await quart_websocket.close(code)
    return None


async def _receive() -> str | bytes | None:
    """Wait for a message. Quart cancels us when the client goes, and hands out `None` for an empty one."""
    message: str | bytes | None = await quart_websocket.receive()
    return b"" if message is None else message
