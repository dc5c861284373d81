"""What crosses layers: stream names, cursors, and the entries that a log stores."""

from __future__ import annotations

import re
from typing import NamedTuple

ID_LENGTH_MAX = 64
ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")

CURSOR_LENGTH_MAX = 64
_CURSOR = re.compile(r"([A-Za-z0-9_.]{1,24})-(0|[1-9][0-9]{0,17})\Z")

KINDS = {"store": 1, "table": 2, "user": 1, "topic": 2, "group": 2, "visits": 1}
"""Kinds of stream, and of how many ids their name is made: `store:s1`, `table:s1/3`, `user:u1`,
`topic:<topic>/<partition>`, `group:<topic>/<group>`.
"""


class Cursor(NamedTuple):
    """A place in one stream: everything up to and with `version` has been seen.

    On the wire it is opaque text, today `<epoch>-<version>`.
    """

    epoch: str
    version: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.version}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor's text.

        Raises:
            ValueError: this is no cursor.
        """
        match = _CURSOR.match(text)
        if match is None:
            raise ValueError("not a cursor")
        return cls(match[1], int(match[2]))


class Entry(NamedTuple):
    """One record as a log stores it.

    `version` counts the stream's records from 1 without a hole. `body` is the envelope as it goes to clients
    (JSON); `meta` is what only the engine reads (the answer to the command; empty on most records).
    """

    stream: str
    version: int
    meta: bytes
    body: bytes


def stream_name(kind: str, *ids: str) -> str:
    """Return the name of a stream: `stream_name("table", "s1", "3") == "table:s1/3"`.

    Raises:
        ValueError: no such kind, or ids that are not 1–64 characters of `[A-Za-z0-9_.-]`.
    """
    if KINDS.get(kind) != len(ids) or not all(ID.match(part) for part in ids):
        raise ValueError(f"not a stream: {kind} {ids}")
    return f"{kind}:{'/'.join(ids)}"


def split_stream(stream: str) -> tuple[str, tuple[str, ...]]:
    """Return a stream's kind and ids: `("table", ("s1", "3"))`.

    Raises:
        ValueError: not the name of a stream.
    """
    kind, _, rest = stream.partition(":")
    ids = tuple(rest.split("/"))
    if stream_name(kind, *ids) != stream:
        raise ValueError(f"not a stream: {stream}")
    return kind, ids
