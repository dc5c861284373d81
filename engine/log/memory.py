"""A log in memory: nothing survives. For embedding without a disk, and for tests; it checks what it is given.

Tests can `hold` it, so that appends wait as for a slow disk, fill it up (`set_writable`) and `fail` it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import outcome
import trio

from engine.errors import CursorUnusable, LogFailed, Overloaded, ReadOnly, UnknownOutcome
from engine.log.frames import entry_bytes
from engine.log.heads import Heads
from engine.records import Entry

QUEUE_ENTRIES_MAX = 65_536


class MemoryLog:
    """Keeps the contract of `engine.log.Log`, and keeps it strictly."""

    def __init__(self, epoch: str = "memory") -> None:
        self.epoch = epoch
        self.head = 0
        self.first = 1
        self.writable = True
        self._entries: list[Entry] = []
        self._bytes = 0
        self._heads = Heads(complete=True)
        self._held: list[_Held] | None = None
        self._failure: LogFailed | None = None
        self._failed = trio.Event()

    async def append(self, entries: Sequence[Entry]) -> int:
        """See `engine.log.Log.append`."""
        results: list[outcome.Outcome[int]] = []
        settled = trio.Event()

        def done(result: outcome.Outcome[int]) -> None:
            results.append(result)
            settled.set()

        self.submit(entries, done)
        await settled.wait()
        return results[0].unwrap()

    def submit(self, entries: Sequence[Entry], done: Callable[[outcome.Outcome[int]], None]) -> None:
        """See `engine.log.Log.submit`."""
        if self._failure is not None:
            raise UnknownOutcome
        if not self.writable:
            raise ReadOnly
        if not entries:
            raise ValueError("an append without entries")
        for entry in entries:
            if not (isinstance(entry.meta, bytes) and isinstance(entry.body, bytes)):
                raise TypeError("meta and body are bytes")
        if self._held is None:
            self._heads.advance(entries)
            position = outcome.Value(self._commit(entries))
            trio.lowlevel.current_trio_token().run_sync_soon(done, position)
            return
        if self._waiting + len(entries) > QUEUE_ENTRIES_MAX:
            raise Overloaded
        self._heads.advance(entries)
        self._held.append(_Held(tuple(entries), done, trio.Event()))

    async def wait_room(self) -> None:
        """See `engine.log.Log.wait_room`."""
        while self._held and 2 * self._waiting >= QUEUE_ENTRIES_MAX:
            await self._held[0].settled.wait()

    @property
    def _waiting(self) -> int:
        return sum(len(held.entries) for held in self._held or ())

    async def read(self, after: int, bytes_max: int = 1 << 20) -> list[tuple[int, Entry]]:
        """See `engine.log.Log.read`."""
        await trio.lowlevel.checkpoint()
        if after + 1 < self.first:
            raise CursorUnusable("expired")
        found: list[tuple[int, Entry]] = []
        size = 0
        for position in range(after + 1, self.head + 1):
            entry = self._entries[position - self.first]
            found.append((position, entry))
            size += entry_bytes(entry)
            if size >= bytes_max:
                break
        return found

    async def trim(self, upto: int) -> None:
        """Drop entries at positions ≤ `upto`."""
        await trio.lowlevel.checkpoint()
        surplus = min(upto, self.head) - self.first + 1
        if surplus > 0:
            self._bytes -= sum(map(entry_bytes, self._entries[:surplus]))
            del self._entries[:surplus]
            self.first += surplus

    async def wait_failed(self) -> LogFailed:
        """Wait until `fail` was called, and return why."""
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    def statistics(self) -> dict[str, Any]:
        """Numbers for operators, as far as memory has them."""
        return {
            "head": self.head,
            "first": self.first,
            "bytes": self._bytes,
            "writable": self.writable,
            "failed": self._failure is not None,
        }

    def hold(self) -> None:
        """Let appends wait until `release`."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Make durable what waits, in order, and all later appends at once again."""
        held, self._held = self._held or [], None
        for append in held:
            append.settled.set()
            append.done(outcome.Value(self._commit(append.entries)))

    def set_writable(self, writable: bool) -> None:
        """Behave as on a full disk, or as on one that has space again."""
        self.writable = writable

    def fail(self, why: str = "the test says so") -> None:
        """Behave as on a disk that failed: nothing that waits becomes durable, nothing more is taken."""
        self._failure = LogFailed(why)
        self._failed.set()
        held, self._held = self._held or [], None
        for append in held:
            append.settled.set()
            append.done(outcome.Error(UnknownOutcome()))

    def _commit(self, entries: Sequence[Entry]) -> int:
        self._entries.extend(entries)
        self._bytes += sum(map(entry_bytes, entries))
        self.head += len(entries)
        return self.head


class _Held(NamedTuple):
    """One append that waits."""

    entries: Sequence[Entry]
    done: Callable[[outcome.Outcome[int]], None]
    settled: trio.Event
