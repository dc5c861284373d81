"""The log from a position on: out of the tail while that reaches back far enough, else from disk."""

from __future__ import annotations

from typing import Protocol

import trio

from engine.codec import StoredEnvelope, decode_envelope, decode_event
from engine.log import Log
from engine.mailbox import Committed
from engine.records import Entry
from engine.tail import Tail, Watch

SWEEP_S = 5.0
"""How often the log itself is looked at, as a net under the tail (the outbox sweep)."""


class Host(Protocol):
    """Where the records are."""

    tail: Tail

    @property
    def log(self) -> Log: ...


async def read_onward(host: Host, after: int, limit: int) -> list[Committed]:
    """Wait for records after a position and return them, in order: `limit` at most out of the tail, about a
    megabyte from disk, `[]` when a while went by without any.

    Raises:
        CursorUnusable: they are not there any more.
    """
    tail, log = host.tail, host.log
    records = tail.after(after, limit)
    if records:
        await trio.lowlevel.checkpoint()
        return records
    if records is not None:
        await tail.wait_beyond(after, SWEEP_S)
        records = tail.after(after, limit)
        if records or log.head <= after:
            return records or []
    return [to_committed(position, entry) for position, entry in await log.read(after)]


async def read_watched(log: Log, watch: Watch, limit: int) -> list[Committed]:
    """Wait for records of a watch's types and take them, in order: `limit` at most out of the tail, those of
    about a megabyte from disk, perhaps `[]`.

    Raises:
        CursorUnusable: they are not there any more.
    """
    if watch.gap is None:
        if not watch.records:
            await watch.bell.wait()
        if watch.gap is None:
            return watch.take(limit)
    gap = watch.gap
    entries = [(at, entry) for at, entry in await log.read(watch.position) if at <= gap]
    watch.took(entries[-1][0] if entries else gap)
    found = [(at, entry, decode_envelope(entry.body)) for at, entry in entries]
    return [_committed(*record) for record in found if record[2].type in watch.types]


async def watch_over(log: Log, tail: Tail) -> None:
    """Look now and then whether the tail waits for a report that does not come, for ever."""
    seen = 0
    while True:
        if seen == tail.high < log.head:
            tail.restart(log.head)
        seen = tail.high
        await trio.sleep(SWEEP_S)


def to_committed(position: int, entry: Entry) -> Committed:
    """Read a record back from the log's bytes.

    Raises:
        KeyError: no such event: a newer version wrote it.
        DecodeError: nor is it one of ours.
    """
    return _committed(position, entry, decode_envelope(entry.body))


def _committed(position: int, entry: Entry, envelope: StoredEnvelope) -> Committed:
    event = decode_event(entry.stream.partition(":")[0], envelope.type, envelope.data)
    return Committed(position, entry.stream, entry.version, envelope.id, event, entry.body)
