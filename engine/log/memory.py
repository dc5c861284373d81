"""A log in memory: nothing survives. For embedding without a disk, and for tests; it checks what it is given.

Several nodes in one process may share it (`engine.log.SharedLog`). Tests can `hold` it, so that appends wait
as for a slow disk, fill it up (`set_writable`), let it `lose` what it had acknowledged, and `fail` it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import outcome
import trio

from engine.errors import (
    Conflict,
    CursorUnusable,
    Forked,
    LogFailed,
    Overloaded,
    ReadOnly,
    Unavailable,
    UnknownOutcome,
)
from engine.log import WAITS_S, Basis, Head, Turns
from engine.log.appending import append_to
from engine.log.frames import entry_bytes
from engine.log.heads import Heads
from engine.records import Entry

QUEUE_ENTRIES_MAX = 65_536


class MemoryLog:
    """Keeps the contracts of `engine.log.Log` and `SharedLog`, and keeps them strictly."""

    def __init__(self, epoch: str = "memory") -> None:
        self.epoch = epoch
        self.head = 0
        self.first = 1
        self.writable = True
        self.attended = True
        self._entries: list[Entry] = []
        self._ids: dict[tuple[str, int], str] = {}  # of the events that came with one
        self._last: dict[str, str] = {}  # stream -> id of its last record
        self._waits: dict[str, tuple[float, list[str]]] = {}  # stream -> until when, and who
        self._bytes = 0
        self._heads = Heads(complete=True)
        self._held: list[_Held] | None = None
        self._failure: LogFailed | None = None
        self._failed = trio.Event()
        self._changed = trio.Event()
        self._epochs = [(epoch, 0)]

    async def append(self, entries: Sequence[Entry], basis: Basis | None = None) -> int:
        """See `engine.log.Log.append`."""
        return await append_to(self, entries, basis)

    def submit(
        self,
        entries: Sequence[Entry],
        done: Callable[[outcome.Outcome[int]], None],
        basis: Basis | None = None,
    ) -> None:
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
        ids = [""] * len(entries)
        if basis is not None:
            ids = list(basis.ids)
            try:
                same = self._compare(entries, basis)
            except Conflict:
                self._wait(entries[0].stream, basis.turns)
                raise
            if same is not None:
                trio.lowlevel.current_trio_token().run_sync_soon(done, outcome.Value(same))
                return
        if self._held is not None and self._waiting + len(entries) > QUEUE_ENTRIES_MAX:
            raise Overloaded
        self._heads.advance(entries)
        for entry, id_ in zip(entries, ids, strict=True):
            self._ids[entry.stream, entry.version] = self._last[entry.stream] = id_
        if basis is not None and basis.turns is not None:
            basis.turns.ahead(self._waiting_after(entries[0].stream, basis.turns))
        if self._held is None:
            position = outcome.Value(self._commit(entries))
            trio.lowlevel.current_trio_token().run_sync_soon(done, position)
            return
        self._held.append(_Held(tuple(entries), done, trio.Event()))

    def _compare(self, entries: Sequence[Entry], basis: Basis) -> int | None:
        """Return where the entries are, if they are there already; `None` when they follow the stream."""
        stream, first = entries[0][:2]
        if {entry.stream for entry in entries} != {stream} or len(basis.ids) != len(entries):
            raise ValueError("an append with a basis has one stream, and an id for each entry")
        version, last = self._heads.get(stream) or 0, self._last.get(stream, "")
        if version == first - 1 and last == basis.after and basis.epoch == self.epoch:
            return None
        kept = {
            entry.version: position
            for position, entry in enumerate(self._entries, self.first)
            if entry.stream == stream
        }
        there = [self._ids.get((stream, number)) for number in range(first, first + len(entries))]
        if there == list(basis.ids) and entries[-1].version in kept:
            return kept[entries[-1].version]
        if basis.epoch != self.epoch:
            raise Forked(f"the epoch is {self.epoch} now")
        before = self._ids.get((stream, first - 1), basis.after)
        error = Forked if version < first - 1 or before != basis.after else Conflict
        raise error(f"{stream} is at version {version}", version, last)

    def _wait(self, stream: str, turns: Turns | None) -> None:
        if turns is not None:
            waits = self._who_waits(stream)
            self._waits[stream] = (trio.current_time() + WAITS_S, list(dict.fromkeys([*waits, turns.who])))

    def _waiting_after(self, stream: str, turns: Turns) -> int:
        waits = self._who_waits(stream)
        if turns.who in waits:
            waits = waits[waits.index(turns.who) + 1 :]
        until_s, _ = self._waits.pop(stream, (0.0, []))
        if waits:
            self._waits[stream] = (until_s, waits)
            if turns.more:
                self._wait(stream, turns)
        return len(waits)

    def _who_waits(self, stream: str) -> list[str]:
        until_s, waits = self._waits.get(stream, (0.0, []))
        return waits if trio.current_time() < until_s else []

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

    @property
    def refusal(self) -> Unavailable | None:
        """See `engine.log.SharedLog.refusal`."""
        return None if self.writable else ReadOnly()

    async def read_stream(
        self, stream: str, after: int, bytes_max: int = 1 << 20, *, oldest: bool = False
    ) -> tuple[Head, list[tuple[int, Entry]]]:
        """See `engine.log.SharedLog.read_stream`."""
        await trio.lowlevel.checkpoint()
        head = Head(self._heads.get(stream) or 0, self._last.get(stream, ""))
        if after > head.version:
            raise CursorUnusable("ahead")
        found: list[tuple[int, Entry]] = []
        size = 0
        for position, entry in enumerate(self._entries, self.first):
            if entry.stream == stream and entry.version > after and size < bytes_max:
                found.append((position, entry))
                size += entry_bytes(entry)
        if not oldest and (found[0][1].version if found else head.version + 1) != after + 1:
            raise CursorUnusable("expired")
        return head, found

    async def follow(self, after: int, timeout_s: float) -> list[tuple[int, Entry]]:
        """See `engine.log.SharedLog.follow`."""
        epoch = self.epoch
        with trio.move_on_after(timeout_s):
            while self.head <= after and self.epoch == epoch:
                await self._changed.wait()
        return await self.read(after) if self.epoch == epoch else []

    async def look(self) -> None:
        """See `engine.log.SharedLog.look`."""
        await trio.lowlevel.checkpoint()

    async def wait_epoch(self, epoch: str) -> str:
        """See `engine.log.SharedLog.wait_epoch`."""
        while self.epoch == epoch:
            await self._changed.wait()
        return self.epoch

    async def epochs(self) -> list[tuple[str, int]]:
        """See `engine.log.SharedLog.epochs`."""
        await trio.lowlevel.checkpoint()
        return list(self._epochs)

    async def trim(self, upto: int) -> None:
        """Drop entries at positions ≤ `upto`."""
        await trio.lowlevel.checkpoint()
        surplus = min(upto, self.head) - self.first + 1
        if surplus > 0:
            self._bytes -= sum(map(entry_bytes, self._entries[:surplus]))
            for entry in self._entries[:surplus]:
                self._ids.pop((entry.stream, entry.version), None)
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

    def lose(self, count: int, epoch: str) -> None:
        """Behave as after a failover that lost the last `count` entries, so that a new epoch begins."""
        kept = len(self._entries) - count
        for entry in reversed(self._entries[kept:]):
            self._heads.note(entry.stream, entry.version - 1)
            self._ids.pop((entry.stream, entry.version), None)
            self._last[entry.stream] = self._ids.get((entry.stream, entry.version - 1), "")
        self.head -= count
        del self._entries[kept:]
        self.epoch = epoch
        self._epochs.append((epoch, self.head))
        self._wake()

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
        self._wake()
        return self.head

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Held(NamedTuple):
    """One append that waits."""

    entries: Sequence[Entry]
    done: Callable[[outcome.Outcome[int]], None]
    settled: trio.Event
