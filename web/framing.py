"""Bytes of an HTTP/1.1 connection into requests. Pure: no socket, no clock, no task.

Strict, because what stands before or behind us may read the same bytes: where two readers could see two
different ends of a request, there is no request. Whatever is accepted here, h11 (under Hypercorn) accepts as
well, with the same method, target, headers, body and end; the fuzz tests hold that. Refused beside what the
standard forbids: any second Content-Length, any transfer coding but a single `chunked`, chunk extensions,
trailers, and empty lines before a request.

One pattern decides whether a head is well formed; llhttp (httptools) then takes its fields apart, with its
own verdict. It gets them behind a request line of ours, since it knows a fixed list of methods only.
Offsets are relative to the beginning of the request that is being read, so that the buffer can move.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import httptools

from web.messages import BODY_BYTES_MAX, TARGET_BYTES_MAX

HEAD_BYTES_MAX = 32 * 1024
"""Bytes of a request's first line and headers, with the empty line after them."""

HEADERS_MAX = 100

WIRE_PER_BODY = 2
"""A chunked body may take up so many times the largest body on the wire; sizes and line ends count."""

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
_LENGTH = re.compile(r"[0-9]{1,20}", re.ASCII)
_ABSOLUTE = re.compile(r"https?://[^/]", re.IGNORECASE)
_RAW = re.compile(rb"[\x80-\xff]")

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,16}|[0-9A-Fa-f]{1,16}\r")
_SIZE_BYTES_MAX = 18

_OUR_LINE = b"GET / HTTP/1.1\r\n"
_CHUNKED = -1


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


class Framer:
    """Cuts what one client sends into requests. After `Refused` every further `next` raises it again."""

    __slots__ = (
        "_at",
        "_body_at",
        "_buffer",
        "_chunks_to",
        "_decoded",
        "_length",
        "_limits",
        "_pending",
        "_searched_to",
    )

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - immutable
        self._limits = limits
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._begin()

    def _begin(self) -> None:
        self._pending: Message | None = None
        self._searched_to = 0
        self._body_at = 0
        self._length = 0
        self._chunks_to = 0
        self._decoded: bytearray | None = None

    @property
    def state(self) -> Literal["idle", "head", "body"]:
        """Where the bytes end: between requests, in a head, or in a body."""
        if self._pending is not None:
            return "body"
        return "idle" if self._at == len(self._buffer) else "head"

    @property
    def wants_continue(self) -> bool:
        """The client waits for `100 Continue`: its head is good, and nothing of its body has come."""
        pending = self._pending
        if pending is None or "expect" not in pending.headers:
            return False
        if len(self._buffer) > self._at + self._body_at:
            return False
        return "100-continue" in _tokens(pending.headers["expect"])

    def feed(self, data: bytes) -> None:
        """Take what has come from the client."""
        if not data:
            return
        if self._at == len(self._buffer):
            self._buffer = data
            self._at = 0
            return
        if self._at or isinstance(self._buffer, bytes):
            self._buffer = bytearray(self._buffer[self._at :])
            self._at = 0
        self._buffer += data

    def next(self) -> Message | None:
        """Return the next request; None when more bytes are needed.

        Raises:
            Refused: the bytes are no request that is taken here. The connection is to be closed.
        """
        message = self._pending
        if message is None:
            message = self._read_head() if self._at < len(self._buffer) else None
            if message is None:
                return None
        body_at = self._at + self._body_at
        end = self._read_chunks(body_at) if self._length == _CHUNKED else body_at + self._length
        if end < 0 or end > len(self._buffer):
            self._pending = message
            return None
        self._finish(message, body_at, end)
        return message

    def rest(self) -> bytes:
        """Return what belongs to no request yet, and forget it: the connection is somebody else's now."""
        rest = bytes(self._buffer[self._at :])
        self._buffer = b""
        self._at = 0
        self._begin()
        return rest

    def _finish(self, message: Message, body_at: int, end: int) -> None:
        message.raw = bytes(self._buffer[self._at : end])
        if end > body_at:
            decoded = self._decoded
            message.body = bytes(self._buffer[body_at:end] if decoded is None else decoded)
        if "expect" in message.headers:
            message.raw = _EXPECT.sub(b"", message.raw[: self._body_at]) + message.raw[self._body_at :]
        if end == len(self._buffer):
            self._buffer = b""
            end = 0
        self._at = end
        self._begin()

    def _read_head(self) -> Message | None:
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\r\n\r\n", max(at, at + self._searched_to - 3)) + 4
        if end < 4 or end - at > self._limits.head_bytes:
            self._check_begun()
            return None
        head = bytes(buffer[at:end])
        found = _HEAD.fullmatch(head)
        if found is None:
            _check_line(_FIRST_LINE.match(head))
            raise Refused("malformed", "a header line is malformed")
        method, raw_target, version, fields = found.groups()
        _check_version(version)
        target, path, query = self._read_target(method, raw_target)
        if head.count(b"\n") > self._limits.headers + 2:
            raise Refused("headers_too_large", f"a request may have {self._limits.headers} headers")
        headers = _read_fields(fields)
        modern = version == b"1.1"
        _check_host(headers, modern)
        self._body_at = end - at
        self._length = self._read_length(headers, modern)
        keep_alive, upgrade = modern, False
        if "connection" in headers:
            said = _tokens(headers["connection"])
            keep_alive = "close" not in said and (modern or "keep-alive" in said)
            upgrade = modern and "upgrade" in said and bool(headers.get("upgrade"))
        capitals = method.decode("ascii").upper()
        return Message(capitals, target, path, query, headers, int(modern), keep_alive, upgrade)

    def _check_begun(self) -> None:
        """Refuse at once a head that cannot become a good one, rather than wait for its end.

        What is refused does not depend on how the bytes were cut: first the line, then what may stand nowhere
        in a head, then the size.
        """
        buffer, at = self._buffer, self._at
        end = min(len(buffer), at + self._limits.head_bytes)
        has_line = buffer.find(b"\r\n", at, end) >= 0
        if has_line:
            _check_line(_FIRST_LINE.match(buffer, at))
        elif not _FIRST_LINE_BEGUN.fullmatch(buffer, at, end):
            raise Refused("malformed", "the request line is malformed")
        if _NEVER.search(buffer, max(at, at + self._searched_to - 1), end):
            raise Refused("malformed", "a line end or control character where none may be")
        if end == at + self._limits.head_bytes:
            if not has_line:
                raise Refused("uri_too_long", "the request line does not end")
            raise Refused("headers_too_large", f"a head may have {self._limits.head_bytes} bytes")
        self._searched_to = end - at

    def _read_target(self, method: bytes, raw: bytes) -> tuple[str, str, str]:
        """Return target, path and query."""
        if not raw.isascii():
            raw = _RAW.sub(lambda match: b"%%%02X" % match[0][0], raw)
        target = raw.decode("ascii")
        path, _, query = target.partition("?")
        if path[:1] != "/":
            if not (_ABSOLUTE.match(target) or method == b"CONNECT" or (method, raw) == (b"OPTIONS", b"*")):
                raise Refused("malformed", "the target has to be a path or an http address")
            path = "/" + path.partition("://")[2].partition("/")[2]
        if len(path) + len(query) > self._limits.target_bytes:
            raise Refused("uri_too_long", f"path and query may have {self._limits.target_bytes} bytes")
        return target, path, query

    def _read_length(self, headers: dict[str, str], modern: bool) -> int:
        """Return the body's length as the head gives it."""
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is not None:
            _check_coding(headers)
            if length is not None:
                raise Refused("malformed", "Content-Length and Transfer-Encoding exclude each other")
            if not modern:
                raise Refused("malformed", "HTTP/1.0 has no Transfer-Encoding")
            headers["transfer-encoding"] = "chunked"
            self._decoded = bytearray()
            self._chunks_to = self._body_at
            return _CHUNKED
        if length is None:
            return 0
        if not _LENGTH.fullmatch(length):
            raise Refused("malformed", "Content-Length has to be one number")
        if int(length) > self._limits.body_bytes:
            raise Refused("too_large", f"a body may have {self._limits.body_bytes} bytes")
        return int(length)

    def _read_chunks(self, body_at: int) -> int:
        """Decode the chunks that are whole; return where the body ends, or -1 when more bytes are needed."""
        buffer, decoded = self._buffer, self._decoded
        assert decoded is not None
        room = self._limits.body_bytes
        while True:
            at = self._at + self._chunks_to
            found = _SIZE.match(buffer, at)
            if found is None:
                if not _SIZE_BEGUN.fullmatch(buffer, at, at + _SIZE_BYTES_MAX):
                    raise Refused("malformed", "a chunk's size is malformed (extensions are not taken)")
                return -1
            size = int(found[1], 16)
            end = found.end() + size
            if size > room - len(decoded) or end - body_at > WIRE_PER_BODY * room + _SIZE_BYTES_MAX:
                raise Refused("too_large", f"a body may have {room} bytes")
            line_end = bytes(buffer[end : end + 2])
            if line_end != b"\r\n":
                if b"\r\n".startswith(line_end):
                    return -1
                raise Refused("malformed", "a chunk does not end where it should (trailers are not taken)")
            if not size:
                return end + 2
            decoded += buffer[found.end() : end]
            self._chunks_to = end + 2 - self._at


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
        _check_coding(fields.headers)
        raise Refused("malformed", f"the headers are malformed: {error}") from None
    return fields.headers


def _check_coding(headers: dict[str, str]) -> None:
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise Refused("not_implemented", "the only transfer coding is chunked")


def _check_line(found: re.Match[bytes] | None) -> None:
    if found is None:
        raise Refused("malformed", "the request line is malformed")
    _check_version(found[3])


def _check_version(version: bytes) -> None:
    if version not in (b"1.1", b"1.0"):
        raise Refused("http_version", "the versions are HTTP/1.1 and HTTP/1.0")


def _check_host(headers: dict[str, str], modern: bool) -> None:
    host = headers.get("host")
    if host is None:
        if modern:
            raise Refused("malformed", "there is no Host")
    elif not _HOST.fullmatch(host):  # also two of them, joined by a comma and a space
        raise Refused("malformed", "there has to be one Host, a name or an address")


def _tokens(value: str) -> list[str]:
    return [token.strip() for token in value.lower().split(",")]
