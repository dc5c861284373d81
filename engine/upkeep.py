"""Upkeep: takes checkpoints, drops idle actors from memory, and lets the log go behind both.

A checkpoint is fuzzy: its position is taken first, then each changed actor is looked at between two of its
turns, so nothing stands still. What it saves may be newer than its position, never older.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Protocol

import trio

from engine.actor import Actor
from engine.answers import Known
from engine.checkpoint import Checkpoint, Moment, SavedState
from engine.clock import Clock
from engine.config import Config
from engine.errors import Unavailable
from engine.feed import Feed
from engine.log import Log
from engine.mailbox import Behind
from engine.metrics import Metrics
from engine.reactions import Consumer

LOOKS_PER_SLICE = 32
LOOKS_MAX = 20
AGAIN_S = 0.01
ANSWERS_MAX = 32
"""Answers of one actor that a node keeps in memory whether or not another has saved them."""
DROPS_PER_SLICE = 1024
OFF_DUTY_IDLE_S = 30.0
"""After how long without use an actor is dropped where another node is on duty: it takes every record of its
stream, and to open it again is one trip.
"""
REFILL_MARKS = 8
LOG_PER_STATES = 2
"""Log in multiples of the states that the last checkpoint wrote, before one is taken early: what is written
for the log's sake is no more than half of the log, however large the states are.
"""

logger = logging.getLogger("onda.upkeep")


class Host(Protocol):
    """What the upkeep needs of its node."""

    config: Config
    clock: Clock
    log: Log
    checkpoint: Checkpoint
    metrics: Metrics
    actors: dict[str, Actor]
    feeds: dict[str, Feed]
    runners: list[Consumer]

    on_duty: bool
    epoch: str

    @property
    def followed(self) -> int: ...

    def drop_actor(self, actor: Actor) -> None: ...


class Upkeep:
    """The upkeep of one node. It is told of each append before (`changing`) and after (`grown`).

    So at any moment every record up to the log's head belongs to a stream that is saved, or named as changed:
    the head is a safe position for a checkpoint.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._changed: set[str] = set()
        self._positions: dict[str, int] = {}  # of reactions, as they are saved
        self._bytes = 0  # of log since the last checkpoint
        self._saved_bytes = 0  # of states, in the last checkpoint
        self._total_bytes = 0
        self._marks: deque[tuple[int, int]] = deque([(host.checkpoint.refill, 0)])
        self._due = trio.Event()
        self._lock = trio.Lock()

    def loaded(self) -> None:
        """Take note that the reactions are where they were saved."""
        self._positions = {runner.name: runner.position for runner in self._host.runners}

    def begin(self) -> None:
        """Begin afresh: another node took the checkpoints until now."""
        self._changed.clear()
        self._marks = deque([(self._host.checkpoint.refill, self._total_bytes)])

    def end(self) -> None:
        """Another node takes the checkpoints from now on."""
        self._changed.clear()

    def grown(self, position: int, size: int) -> None:
        """Note that `size` bytes of records were committed up to `position`."""
        self._bytes += size
        self._total_bytes += size
        if self._total_bytes - self._marks[-1][1] > self._host.config.refill_bytes / REFILL_MARKS:
            self._marks.append((position, self._total_bytes))
            while (
                len(self._marks) > 1
                and self._total_bytes - self._marks[1][1] > self._host.config.refill_bytes
            ):
                self._marks.popleft()
        if self._bytes > max(self._host.config.checkpoint_bytes, LOG_PER_STATES * self._saved_bytes):
            self._due.set()

    def changing(self, stream: str) -> None:
        """Note that a stream's saved state is, or is about to be, behind the log. Call it before the
        append.
        """
        self._changed.add(stream)

    async def run(self) -> None:
        """Take a checkpoint now and then, for ever."""
        while True:
            with trio.move_on_after(self._host.config.checkpoint_s):
                await self._due.wait()
            self._due = trio.Event()
            if self._host.on_duty:
                await self.take()
            else:
                await self._let_go()
            await self._drop_idle()

    async def take(self) -> bool:
        """Take a checkpoint if anything changed; return whether disk and memory agree now."""
        async with self._lock:
            try:
                missed = await self._take()
            except Unavailable as error:  # no space, or a shared log is away
                logger.error("no checkpoint: %s", error.detail)
                return False
            if missed:
                logger.error(
                    "the checkpoint is without %s: held down, or not to be written", ", ".join(sorted(missed))
                )
            return not missed

    async def _take(self) -> set[str]:
        """Take a checkpoint; return the changed streams that could not be looked at."""
        host = self._host
        if not host.on_duty:
            return set()
        positions = {runner.name: runner.position for runner in host.runners}
        position = host.followed
        if position == host.checkpoint.position and not self._changed and positions == self._positions:
            return set()
        changed, self._changed = self._changed, set()
        epoch = host.epoch
        self._bytes = 0
        try:
            states, answers, missed = await self._collect(changed)
            if missed:  # its records have to be read again, the others' states may be newer
                self._changed |= missed
                position = host.checkpoint.position
            horizon_ms = host.clock.now_ms() - int(host.config.idempotency_s * 1000)
            refill = min(self._marks[0][0], position)
            floor = host.log.head
            await host.checkpoint.take(
                Moment(position, floor, refill, states, answers, positions, horizon_ms, epoch)
            )
        except BaseException:
            self._changed |= changed
            raise
        self._positions = positions
        self._saved_bytes = sum(len(saved.state) for saved in states)
        for saved in states:
            actor = host.actors[saved.stream]
            actor.saved_version = saved.version
            actor.memory.sweep(host.clock.now_ms())
        for stream, key, _ in answers:
            host.actors[stream].memory.mark_saved(key)
        host.metrics.checkpoints.inc()
        await host.log.trim(min(refill, *positions.values()) if positions else refill)
        return missed

    async def _collect(
        self, streams: set[str]
    ) -> tuple[list[SavedState], list[tuple[str, str, Known]], set[str]]:
        missed = set()
        states: list[SavedState] = []
        answers: list[tuple[str, str, Known]] = []
        for count, stream in enumerate(sorted(streams)):
            actor = self._host.actors[stream]  # a changed actor is never dropped
            try:
                saved, unsaved = await self._look(actor)
            except Unavailable:
                missed.add(stream)
                continue
            except Exception:
                logger.exception("%s: the rules made a state that cannot be written", stream)
                missed.add(stream)
                continue
            states.append(saved)
            answers.extend((stream, key, known) for key, known in unsaved.items())
            if count % LOOKS_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()
        return states, answers, missed

    async def _look(self, actor: Actor) -> tuple[SavedState, dict[str, Known]]:
        """Look at an actor between two turns; one at whose stream other nodes are busy may need a few tries
        until it has all that it has heard of.
        """
        for _ in range(LOOKS_MAX - 1):
            try:
                return await actor.look(actor.saved_with_answers)
            except Behind:
                await trio.sleep(AGAIN_S)
        return await actor.look(actor.saved_with_answers)

    async def _let_go(self) -> None:
        """Another node takes the checkpoints: forget those answers that are in them, or too old (one without
        events may be nowhere else).
        """
        host = self._host
        horizon_ms = host.clock.now_ms() - int(host.config.idempotency_s * 1000)
        try:
            for actor in list(host.actors.values()):
                memory = actor.memory
                unsaved = memory.unsaved() if actor.loaded else {}
                if len(unsaved) > ANSWERS_MAX:
                    saved = await host.checkpoint.find_saved(actor.stream, list(unsaved))
                    old = [key for key, known in unsaved.items() if known.at_ms < horizon_ms]
                    for key in (*saved, *old):
                        memory.mark_saved(key)
                    memory.sweep(host.clock.now_ms())
        except Unavailable as error:
            logger.info("answers are kept in memory: %s", error.detail)

    async def _drop_idle(self) -> None:
        """Forget actors that nobody used for a while and that are complete in the checkpoint, and what rings
        hold beyond their bound. Others have their turn in between, however many actors there are.
        """
        idle_s = self._host.config.idle_s
        if not self._host.on_duty:
            idle_s = min(idle_s, OFF_DUTY_IDLE_S)
        horizon_s = time.monotonic() - idle_s
        async with self._lock:  # a checkpoint counts on its actors to stay
            for count, actor in enumerate(list(self._host.actors.values()), 1):
                if actor.used_s < horizon_s and actor.idle and not self._is_needed(actor):
                    self._host.drop_actor(actor)
                if count % DROPS_PER_SLICE == 0:
                    await trio.lowlevel.checkpoint()
            await self._empty_rings()

    async def _empty_rings(self) -> None:
        """Empty the rings of feeds that nobody follows, the longest unchanged ones first, until those that
        are left keep to their bound. Who comes back with a cursor at the head has missed nothing even so.
        """
        host = self._host
        surplus = -host.config.feeds_bytes_max
        unused: list[tuple[float, str]] = []
        for count, (stream, feed) in enumerate(list(host.feeds.items()), 1):
            if not feed.subscriptions and host.feeds.get(stream) is feed:
                if len(feed):
                    surplus += feed.bytes
                    unused.append((feed.used_s, stream))
                elif stream not in host.actors:
                    del host.feeds[stream]
            if count % DROPS_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()
        if surplus <= 0:
            return
        for count, (_, stream) in enumerate(sorted(unused), 1):
            unfollowed = host.feeds.get(stream)
            if surplus > 0 and unfollowed is not None and not unfollowed.subscriptions:
                surplus -= unfollowed.bytes
                if stream in host.actors:
                    unfollowed.clear()
                else:
                    del host.feeds[stream]
            if count % DROPS_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()

    def _is_needed(self, actor: Actor) -> bool:
        if actor.stream in self._changed or actor.feed.subscriptions:
            return True
        if not self._host.on_duty:  # whoever is has all of it
            return False
        return actor.version != actor.saved_version or bool(actor.memory.unsaved())
