"""A request's head: what is well formed, what it says, and where it says that the body ends.

Pure. One pattern decides whether a head is well formed; llhttp (httptools) then takes its fields apart, with
its own verdict. It gets them behind a request line of ours, since it knows a fixed list of methods only.
What is refused beside what the standard forbids: any second Content-Length, any transfer coding but a single
`chunked`, and empty lines before a request.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from web.messages import BODY_BYTES_MAX, TARGET_BYTES_MAX

CHUNKED = -1
"""A body's length that only its chunks tell."""

HEAD_BYTES_MAX = 32 * 1024
"""Bytes of a request's first line and headers, with the empty line after them."""

HEADERS_MAX = 100

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_TARGET = rb"[\x21-\x7e\x80-\xff]"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
_LINE = rb"(%b) (%b++) HTTP/([0-9]\.[0-9])\r\n" % (_TOKEN, _TARGET)
_HEAD = re.compile(_LINE + rb"((?:%b:%b\r\n)*+\r\n)" % (_TOKEN, _VALUE))
_FIRST_LINE = re.compile(_LINE)
_FIRST_LINE_BEGUN = re.compile(rb"%b(?: (?:%b++(?: [HTP/0-9.]{0,8}\r?)?)?)?" % (_TOKEN, _TARGET))
_NEVER = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_EXPECT = re.compile(rb"(?i:\r\nexpect:[^\r]*)")
_HOST = re.compile(r"[0-9A-Za-z._~!$&'()*+,;=:%\[\]-]*")
_AUTHORITY = re.compile(_HOST.pattern + ":[0-9]{1,5}")
_LENGTH = re.compile(r"[0-9]{1,20}", re.ASCII)
_ABSOLUTE = re.compile(r"https?://[^/?#]", re.IGNORECASE)
_RAW = re.compile(rb"[\x80-\xff]")

_OUR_LINE = b"GET / HTTP/1.1\r\n"


class Limits(NamedTuple):
    """What a request may have. All are bytes but `headers`."""

    head_bytes: int = HEAD_BYTES_MAX
    headers: int = HEADERS_MAX
    target_bytes: int = TARGET_BYTES_MAX
    """Path and query together, without the question mark, as the handlers count."""
    body_bytes: int = BODY_BYTES_MAX


class Refused(Exception):
    """Bytes that are no request, or none that we take; nothing after them can be read.

    Args:
        code: `malformed` (400), `too_large` (413), `uri_too_long` (414), `headers_too_large` (431),
            `not_implemented` (501) or `http_version` (505).
        detail: one sentence for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Message:
    """One request, whole.

    Args:
        method: in capitals.
        target: as in the request line, in ASCII: other bytes are percent-encoded.
        path: the target's path, still percent-encoded; begins with `/`. `/` for `*` and for `host:port`.
        query: what is behind the target's first question mark.
        headers: by lower-case name; several of one name are joined with `, `.
        minor: 1 for HTTP/1.1, 0 for HTTP/1.0.
        body: without its transfer coding.
        raw: the bytes as they came, without the lines of `Expect`: who gets them has the body already.
        keep_alive: the client wants to go on with the connection. In HTTP/1.0 only when it says so.
        upgrade: the client would go on in another protocol (`Upgrade`, and `Connection: upgrade`).
    """

    __slots__ = (
        "body",
        "headers",
        "keep_alive",
        "method",
        "minor",
        "path",
        "query",
        "raw",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        method: str,
        target: str,
        path: str,
        query: str,
        headers: dict[str, str],
        minor: int,
        keep_alive: bool,
        upgrade: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.headers = headers
        self.minor = minor
        self.keep_alive = keep_alive
        self.upgrade = upgrade
        self.body = b""
        self.raw = b""


def read_head(head: bytes, limits: Limits) -> tuple[Message, int]:
    """Return the request without its body, and the body's length in bytes, or `CHUNKED`.

    Args:
        head: the first line, the headers and the empty line, no more.
        limits: `head_bytes` has been seen to.

    Raises:
        Refused: it is not a head that we take.
    """
    found = _HEAD.fullmatch(head)
    if found is None:
        _check_line(_FIRST_LINE.match(head))
        raise Refused("malformed", "a header line is malformed")
    method, raw_target, version, fields = found.groups()
    minor = 1 if version == b"1.1" else 0
    if not minor:
        _check_version(version)
    target, path, query = _read_target(method, raw_target, limits)
    if head.count(b"\n") > limits.headers + 2:
        raise Refused("headers_too_large", f"a request may have {limits.headers} headers")
    headers = _read_fields(fields)
    _check_host(headers, minor)
    length = _read_length(headers, minor, limits)
    keep_alive, upgrade = minor == 1, False
    if "connection" in headers:
        said = tokens(headers["connection"])
        keep_alive = "close" not in said and (keep_alive or "keep-alive" in said)
        upgrade = minor == 1 and "upgrade" in said and bool(headers.get("upgrade"))
    capitals = method.decode("ascii").upper()
    return Message(capitals, target, path, query, headers, minor, keep_alive, upgrade), length


def check_begun(begun: bytes, checked: int, limits: Limits) -> None:
    """Refuse at once what cannot become a good head, rather than wait for its end.

    What is refused does not depend on how the bytes were cut: first the line, then what may stand nowhere
    in a head, then the size.

    Args:
        begun: what has come of a head, or the first `head_bytes` of one that is too long.
        checked: so many bytes of it were checked before.

    Raises:
        Refused: it is no head, or too long.
    """
    has_line = b"\r\n" in begun
    if has_line:
        _check_line(_FIRST_LINE.match(begun))
    elif not _FIRST_LINE_BEGUN.fullmatch(begun):
        raise Refused("malformed", "the request line is malformed")
    if _NEVER.search(begun, max(0, checked - 1)):
        raise Refused("malformed", "a line end or control character where none may be")
    if len(begun) == limits.head_bytes:
        if not has_line:
            raise Refused("uri_too_long", "the request line does not end")
        raise Refused("headers_too_large", f"a head may have {limits.head_bytes} bytes")


def without_expect(head: bytes) -> bytes:
    """Return a head without its lines of `Expect`."""
    return _EXPECT.sub(b"", head)


def tokens(value: str) -> list[str]:
    """Return the parts of a comma-separated header, in small letters."""
    return [token.strip(" \t") for token in value.lower().split(",")]


def _read_target(method: bytes, raw: bytes, limits: Limits) -> tuple[str, str, str]:
    """Return target, path and query."""
    if not raw.isascii():
        raw = _RAW.sub(lambda match: b"%%%02X" % match[0][0], raw)
    target = raw.decode("ascii")
    path, _, query = target.partition("?")
    if path[:1] != "/":
        if not (
            _ABSOLUTE.match(target)
            or (method == b"CONNECT" and _AUTHORITY.fullmatch(target))
            or (method == b"OPTIONS" and target == "*")
        ):
            raise Refused("malformed", "the target has to be a path or an http address")
        path = "/" + path.partition("://")[2].partition("/")[2]
    if len(path) + len(query) > limits.target_bytes:
        raise Refused("uri_too_long", f"path and query may have {limits.target_bytes} bytes")
    return target, path, query


def _read_length(headers: dict[str, str], minor: int, limits: Limits) -> int:
    """Return the body's length as the head gives it."""
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        _check_coding(coding)
        if length is not None:  # llhttp says so too; nothing may hang on its version
            raise Refused("malformed", "Content-Length and Transfer-Encoding exclude each other")
        if minor == 0:
            raise Refused("malformed", "HTTP/1.0 has no Transfer-Encoding")
        headers["transfer-encoding"] = "chunked"
        return CHUNKED
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise Refused("malformed", "Content-Length has to be one number")
    if int(length) > limits.body_bytes:
        raise Refused("too_large", f"a body may have {limits.body_bytes} bytes")
    return int(length)


class _Fields:
    """What llhttp calls with each field of a head."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        name = raw_name.decode("ascii").lower()
        value = raw_value.decode("latin-1").rstrip(" \t")
        headers = self.headers
        headers[name] = f"{headers[name]}, {value}" if name in headers else value


def _read_fields(lines: bytes) -> dict[str, str]:
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(_OUR_LINE + lines)
    except httptools.HttpParserUpgrade:
        return fields.headers  # it only says that it would read no further
    except httptools.HttpParserError as error:
        raise Refused("malformed", f"the headers are malformed: {error}") from None
    return fields.headers


def _check_coding(coding: str) -> None:
    if coding.lower() == "chunked":
        return
    codings = tokens(coding)
    if codings[-1] == "chunked" and codings.count("chunked") == 1:
        raise Refused("not_implemented", "the only transfer coding is chunked")
    raise Refused("malformed", "a body's last transfer coding, and only that, has to be chunked")


def _check_line(found: re.Match[bytes] | None) -> None:
    if found is None:
        raise Refused("malformed", "the request line is malformed")
    _check_version(found[3])


def _check_version(version: bytes) -> None:
    if version not in (b"1.1", b"1.0"):
        raise Refused("http_version", "the versions are HTTP/1.1 and HTTP/1.0")


def _check_host(headers: dict[str, str], minor: int) -> None:
    host = headers.get("host")
    if host is None:
        if minor:
            raise Refused("malformed", "there is no Host")
    elif not _HOST.fullmatch(host):  # also two of them, joined by a comma and a space
        raise Refused("malformed", "there has to be one Host, a name or an address")
