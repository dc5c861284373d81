"""`/openapi.json`, and `/docs`: the same as a page that needs nothing from elsewhere."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from web.messages import Headers, Request, Response
from web.openapi import describe

_PAGE = Path(__file__).with_name("reference.html")


def openapi(request: Request) -> Response:
    """Answer with the description of the API."""
    return _answer(request, describe(), [("content-type", "application/json")])


def page(request: Request) -> Response:
    """Answer with the page that shows it."""
    text, policy = _load()
    return _answer(
        request, text, [("content-type", "text/html; charset=utf-8"), ("content-security-policy", policy)]
    )


@cache
def _load() -> tuple[bytes, str]:
    """Return the page, and a policy under which only its own script and style count."""
    text = _PAGE.read_bytes()
    hashes = [
        b64encode(sha256(match[2]).digest()).decode()
        for match in re.finditer(rb"<(script|style)>(.*?)</\1>", text, re.DOTALL)
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return text, f"default-src 'none'; connect-src 'self'; script-src {allowed}; style-src {allowed}"


def _answer(request: Request, body: bytes, headers: Headers) -> Response:
    tag = f'"{sha256(body).hexdigest()[:16]}"'
    headers = [*headers, ("etag", tag), ("cache-control", "no-cache")]
    if tag in request.headers.get("if-none-match", ""):
        return Response(304, headers)
    return Response(200, headers, body)
