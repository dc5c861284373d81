"""What others append: heard from a partition's channel, checked, and healed by looking.

A message may be lost, come twice or late, or carry a record that a failover has since replaced. So one is
only taken when it follows, by position and by the id of the record before it, what has been taken; else the
log is looked at. It is looked at once per second in any case, and every 50 ms while nothing can be heard.

A listener is one thread per server with one connection of its own. It hands over what has come as one batch
and waits until that is taken; when it lags too far behind, Redis cuts it off, and looking heals that, too.
Handing over wakes the other thread, which costs more than most messages do. So a message waits for others to
go with: for a moment if somebody waits for it; longer if it is of an append of this node's own, or if nobody
here attends to the partition.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import trio

from engine.log.redis_lines import Address, Away, Cut, Line
from engine.log.redis_route import ANSWER_S, Route
from engine.log.redis_scripts import Keys

logger = logging.getLogger("onda.log")

WAIT_S = 0.25
"""How long the thread waits at a time, and so how long it takes to end."""
PING_S = 5.0
BATCH_MAX = 256
GATHER_S = 0.002
"""The least time between two readings: at most 500 batches are handed over in a second, however many messages
come.
"""
LATER_S = 0.02
"""How long a message waits that nobody waits for."""
BACKOFF_S_MAX = 2.0

Hear = Callable[[list[tuple[int, bytes]]], None]
"""Takes (partition, message) in trio's thread."""

Awaits = Callable[[int, bytes], bool]
"""Says of a message whether anybody waits for it; called in the listener's thread."""


class Listener:
    """Listens to the channels of all partitions.

    Attributes:
        up: whether every channel is heard at the moment.
        messages: how many came.
    """

    def __init__(self, route: Route, hear: Hear, awaits: Awaits, changed: Callable[[], None]) -> None:
        self._route = route
        self._hear = hear
        self._awaits = awaits
        self._changed = changed
        self._subscribed: set[Address] = set()
        self._servers = 0
        self.messages = 0

    @property
    def up(self) -> bool:
        return 0 < self._servers == len(self._subscribed)

    async def run(self) -> None:
        """Listen, and connect anew, until cancelled."""
        tries = 0
        while True:
            began_s = trio.current_time()
            try:
                owners = await trio.to_thread.run_sync(self._route.addresses, abandon_on_cancel=True)
                self._servers = len(set(owners))
                async with trio.open_nursery() as nursery:
                    for address in set(owners):
                        mine = [number for number, owner in enumerate(owners) if owner == address]
                        nursery.start_soon(self._listen, address, mine)
            except* (Away, Cut) as group:
                if tries == 0:
                    why = group.exceptions[0]
                    logger.warning("Redis is not heard, partitions are looked at instead: %s", why)
            self._subscribed.clear()
            self._route.forget()
            self._changed()
            tries = 0 if trio.current_time() - began_s > PING_S else tries + 1
            await trio.sleep(random.uniform(0, min(BACKOFF_S_MAX, 0.05 * 2**tries)))

    async def _listen(self, address: Address, partitions: Sequence[int]) -> None:
        await trio.to_thread.run_sync(
            self._hear_out, address, partitions, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
        )

    def _hear_out(self, address: Address, partitions: Sequence[int]) -> None:
        """Run in the thread, until the connection is lost or who waits for it was cancelled."""
        line = self._route.line(address)
        batch: list[tuple[int, bytes]] = []
        try:
            channels = {Keys.of(number).channel.encode(): number for number in partitions}
            command = "SSUBSCRIBE" if self._route.cluster else "SUBSCRIBE"
            for channel in channels:  # one each: in a cluster they may be of different slots
                line.say((command, channel))
            self._hear_all(line, channels, batch)
        except (Away, Cut):
            trio.from_thread.run_sync(self._take, batch)  # what has come is good, whatever became of the line
            raise
        finally:
            line.close()

    def _hear_all(self, line: Line, channels: dict[bytes, int], batch: list[tuple[int, bytes]]) -> None:
        """`batch`: what has come and is not handed over yet."""
        heard_s = asked_s = time.monotonic()
        due_s = math.inf  # when `batch` is handed over
        missing = set(channels)
        while True:
            trio.from_thread.check_cancelled()
            if line.has_more(min(WAIT_S, max(0.0, due_s - time.monotonic()))):
                time.sleep(max(0.0, heard_s + GATHER_S - time.monotonic()))
                known = len(batch)
                self._read(line, channels, missing, batch)
                heard_s = time.monotonic()
                if len(batch) > known:
                    wanted = any(self._awaits(number, message) for number, message in batch[known:])
                    due_s = min(due_s, heard_s + (0.0 if wanted else LATER_S))
            if batch and (time.monotonic() >= due_s or len(batch) >= BATCH_MAX):
                trio.from_thread.run_sync(self._take, batch)
                batch.clear()
                due_s = math.inf
                heard_s = time.monotonic()
            now_s = time.monotonic()
            if heard_s < asked_s and now_s - asked_s > ANSWER_S:
                raise Away(f"nothing heard for {now_s - heard_s:.0f} s")
            if heard_s >= asked_s and now_s - asked_s > PING_S:
                line.say(("PING",))
                asked_s = time.monotonic()

    def _read(
        self, line: Line, channels: dict[bytes, int], missing: set[bytes], batch: list[tuple[int, bytes]]
    ) -> None:
        """Read what has come, until the batch is full. `missing`: channels not subscribed to yet."""
        more = True
        while more:
            kind, channel, *rest = line.hear()
            if kind in (b"message", b"smessage"):
                batch.append((channels[channel], rest[0]))
            elif kind in (b"subscribe", b"ssubscribe"):
                missing.discard(channel)
                if not missing:
                    trio.from_thread.run_sync(self._note, line.address)
            elif kind == b"sunsubscribe":
                raise Away("a slot has moved")
            more = len(batch) < BATCH_MAX and line.has_more(0)

    def _note(self, address: Address) -> None:
        self._subscribed.add(address)
        self._changed()

    def _take(self, batch: list[tuple[int, bytes]]) -> None:
        self.messages += len(batch)
        self._hear(batch)

    def statistics(self) -> dict[str, Any]:
        """Numbers for operators."""
        return {"heard": self.messages, "listening": self.up}
