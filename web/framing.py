"""Bytes of an HTTP/1.1 connection into requests. Pure: no socket, no clock, no task.

Strict, because what stands before or behind us may read the same bytes: where two readers could see two
different ends of a request, there is no request. Whatever is accepted here, h11 (under Hypercorn) accepts as
well, with the same method, target, headers, body and end; the fuzz tests hold that. `web/heads.py` reads
heads; here are the buffer, the order of things, and bodies. Chunk extensions and trailers are refused.

Offsets are relative to the beginning of the request that is being read, so that the buffer can move.
"""

from __future__ import annotations

import re
from typing import Literal

from web.heads import (
    CHUNKED,
    HEAD_BYTES_MAX,
    Limits,
    Message,
    Refused,
    check_begun,
    read_head,
    tokens,
    without_expect,
)

__all__ = ["HEAD_BYTES_MAX", "Framer", "Limits", "Message", "Refused"]

WIRE_PER_BODY = 2
"""A chunked body may take up so many times the largest body on the wire; sizes and line ends count."""

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,16}|[0-9A-Fa-f]{1,16}\r")
_SIZE_BYTES_MAX = 18


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
        self._pending: Message | None = None
        self._searched_to = 0
        self._body_at = 0
        self._length = 0
        self._chunks_to = 0
        self._decoded = bytearray()

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
        if pending is None or pending.minor == 0 or "expect" not in pending.headers:
            return False
        if len(self._buffer) > self._at + self._body_at:
            return False
        return "100-continue" in tokens(pending.headers["expect"])

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
        end = self._read_chunks(body_at) if self._length == CHUNKED else body_at + self._length
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
        self._pending = None
        self._searched_to = 0
        self._decoded = bytearray()
        return rest

    def _finish(self, message: Message, body_at: int, end: int) -> None:
        message.raw = bytes(self._buffer[self._at : end])
        if self._length == CHUNKED:
            message.body = bytes(self._decoded)
            self._decoded = bytearray()
        elif self._length:
            message.body = bytes(self._buffer[body_at:end])
        if "expect" in message.headers:
            message.raw = without_expect(message.raw[: self._body_at]) + message.raw[self._body_at :]
        if end == len(self._buffer):
            self._buffer = b""
            end = 0
        self._at = end
        self._pending = None
        self._searched_to = 0

    def _read_head(self) -> Message | None:
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\r\n\r\n", at + max(0, self._searched_to - 3)) + 4
        if end < 4 or end - at > self._limits.head_bytes:
            check_begun(bytes(buffer[at : at + self._limits.head_bytes]), self._searched_to, self._limits)
            self._searched_to = len(buffer) - at
            return None
        message, self._length = read_head(bytes(buffer[at:end]), self._limits)
        self._body_at = end - at
        if self._length == CHUNKED:
            self._decoded = bytearray()
            self._chunks_to = self._body_at
        return message

    def _read_chunks(self, body_at: int) -> int:
        """Decode the chunks that are whole; return where the body ends, or -1 when more bytes are needed."""
        buffer, decoded = self._buffer, self._decoded
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
