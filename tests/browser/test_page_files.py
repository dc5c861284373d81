"""The pages as files over HTTP: who gets them, under which policy, and how a browser keeps them."""

from __future__ import annotations

import httpx
import pytest


@pytest.fixture(scope="module")
def http(shop):
    with httpx.Client(base_url=shop.url) as client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/board/demo",
        "/t/demo/3",
        "/u/kim",
        "/progress",
        "/ops",
        "/pay/s1/p1?ref=x",
        "/board/nobody-made-this",
    ],
)
def test_pages_need_no_token_and_hold_nothing(http, path):
    """The file is the same for everyone: what it shows comes over the API, with a token."""
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "demo" not in answer.text


def test_the_policy_allows_our_own_files_only(http):
    """No inline code, no other host, no frame around it."""
    headers = http.get("/board/demo").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    for what in ("script-src", "style-src", "connect-src", "img-src"):
        assert policy[what] == "'self'"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"


def test_a_kept_copy_is_asked_about(http):
    """A browser asks each time, so an update is there at once, and gets 304 if there is none."""
    first = http.get("/t/demo/1")
    assert first.headers["cache-control"] == "no-cache"
    again = http.get("/t/demo/1", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert http.head("/t/demo/1").status_code == 200


def test_modules_are_served_as_javascript(http):
    """A module with another type is not run."""
    for name in ("onda.js", "board.js", "onda/feed.js", "ui/dom.js"):
        answer = http.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/javascript")
    assert http.get("/static/icons.svg").headers["content-type"] == "image/svg+xml"
    assert http.get("/static/../cli.py").status_code == 404


def test_other_methods_and_addresses_are_refused(http):
    """A page is for reading, at its own address."""
    assert http.post("/board/demo").status_code in {404, 405}
    assert http.get("/board").status_code == 404
    assert http.get("/board/demo/more").status_code == 404
