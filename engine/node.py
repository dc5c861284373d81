"""A node: opens checkpoint, log, actors, reactions and timers in one nursery.

    async with open_node(Config(data="shop")) as node:
        answer = await node.ask("store:s1", CreateOrder(lines=[Line("ramen", 2)]), by="owner:kim")

Tasks: one per actor in memory, one per reaction (and per stream that it is busy with), one for timers, one
for upkeep. None of them belongs to a request. A fault of log or disk ends them all and comes out of the
`async with`.

At the end: no new commands, subscribers are told, reactions stop, mailboxes run empty, a last checkpoint is
taken, and the log is sealed.
"""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from engine import codec, inspection, operating
from engine.actor import Actor
from engine.answers import Answer
from engine.clock import Clock
from engine.config import Config
from engine.consuming import Consuming
from engine.domain.contract import Command
from engine.errors import Malformed, Rejected, Stopping, Unavailable
from engine.feed import Feed, Snapshot, Subscription
from engine.log import Log, partition_of
from engine.mailbox import Ask, Replies
from engine.metrics import Metrics
from engine.partition import Ground, Partition, open_partition
from engine.publishing import Message, Placed
from engine.reactions import Consumer, Reaction
from engine.records import Cursor, Entry, split_stream
from engine.sweep import Sweep
from engine.task_index import TaskIndex
from engine.timers import Timers
from engine.topics import Topics
from engine.waiting import Reply

if TYPE_CHECKING:  # SQLAlchemy takes its time to load
    from engine.history import History

T = TypeVar("T")
Overhear = Callable[[str, Sequence[tuple[int, Entry]]], None]
"""Takes records of one stream, with their positions; it must not raise."""

logger = logging.getLogger("onda.node")


class Node:
    """One running engine. Made by `engine.opening.open_node`."""

    def __init__(self, config: Config, clock: Clock, metrics: Metrics, grounds: Sequence[Ground]) -> None:
        self.config = config
        self.clock = clock
        self.metrics = metrics
        self.node_id = config.node_id
        self.nursery: trio.Nursery | None = None
        self.timers = Timers(clock, self.wake, config.timer_tick_s)
        self.partitions = [open_partition(self, config, ground, len(grounds)) for ground in grounds]
        only = self.partitions[0] if len(self.partitions) == 1 else None
        self.actors: MutableMapping[str, Actor] = (
            only.actors if only else ChainMap(*(one.actors for one in self.partitions))
        )
        self.feeds: MutableMapping[str, Feed] = (
            only.feeds if only else ChainMap(*(one.feeds for one in self.partitions))
        )
        self._only = only
        first = self.partitions[0]  # with the write-ahead log there is no other
        self.log, self.checkpoint, self.tail, self.upkeep = (
            first.log,
            first.checkpoint,
            first.tail,
            first.upkeep,
        )
        self.cluster = grounds[0].cluster
        self.methods: list[str] = []  # of payment, that a guest can choose
        self.redis_up: Callable[[], bool] = lambda: False
        self.draining = False
        self.history: History | None = None
        self.overheard: list[Overhear] = []
        self.sweep = Sweep(self)
        self.topics = Topics(self)
        self.tasks = TaskIndex(self)
        self._stores: set[str] = set()
        self._background = trio.CancelScope()
        self._stopping = trio.Lock()
        self._stopped = False

    def partition_of(self, stream: str) -> Partition:
        """Return the partition that a stream belongs to."""
        return self._only or self.partitions[partition_of(stream, len(self.partitions))]

    @property
    def epoch(self) -> str:
        """The log's; of a shared one the first partition's."""
        return self.partitions[0].epoch

    @property
    def runners(self) -> list[Consumer]:
        """Every consumer that runs here, of all partitions."""
        return self._only.runners if self._only else [one for part in self.partitions for one in part.runners]

    # Commands

    async def ask(
        self, stream: str, command: Command, *, by: str = "service:embedded", id: str | None = None
    ) -> Answer:
        """Send a command and wait for its answer, which comes once its events are durable.

        Args:
            stream: whose command it is: `store:s1`, `table:s1/3`, `user:u1`.
            by: who sends it, `<role>:<name>` (`table:s1/3` for a table's own device).
            id: makes it idempotent: the same `by` and `id` give the first answer again for at least
                `Config.idempotency_s`, also after a restart.

        Raises:
            Rejected: the rules say no (`unknown_store` where there is no such store).
            IdempotencyMismatch: the id was used with another command.
            Unavailable: nothing happened; try again later (`Overloaded`, `ReadOnly`, `Stopping`).
            UnknownOutcome: it may have happened; ask again with the same id, after a restart.
            Crashed: a fault in the rules; nothing happened.

        Being cancelled ends only the wait; the command goes on.
        """
        if self.draining:
            raise Stopping
        return await self.ask_inside(stream, command, by=by, id=id, cause=None)

    async def ask_inside(
        self, stream: str, command: Command, *, by: str, id: str | None, cause: str | None
    ) -> Answer:
        """As `ask`, for what follows from a record (`cause` is its id); goes on while the node drains."""
        reply: Reply[Answer] = Reply()
        try:
            self.post(stream, command, by, id, cause, reply)
        except Rejected:  # another node may have made the store a moment ago
            await self._find_store(stream)
            self.post(stream, command, by, id, cause, reply)
        return await reply.wait()

    def post(
        self, stream: str, command: Command, by: str, id: str | None, cause: str | None, reply: Replies
    ) -> None:
        """As `ask_inside`, without waiting: `reply` takes the answer. Raises what is known at once."""
        actor = self.actors.get(stream)
        if actor is None:
            if not stream.startswith("store:"):
                self._check_store(stream)
            actor = self.partition_of(stream).actor(stream)
        if type(command) not in codec.command_types(actor.kind):
            raise Malformed(f"{type(command).__name__} is not a command of a {actor.kind}")
        actor.ask(Ask(command, by, id, cause, reply))

    def _check_store(self, stream: str) -> None:
        """A table exists once its store does."""
        kind, ids = split_stream(stream)
        if kind in ("store", "table") and f"store:{ids[0]}" not in self._stores:
            raise Rejected("unknown_store", f"there is no store {ids[0]}")

    async def _find_store(self, stream: str) -> None:
        """As `_check_store`, and look into the log for a store that nobody here has heard of."""
        try:
            self._check_store(stream)
        except Rejected:
            store = f"store:{split_stream(stream)[1][0]}"
            if not await self.partition_of(store).has(store):
                raise
            self._stores.add(store)

    # Topics

    async def publish(self, topic: str, messages: Sequence[Message]) -> list[Placed]:
        """Publish records; see `Topics.publish`."""
        return await self.topics.publish(topic, messages)

    def consume(self, topic: str, group: str, member: str | None = None) -> Consuming:
        """Take part in a group: `async for record in node.consume(…)`; see there."""
        return Consuming(self, topic, group, member)

    # Reading

    async def read(self, stream: str, seen: Cursor | None = None) -> Snapshot:
        """Return a stream's durable state and the cursor that it belongs to.

        Args:
            seen: what the reader has seen, at whichever node: the state is no older than that.

        Raises:
            Rejected: `unknown_store`.
            Unavailable: a shared log is away, and nobody here has heard of what `seen` is of.
        """
        actor = await self._reach(stream, seen)
        return await actor.look(lambda: self._snapshot(actor))

    def _snapshot(self, actor: Actor) -> Snapshot:
        return Snapshot(f"{actor.epoch}-{actor.version}", actor.version, actor.view())

    async def subscribe(self, stream: str, after: Cursor | None = None) -> Subscription:
        """Follow a stream from a cursor, or from a snapshot when there is none or it cannot be used.

        Raises:
            Rejected: `unknown_store`.
            Stopping: the node is going down.
            Unavailable: as `read`.
        """
        actor = await self._reach(stream, after)
        return await actor.look(lambda: self._subscribe(actor, after))

    def _subscribe(self, actor: Actor, after: Cursor | None) -> Subscription:
        if self.draining:
            raise Stopping
        epoch = actor.epoch
        reset = None if after is None else actor.feed.reset_for(after, epoch)
        self.metrics.resumes.labels(reset or ("delta" if after else "snapshot")).inc()
        if after is not None and reset is None:
            return Subscription(actor.feed, epoch, after.version, None, None, self.metrics)
        snapshot = self._snapshot(actor)
        return Subscription(actor.feed, epoch, snapshot.version, snapshot, reset, self.metrics)

    async def _reach(self, stream: str, seen: Cursor | None = None) -> Actor:
        """Return the actor of a stream that can be read, no older than a cursor that somebody has seen."""
        await self._find_store(stream)
        partition = self.partition_of(stream)
        if seen is not None and not partition.knows(stream, seen):
            await partition.reach(stream, seen)
        return partition.actor(stream)

    async def catch_up(self, stream: str) -> None:
        """Know what other nodes have appended to a stream until now.

        Raises:
            Unavailable: a shared log is away.
        """
        await self.partition_of(stream).catch_up(stream)

    async def exists(self, stream: str) -> bool:
        """Return whether a stream can be read: stores that were made, their tables, and every user.

        Raises:
            Unavailable: a shared log is away, and nobody here has heard of the store.
        """
        try:
            await self._find_store(stream)
        except Rejected:
            return False
        await trio.lowlevel.checkpoint()
        return True

    def loaded_version(self, stream: str) -> int | None:
        """Return the version of a stream's state in memory, or, with a shared log, the last one that was
        heard; `None` when there is none, so it has not changed while this partition has known all of it.
        """
        actor = self.actors.get(stream)
        if actor is not None and actor.loaded:
            return actor.version
        return self.partition_of(stream).heard.get(stream)

    async def examine(self, stream: str, look: Callable[[Any, int], T]) -> T:
        """Return what `look` makes of a stream's durable state and its version; it must not change or keep
        the state.

        Raises:
            Rejected: `unknown_store`.
        """
        actor = await self._reach(stream)
        return await actor.look(lambda: look(actor.state, actor.version))

    # Operators

    @property
    def stores(self) -> list[str]:
        """The streams of all stores."""
        return sorted(self._stores)

    @property
    def writable(self) -> bool:
        """False while the disk is full or a shared log is away: commands are refused."""
        return all(one.log.writable for one in self.partitions)

    def statistics(self) -> dict[str, Any]:
        """Return numbers for operators; those that are metrics are described in `engine.metrics.GAUGES`."""
        return inspection.statistics(self)

    def render_metrics(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return self.metrics.render(self.statistics())

    def parked(self) -> list[dict[str, Any]]:
        """Return the records that reactions gave up on, each with its error; the first of a stream holds
        the others.
        """
        return inspection.parked(self)

    async def replay_parked(self, id: int) -> None:
        """Handle a parked record again, and then those behind it; see `operating.settle`."""
        await operating.settle(self, id, skip=False)

    async def skip_parked(self, id: int) -> None:
        """Give up on a parked record for good, and handle those behind it; see `replay_parked`."""
        await operating.settle(self, id, skip=True)

    # What actors, reactions, members of groups and upkeep call

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task beside the others until the node goes down; what it raises ends the node."""
        if self.nursery is None:
            raise Stopping
        self.nursery.start_soon(task)

    def note_store(self, stream: str) -> None:
        """Take note of a store that was made."""
        self._stores.add(stream)

    def overhear(self, stream: str, records: Sequence[tuple[int, Entry]]) -> None:
        """Tell those in `overheard` what was appended to a shared log, by whichever node."""
        for hear in self.overheard:
            hear(stream, records)

    def arm(self, stream: str, due_ms: int | None) -> None:
        self.timers.arm(stream, due_ms)

    def wake(self, stream: str) -> None:
        self.partition_of(stream).actor(stream).wake()

    # Start and end

    async def start(
        self, nursery: trio.Nursery, reactions: Sequence[Reaction], history: History | None = None
    ) -> None:
        """Replay what is on disk, then start every task."""
        self.nursery = nursery
        self.history = history
        operating.answer_others(self)
        for partition in self.partitions:
            await partition.start(nursery, reactions, history)
        nursery.start_soon(self._run_background)
        for partition in self.partitions[:1]:
            nursery.start_soon(self._watch_log, partition.log)

    async def _run_background(self) -> None:
        with self._background:
            async with trio.open_nursery() as nursery:
                for partition in self.partitions:
                    nursery.start_soon(partition.run)
                nursery.start_soon(self.timers.run)
                if self.cluster is not None:
                    nursery.start_soon(self.cluster.run)
                nursery.start_soon(self.sweep.run)

    async def _watch_log(self, log: Log) -> None:
        raise await log.wait_failed()

    async def stop(self) -> None:
        """Drain: refuse commands, end subscriptions, let mailboxes run empty, take the last checkpoint."""
        self.draining = True
        self._background.cancel()
        for feed in self.feeds.values():
            feed.close()
        async with self._stopping:
            if self._stopped:
                return
            with trio.move_on_after(self.config.shutdown_s) as scope:
                for actor in list(self.actors.values()):
                    with suppress(Unavailable):  # it is held down, or has ended with the log
                        await actor.look(lambda: None)
                for partition in self.partitions:
                    await partition.finish()
            if scope.cancelled_caught:
                logger.warning("stopped before everything was written out; the next start replays it")
            self._stopped = True

    async def close(self) -> None:
        """Stop, whatever is cancelled around it, then end every task; who still waits then gets an answer."""
        with trio.CancelScope(shield=True):
            try:
                await self.stop()
            finally:
                nursery, self.nursery = self.nursery, None
                for partition in self.partitions:
                    partition.end()
                assert nursery is not None
                nursery.cancel_scope.cancel()
