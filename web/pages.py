"""The pages for people: links at `/`, the board, tables, customers, the return from paying, and operators.

They are plain files; everything on them comes over the API, with the token of the tab that shows them. So
the same bytes go to everyone, nothing is filled in here, and a content security policy can forbid all but
our own files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from quart import Response, request
from quart_trio import QuartTrio

from web.assets import Assets
from web.site import Site

FOLDER = Path(__file__).with_name("pages")

ROUTES = {
    "/": "home.html",
    "/board/<store>": "board.html",
    "/t/<store>/<table>": "table.html",
    "/u/<user>": "user.html",
    "/pay/<store>/<payment>": "pay.html",
    "/progress": "progress.html",
    "/ops": "ops.html",
}

HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def add_pages(app: QuartTrio, site: Site) -> None:
    """Add a route for each page. `site` is not asked: what a page may show its token decides."""
    files = Assets(FOLDER)
    for rule, name in ROUTES.items():
        app.add_url_rule(rule, f"page {name}", _page(files, name), methods=["GET"])


def _page(files: Assets, name: str) -> Callable[..., Awaitable[Response]]:
    async def page(**ids: str) -> Response:
        content, tag = await trio.to_thread.run_sync(files.load, name)
        headers = HEADERS | {"etag": f'"{tag}"'}
        if f'"{tag}"' in request.headers.get("if-none-match", ""):
            given = Response(b"", 304, headers)
            given.headers.pop("content-length", None)
            return given
        return Response(content, 200, headers, content_type="text/html; charset=utf-8")

    return page
