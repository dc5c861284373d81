"""A log in memory: nothing survives. For embedding without a disk, and for tests; it checks what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from engine.errors import Conflict, CursorUnusable, LogFailed
from engine.records import Entry


class MemoryLog:
    """Keeps the contract of `engine.log.Log`, and keeps it strictly."""

    def __init__(self, epoch: str = "memory") -> None:
        self.epoch = epoch
        self.head = 0
        self.first = 1
        self.writable = True
        self._entries: list[Entry] = []
        self._versions: dict[str, int] = {}
        self._bytes = 0

    async def append(self, entries: Sequence[Entry]) -> int:
        versions = dict(self._versions)
        for entry in entries:
            if entry.version != versions.get(entry.stream, 0) + 1:
                raise Conflict(
                    f"{entry.stream}: version {entry.version} after {versions.get(entry.stream, 0)}"
                )
            versions[entry.stream] = entry.version
        self._versions = versions
        self._entries.extend(entries)
        self._bytes += sum(len(entry.meta) + len(entry.body) for entry in entries)
        self.head += len(entries)
        position = self.head
        await trio.lowlevel.checkpoint()
        return position

    async def read(self, after: int, bytes_max: int = 1 << 20) -> list[tuple[int, Entry]]:
        await trio.lowlevel.checkpoint()
        if after < self.first - 1:
            raise CursorUnusable("expired")
        found: list[tuple[int, Entry]] = []
        size = 0
        for position in range(after + 1, self.head + 1):
            entry = self._entries[position - self.first]
            found.append((position, entry))
            size += len(entry.body) + len(entry.meta)
            if size >= bytes_max:
                break
        return found

    async def trim(self, upto: int) -> None:
        await trio.lowlevel.checkpoint()
        surplus = min(upto, self.head) - self.first + 1
        if surplus > 0:
            self._bytes -= sum(len(entry.meta) + len(entry.body) for entry in self._entries[:surplus])
            del self._entries[:surplus]
            self.first += surplus

    async def wait_failed(self) -> LogFailed:
        await trio.sleep_forever()
        raise AssertionError

    def statistics(self) -> dict[str, Any]:
        return {"bytes": self._bytes}
