"""A partition: one log with everything that belongs to it: actors, rings, checkpoint, tail and reactions.

The write-ahead log is one partition, and this node alone writes to it. In a shared log there are several,
other nodes append too, and the node that holds a partition for the moment (`duty.py`) takes its checkpoints,
watches its deadlines and runs its reactions.

An actor asks its partition for all that it needs; what belongs to the whole node comes from there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

from engine.actor import Actor
from engine.answers import Answer
from engine.checkpoint import Checkpoint
from engine.clock import Clock
from engine.config import Config
from engine.errors import Stopping
from engine.feed import Feed
from engine.lease import Lease, node_of
from engine.log import Log
from engine.mailbox import Committed
from engine.metrics import Metrics
from engine.onward import watch_over
from engine.reactions import Consumer, Reaction, Runner, place_of
from engine.records import Cursor, Entry
from engine.replay import rebuild, replay
from engine.supervisor import supervise
from engine.tail import Tail
from engine.upkeep import Upkeep

if TYPE_CHECKING:  # SQLAlchemy and redis-py take their time to load
    from engine.cluster_redis import Cluster
    from engine.history import History

logger = logging.getLogger("onda.node")


class Ground(NamedTuple):
    """What a partition stands on. `lease`: by which one of several nodes holds it; `None`: there is one
    node. `cluster`: the way to the others, the same for every partition.
    """

    log: Log
    checkpoint: Checkpoint
    lease: Lease | None = None
    cluster: Cluster | None = None


class Host(Protocol):
    """What a partition needs of its node."""

    clock: Clock
    metrics: Metrics

    @property
    def nursery(self) -> trio.Nursery | None: ...

    def arm(self, stream: str, due_ms: int | None) -> None: ...

    def note_store(self, stream: str) -> None: ...

    def overhear(self, stream: str, records: Sequence[tuple[int, Entry]]) -> None: ...


class Partition:
    """See `engine.log` for what a partition of a log is. `config`: the settings, with the bounds of memory
    that are this partition's part; `on_duty`: checkpoints, deadlines and reactions are this node's; `counts`
    is for operators: `conflicts`, `given_up` (commands' turns, after too many of these), `epochs`; `heard`:
    versions of stores that other nodes appended to; `gaps`: how often what they appended was not all heard.
    """

    def __init__(self, host: Host, config: Config, log: Log, checkpoint: Checkpoint) -> None:
        self.config = config
        self.clock = host.clock
        self.metrics = host.metrics
        self.log = log
        self.checkpoint = checkpoint
        self.epoch = log.epoch
        self.on_duty = True
        self.counts: Counter[str] = Counter()
        self.heard: dict[str, int] = {}
        self.gaps = 0
        self.actors: dict[str, Actor] = {}
        self.feeds: dict[str, Feed] = {}
        self.runners: list[Consumer] = []
        self.tail = Tail(log.head)
        self.upkeep = Upkeep(self)
        self._host = host
        self._scopes: dict[str, trio.CancelScope] = {}

    async def start(
        self, nursery: trio.Nursery, reactions: Sequence[Reaction], history: History | None
    ) -> None:
        """Replay what is on disk, then start the actors that it woke; tasks begin with `run`."""
        started_s = trio.current_time()
        evolved = await replay(self)
        for stream in await self.checkpoint.stores():
            self._host.note_store(stream)
        for stream, due_ms in await self.checkpoint.deadlines():
            self.arm(stream, due_ms)
        for actor in self.actors.values():
            if actor.kind == "store" and actor.version > 0:
                self._host.note_store(actor.stream)
            self.upkeep.changing(actor.stream)
            self.arm(actor.stream, actor.due_ms)
        logger.info("replayed %d records in %.3f s", evolved, trio.current_time() - started_s)
        await self.load_runners(reactions, history)
        for actor in list(self.actors.values()):
            self.start_actor(actor, nursery)

    async def load_runners(self, reactions: Sequence[Reaction], history: History | None) -> None:
        """Make a runner for each reaction, where it was when it was last saved, and let the history begin."""
        if history is not None:
            keeper = history.keeper_of(self)
            await keeper.load()
            self.runners.append(keeper)
        positions = await self.checkpoint.positions()
        for reaction in reactions:
            runner = Runner(reaction, self, place_of(reaction, positions, self.log.first))
            await runner.load()
            self.runners.append(runner)
        self.upkeep.loaded()

    async def run(self) -> None:
        """Run reactions and upkeep, for ever."""
        async with trio.open_nursery() as nursery:
            for runner in self.runners:
                nursery.start_soon(runner.run)
            nursery.start_soon(watch_over, self.log, self.tail)
            nursery.start_soon(self.upkeep.run)

    @property
    def followed(self) -> int:
        """Every record up to here is known to those here whom it concerns."""
        return self.log.head

    # Actors

    def actor(self, stream: str) -> Actor:
        """Return a stream's actor, started if need be.

        Raises:
            Stopping: the node is not running.
        """
        actor = self.actors.get(stream)
        if actor is None:
            if self._host.nursery is None:
                raise Stopping
            actor = self.new_actor(stream)
            self.start_actor(actor, self._host.nursery)
        return actor

    def new_feed(self, stream: str) -> Feed:
        config = self.config
        feed = Feed(stream, config.ring_frames_max, config.ring_bytes_max, self.metrics)
        self.feeds[stream] = feed
        return feed

    def new_actor(self, stream: str) -> Actor:
        feed = self.feeds.get(stream)  # may be empty, and so falsy
        actor = self._make_actor(stream, self.new_feed(stream) if feed is None else feed)
        self.actors[stream] = actor
        return actor

    def _make_actor(self, stream: str, feed: Feed) -> Actor:
        return Actor(stream, feed, self)

    def start_actor(self, actor: Actor, nursery: trio.Nursery) -> None:
        """Run an actor beside the others."""
        # Shielded: when the program around the node is cancelled, `close` still lets actors finish.
        scope = self._scopes[actor.stream] = trio.CancelScope(shield=True)
        nursery.start_soon(self._run_actor, actor, scope)

    async def _run_actor(self, actor: Actor, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await supervise(actor, self.config, self.metrics)
        finally:
            actor.end()

    def drop_actor(self, actor: Actor) -> None:
        """Forget an idle actor that is complete in the checkpoint; its ring stays for a while."""
        del self.actors[actor.stream]
        self._scopes.pop(actor.stream).cancel()

    async def lease_holder(self) -> str | None:
        """Return who has the lease by which one of several nodes is on duty. Raises as `Lease.holder`."""
        await trio.lowlevel.checkpoint()
        return None

    async def node_on_duty(self) -> str | None:
        """Return the name of the node on duty, `None` when there is none. Raises as `Lease.holder`."""
        return node_of(await self.lease_holder() or "") or None

    async def is_surely_on_duty(self) -> bool:
        """Return whether this node is on duty, and no other can be just now. Raises as `Lease.hold`."""
        await trio.lowlevel.checkpoint()
        return self.on_duty

    async def finish(self) -> None:
        """Take the last checkpoint; mailboxes are empty, and what `run` runs has ended."""
        await self.upkeep.take()

    def end(self) -> None:
        """End every actor."""
        for scope in self._scopes.values():
            scope.cancel()

    # What actors and upkeep call

    def appending(self, stream: str) -> None:
        """Take note that a stream is about to change."""
        self.upkeep.changing(stream)

    def committed(self, records: Sequence[Committed], size: int) -> None:
        """Take note of durable records of one stream, `size` bytes of envelopes."""
        if records[0].version == 1 and records[0].stream.startswith("store:"):
            self._host.note_store(records[0].stream)
        self.upkeep.grown(records[-1].position, size)
        self.tail.add(records)

    def arm(self, stream: str, due_ms: int | None) -> None:
        self._host.arm(stream, due_ms)

    async def rebuild(self, actor: Actor) -> None:
        await rebuild(self, actor)
        if actor.kind == "store" and actor.version > 0:
            self._host.note_store(actor.stream)
        if actor.version != actor.saved_version:
            self.upkeep.changing(actor.stream)
            self.tail.restart(self.log.head)  # what it committed last may never have been reported

    async def saved_answer(self, stream: str, key: str) -> Answer | None:
        return await self.checkpoint.load_answer(stream, key)

    # What only other nodes may know

    async def has(self, stream: str) -> bool:
        """Return whether a stream that nobody here knows has records."""
        return False

    def knows(self, stream: str, seen: Cursor) -> bool:
        """Return whether what is known here is enough to judge a cursor."""
        return True

    async def reach(self, stream: str, seen: Cursor) -> None:
        """Hear of what a cursor is of, if it is in the log.

        Raises:
            Unavailable: nobody can tell just now.
        """

    async def catch_up(self, stream: str) -> None:
        """Know what is in the log of a stream; raises as `reach`."""


def open_partition(host: Host, config: Config, ground: Ground, count: int) -> Partition:
    """Make one of `count` partitions of a node."""
    if ground.lease is None:
        return Partition(host, config, ground.log, ground.checkpoint)
    from engine.shared_partition import SharedPartition  # here: it is a partition, too

    return SharedPartition(host, config, ground, count)
