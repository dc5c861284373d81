"""Deadlines of tens of thousands of connections: one timing wheel and one task, instead of a timer each.

Time is cut into ticks; a slot holds what may fall due in its tick. An item says itself when it is due, and
the wheel looks only when the item's slot comes: one whose time has moved on is put into a later slot then. So
a deadline that is moved with every byte costs nothing but the store of a float. An item may stand in two
slots for a while (it was added again because it is due earlier); both lead to the slot of its `due`, where
they become one.

What is due further ahead than the wheel is round waits in the last slot, and is looked at again there.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio

TICK_S = 0.25
"""How late an item may expire."""

SLOTS = 512

SLICE = 64
"""Items between two checkpoints; one that expires may cost a system call."""


class Timed(Protocol):
    """Something with a deadline. It must be hashable by identity.

    `due`: when it expires, as `trio.current_time()`; `math.inf`: never. It may be moved later at any time;
    after it was moved earlier the item must be added again.
    """

    due: float

    def expire(self, now: float) -> None:
        """The deadline has passed. With a new `due` the item stays in the wheel; must not raise."""


class Wheel:
    """The wheel. Make it within trio, and run it in a task of its own."""

    def __init__(self, tick_s: float = TICK_S, slots: int = SLOTS) -> None:
        self._tick_s = tick_s
        self._slots: list[set[Timed]] = [set() for _ in range(slots)]
        self._passed = int(trio.current_time() / tick_s)  # number of the last tick whose slot has come

    def add(self, item: Timed) -> None:
        """Put an item where its `due` says; at `math.inf` it stays out."""
        due, next_ = item.due, self._passed + 1
        if due == math.inf:
            return
        last = self._passed + len(self._slots)
        if due >= last * self._tick_s:
            tick = last
        elif due <= next_ * self._tick_s:
            tick = next_
        else:
            tick = math.ceil(due / self._tick_s)
        self._slots[tick % len(self._slots)].add(item)

    async def run(self) -> None:
        """Expire what is due, again and again; runs until cancelled."""
        while True:
            await trio.sleep_until((self._passed + 1) * self._tick_s)
            now = trio.current_time()
            while (self._passed + 1) * self._tick_s <= now:
                self._passed += 1
                index = self._passed % len(self._slots)
                if self._slots[index]:
                    items, self._slots[index] = list(self._slots[index]), set()
                    await self._turn(items)

    async def _turn(self, items: list[Timed]) -> None:
        for start in range(0, len(items), SLICE):
            now = trio.current_time()
            for item in items[start : start + SLICE]:
                if item.due <= now:
                    item.expire(now)
                self.add(item)
            await trio.lowlevel.checkpoint()

    def __len__(self) -> int:
        """Entries in all slots; an item may be there twice for a while."""
        return sum(len(slot) for slot in self._slots)
