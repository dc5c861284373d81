"""A partition of a log that several nodes append to.

Every node follows the partition: what others append goes to the actor in memory here, and so to screens that
are connected here. One node at a time is on duty: it holds the partition's lease, has an actor for every
stream that changes, watches their deadlines, runs the reactions and the history's keeper, and takes the
checkpoints. When it dies another one takes over when the lease runs out, from the last checkpoint on. Two who
both believe to be on duty do no harm: what reactions send has ids made of the record, deadlines compare with
the state, the history moves only from where it was, and the checkpoint takes a state only over an older one.
Best it is the node at which commands come in: what they lead to stays where it is in memory. A node that has
most of them asks for the lease, and gets it after a checkpoint.

A new epoch of the log means that acknowledged records are lost: every feed ends, every actor reads its
stream again, and whoever comes back with a cursor of the old epoch starts from a snapshot.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec
import trio

from engine.actor import Actor
from engine.codec import domain_of
from engine.config import Config
from engine.errors import CursorUnusable, LogAway, Renewed, Unavailable
from engine.feed import Feed
from engine.log import SharedLog
from engine.mailbox import Committed
from engine.onward import to_committed, watch_over
from engine.partition import Ground, Host, Partition
from engine.reactions import Reaction
from engine.records import Cursor, Entry
from engine.replay import rebuild_shared
from engine.shared_actor import SharedActor
from engine.tail import Tail

if TYPE_CHECKING:  # SQLAlchemy takes its time to load
    from engine.history import History

LEASE_S = 6.0
"""How long a partition stands still when the node that holds it dies; renewed three times in that time."""
STAY_S = 5.0
"""How long a node stays on duty before it hands a partition on to one that has more to do there."""
WISH_S = 0.2
"""How often a node looks for a lease that it has asked for."""
FOLLOW_S = 30.0
AWAY_S = 0.25
REACH_S = 3.0
"""How long somebody waits for what another node has shown them."""
OLD_EPOCHS_MAX = 64
CHUNK_BYTES = 4 << 20
BUSY = 4
"""How many partitions are busy at once, as far as a checkpoint for the log's sake is concerned."""

logger = logging.getLogger("onda.partition")


class SharedPartition(Partition):
    """See `Partition`.

    Attributes:
        on_duty: this node has the lease, and everything that changed since the last checkpoint is known here.
    """

    log: SharedLog

    def __init__(self, host: Host, config: Config, ground: Ground, count: int) -> None:
        part = msgspec.structs.replace(
            config,
            feeds_bytes_max=config.feeds_bytes_max // count,
            checkpoint_bytes=config.checkpoint_bytes // min(count, BUSY),
            refill_bytes=config.refill_bytes // count,
        )
        super().__init__(host, part, ground.log, ground.checkpoint)
        assert ground.lease is not None
        self.on_duty = False
        self._tailing = False  # on duty, or about to be
        self._lease = ground.lease
        self._reactions: Sequence[Reaction] = ()
        self._history: History | None = None
        self._followed = ground.log.head
        self._duty: trio.CancelScope | None = None
        self._armed: set[str] = set()
        self._old_epochs: dict[str, None] = {}
        self._epoch_began = trio.Event()

    def _make_actor(self, stream: str, feed: Feed) -> SharedActor:
        self.log.attended = True
        return SharedActor(stream, feed, self)

    @property
    def followed(self) -> int:
        """Every record up to here has been handed to those whom it concerns."""
        return self._followed

    async def start(
        self, nursery: trio.Nursery, reactions: Sequence[Reaction], history: History | None
    ) -> None:
        """Learn which stores there are; what else there is to know is read when somebody asks."""
        self._reactions, self._history = reactions, history
        for stream in await self.checkpoint.stores():
            self._host.note_store(stream)
        await self._changed_since(max(self.checkpoint.position, self.log.first - 1))

    async def run(self) -> None:
        """Follow the log, and be on duty when it is this node's turn, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            nursery.start_soon(self._take_turns)
            nursery.start_soon(self.upkeep.run)

    async def rebuild(self, actor: Actor) -> None:
        """See `Partition.rebuild`: the checkpoint's state, and the stream after it."""
        assert isinstance(actor, SharedActor)
        await rebuild_shared(self, actor)
        if actor.kind == "store" and actor.version > 0:
            self._host.note_store(actor.stream)
        if self._tailing and actor.version != actor.saved_version:
            self.upkeep.changing(actor.stream)

    def arm(self, stream: str, due_ms: int | None) -> None:
        """Deadlines are watched by the node on duty."""
        if self.on_duty:
            self._host.arm(stream, due_ms)
            self._armed.add(stream)

    def asked(self, commands: int) -> None:
        """Take note of commands that were carried out here, and do not follow from others."""
        self._lease.note(commands)

    def appending(self, stream: str) -> None:
        """See `Partition.appending`."""
        if self._tailing:
            super().appending(stream)

    def committed(self, records: Sequence[Committed], size: int) -> None:
        """See `Partition.committed`. Whoever is on duty hears of it."""
        if self._tailing:
            super().committed(records, size)

    # What others append

    async def _follow(self) -> None:
        while True:
            if self.log.epoch != self.epoch:
                self._begin_epoch()
            self.log.attended = bool(self._tailing or self.actors or self.feeds)
            try:
                found = await self.log.follow(self._followed, FOLLOW_S)
            except CursorUnusable:  # so far behind that records went without being heard
                self._followed = self.log.head
                self._begin_duty_anew()
                for actor in self.actors.values():
                    assert isinstance(actor, SharedActor)
                    actor.fall_behind()
                continue
            except Unavailable:
                await trio.sleep(random.uniform(0, AWAY_S))
                continue
            for stream, records in groupby(found, key=lambda pair: pair[1].stream):
                self._hand_out(stream, list(records))
            if found:
                self._followed = found[-1][0]

    def _hand_out(self, stream: str, records: list[tuple[int, Entry]]) -> None:
        self._host.overhear(stream, records)
        if stream.startswith("store:"):
            self.heard[stream] = records[-1][1].version
            if records[0][1].version == 1:
                self._host.note_store(stream)
        if self._tailing:
            _check_kind(stream)
            self.upkeep.changing(stream)
            fresh = [(position, entry) for position, entry in records if position > self.tail.high]
            for position, entry in fresh:
                self.tail.add([to_committed(position, entry)])
            if fresh:  # what was appended here is counted already
                self.upkeep.grown(fresh[-1][0], sum(len(entry.body) for _, entry in fresh))
        actor = self.actors.get(stream)
        if actor is None:
            feed = self.feeds.pop(stream, None)  # its ring would have a hole
            if feed is not None:
                feed.close(Renewed)
            if not self._tailing:
                return
            actor = self.actor(stream)
        assert isinstance(actor, SharedActor)
        actor.hear(records)

    def _begin_epoch(self) -> None:
        logger.error("a new epoch begins, everything is read again: %s after %s", self.log.epoch, self.epoch)
        self._note_old(self.epoch)
        self.epoch = self.log.epoch
        self.counts["epochs"] += 1
        self._followed = self.log.head
        self._begin_duty_anew()
        for stream in [stream for stream in self.feeds if stream not in self.actors]:
            self.feeds.pop(stream).close(Renewed)
        for actor in self.actors.values():
            assert isinstance(actor, SharedActor)
            self.renew_feed(actor)
            actor.doubt()
        self._epoch_began.set()
        self._epoch_began = trio.Event()

    def renew_feed(self, actor: Actor) -> None:
        """End an actor's feed: those who follow it come back, and are told where to start."""
        actor.feed.close(Renewed)
        actor.feed = self.new_feed(actor.stream)

    # What others have shown to somebody who comes here

    async def has(self, stream: str) -> bool:
        """See `Partition.has`."""
        try:
            head, _ = await self.log.read_stream(stream, 0, 1)
        except CursorUnusable:  # its first records are in the checkpoint
            return True
        return head.version > 0

    def knows(self, stream: str, seen: Cursor) -> bool:
        """See `Partition.knows`."""
        if seen.epoch != self.epoch:
            return seen.epoch in self._old_epochs
        feed = self.feeds.get(stream)
        return feed is not None and seen.version <= feed.head

    async def reach(self, stream: str, seen: Cursor) -> None:
        """See `Partition.reach`. The log is asked for each cursor that is ahead; about an epoch once, as one
        that is not the last one never will be.
        """
        with trio.move_on_after(REACH_S) as patience:
            if seen.epoch == self.epoch:
                await self.catch_up(stream)
            if not self.knows(stream, seen):  # of a later epoch, of an older one, or lost
                await self.log.look()
                while self.epoch != self.log.epoch:
                    await self._epoch_began.wait()
                if seen.epoch == self.epoch:
                    await self.catch_up(stream)
                else:
                    self._note_old(seen.epoch)
        if patience.cancelled_caught:
            raise LogAway

    async def catch_up(self, stream: str) -> None:
        """See `Partition.catch_up`."""
        actor = self.actor(stream)
        assert isinstance(actor, SharedActor)
        await actor.catch_up()

    def _note_old(self, epoch: str) -> None:
        self._old_epochs[epoch] = None
        if len(self._old_epochs) > OLD_EPOCHS_MAX:
            del self._old_epochs[next(iter(self._old_epochs))]

    # Duty

    async def _take_turns(self) -> None:
        while True:
            if await self._hold():
                try:
                    await self._be_on_duty()
                except* Unavailable as group:
                    logger.warning("a partition is given back: %s", group.exceptions)
                if self._lease.next is not None:
                    await self.finish()
                self._leave_duty()
            await trio.sleep(WISH_S if self._lease.wishes else random.uniform(0.5, 1.0) * LEASE_S / 3)

    async def finish(self) -> None:
        """See `Partition.finish`; then let another node have the partition at once. Without a checkpoint it
        would have to do once more what was done since the last.
        """
        await self.upkeep.take()
        self._leave_duty()
        try:
            await self._lease.release()
        except Unavailable as error:
            logger.info("the lease runs out by itself: %s", error)

    async def lease_holder(self) -> str | None:
        """See `Partition.lease_holder`."""
        return await self._lease.holder()

    async def is_surely_on_duty(self) -> bool:
        """See `Partition.is_surely_on_duty`: the lease is renewed, or this is the end of the duty."""
        if self.on_duty and not await self._lease.hold(LEASE_S) and self._duty is not None:
            self._duty.cancel()
            return False
        return self.on_duty

    async def _hold(self) -> bool:
        try:
            return await self._lease.hold(LEASE_S)
        except Unavailable:
            return False

    def _begin_duty_anew(self) -> None:
        """What is known here has a hole: a checkpoint that began now would pass over what was not heard."""
        self.on_duty = False
        self.heard.clear()
        self.gaps += 1
        if self._duty is not None:
            self._duty.cancel()

    async def _be_on_duty(self) -> None:
        """Work until the lease is lost, or what is known is not enough any more."""
        async with trio.open_nursery() as nursery:
            self._duty = nursery.cancel_scope
            nursery.start_soon(self._keep_lease, nursery.cancel_scope)
            await self._prepare()
            for runner in self.runners:
                nursery.start_soon(runner.run)
            nursery.start_soon(watch_over, self.log, self.tail)
            await trio.sleep_forever()

    def _leave_duty(self) -> None:
        self.on_duty = self._tailing = False
        self._duty = None
        self.upkeep.end()
        self.runners.clear()
        for stream in self._armed:
            self._host.arm(stream, None)
        self._armed.clear()

    async def _keep_lease(self, scope: trio.CancelScope) -> None:
        began_s = held_s = trio.current_time()
        with trio.move_on_at(held_s + LEASE_S) as patience:
            while True:
                await trio.sleep(LEASE_S / 3)
                held_s = trio.current_time()
                try:
                    if not await self._lease.hold(LEASE_S):
                        break
                except Unavailable:
                    continue  # until the lease has run out
                patience.deadline = held_s + LEASE_S
                if self._lease.next is not None and held_s > began_s + STAY_S:
                    break
        scope.cancel()

    async def _prepare(self) -> None:
        """Know everything that changed since the last checkpoint, whoever took it."""
        await self.checkpoint.refresh()
        self.tail = Tail(self._followed)
        self.upkeep.begin()
        self._tailing = self.log.attended = True
        await self.load_runners(self._reactions, self._history)
        changed = await self._changed_since(max(self.checkpoint.position, self.log.first - 1))
        for stream in changed:
            _check_kind(stream)
            self.upkeep.changing(stream)
        self.on_duty = True  # not before: a checkpoint would be without what changed
        for actor in self.actors.values():
            if actor.stream not in changed:
                actor.saved_version = actor.version
            if actor.loaded:
                self.arm(actor.stream, actor.due_ms)
                if actor.memory.unsaved():
                    self.upkeep.changing(actor.stream)
        for stream in changed:
            self.actor(stream)
        for stream, due_ms in await self.checkpoint.deadlines():
            _check_kind(stream)
            if stream not in self.actors:
                self.arm(stream, due_ms)

    async def _changed_since(self, position: int) -> set[str]:
        """Return the streams that have records after a position."""
        changed: set[str] = set()
        while True:
            try:
                found = await self.log.read(position, CHUNK_BYTES)
            except CursorUnusable:  # another node took a checkpoint meanwhile: what went is in that
                position = max(position, self.log.first - 1)
                continue
            if not found:
                break
            position = found[-1][0]
            for _, entry in found:
                changed.add(entry.stream)
                if entry.version == 1 and entry.stream.startswith("store:"):
                    self._host.note_store(entry.stream)
        return changed


def _check_kind(stream: str) -> None:
    """Whoever is on duty has to know the rules of every stream.

    Raises:
        ConfigError: as `domain_of`.
    """
    domain_of(stream.partition(":")[0])
