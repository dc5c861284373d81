"""Questions to the history about one stream's events."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select

from engine.history import tables

BYTES_MAX = 4 << 20
"""Envelopes in one answer; at least one is given whatever its size."""


class Page(NamedTuple):
    """Some events, oldest first; `next` is the version to go on after, `None` at the end."""

    bodies: list[bytes]
    next: int | None


def read_events(
    connection: Connection,
    stream: str,
    *,
    after: int = 0,
    start: str | None = None,
    end: str | None = None,
    type_: str | None = None,
    limit: int = 100,
) -> Page:
    """Return a stream's events with versions beyond `after`, from `start` on and before `end` (times as in
    envelopes), of one type.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    events = tables.events.c
    query = select(events.version, events.body).where(events.stream == stream, events.version > after)
    if type_ is not None:
        query = query.where(events.type == type_)
    if start is not None:
        query = query.where(events.time >= start)
    if end is not None:
        query = query.where(events.time < end)
    bodies: list[bytes] = []
    size, last = 0, after
    for version, body in connection.execute(query.order_by(events.version).limit(limit + 1)):
        if len(bodies) == limit or (bodies and size + len(body) > BYTES_MAX):
            return Page(bodies, last)
        bodies.append(body.encode())
        size += len(body)
        last = version
    return Page(bodies, None)
