"""Answers as HTTP/1.1 bytes, exactly as they leave by way of Quart, Hypercorn and h11.

The order of the headers is theirs: the answer's own, its length, what every answer carries, the date, and
last how the connection or the body ends.
"""

from __future__ import annotations

import time
from email.utils import formatdate

from web.messages import Response

SAFETY = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-frame-options": "DENY"}
"""Headers of every answer; tokens stand in addresses, so no address may go to another site."""

CONTINUE = b"HTTP/1.1 100 \r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_CLOSE = b"Connection: close\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_SAFETY = "".join(f"{name}: {value}\r\n" for name, value in SAFETY.items())
_NO_LENGTH = (204, 304)

_tail_s = 0
_tail = b""


def _tail_now() -> bytes:
    """Return the headers of every answer with the date, made once a second."""
    global _tail, _tail_s
    now_s = int(time.time())
    if now_s != _tail_s:
        _tail_s = now_s
        _tail = f"{_SAFETY}date: {formatdate(now_s, usegmt=True)}\r\n".encode()
    return _tail


def head(response: Response, *, close: bool = False) -> bytes:
    """Return the head of an answer whose body is sent whole, or, with a stream, in chunks.

    Raises:
        ValueError: a header has a line end in it.
    """
    lines = [f"HTTP/1.1 {response.status} \r\n"]
    own_length = False
    for name, value in response.headers:
        lines.append(f"{name}: {value}\r\n")
        own_length = own_length or name == "content-length"
    if response.stream is None and not own_length and response.status not in _NO_LENGTH:
        lines.append(f"content-length: {len(response.body)}\r\n")
    text = "".join(lines)
    if not text.count("\n") == text.count("\r") == len(lines):
        raise ValueError("a header has a line end in it")
    end = _CLOSE if close else b"\r\n"
    if response.stream is not None:
        end = _CHUNKED if not close else b"Transfer-Encoding: chunked\r\n" + _CLOSE
    return b"%b%b%b" % (text.encode(), _tail_now(), end)


def whole(response: Response, *, close: bool = False, bodiless: bool = False) -> bytes:
    """Return an answer; `bodiless` when the request was HEAD."""
    if bodiless or response.status in _NO_LENGTH:
        return head(response, close=close)
    return head(response, close=close) + response.body


def chunk(data: bytes) -> bytes:
    """Return one chunk of a body that goes on."""
    return b"%x\r\n%b\r\n" % (len(data), data)
