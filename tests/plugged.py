"""Kinds of stream from plugins belong to the whole process: here they are put away again after a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from engine import codec
from engine.domain import DOMAINS
from engine.records import KINDS

_TABLES = (
    DOMAINS,
    KINDS,
    codec._COMMANDS,
    codec._COMMAND_TYPES,
    codec._EVENTS,
    codec._COMMAND_DECODERS,
    codec._EVENT_DECODERS,
    codec._STATE_DECODERS,
)


@contextmanager
def only_here(forget: Sequence[str] = ()) -> Iterator[None]:
    """Forget kinds that come within the block at its end; those in `forget` are unknown within it."""
    kept = [dict(table) for table in _TABLES]
    for table in _TABLES:
        for kind in forget:
            table.pop(kind, None)
    try:
        yield
    finally:
        for table, before in zip(_TABLES, kept, strict=True):
            table.clear()
            table.update(before)
