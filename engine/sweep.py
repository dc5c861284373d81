"""The net under the timers: looks at every stream's deadline once a minute, and wakes what is overdue.

Timers are told of each deadline as it changes; here nothing is remembered from one look to the next, so no
lost signal can hide for longer than until the next look. The first comes at the start. Deadlines are read
where they are true: in the state of a stream that is in memory, in the checkpoint for all others. Waking is
all that happens here: the stream's own rules compare with the clock, so nothing can come too early or twice.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from engine.actor import Actor
from engine.checkpoint import Checkpoint
from engine.clock import Clock
from engine.errors import ReadOnly
from engine.log import Log
from engine.metrics import Metrics

SWEEP_S = 60.0
LOST_MS = 5_000
"""A deadline that is over for longer than this should have been noticed by the timers."""
LOOKS_PER_SLICE = 256

logger = logging.getLogger("onda.sweep")


class Host(Protocol):
    """What the sweep needs of its node."""

    clock: Clock
    log: Log
    checkpoint: Checkpoint
    metrics: Metrics
    actors: dict[str, Actor]

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
            except ReadOnly as error:  # the disk is full: the next look may find it better
                logger.error("deadlines in the checkpoint were not looked at: %s", error.detail)
            await trio.sleep(SWEEP_S)

    async def look(self) -> None:
        """Wake every stream whose deadline is over."""
        host = self._host
        now_ms = host.clock.now_ms()
        overdue: dict[str, int] = {}
        for count, actor in enumerate(list(host.actors.values()), 1):
            due_ms = actor.due_ms if actor.loaded else None
            if due_ms is not None and due_ms <= now_ms:
                overdue[actor.stream] = due_ms
            if count % LOOKS_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()
        for stream, due_ms in await host.checkpoint.overdue(now_ms):
            known = host.actors.get(stream)
            if known is None or not known.loaded:
                overdue[stream] = due_ms
        for stream in overdue:
            host.wake(stream)
        self.woken += len(overdue)
        lost = [stream for stream, due_ms in overdue.items() if due_ms < now_ms - LOST_MS]
        if lost and host.log.writable:  # while the disk is full, deadlines wait without any loss
            self.found += len(lost)
            host.metrics.deadlines_lost.inc(len(lost))
            logger.warning("%d deadlines were over and nothing had woken %s …", len(lost), lost[0])
