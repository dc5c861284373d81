"""Routes of plugins: `Route("POST", "/accounts", create)`; a `{name}` in a path takes one part of it.

They come after Onda's own, so a plugin cannot take a path away. A part that a name takes is an id, as the
names of streams are made of (1-64 of `A-Z a-z 0-9 _ . -`); a literal part goes before a name. A handler gets
the site, the request and the parts by name, and answers as Onda's own handlers do: errors it raises become
problems.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from engine.errors import ConfigError
from engine.records import ID
from web.messages import Problem, Request, Response, allow

Handler = Callable[..., Awaitable[Response]]

_METHOD = re.compile(r"[A-Z]+\Z")


class Route(NamedTuple):
    """Which method of which path `handle` answers: `await handle(site, request, **parts)`."""

    method: str
    path: str
    handle: Handler


class Found(NamedTuple):
    """A route that fits a request's path, and the path's parts by name."""

    handle: Handler
    parts: dict[str, str]


class Routes:
    """The routes of all plugins of a site."""

    def __init__(self, routes: Sequence[Route] = ()) -> None:
        self._routes: dict[tuple[str, tuple[str, ...]], tuple[tuple[str, ...], Handler]] = {}
        for route in routes:
            if not isinstance(route, Route) or not route.path.startswith("/"):
                raise ConfigError(f"plugins: not a Route with a path from / on: {route!r}")
            if not _METHOD.match(route.method):
                raise ConfigError(f"plugins: the method of {route.path} must be in capitals: {route.method}")
            pattern = tuple(route.path.split("/")[1:])
            shape = (route.method, tuple("{}" if _is_name(part) else part for part in pattern))
            if shape in self._routes:
                raise ConfigError(f"plugins: two routes for {route.method} {route.path}")
            self._routes[shape] = (pattern, route.handle)
        self._in_order = sorted(self._routes.items(), key=lambda item: [part == "{}" for part in item[0][1]])

    def find(self, request: Request) -> dict[str, Found]:
        """Return what answers a request's path, by method.

        Raises:
            Problem: `not_found`.
        """
        segments = request.segments()
        found: dict[str, Found] = {}
        for (method, _), (pattern, handle) in self._in_order:
            parts = _match(pattern, segments)
            if parts is not None:
                found.setdefault(method, Found(handle, parts))
        if not found:
            raise Problem("not_found", "there is nothing at this path")
        return found

    async def answer(self, site: object, request: Request) -> Response:
        """Answer a request that is none of Onda's own.

        Raises:
            Problem: `not_found`, `method_not_allowed`, and what the handler raises.
        """
        found = self.find(request)
        methods = [*found, *(["HEAD"] if "GET" in found and "HEAD" not in found else [])]
        if done := allow(request, *methods):
            return done
        one = found["GET" if request.method == "HEAD" and "HEAD" not in found else request.method]
        return await one.handle(site, request, **one.parts)


def read_object(request: Request) -> dict[str, Any]:
    """Return a request's body, a JSON object.

    Never put a body into other JSON as it came: a comma and a quote in it would be fields beside it.

    Raises:
        Problem: `malformed`.
    """
    try:
        return msgspec.json.decode(request.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("malformed", f"the body must be a JSON object: {error}") from None


def _is_name(part: str) -> bool:
    return part.startswith("{") and part.endswith("}")


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    parts = {}
    for wanted, given in zip(pattern, segments, strict=True):
        if _is_name(wanted):
            if not ID.match(given):
                return None
            parts[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return parts
