"""The keeper of the history: takes every record of the log, in order and in batches, into a database.

Its place in the log is a row of that database, written in the same transaction as what it stands for, so each
record has its effect once. Nobody waits for it: a slow or dead database makes the history late and nothing
else, but for the log, which keeps on disk what the history does not have yet.

A batch that fails is written again record by record. A record is to blame only when the database is fit
without it (`Database.probe`); after 1 + `RETRIES` attempts it is parked, and later records of its stream
behind it. Everything else is the database's fault, and is waited out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import trio

from engine.checkpoint import Checkpoint, Parked
from engine.clock import Clock
from engine.config import Config
from engine.domain.times import to_text
from engine.errors import CursorUnusable, LogCorrupt, LogFailed, Unavailable
from engine.history.database import Database, short
from engine.history.places import Moved, NotOurs, Place
from engine.log import Log
from engine.mailbox import Committed
from engine.metrics import Metrics
from engine.onward import read_onward, to_committed
from engine.parking import Parking, backoff_s
from engine.reactions import stream_of
from engine.tail import Tail

NAME = "history"
RETRIES = 4
BATCH_MAX = 512
"""Records in one transaction."""
GATHER_S = 0.2
"""How long records are gathered before they are written, so that a transaction is worth its sync."""
REST = 2.0
"""Pause after a batch, in multiples of the time that it took: orders come first, and share this machine."""
BUSY_S = 0.002
"""When a turn of trio's loop takes longer than this, others wait for it, and the pause is:"""
BUSY_REST = 9.0
REST_S_MAX = 1.0
FORGET_EVERY_S = 600.0
FORGET_MAX = 500
"""Events that one step deletes."""
QUERY_S = 10.0
"""How long a question to the history may take, waiting for its turn included."""
DAY_MS = 86_400_000

T = TypeVar("T")

logger = logging.getLogger("onda.history")


class DatabaseDown(Unavailable):
    """The database of the history does not answer; try again in a moment."""

    code = "history_unavailable"
    retry_after_s = 5


class Host(Protocol):
    """What the keeper needs of its node."""

    config: Config
    clock: Clock
    checkpoint: Checkpoint
    metrics: Metrics
    tail: Tail

    @property
    def log(self) -> Log: ...

    @property
    def epoch(self) -> str: ...


class Keeper:
    """Keeps the history of one log. A `Consumer` like the runners of reactions, under the name `history`.

    Args:
        partition: of a shared log; `None`: it is one node's own.
        thread: in which the database is spoken to.
    """

    name = NAME
    lost = 0

    def __init__(
        self,
        host: Host,
        database: Database,
        partition: int | None = None,
        thread: trio.CapacityLimiter | None = None,
    ) -> None:
        self._host = host
        self._database = database
        self._partition = partition
        self._place: Place | None = None  # known while the database answers
        self._position = 0
        self._parking = Parking(NAME, host, stream_of)
        self._thread = thread or trio.CapacityLimiter(1)
        self._said = ""
        self._failures = 0

    @property
    def position(self) -> int:
        """Everything up to here is in the database (or parked)."""
        return self._position

    @property
    def lag(self) -> int:
        """Records that are not in the database yet."""
        return self._host.log.head - self._position

    @property
    def up(self) -> bool:
        """Whether the database took the last thing that it was told."""
        return self._place is not None

    @property
    def parked(self) -> list[Parked]:
        """Records that the database did not take, and those behind them."""
        return self._parking.records

    def first_parked(self, parked: Parked) -> Parked:
        """Return the record that holds this one: the first of its stream, which may be itself."""
        return self._parking.first(parked)

    async def resume(self, parked: Parked, *, skip: bool) -> None:
        """Let a parked record and those behind it go on. Raises as `Parking.resume`."""
        await self._parking.resume(parked, self._write_again, skip=skip)

    async def load(self) -> None:
        """Read what earlier runs have parked, and where they were as far as the checkpoint knows."""
        positions = await self._host.checkpoint.positions()
        self._position = max(positions.get(NAME, 0), self._host.log.first - 1)
        await self._parking.load()

    def keeper_of(self, partition: Host) -> Keeper:
        """Return the keeper of a partition: there is one."""
        return self

    def position_of(self, partition: Host) -> int:
        """Return up to which position everything is known to be in the database."""
        return self._position

    async def watch(self) -> None:
        """See `SharedHistory.watch`: nobody else writes here."""

    async def query(self, ask: Callable[[Database], T]) -> T:
        """Return what a question to the database answers.

        Raises:
            DatabaseDown: it does not answer, or not in time.
        """
        return await ask_database(lambda: ask(self._database), self._thread)

    # Writing

    async def run(self) -> None:
        """Keep the history for ever."""
        while True:
            try:
                self._place = await self._connect()
                self._position = self._place.position
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._forget)
                    await self._keep()
            except* (LogFailed, LogCorrupt):
                raise
            except* (CursorUnusable, Moved):
                self._place = None  # the database is somewhere else than was thought: look again
            except* Unavailable as group:
                logger.info("the history waits for the log: %s", _first(group))
            except* Exception as group:  # noqa: BLE001 - whatever it is, the next try may be better
                self._place = None
                self._host.metrics.history_errors.labels("database").inc()
                self._say(logging.ERROR, f"{self._database.shown}: {short(_first(group))}")
            await trio.sleep(backoff_s(self._failures, self._host.config))
            self._failures = min(self._failures + 1, 16)

    async def close(self) -> None:
        """Close the connections, if the database lets go of them soon."""
        with trio.move_on_after(1.0, shield=True):
            await self._in_thread(self._database.close)

    async def _connect(self) -> Place:
        """Find the place in the database, and see that it is one in this log.

        Raises:
            NotOurs: it is not.
        """
        host, log = self._host, self._host.log
        place = await self._in_thread(lambda: self._database.open(self._partition))
        place = await self._agree(place)
        gap = None
        if place.position < log.first - 1:
            gap = (place.position + 1, log.first - 1)
            logger.error("records %d to %d were dropped from the log without the history", *gap)
        if gap is not None or place.epoch != host.epoch:
            now = to_text(host.clock.now_ms())
            place = await self._in_thread(lambda: self._database.adopt(place, host.epoch, gap, now))
        return place

    async def _agree(self, place: Place) -> Place:
        """Return a place at which history and log agree. Raises as `_connect`."""
        foreign = place.position > 0 and place.epoch != self._host.epoch and not await self._is_ours(place)
        if foreign or place.position > self._host.log.head:
            raise NotOurs(tell_foreign(place))
        return place

    async def _is_ours(self, place: Place) -> bool:
        """Whether a log with a new epoch still begins as the one of the place: nothing was lost that is in
        the history.
        """
        if not self._host.log.first <= place.position <= self._host.log.head:
            return False
        position, entry = (await self._host.log.read(place.position - 1))[0]
        return position == place.position and to_committed(position, entry).id == place.last_id

    async def _keep(self) -> None:
        while True:
            records = await read_onward(self._host, self._position, BATCH_MAX)
            if records and len(records) < BATCH_MAX:
                await trio.sleep(GATHER_S)
                records = await read_onward(self._host, self._position, BATCH_MAX)
            for start in range(0, len(records), BATCH_MAX):
                batch = records[start : start + BATCH_MAX]
                self._host.metrics.history_batch.observe(len(batch))
                started_s = trio.current_time()
                try:
                    await self._write(batch)
                except Moved:
                    raise
                except Exception as error:  # noqa: BLE001 - the records are tried one by one
                    logger.warning("a batch of the history failed: %s", short(error))
                    await self._write_each(batch)
                await self._rest(trio.current_time() - started_s)

    async def _rest(self, took_s: float) -> None:
        """Leave processor and disk to others after a batch that took so long."""
        began_s = trio.current_time()
        await trio.lowlevel.checkpoint()
        busy = trio.current_time() - began_s > BUSY_S
        await trio.sleep(min(REST_S_MAX, BUSY_REST * took_s) if busy else min(GATHER_S, REST * took_s))

    async def _write(self, records: Sequence[Committed]) -> None:
        """Write records but those that stand behind a parked one, and the place after all of them."""
        parking = self._parking
        if any(record.stream in parking for record in records):
            async with parking.lock:
                await self._look()
                waiting = [record for record in records if record.stream in parking]
                for record in waiting:
                    await parking.park(record, record.stream, 0, "an earlier record of this stream is parked")
                behind = {record.position for record in waiting}
                await self._commit([r for r in records if r.position not in behind], records[-1])
        else:
            await self._commit(records, records[-1])

    async def _commit(self, records: Sequence[Committed], last: Committed) -> None:
        place = self._place
        assert place is not None
        after = place._replace(position=last.position, last_id=last.id)
        await self._in_thread(lambda: self._database.write(records, place, after))
        self._place = after
        self._position = after.position
        self._failures = 0
        self._host.metrics.reactions.labels(NAME, "done").inc(len(records))
        self._say(logging.INFO, f"kept in {self._database.shown}")

    async def _write_each(self, records: Sequence[Committed]) -> None:
        for record in records:
            attempt = 1
            while (error := await self._try_one(record)) is not None:
                self._host.metrics.history_errors.labels("record").inc()
                if attempt > RETRIES:
                    await self._look()
                    await self._parking.park(record, record.stream, attempt, short(error))
                    await self._commit((), record)
                    break
                await trio.sleep(backoff_s(attempt - 1, self._host.config))
                attempt += 1

    async def _try_one(self, record: Committed) -> Exception | None:
        """Write one record; return what is wrong with it.

        Raises:
            Exception: something is wrong with the database.
        """
        try:
            await self._write((record,))
        except Moved:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the probe says whose fault
            await self._in_thread(self._database.probe)
            return error
        return None

    async def _write_again(self, record: Committed) -> None:
        await self._in_thread(lambda: self._database.write_again(record, self._partition))

    async def _look(self) -> None:
        """See that nobody else keeps this history meanwhile: what is parked has no place to compare with."""
        place = self._place
        assert place is not None
        if self._partition is not None:
            await self._in_thread(lambda: self._database.look(place))

    async def _forget(self) -> None:
        """Delete events that are older than they have to be, in small steps, for ever."""
        while self._host.config.history_days:
            old = await self._in_thread(self._forget_some)
            await trio.sleep(GATHER_S if old == FORGET_MAX else FORGET_EVERY_S)

    def _forget_some(self) -> int:
        horizon_ms = self._host.clock.now_ms() - self._host.config.history_days * DAY_MS
        return self._database.forget(to_text(max(0, horizon_ms)), FORGET_MAX, self._partition)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # Left behind when the node ends: a database that hangs must not hold it. The place says what it did.
        return await trio.to_thread.run_sync(work, limiter=self._thread, abandon_on_cancel=True)

    def _say(self, level: int, text: str) -> None:
        """Log something once, however often it happens in a row."""
        if text != self._said:
            logger.log(level, "%s", text)
            self._said = text


async def ask_database(ask: Callable[[], T], thread: trio.CapacityLimiter, level: int = logging.WARNING) -> T:
    """Return what a question to the database answers, asked in a thread. `level`: at which to log a failure.

    Raises:
        DatabaseDown: it does not answer, or not in time.
    """
    try:
        with trio.fail_after(QUERY_S):
            return await trio.to_thread.run_sync(ask, limiter=thread, abandon_on_cancel=True)
    except trio.TooSlowError:
        raise DatabaseDown from None
    except Exception as error:
        logger.log(level, "a question to the history failed: %s", short(error))
        raise DatabaseDown from error


def tell_foreign(place: Place) -> str:
    """Return what is to be done about a history of another log."""
    ends = f"it holds records up to {place.position} of a log that is not this one"
    return f"{ends}: empty it and use `onda history --rebuild`, or name another database"


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
