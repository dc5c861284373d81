"""Turns for those who may wait: however many clients ask for what they do not get, others come first.

A client whose request was refused (no token, no such thing) passes the turnstile before its next request is
read. There is room for some hundred of them in every tenth of a second; beyond that they queue, and what they
cost stays the same however many they are.
"""

from __future__ import annotations

import trio

PASSES = 20
"""Clients let through in one tick, that is 2,000 in a second."""

TICK_S = 0.01
BURST = 200
"""Passes that are saved up while nobody comes."""


class Turnstile:
    """One queue. Make it within trio, and run it in a task of its own."""

    def __init__(self) -> None:
        self._left = BURST
        self._at = trio.current_time()
        self._queue = trio.lowlevel.ParkingLot()
        self._waiting = trio.Event()

    async def wait(self) -> None:
        """Wait for one's turn; there is none to wait for when few come."""
        if not self._queue:
            now = trio.current_time()
            self._left = min(BURST, self._left + int((now - self._at) / TICK_S) * PASSES)
            if now - self._at >= TICK_S:
                self._at = now
            if self._left > 0:
                self._left -= 1
                return
            self._waiting.set()
        await self._queue.park()

    async def run(self) -> None:
        """Let the queue through, some in each tick; runs until cancelled."""
        while True:
            await self._waiting.wait()
            while self._queue:
                await trio.sleep(TICK_S)
                self._queue.unpark(count=PASSES)
            self._waiting = trio.Event()
            self._left, self._at = 0, trio.current_time()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)
