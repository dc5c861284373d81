"""Server-sent events to bytes (WHATWG HTML §9.2), and the text of cursors over several feeds. Pure.

A block is made of lines and ends with an empty one. Whatever is inside a value can never end a line: `data`
is split on all three newlines that clients know (LF, CR, CRLF), ids and event names with one of them, or with
NUL, are an error.

A composite cursor is `<feeds>~<cursor>~<cursor>…`: one cursor for each feed, in the order of their names,
shortened to its version where the epoch is that of the one before it, and to `<n>.<version>` where it is
the one that was written as the n-th (from 0; partitions of a shared log have one each). `<feeds>` tells one
set of feeds from another, so that a cursor is never taken for another feed's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from engine.records import Cursor

_NEWLINE = re.compile(rb"\r\n|\n|\r")
_UNSAFE = re.compile(r"[\r\n\0]")

RETRY_MS = {
    "rotate": (100, 1_000),
    "shutdown": (500, 3_000),
    "lagging": (250, 1_500),
    "unauthorized": (5_000, 10_000),
    "redis": (500, 3_000),
}
"""Reason of a `bye` -> bounds of the random time after which clients are asked to come back, in ms."""


def field(name: str, value: str) -> bytes:
    """Return one line of a block.

    Raises:
        ValueError: the value would end the line, or clients ignore it (NUL).
    """
    if _UNSAFE.search(value):
        raise ValueError(f"{name} holds a newline or NUL")
    return f"{name}: {value}\n".encode()


def data_lines(data: bytes) -> bytes:
    """Return the `data` lines for a value; clients join them with LF."""
    if b"\n" not in data and b"\r" not in data:
        return b"data: " + data + b"\n"
    return b"".join(b"data: " + line + b"\n" for line in _NEWLINE.split(data))


def block(data: bytes, *, event: str = "", id: str = "", retry_ms: int | None = None) -> bytes:
    """Return one message; without `event` it reaches a browser's `onmessage`."""
    head = field("event", event) if event else b""
    if id:
        head += field("id", id)
    if retry_ms is not None:
        head += b"retry: %d\n" % retry_ms
    return head + data_lines(data) + b"\n"


def id_block(id: str) -> bytes:
    """Return a block that moves a client's cursor and fires no event."""
    return field("id", id) + b"\n"


def frame_block(id: bytes, body: bytes) -> bytes:
    """Return the block of one envelope; the id is made by us, so it needs no check."""
    if b"\n" in body or b"\r" in body:
        return b"id: " + id + b"\n" + data_lines(body) + b"\n"
    return b"id: " + id + b"\ndata: " + body + b"\n\n"


def bye_block(reason: str) -> bytes:
    """Return the last block before the server ends a stream, with a random time to come back after."""
    retry_ms = pick_retry_ms(reason)
    data = b'{"reason":"%s","retry_ms":%d}' % (reason.encode(), retry_ms)
    return block(data, event="bye", retry_ms=retry_ms)


def pick_retry_ms(reason: str) -> int:
    """Return a random time within the bounds for a reason, so that clients do not come back all at once."""
    return random.randint(*RETRY_MS[reason])


def standing(writable: bool) -> str:
    """Return the field of a ping that says that no commands are taken; nothing while they are."""
    return "" if writable else ',"writable":false'


def feeds_mark(streams: Iterable[str]) -> str:
    """Return what names a set of feeds within a composite cursor, whatever their order."""
    return blake2b("\n".join(sorted(streams)).encode(), digest_size=6).hexdigest()


def write_composite(mark: str, cursors: Sequence[Cursor]) -> str:
    """Return the text for cursors that stand in the order of their streams' names."""
    parts = [mark]
    epochs: dict[str, int] = {}
    epoch = None
    for cursor in cursors:
        if cursor.epoch == epoch:
            parts.append(str(cursor.version))
        elif cursor.epoch in epochs:
            parts.append(f"{epochs[cursor.epoch]}.{cursor.version}")
        else:
            epochs[cursor.epoch] = len(epochs)
            parts.append(str(cursor))
        epoch = cursor.epoch
    return "~".join(parts)


def read_composite(text: str, streams: Iterable[str]) -> dict[str, Cursor]:
    """Return each stream's cursor.

    Raises:
        ValueError: not a composite cursor, or one of other feeds.
    """
    names = sorted(streams)
    mark, *parts = text.split("~")
    if mark != feeds_mark(names) or len(parts) != len(names):
        raise ValueError("not a cursor of these feeds")
    cursors: dict[str, Cursor] = {}
    epochs: list[str] = []
    epoch = ""
    for name, part in zip(names, parts, strict=True):
        if "-" not in part:
            number, dot, version = part.rpartition(".")
            if dot and not (number.isdecimal() and int(number) < len(epochs)):
                raise ValueError("not a cursor of these feeds")
            part = f"{epochs[int(number)] if dot else epoch}-{version}"
        elif (written := part.partition("-")[0]) not in epochs:
            epochs.append(written)
        cursor = cursors[name] = Cursor.parse(part)
        epoch = cursor.epoch
    return cursors
