"""Deadlines: wakes streams when their state asked for it.

There is no timer table and no cancel call: each stream has at most one due time, which its actor names anew
after every change, and which a start reads from the checkpoint or replays. When it is due the stream is
woken, and its own rules decide; a wake-up that comes too early or twice changes nothing. Times are the wall
clock's, so the sleep between two looks is short: a jump of the clock is noticed within a tick.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import trio

from engine.clock import Clock

AGAIN_MS = 1000
"""A stream that was woken and still asks for a past time is woken again after this."""

STALE_MAX = 1024
"""Entries in the heap that no longer count, beyond as many as do, before it is built anew."""


class Timers:
    """The due times of all streams, in memory or not."""

    def __init__(self, clock: Clock, wake: Callable[[str], None], tick_s: float) -> None:
        self._clock = clock
        self._wake = wake
        self._tick_s = tick_s
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._earlier = trio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def arm(self, stream: str, due_ms: int | None) -> None:
        """Set when a stream wants to be woken; `None`: not at all."""
        if self._due.get(stream) == due_ms:
            return
        if due_ms is None:
            del self._due[stream]
            return
        self._due[stream] = due_ms
        heapq.heappush(self._heap, (due_ms, stream))
        if len(self._heap) > 2 * len(self._due) + STALE_MAX:
            self._heap = [(due, name) for name, due in self._due.items()]
            heapq.heapify(self._heap)
        if self._heap[0][1] == stream:
            self._earlier.set()

    async def run(self) -> None:
        """Wake what is due, for ever."""
        while True:
            self._earlier = trio.Event()
            wait_s = self._tick_s
            if self._heap:
                wait_s = min(wait_s, max(0.0, (self._heap[0][0] - self._clock.now_ms()) / 1000))
            with trio.move_on_after(wait_s):
                await self._earlier.wait()
            self._fire(self._clock.now_ms())

    def _fire(self, now_ms: int) -> None:
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, stream = heapq.heappop(self._heap)
            if self._due.get(stream) == due_ms:  # else it was armed anew or disarmed meanwhile
                self._due[stream] = now_ms + AGAIN_MS
                heapq.heappush(self._heap, (now_ms + AGAIN_MS, stream))
                self._wake(stream)
