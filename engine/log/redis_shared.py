"""The log of a cluster in Redis: its partitions, and the tasks and threads that they share.

Threads: one that appends, one per server that listens, a few that ask. Tasks: one looks at all partitions
every now and then, or when something is amiss; one asks appends again; one keeps the listener going; one
sees that no question waits for a slow one.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import trio

from engine.errors import ConfigError, LogAway, LogFailed, UnknownOutcome
from engine.log import partition_of
from engine.log.redis import RedisPartition
from engine.log.redis_asking import PASSING, Asking, Gone, Meta, Refused, Witness, good, meet
from engine.log.redis_lines import Away, Command, Cut, Line
from engine.log.redis_route import Lines, Route
from engine.log.redis_tail import Listener
from engine.log.redis_trips import Trips
from engine.log.redis_writer import Writer
from engine.log.worker import ThreadWorker

logger = logging.getLogger("onda.log")

PARTITIONS = 16
ASKERS_MAX = 4
LOOK_S = 1.0
"""How often partitions are looked at while the channels are heard."""
DEAF_S = 0.05
"""And while they are not."""
GRACE_S = 0.1
"""How long what the channels have not yet brought is waited for, before it is read instead."""
HEAL_BYTES = 1 << 20
CLOSE_S = 3.0

T = TypeVar("T")


class RedisLog:
    """All partitions of the log in one Redis. Made by `open_redis_log`.

    Attributes:
        partitions: each a log of its own.
        away: the partitions that could not be looked at last time, and why.
        looks: how often partitions were looked at.
        healed: how many records were read because no message of them had come.
    """

    def __init__(self, route: Route, met: Mapping[int, Meta]) -> None:
        greet = partial(_greet, count=route.partitions)
        self.asking = Asking(route, greet)
        self.publish = route.publish
        self.failure: LogFailed | None = None
        self.away: dict[int, str] = {}
        self.looks = 0
        self.healed = 0
        self._failed = trio.Event()
        self.trips = Trips(self.asking.ask_all)
        self._route = route
        self._limiter = trio.CapacityLimiter(ASKERS_MAX)
        self._worker = ThreadWorker("onda-redis")
        self._lines = Lines(route, greet)
        self.writer = Writer(self._lines, self._worker, self.fail)
        self.partitions = [RedisPartition(number, meta, self) for number, meta in sorted(met.items())]
        self.listener = Listener(route, self._hear, self._awaits, self.poke)
        self._poked = trio.Event()
        self._looked = trio.Event()  # set at the end of the look that begins next

    def partition_of(self, stream: str) -> RedisPartition:
        """Return the partition that a stream belongs to."""
        return self.partitions[partition_of(stream, len(self.partitions))]

    async def ask(self, question: Callable[[], T]) -> T:
        """Run a question in a thread of its own, as long as it takes. Being cancelled leaves the thread
        behind, which ends by itself.

        Raises:
            LogAway: Redis does not answer, or not now.
            LogFailed: keys are missing.
        """
        with self._judging():
            return await trio.to_thread.run_sync(question, limiter=self._limiter, abandon_on_cancel=True)

    async def query(self, partition: int, command: Command, *, large: bool = False) -> Any:
        """Return a partition's answer to a command, which may reach it twice. It shares a trip with what
        others ask at the same time, unless the answer may be `large`.

        Raises:
            Unavailable, LogFailed: as `ask`.
        """
        if large:
            return await self.ask(lambda: good(self.asking.ask_all([(partition, command)])[0]))
        with self._judging():
            return await self.trips.ask(partition, command)

    @contextmanager
    def _judging(self) -> Iterator[None]:
        try:
            yield
        except PASSING as error:
            raise LogAway(f"Redis is away: {error}") from None
        except LogFailed as failure:
            self.fail(failure)
            raise

    def gone(self, partition: int, what: str) -> Gone:
        """The log cannot go on, as keys are missing; return what to raise."""
        failure = Gone(partition, what)
        self.fail(failure)
        return failure

    def poke(self) -> None:
        """Look at the partitions at once."""
        self._poked.set()

    def fail(self, failure: LogFailed) -> None:
        """The log cannot go on: nobody may rely on what is there."""
        if self.failure is None:
            logger.critical("the log failed, the process has to end: %s", failure)
            self.failure = failure
            self._failed.set()
            self.writer.end(UnknownOutcome)

    async def look_anew(self) -> None:
        """Wait for the end of a look that has not begun yet; what it found is in `away`."""
        looked = self._looked
        self.poke()
        await looked.wait()

    async def wait_failed(self) -> LogFailed:
        """Wait until the log has failed for good, and return why: the process has to end."""
        await self._failed.wait()
        assert self.failure is not None
        return self.failure

    def statistics(self) -> dict[str, Any]:
        """Numbers for operators."""
        return {
            **self.writer.statistics(),
            **self.listener.statistics(),
            "partitions": len(self.partitions),
            "looks": self.looks,
            "healed": self.healed,
            "failed": self.failure is not None,
        }

    def _hear(self, batch: list[tuple[int, bytes]]) -> None:
        for number, message in batch:
            self.partitions[number].hear(message)

    def _awaits(self, number: int, message: bytes) -> bool:
        return self.partitions[number].awaits(message)

    async def look(self) -> None:
        """Compare every partition with what Redis says, and read what was not heard.

        Raises:
            LogAway: Redis does not answer.
            LogFailed: keys are missing.
        """
        self.looks += 1
        told, away = await self.ask(self._look)
        if away and not self.away:
            logger.warning("partitions %s cannot be looked at: %s", sorted(away), next(iter(away.values())))
        self.away = away
        here = [partition for partition in self.partitions if partition.number in told]
        for partition in here:
            meta = told[partition.number]
            if partition.suspects(meta):
                meta = told[partition.number] = await self._ask_fork(partition, partition.witness)
            partition.compare(meta)
        if self.listener.up and not any(partition.missed for partition in here):
            with trio.move_on_after(GRACE_S):
                for partition in here:
                    await partition.wait_seen(told[partition.number].head)
        for partition in here:
            await self._heal(partition, told[partition.number])

    def _look(self) -> tuple[dict[int, Meta], dict[int, str]]:
        """Return what partitions say, and why those say nothing that say nothing."""
        told: dict[int, Meta] = {}
        away: dict[int, str] = {}
        servers: dict[Any, list[int]] = {}
        for number, address in enumerate(self._route.addresses()):
            servers.setdefault(address, []).append(number)
        for numbers in servers.values():
            try:
                told |= self.asking.look(numbers)
            except (Away, Cut, Refused) as error:
                away.update(dict.fromkeys(numbers, f"Redis is away: {error}"))
        return told, away

    async def _ask_fork(self, partition: RedisPartition, witness: Witness) -> Meta:
        fork = partial(self.asking.fork, partition.number, partition.epoch, witness)
        return await self.ask(fork)

    async def _heal(self, partition: RedisPartition, meta: Meta) -> None:
        partition.missed = False
        while partition.seen < meta.head and partition.epoch == meta.epoch:
            seen = partition.seen
            read = partial(self.asking.read, partition.number, seen, HEAL_BYTES)
            records, now = await self.ask(read)
            if partition.seen != seen:
                continue  # heard meanwhile
            if records and partition.take(records):
                self.healed += len(records)
                partition.healed += len(records)
            elif records and records[0].position > seen + 1 and now.first > seen + 1:
                partition.skip(records[0])
            else:  # what is there does not follow what we saw
                meta = await self._ask_fork(partition, partition.last_seen)
                if meta.epoch == partition.epoch:
                    meta = await self._ask_fork(partition, partition.witness)
                if meta.epoch == partition.epoch and partition.seen == seen < meta.head:
                    self.gone(partition.number, f"the record at position {seen + 1}")
                partition.compare(meta)
                return

    async def run(self) -> None:
        """Look, listen and ask again, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.writer.run)
            nursery.start_soon(self.trips.run)
            nursery.start_soon(self.listener.run)
            nursery.start_soon(self._keep_looking)

    async def _keep_looking(self) -> None:
        while self.failure is None:
            with trio.move_on_after(LOOK_S if self.listener.up else DEAF_S):
                await self._poked.wait()
            self._poked = trio.Event()
            looked, self._looked = self._looked, trio.Event()
            try:
                await self.look()
            except LogAway as error:
                self.away = dict.fromkeys(range(len(self.partitions)), error.detail)
            except LogFailed:
                break  # everybody has been told
            finally:
                looked.set()
            if self.away:
                await trio.sleep(DEAF_S)
        self._looked.set()  # there are no more looks

    async def close(self) -> None:
        """Finish what waits, then end the threads."""
        await self.writer.close(CLOSE_S)
        self.trips.end()
        self._worker.submit(self._lines.close, lambda _: None)
        self._worker.close()
        self.asking.close()


def _greet(line: Line, mine: list[int], count: int) -> None:
    """Meet a server before anything is asked of it or appended to it: another run may be a new epoch."""
    try:
        for partition, meta in meet(line, mine, count).items():
            if meta is None:
                raise Gone(partition, "meta")
    except Refused as error:
        raise Away(str(error)) from None


def _meet_all(route: Route, *, make: bool) -> dict[int, Meta | None]:
    met: dict[int, Meta | None] = {}
    lines = Lines(route)
    try:
        owners = route.addresses()
        for address in set(owners):
            mine = [number for number, owner in enumerate(owners) if owner == address]
            met |= meet(lines.to(address), mine, route.partitions, make)
    finally:
        lines.close()
    return met


def _open(route: Route, witnesses: Mapping[int, Witness]) -> dict[int, Meta]:
    """Meet every partition; make them all if this is the very first start."""
    met = _meet_all(route, make=False)
    missing = [number for number, meta in met.items() if meta is None]
    if missing:
        used = [number for number, meta in met.items() if meta is not None and meta.head > 0]
        known = [number for number in missing if number in witnesses]
        if used or known:  # not the first start, nor one that the first start did not come to the end of
            raise Gone(min(known or missing), "meta")
        met = _meet_all(route, make=True)
    found = {number: meta for number, meta in met.items() if meta is not None}
    for number, witness in witnesses.items():
        if witness.position and number in found:
            found[number] = Asking(route).fork(number, witness.epoch or found[number].epoch, witness)
    return found


@asynccontextmanager
async def open_redis_log(
    url: str,
    *,
    partitions: int = PARTITIONS,
    witnesses: Mapping[int, Witness] | None = None,
    node: str = "onda",
) -> AsyncIterator[RedisLog]:
    """Open the log in a Redis, or make one there; it is closed in order at the end of the `async with`.

    Args:
        url: see `redis_route.Route`.
        partitions: how many; fixed by whoever is first.
        witnesses: records that this node knows to have been acknowledged when it ended last: if Redis has
            lost them meanwhile, a new epoch begins; if it has lost everything, it is refused.
        node: name of this node among Redis' clients.

    Raises:
        ConfigError: the URL, or another number of partitions than there is.
        LogAway: Redis cannot be reached.
        LogFailed: keys are missing.
    """
    if not 1 <= partitions <= 1024:
        raise ConfigError("redis_partitions must be 1 to 1024")
    route = Route(url, partitions, node)
    try:
        met = await trio.to_thread.run_sync(_open, route, witnesses or {}, abandon_on_cancel=True)
    except (Away, Cut, Refused) as error:
        raise LogAway(f"Redis is away: {error}") from None
    log = RedisLog(route, met)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        try:
            yield log
        except BaseException as error:  # noqa: BLE001  raised below, out of the nursery
            failure = error
        with trio.CancelScope(shield=True):
            await log.close()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
