"""What of a shop is due when: the earliest comes first, however many wait. Part of the state.

A heap with lazy deletion: an entry counts as long as it agrees with `due`. Its first entry always counts, so
that naming the next deadline costs nothing.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from msgspec import Struct

STALE_MAX = 256
"""Entries that no longer count, beyond as many as do, before the heap is built anew."""


class Schedule(Struct):
    """Due times in ms by name; only `evolve` changes it."""

    due: dict[str, int] = {}
    heap: list[tuple[int, str]] = []

    def first(self) -> int | None:
        """Return when the earliest is due."""
        return self.heap[0][0] if self.heap else None

    def set(self, name: str, due_ms: int) -> None:
        """Make `name` due at `due_ms`, and at no other time."""
        if self.due.get(name) != due_ms:
            self.due[name] = due_ms
            heappush(self.heap, (due_ms, name))
            self._trim()

    def drop(self, name: str) -> None:
        """Forget `name`."""
        if self.due.pop(name, None) is not None:
            self._trim()

    def over(self, now_ms: int, limit: int) -> list[str]:
        """Return up to `limit` names that are due, the earliest first; looks at these only."""
        found: list[tuple[int, str]] = []
        look = [0]
        while look:
            at = look.pop()
            if at >= len(self.heap) or self.heap[at][0] > now_ms:
                continue
            due_ms, name = self.heap[at]
            if self.due.get(name) == due_ms:
                found.append(self.heap[at])
            look += (2 * at + 1, 2 * at + 2)
        return list(dict.fromkeys(name for _, name in sorted(found)))[:limit]

    def _trim(self) -> None:
        heap = self.heap
        while heap and self.due.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        if len(heap) > 2 * len(self.due) + STALE_MAX:
            self.heap = [(due_ms, name) for name, due_ms in self.due.items()]
            heapify(self.heap)
