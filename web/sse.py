"""Server-sent events from bytes to messages (WHATWG HTML §9.2), incremental and pure.

The parser keeps the rules that are commonly broken: one leading BOM goes; lines end in LF, CR or CRLF, and
a CRLF may straddle two chunks; no other character ends a line (U+2028 is data); UTF-8 is decoded by whole
lines, so a chunk may end inside a character; exactly one space after the colon goes; an id with NUL is
ignored and an empty one clears; a block with an id and no data moves the cursor without a message; `retry`
is ASCII digits only; what is unterminated when the stream ends was never a message.

A line or a message beyond its bound is an error: what the other side sends never decides how much memory this
takes.
"""

from __future__ import annotations

from typing import NamedTuple

EVENT_BYTES_MAX = 16 << 20
"""Bound of one line, and of one message's data, in bytes: a snapshot of some 16,000 orders fits."""

_BOM = b"\xef\xbb\xbf"


class Message(NamedTuple):
    """A block with data. `event` is `message` when the block named none; `id` is the last one seen so far."""

    event: str
    data: str
    id: str


class Moved(NamedTuple):
    """A block that only set the id: nothing to show, but this is where to resume."""

    id: str


class Retry(NamedTuple):
    """How long the server wants clients to wait before they connect again, in ms."""

    ms: int


Item = Message | Moved | Retry


class TooLarge(ValueError):
    """The server sent a line or a message beyond the bound."""


class Parser:
    """Turns the bytes of one response into items; make a new one for each response.

    Args:
        bytes_max: bound of a line, and of the data of one message.
        last_id: the id to start from, as a browser keeps it over reconnects.
    """

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX, last_id: str = "") -> None:
        self._bytes_max = bytes_max
        self._head: bytes | None = b""  # the first bytes until we know whether they are a BOM, then None
        self._line = bytearray()  # of the line that has not ended yet
        self._after_cr = False  # the last chunk ended in CR: an LF that comes next belongs to it
        self._id = last_id
        self._moved = False
        self._event = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[Item]:
        """Take more bytes, return what they complete. However the bytes are cut, the items are the same.

        Raises:
            TooLarge: a line or message beyond the bound; this parser is of no more use.
        """
        if self._head is not None:
            chunk = self._head + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._head = chunk
                return []
            self._head = None
            chunk = chunk.removeprefix(_BOM)
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = chunk.split(b"\n")
        items: list[Item] = []
        for line in ended:
            if self._line:
                self._line += line
                line = bytes(self._line)
                self._line.clear()
            self._check(len(line))
            self._take(line, items)
        self._line += rest
        self._check(len(self._line))
        return items

    @property
    def unfinished(self) -> bool:
        """A line or a block has begun and not ended."""
        return bool(self._line or self._data)

    def _check(self, size: int) -> None:
        if size > self._bytes_max:
            raise TooLarge(f"more than {self._bytes_max} bytes in one line or message")

    def _take(self, line: bytes, items: list[Item]) -> None:
        if not line:
            self._end_block(items)
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._data_bytes += len(value) + 1
                self._check(self._data_bytes - 1)
                self._data.append(value)
            case b"id":
                if b"\0" not in value:
                    self._id = _text(value)
                    self._moved = True
            case b"event":
                self._event = _text(value)
            case b"retry":
                if value.isdigit():  # of bytes: ASCII digits only
                    items.append(Retry(int(value[:15])))
            case _:
                pass  # comments (an empty field name) and fields that nobody defined

    def _end_block(self, items: list[Item]) -> None:
        if self._data:
            items.append(Message(self._event or "message", _text(b"\n".join(self._data)), self._id))
        elif self._moved:
            items.append(Moved(self._id))
        self._moved = False
        self._event = ""
        self._data.clear()
        self._data_bytes = 0


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
