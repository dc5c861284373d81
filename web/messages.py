"""Requests and answers as plain values: what front ends turn their bytes into, and all that handlers know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import parse_qsl, unquote

BODY_BYTES_MAX = 1 << 20
"""Largest request body, in bytes; one more is 413 `too_large`."""

TARGET_BYTES_MAX = 8192
"""Largest path and query together, in bytes; one more is 414 `uri_too_long`."""

DETAILS = {
    "too_large": f"a body may have {BODY_BYTES_MAX} bytes",
    "timeout": "the body did not arrive in time",
}
"""What front ends say of requests whose body they turn down."""

QUERY_FIELDS_MAX = 128

Headers = list[tuple[str, str]]


class Problem(Exception):
    """A request that is turned down before the engine is asked.

    Args:
        code: stable, part of the wire contract; `handlers.STATUS` names its HTTP status.
        detail: one sentence for people that says what to do.
        headers: what the answer carries beside its body (`Allow`, `WWW-Authenticate` …).
    """

    def __init__(self, code: str, detail: str, headers: Headers | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or []


class Stream(Protocol):
    """A body that goes on: a front end calls `pull` until it returns `b""`, then `close`."""

    async def pull(self) -> bytes:
        """Wait for what is to be written next, in one write; `b""` is the end."""

    def close(self) -> None:
        """Let go of what the stream holds; a second call has no effect."""


class Request:
    """One request, its body read.

    Args:
        method: in capitals.
        path: as it came, still percent-encoded, without the query.
        query: the query string as it came, without the question mark.
        headers: by lower-case name; several of one name are joined with `, `.
        peer: address of the client, for logs and limits.
        websocket: this is a WebSocket's opening request.
    """

    __slots__ = ("_fields", "body", "headers", "method", "path", "peer", "query", "websocket")

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        peer: str = "",
        websocket: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers or {}
        self.body = body
        self.peer = peer
        self.websocket = websocket
        self._fields: dict[str, list[str]] | None = None

    @property
    def fields(self) -> dict[str, list[str]]:
        """The query's fields, each with its values in order.

        Raises:
            Problem: `malformed`: too many of them, or not UTF-8.
        """
        if self._fields is None:
            self._fields = {}
            if self.query:
                try:
                    pairs = parse_qsl(
                        self.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="strict"
                    )
                except ValueError as error:
                    raise Problem("malformed", f"the query cannot be read: {error}") from None
                for name, value in pairs:
                    self._fields.setdefault(name, []).append(value)
        return self._fields

    def field(self, name: str) -> str | None:
        """Return a query field that may be given once.

        Raises:
            Problem: `malformed`: it is there twice.
        """
        values = self.fields.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise Problem("malformed", f"`{name}` is given {len(values)} times")
        return values[0]

    def segments(self) -> list[str]:
        """Return the decoded parts of the path: `["v1", "stores", "s1", "sync"]`."""
        parts = self.path.split("/")[1:]
        return [unquote(part) for part in parts] if "%" in self.path else parts


class Response:
    """One answer; `stream` when the body goes on, else `body`."""

    __slots__ = ("body", "headers", "status", "stream")

    def __init__(
        self, status: int, headers: Headers | None = None, body: bytes = b"", stream: Stream | None = None
    ) -> None:
        self.status = status
        self.headers = headers if headers is not None else []
        self.body = body
        self.stream = stream


def json_response(body: bytes, status: int = 200, headers: Headers | None = None) -> Response:
    """Return an answer whose body is JSON already."""
    return Response(status, [("content-type", "application/json"), *(headers or [])], body)


def allow(request: Request, *methods: str) -> Response | None:
    """Let the methods pass; answer OPTIONS, which asks for them.

    Raises:
        Problem: `method_not_allowed`, with the methods in `Allow`.
    """
    if request.method in methods:
        return None
    header = ("allow", ", ".join((*methods, "OPTIONS")))
    if request.method == "OPTIONS":
        return Response(204, [header])
    raise Problem("method_not_allowed", f"use {' or '.join(methods)}", [header])
