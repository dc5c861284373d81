"""Routes of plugins: `Route("POST", "/accounts", create)`; a `{name}` in a path takes one part of it.

They come after Onda's own, so a plugin cannot take a path away. A handler gets the site, the request and the
parts by name, and answers as Onda's own handlers do: errors it raises become problems.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from engine.errors import ConfigError
from web.messages import Problem, Request, Response, allow

Handler = Callable[..., Awaitable[Response]]


class Route(NamedTuple):
    """Which method of which path `handle` answers: `await handle(site, request, **parts)`."""

    method: str
    path: str
    handle: Handler


class Routes:
    """The routes of all plugins of a site."""

    def __init__(self, routes: Sequence[Route] = ()) -> None:
        self._paths: dict[tuple[str, ...], dict[str, Handler]] = {}
        for route in routes:
            if not isinstance(route, Route) or not route.path.startswith("/"):
                raise ConfigError(f"plugins: not a Route with a path from / on: {route!r}")
            handlers = self._paths.setdefault(tuple(route.path.split("/")[1:]), {})
            if route.method in handlers:
                raise ConfigError(f"plugins: two routes for {route.method} {route.path}")
            handlers[route.method] = route.handle

    def find(self, request: Request) -> tuple[dict[str, Handler], dict[str, str]]:
        """Return the handlers of a request's path by method, and its parts by name.

        Raises:
            Problem: `not_found`.
        """
        segments = request.segments()
        for pattern, handlers in self._paths.items():
            parts = _match(pattern, segments)
            if parts is not None:
                return handlers, parts
        raise Problem("not_found", "there is nothing at this path")

    async def answer(self, site: object, request: Request) -> Response:
        """Answer a request that is none of Onda's own.

        Raises:
            Problem: `not_found`, `method_not_allowed`, and what the handler raises.
        """
        handlers, parts = self.find(request)
        methods = [*handlers, *(["HEAD"] if "GET" in handlers else [])]
        if done := allow(request, *methods):
            return done
        method = "GET" if request.method == "HEAD" and "HEAD" not in handlers else request.method
        return await handlers[method](site, request, **parts)


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    parts = {}
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted.startswith("{") and wanted.endswith("}"):
            parts[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return parts
