"""The records of a topic's partitions, by offset: out of the ring, else out of history and log.

A record leaves the log only when the history has it (or when there is no history), so between ring, history
and log every record is found that is still kept anywhere. Some are kept decoded, for all groups together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from engine.domain.topic import Published
from engine.errors import CursorUnusable, Unavailable
from engine.feed import UNKNOWN, Feed
from engine.partition import Partition

if TYPE_CHECKING:  # SQLAlchemy takes its time to load
    from engine.history import History
    from engine.history.database import Database

KEPT_MAX = 4096
"""Records of one partition that are kept decoded."""
KEPT_BYTES_MAX = 64 << 20
"""Data of records that are kept decoded, of all partitions; beyond that all of them are let go."""
STREAMS_MAX = 256
READ_MAX = 500
_ATTEMPTS = 5

T = TypeVar("T")


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One record of a partition. `at_ms`: when it was accepted."""

    offset: int
    event_id: str
    key: str | None
    type: str
    time: str | None
    at_ms: int
    data: msgspec.Raw


class Gone(Exception):
    """Records up to the offset `upto` are kept nowhere."""

    def __init__(self, upto: int) -> None:
        super().__init__(f"records up to {upto} are gone")
        self.upto = upto


class _Envelope(msgspec.Struct, gc=False):
    version: int
    data: Published


_decode = msgspec.json.Decoder(_Envelope).decode


class Host(Protocol):
    """Where records are."""

    feeds: MutableMapping[str, Feed]

    def partition_of(self, stream: str) -> Partition: ...

    @property
    def history(self) -> History | None: ...

    async def examine(self, stream: str, look: Callable[[Any, int], T]) -> T: ...


class Shelf:
    """Reads the partitions of one node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._kept: dict[str, dict[int, Stored]] = {}
        self.kept_bytes = 0

    async def head(self, stream: str) -> int:
        """Return the offset of a partition's last durable record."""
        return (await self._feed(stream)).head

    async def _feed(self, stream: str) -> Feed:
        feed = self._host.feeds.get(stream)
        if feed is None or feed.head == UNKNOWN:
            await self._host.examine(stream, lambda state, version: None)
            feed = self._host.feeds[stream]
        return feed

    async def read(self, stream: str, after: int, limit: int) -> list[Stored]:
        """Return up to `limit` records after an offset, without a hole; `[]` when there are none.

        Raises:
            Gone: the first of them is kept nowhere any more.
            Unavailable: the history does not answer.
        """
        feed = await self._feed(stream)
        kept = self._kept.setdefault(stream, {})
        found: list[Stored] = []
        while len(found) < limit and after < feed.head:
            record = kept.get(after + 1)
            if record is None:
                for one in await self._fetch(stream, feed, after, limit - len(found)):
                    self._keep(kept, one)
                record = kept[after + 1]
            found.append(record)
            after += 1
        self._tidy(kept)
        return found

    def _keep(self, kept: dict[int, Stored], record: Stored) -> None:
        if record.offset not in kept:
            kept[record.offset] = record
            self.kept_bytes += len(memoryview(record.data))

    def _tidy(self, kept: dict[int, Stored]) -> None:
        if len(kept) > KEPT_MAX:
            for offset in list(islice(kept, len(kept) - KEPT_MAX // 2)):
                self.kept_bytes -= len(memoryview(kept.pop(offset).data))
        if len(self._kept) > STREAMS_MAX or self.kept_bytes > KEPT_BYTES_MAX:
            for one in self._kept.values():  # emptied, as readers may hold them
                one.clear()
            self._kept.clear()
            self.kept_bytes = 0

    async def _fetch(self, stream: str, feed: Feed, after: int, limit: int) -> list[Stored]:
        """Return at least the record that follows `after`."""
        if after >= feed.low:
            return [_stored(frame.body) for frame in feed.after(after, limit)]
        for _ in range(_ATTEMPTS):
            try:
                found = await self._fetch_old(stream, after, READ_MAX)  # looking is dear: take some more
            except CursorUnusable:  # the log was trimmed meanwhile, behind the history
                continue
            if found:
                return found
            return [_stored(frame.body) for frame in feed.after(after, limit)]
        raise Unavailable("the log moves on too fast to read old records; try again")

    async def _fetch_old(self, stream: str, after: int, limit: int) -> list[Stored]:
        history, partition = self._host.history, self._host.partition_of(stream)
        log = partition.log
        position = log.first - 1
        if history is not None:  # taken before the question: what is later is in the log
            position = max(position, history.position_of(partition))
            found = _onward(after, map(_stored, await history.query(_question(stream, after, limit))))
            if found:
                return found
        entries: dict[int, Stored] = {}
        for start in (position, log.first - 1):  # from the front when the history passed it over
            await self._scan(stream, start, after, limit, entries)
            if found := _onward(after, entries.values()):
                return found
            if start == log.first - 1:
                break
        later = [offset for offset in entries if offset > after]
        low = self._host.feeds[stream].low
        raise Gone(min([*later, low + 1]) - 1)

    async def _scan(
        self, stream: str, position: int, after: int, limit: int, entries: dict[int, Stored]
    ) -> None:
        while chunk := await self._host.partition_of(stream).log.read(position, 4 << 20):
            position = chunk[-1][0]
            for _, entry in chunk:
                if entry.stream == stream and entry.version > after:
                    entries[entry.version] = _stored(entry.body)
                    if len(entries) >= limit:
                        return


def _question(stream: str, after: int, limit: int) -> Callable[[Database], list[bytes]]:
    def ask(database: Database) -> list[bytes]:
        from engine.history.reading import read_events  # here, as SQLAlchemy takes its time to load

        with database.connect() as connection:
            return read_events(connection, stream, after=after, limit=limit).bodies

    return ask


def _stored(body: bytes) -> Stored:
    envelope = _decode(body)
    event = envelope.data
    data = msgspec.Raw(bytes(event.data))  # a copy: the rest of the envelope may go
    return Stored(envelope.version, event.event_id, event.key, event.type, event.time, event.at_ms, data)


def _onward(after: int, records: Iterable[Stored]) -> list[Stored]:
    """Return the records that follow `after` without a hole."""
    found: list[Stored] = []
    for record in records:
        if record.offset != after + 1 + len(found):
            break
        found.append(record)
    return found
