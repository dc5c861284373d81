"""The last records of the whole log, in its order, for those who follow every stream.

Actors report what they committed as soon as they know, which need not be in the order of the log: what comes
early waits until the gap before it is filled. The tail is bounded; whoever falls out of it reads the log
instead, and the log is polled as a net, so a report that never comes delays a record but cannot lose it.

Most readers want a few types of event out of all. Such a reader has a `Watch`: it sleeps while others come,
and yet its place moves on with every record that is not for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from engine.mailbox import Committed
from engine.waiting import Bell

RECORDS_MAX = 8192


class Watch:
    """One reader's place, and the records of its types that it has not taken yet.

    `records` are those of its types after `gap` (after its place when there is no gap). A gap: those between
    `position` and `gap` are in the log only.
    """

    __slots__ = ("_place", "_tail", "bell", "gap", "records", "types")

    def __init__(self, tail: Tail, types: frozenset[str], position: int) -> None:
        self._tail = tail
        self._place = position
        self.types = types
        self.gap = tail.high if position < tail.high else None
        self.records: list[Committed] = []
        self.bell = Bell()

    @property
    def position(self) -> int:
        """Everything of its types up to here was taken."""
        if self.gap is not None:
            return self._place
        return self.records[0].position - 1 if self.records else max(self._place, self._tail.high)

    def note(self, record: Committed) -> None:
        """Keep a record of its types, or leave all that were kept to the log, when they are too many."""
        self.records.append(record)
        if len(self.records) > RECORDS_MAX:
            self.leave(record.position)
        self.bell.ring()

    def leave(self, position: int) -> None:
        """Everything that was not taken and is not after `position` has to be read from the log."""
        self._place = self.position
        self.gap = position
        self.records.clear()

    def take(self, limit: int) -> list[Committed]:
        """Return the next records of its types, `limit` at most. There must be no gap."""
        taken = self.records[:limit]
        del self.records[:limit]
        if taken:
            self._place = taken[-1].position
        return taken

    def took(self, position: int) -> None:
        """Everything up to `position`, at most the gap's end, was taken from the log."""
        self._place = position
        if position == self.gap:
            self.gap = None


class Tail:
    """Records `low + 1 … high`, all known to be durable."""

    def __init__(self, position: int, records_max: int = RECORDS_MAX) -> None:
        self.low = position
        self.high = position
        self._records: list[Committed] = []
        self._skip = 0
        self._early: dict[int, Sequence[Committed]] = {}
        self._records_max = records_max
        self._changed: trio.Event | None = None
        self._watches: list[Watch] = []
        self._watched: dict[type, list[Watch]] = {}

    def watch(self, types: frozenset[str], position: int) -> Watch:
        """Return a place at `position` for a reader of those types of event (names of classes)."""
        watch = Watch(self, types, position)
        self._watches.append(watch)
        self._watched.clear()
        return watch

    def add(self, records: Sequence[Committed]) -> None:
        """Take over the records of one append, which stand next to each other in the log."""
        if records[0].position <= self.high:
            return  # given up on before, and read from the log by those who need it
        self._early[records[0].position] = records
        while (ready := self._early.pop(self.high + 1, None)) is not None:
            self._records.extend(ready)
            self.high = ready[-1].position
            for record in ready:
                for watch in self._watching(type(record.event)):
                    watch.note(record)
        if len(self._early) > self._records_max:  # a report got lost: start again behind everything seen
            self.restart(max(batch[-1].position for batch in self._early.values()))
        self._drop_old()
        self._wake()

    def restart(self, position: int) -> None:
        """Go on after `position`: there is a report that may never come. What lies before is read from the
        log.
        """
        if position > self.high:
            for watch in self._watches:
                watch.leave(position)
                watch.bell.ring()
            self.high = self.low = position
            self._early = {first: batch for first, batch in self._early.items() if first > position}
            self._records.clear()
            self._skip = 0
            self._wake()

    def _watching(self, kind: type) -> list[Watch]:
        watching = self._watched.get(kind)
        if watching is None:
            name = kind.__name__
            watching = self._watched[kind] = [watch for watch in self._watches if name in watch.types]
        return watching

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _drop_old(self) -> None:
        surplus = self.high - self.low - self._records_max
        if surplus > 0:
            self._skip += surplus
            self.low += surplus
            if self._skip > self._records_max:
                del self._records[: self._skip]
                self._skip = 0

    def after(self, position: int, limit: int) -> list[Committed] | None:
        """Return up to `limit` records after `position`; `None` when the tail no longer holds them."""
        if position < self.low:
            return None
        start = self._skip + position - self.low
        return self._records[start : start + limit]

    async def wait_beyond(self, position: int, timeout_s: float) -> None:
        """Sleep until there is a record after `position`, at most `timeout_s`."""
        with trio.move_on_after(timeout_s):
            while self.high <= position:
                if self._changed is None:
                    self._changed = trio.Event()
                await self._changed.wait()
