"""The net under the timers: looks at every stream's deadline once a minute, and wakes what is overdue.

Timers are told of each deadline as it changes; here nothing is remembered from one look to the next, so no
lost signal can hide for longer than until the next look. The first comes at the start. Deadlines are read
where they are true: in the state of a stream that is in memory, in the checkpoint for all others. Waking is
all that happens here: the stream's own rules compare with the clock, so nothing can come too early or twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import trio

from engine.clock import Clock
from engine.errors import Unavailable
from engine.metrics import Metrics
from engine.partition import Partition

SWEEP_S = 60.0
LOST_MS = 5_000
"""A deadline that is over for longer than this should have been noticed by the timers."""
LOOKS_PER_SLICE = 256

logger = logging.getLogger("onda.sweep")


class Host(Protocol):
    """What the sweep needs of its node."""

    clock: Clock
    metrics: Metrics

    @property
    def partitions(self) -> Sequence[Partition]: ...

    @property
    def writable(self) -> bool: ...

    def wake(self, stream: str) -> None: ...


class Sweep:
    """The sweep of one node. `woken` counts streams that it woke, `found` those that timers had lost."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.woken = 0
        self.found = 0

    async def run(self) -> None:
        """Look now and once a minute, for ever."""
        while True:
            try:
                await self.look()
            except (
                Unavailable
            ) as error:  # no space, or a shared log is away: the next look may find it better
                logger.error("deadlines in the checkpoint were not looked at: %s", error.detail)
            await trio.sleep(SWEEP_S)

    async def look(self) -> None:
        """Wake every stream whose deadline is over."""
        host = self._host
        now_ms = host.clock.now_ms()
        overdue: dict[str, int] = {}
        for partition in host.partitions:
            if not partition.on_duty:
                continue
            for count, actor in enumerate(list(partition.actors.values()), 1):
                due_ms = actor.due_ms if actor.loaded else None
                if due_ms is not None and due_ms <= now_ms:
                    overdue[actor.stream] = due_ms
                if count % LOOKS_PER_SLICE == 0:
                    await trio.lowlevel.checkpoint()
            for stream, due_ms in await partition.checkpoint.overdue(now_ms):
                known = partition.actors.get(stream)
                if known is None or not known.loaded:
                    overdue[stream] = due_ms
        for stream in overdue:
            host.wake(stream)
        self.woken += len(overdue)
        lost = [stream for stream, due_ms in overdue.items() if due_ms < now_ms - LOST_MS]
        if lost and host.writable:  # while the disk is full, deadlines wait without any loss
            self.found += len(lost)
            host.metrics.deadlines_lost.inc(len(lost))
            logger.warning("%d deadlines were over and nothing had woken %s …", len(lost), lost[0])
