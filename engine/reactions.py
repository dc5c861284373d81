"""Reactions: what follows from records, at least once, in order per lane, with a durable position.

A reaction looks at every record of the log in order and handles those of its types. Each belongs to a lane,
its stream unless the reaction says another; records of one lane are handled one after the other, and lanes
run side by side. A reaction's position is the last record before the oldest that is not yet done;
checkpoints save it, and after a start it goes on from there. Handlers therefore see a record again after a
crash, and hand on ids derived from the record so that the effect is once.

A failed handler is tried again: 1 try + n retries, exponential backoff with full jitter. Attempts are
counted before the handler runs, and the count outlives the process: the first attempt counts with the
record itself, each start that finds records which may have been tried writes that down, and so does each
retry. But that a process ended says little about one record among many (the power may flap): those that
several starts in a row have found are suspects, tried one at a time, each attempt written down before it
begins. For them only these count, so a record that kills the process is parked in the end, and no other.
While a lane has a parked record, its later records for this reaction are parked behind it; `replay` and
`skip` let them go on.
`Unavailable` (no space, too much waiting) is nobody's fault: it is waited out and not counted, and a handler
may raise it too, to say "not now".
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

import trio

from engine.checkpoint import Checkpoint, Parked
from engine.clock import Clock
from engine.config import Config
from engine.errors import (
    CursorUnusable,
    LogCorrupt,
    LogFailed,
    OndaError,
    ReadOnly,
    Unavailable,
    UnknownOutcome,
)
from engine.log import Log
from engine.mailbox import Committed
from engine.metrics import Metrics
from engine.onward import SWEEP_S, read_watched
from engine.parking import Parking, backoff_s, keep_trying
from engine.tail import Tail

SUSPECT_AFTER = 2
"""Starts in a row that found a record undone, after which it is tried alone."""
OPEN_MAX = 1024
"""Records that one reaction has under way or waiting in lanes."""
SPAN_MAX = 65_536
"""Records from the oldest that is not done on: one lane that has to wait does not soon stop the others."""

_NOT_NOW = (Unavailable, UnknownOutcome)
"""Nobody's fault. (After an unknown outcome the log has failed: the process ends.)"""

logger = logging.getLogger("onda.reactions")


def stream_of(record: Committed) -> str:
    """Return the lane of reactions that do not say another: records of one stream keep their order."""
    return record.stream


class Reaction(NamedTuple):
    """What follows from some types of event.

    `handle` must be idempotent: it may see a record again. `types` are class names of events; of these,
    `wants` says cheaply which records are worth handling. `lane` names what must be handled in order; it is
    made from the record alone, as it is asked again after a start. `retries`: tries after the first one;
    `None`: as `Config.reaction_retries` says. `start`: does what `handle` does without a task of its own and
    calls back, once, with the error or None; of several tries it is the first.
    """

    name: str
    types: frozenset[str]
    handle: Callable[[Committed], Awaitable[None]]
    wants: Callable[[Committed], bool] = lambda _: True
    lane: Callable[[Committed], str] = stream_of
    retries: int | None = None
    start: Callable[[Committed, Callable[[Exception | None], None]], None] | None = None


class Consumer(Protocol):
    """Whoever takes every record of the log in order, and remembers how far it came."""

    @property
    def name(self) -> str: ...

    @property
    def position(self) -> int: ...

    @property
    def parked(self) -> list[Parked]: ...

    def first_parked(self, parked: Parked) -> Parked: ...

    async def resume(self, parked: Parked, *, skip: bool) -> None: ...

    async def load(self) -> None: ...

    async def run(self) -> None: ...


class Host(Protocol):
    """What a runner needs of its node."""

    config: Config
    clock: Clock
    log: Log
    checkpoint: Checkpoint
    metrics: Metrics
    tail: Tail


def place_of(reaction: Reaction, positions: Mapping[str, int], first: int) -> int:
    """Return after which position a reaction begins, by the saved `positions` and the `first` record that is
    kept: the log waits for every reaction that is there, but for no other.
    """
    position = positions.get(reaction.name, first - 1)
    if position < first - 1:
        gone = first - 1 - position
        logger.error("%d records were dropped while there was no %s", gone, reaction.name)
    return max(position, first - 1)


class Runner:
    """Runs one reaction."""

    def __init__(self, reaction: Reaction, host: Host, position: int) -> None:
        self.reaction = reaction
        self._host = host
        self._watch = host.tail.watch(reaction.types, position)
        self._open: deque[int] = deque()  # positions taken and perhaps not done, in order
        self._done: set[int] = set()
        self._lanes: dict[str, deque[Committed]] = {}
        self._room = trio.Event()
        self._moved: trio.Event | None = None
        self._reruns: list[tuple[int, int]] = []
        self._attempts: dict[int, int] = {}
        self._alone = trio.Lock()
        self._parking = Parking(reaction.name, host, reaction.lane)
        self._count_done = host.metrics.reactions.labels(reaction.name, "done").inc
        self._nursery: trio.Nursery | None = None

    @property
    def name(self) -> str:
        """What its position and its parked records are kept under."""
        return self.reaction.name

    @property
    def position(self) -> int:
        """Everything up to here is done (or parked)."""
        return self._open[0] - 1 if self._open else self._watch.position

    @property
    def parked(self) -> list[Parked]:
        """Records that wait for an operator, in the order of the log within each lane."""
        return self._parking.records

    async def load(self) -> None:
        """Read what earlier runs have left, and write down that this start may try records again."""
        host, name = self._host, self.reaction.name
        self._reruns, self._attempts = await host.checkpoint.tries(name)
        position, head = self._watch.position, host.log.head
        if head > position:
            with suppress(ReadOnly):  # a start that is not counted accuses no record
                await host.checkpoint.add_rerun(name, position, head)
            self._reruns.append((position, head))
        await self._parking.load()

    async def run(self) -> None:
        """Follow the log for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    for record in await self._next():
                        if self._is_wanted(record):
                            self._take(record, nursery)
                    self._wake()
                    while len(self._open) - len(self._done) >= OPEN_MAX or len(self._open) >= SPAN_MAX:
                        self._room = trio.Event()
                        await self._room.wait()
            finally:
                self._nursery = None  # nothing is begun any more

    async def _next(self) -> list[Committed]:
        watch = self._watch
        try:
            return await read_watched(self._host.log, watch, OPEN_MAX)
        except CursorUnusable as error:
            gone = f"records after {watch.position} are gone, {self.reaction.name} needs them"
            raise LogCorrupt("log", 0, gone) from error

    def _is_wanted(self, record: Committed) -> bool:
        try:
            return self.reaction.wants(record)
        except Exception:
            logger.exception("reaction %s: is this wanted?", self.reaction.name)
            return True  # the handler will fail, too, and the record is parked

    def _take(self, record: Committed, nursery: trio.Nursery) -> None:
        self._open.append(record.position)
        name = self._parking.lane_of(record)
        lane = self._lanes.get(name)
        if lane is None:
            self._lanes[name] = deque((record,))
            self._begin(name, record, nursery)
        else:
            lane.append(record)

    def _begin(self, name: str, record: Committed, nursery: trio.Nursery) -> None:
        """Handle the first record of a lane; in a task if it takes one."""
        start = self.reaction.start
        if start is None or name in self._parking or self._starts(record) or self._attempts:
            nursery.start_soon(self._run_lane, name)
            return
        try:
            start(record, partial(self._began, name))
        except Exception as error:  # noqa: BLE001 - the same as one that comes later
            self._began(name, error)

    def _began(self, name: str, error: Exception | None) -> None:
        """The first record of a lane was handled, or could not be without a task."""
        nursery = self._nursery
        if error is None:
            self._count_done()
            lane = self._lanes[name]
            self._finish(lane.popleft().position)
            if not lane:
                del self._lanes[name]
            elif nursery is not None:
                self._begin(name, lane[0], nursery)
        elif nursery is not None:
            nursery.start_soon(self._run_lane, name, error)

    async def _run_lane(self, name: str, error: Exception | None = None) -> None:
        """Handle the records of a lane until there are no more; `error`: what became of the first try."""
        lane = self._lanes[name]
        while lane:
            record = lane[0]
            await self._handle(record, name, error)
            error = None
            lane.popleft()
            self._attempts.pop(record.position, None)
            self._finish(record.position)
        del self._lanes[name]

    def _finish(self, position: int) -> None:
        self._done.add(position)
        while self._open and self._open[0] in self._done:
            self._done.discard(self._open.popleft())
        self._room.set()
        self._wake()

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    async def wait_beyond(self, position: int) -> None:
        """Wait until everything up to `position` is done (or parked)."""
        while self.position < position:
            if self._host.tail.high < position:
                await self._host.tail.wait_beyond(position - 1, SWEEP_S)
                continue
            if self._moved is None:
                self._moved = trio.Event()
            await self._moved.wait()

    def _starts(self, record: Committed) -> int:
        """How many starts in a row have found this record."""
        return sum(low < record.position <= high for low, high in self._reruns)

    async def _handle(self, record: Committed, lane: str, error: Exception | None) -> None:
        """Bring one record to its end: handled, or parked. `error`: a first try has failed already."""
        parking = self._parking
        if lane in parking:
            async with parking.lock:  # once a replay is through there is nothing more to wait for
                if lane in parking:
                    await parking.park(record, lane, 0, f"an earlier record of {lane} is parked")
                    return
        config, name = self._host.config, self.reaction.name
        retries = config.reaction_retries if self.reaction.retries is None else self.reaction.retries
        starts = self._starts(record)
        suspect = starts >= SUSPECT_AFTER
        counted = self._attempts.get(record.position, 0)
        attempt = counted + 1 if suspect else max(counted, 1) + starts
        last = "the process ended during each attempt"
        while attempt <= 1 + retries:
            error = await self._try(record, attempt if suspect else None, error)
            if error is None:
                self._count_done()
                return
            last = f"{type(error).__name__}: {error}"
            error = None
            attempt += 1
            if attempt <= 1 + retries:
                self._host.metrics.reactions.labels(name, "retried").inc()
                await self._count(record, attempt)
                await trio.sleep(backoff_s(attempt - 2, config))
        await parking.park(record, lane, attempt - 1, last)
        await self._count(record, 0)  # whoever lets it go on has seen to it: it has its tries again

    async def _try(self, record: Committed, alone: int | None, error: Exception | None) -> Exception | None:
        """Run the handler until it has a word on the record; wait out what is only unavailable, with others
        having their turn meanwhile. `alone`: run it alone, and count it as this attempt. `error`: what it
        said the first time.
        """
        waited = 0
        while True:
            if error is not None:
                self._note_failure(record, error)
            elif alone is None:
                error = await self._run_handler(record)
            else:
                error = await self._run_alone(record, alone)
            if not isinstance(error, _NOT_NOW):
                return error
            await trio.sleep(backoff_s(waited, self._host.config))
            waited = min(waited + 1, 16)
            error = None

    async def _run_alone(self, record: Committed, attempt: int) -> Exception | None:
        async with self._alone:
            await self._count(record, attempt)
            error = await self._run_handler(record)
            if error is None or isinstance(error, _NOT_NOW):
                await self._count(record, 0)  # it may be tried again, but not because it ended the process
            return error

    async def _count(self, record: Committed, attempt: int) -> None:
        """Write down that this attempt begins (0: that none counts); wait for space if there is none."""
        checkpoint, name = self._host.checkpoint, self.reaction.name
        await keep_trying(lambda: checkpoint.count_attempt(name, record.position, attempt), self._host.config)

    async def _run_handler(self, record: Committed) -> Exception | None:
        """Run the handler once; return what it raised."""
        try:
            await self.reaction.handle(record)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure
            self._note_failure(record, error)
            return error
        return None

    def _note_failure(self, record: Committed, error: Exception) -> None:
        """Say what a handler raised.

        Raises:
            LogFailed, LogCorrupt: this is no failure of the handler, the process has to end.
        """
        if isinstance(error, LogFailed | LogCorrupt):
            raise error
        if not isinstance(error, _NOT_NOW):
            where = (self.reaction.name, record.stream, record.version, error)
            trace = None if isinstance(error, OndaError) else error
            level = logging.WARNING if trace is None else logging.ERROR
            logger.log(level, "reaction %s failed at %s %d: %s", *where, exc_info=trace)

    def first_parked(self, parked: Parked) -> Parked:
        """Return the record that holds this one: the first of its lane, which may be itself."""
        return self._parking.first(parked)

    async def resume(self, parked: Parked, *, skip: bool) -> None:
        """Let a parked record and those behind it go on. Raises as `Parking.resume`."""
        await self._parking.resume(parked, self.reaction.handle, skip=skip)
