"""Appends to Redis: what waits goes out in one trip, by one thread, while the next gathers.

An append whose answer is lost may have been done. It is asked again, with the same ids, until Redis says
which: the script gives what is there already its position again. Only what stays without an answer for
`PATIENCE_S` is an unknown outcome. What was never sent, or was refused when it was sent for the first time,
did not happen. (Refused when it is asked again says nothing about the first time.)

While a partition's server is away, its appends are refused at once; the thread tries to get back, with
exponential backoff and full jitter. All state belongs to trio's thread, except the lines.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import outcome
import trio

from engine.errors import LogAway, LogFailed, OndaError, Overloaded, Stopping, Unavailable, UnknownOutcome
from engine.log.redis_lines import Away, Cut, has_moved, refusal_of
from engine.log.redis_route import Lines
from engine.log.redis_scripts import APPEND
from engine.log.worker import Worker

logger = logging.getLogger("onda.log")

QUEUE_ENTRIES_MAX = 65_536
QUEUE_BYTES_MAX = 64 << 20
BATCH_APPENDS_MAX = 512
BATCH_BYTES_MAX = 4 << 20
PATIENCE_S = 10.0
"""How long an append that may have been done is asked again."""
BACKOFF_S = 0.05
BACKOFF_S_MAX = 2.0
REFUSED_S = 0.5
"""How long appends are refused after Redis refused one, before the next is tried."""
QUIET_S = 60.0
"""How often that is worth a line in the log."""


class Append:
    """One call of the append script. `taken` gets the script's answer, before the next trip begins; then
    `done` gets it, or the error.

    `partition`: where it goes; `keys`, `arguments`: of the script; `entries`, `size`: for the bounds.
    """

    __slots__ = ("_done", "arguments", "entries", "keys", "partition", "sent_s", "size", "taken")

    def __init__(
        self,
        partition: int,
        keys: Sequence[str],
        arguments: Sequence[Any],
        entries: int,
        size: int,
        taken: Callable[[Any], None],
        done: Callable[[outcome.Outcome[Any]], None],
    ) -> None:
        self.partition = partition
        self.keys = keys
        self.arguments = arguments
        self.entries = entries
        self.size = size
        self.taken = taken
        self._done: Callable[[outcome.Outcome[Any]], None] | None = done
        self.sent_s: float | None = None  # when it may have been done for the first time

    def settle(self, result: outcome.Outcome[Any]) -> None:
        """Say what became of it; only the first word counts."""
        done, self._done = self._done, None
        if done is not None:
            done(result)


class Writer:
    """Takes appends of all partitions.

    Attributes:
        asked_again: how many appends had to be.
        doubts: of how many appends the first answer was lost, by partition.
        trips: how often the thread went out.
    """

    def __init__(self, lines: Lines, worker: Worker, fail: Callable[[LogFailed], None]) -> None:
        self._lines = lines
        self._worker = worker
        self._fail = fail
        self._token = trio.lowlevel.current_trio_token()
        self._queue: deque[Append] = deque()
        self._entries = 0
        self._bytes = 0
        self._busy = False
        self._starting = False
        self._closed: type[OndaError] | None = None
        self._doubtful: list[Append] = []
        self._away: dict[int, LogAway] = {}
        self._refused: dict[int, tuple[float, Unavailable]] = {}
        self._out: list[list[Append]] = []
        self._trouble = trio.Event()
        self._room = trio.Event()
        self._idle = trio.Event()
        self.asked_again = 0
        self.doubts: Counter[int] = Counter()
        self.trips = 0
        self.appends = 0

    def refusal(self, partition: int) -> Unavailable | None:
        """Return what an append would be refused with now: an error of its own each time."""
        refusal: Unavailable | None = self._away.get(partition)
        if refusal is None and partition in self._refused:
            until_s, refused = self._refused[partition]
            refusal = refused if trio.current_time() < until_s else None
        return None if refusal is None else type(refusal)(refusal.detail)

    def submit(self, append: Append) -> None:
        """Hand an append over. It is settled with the script's answer, or with what is raised here, or with
        `UnknownOutcome`.

        Raises:
            Overloaded, LogAway, ReadOnly, Stopping: nothing happened.
        """
        if self._closed is not None:
            raise self._closed()
        if refusal := self.refusal(append.partition):
            raise refusal
        if self._entries + append.entries > QUEUE_ENTRIES_MAX or self._bytes + append.size > QUEUE_BYTES_MAX:
            raise Overloaded
        self._queue.append(append)
        self._entries += append.entries
        self._bytes += append.size
        if not self._busy and not self._starting:
            self._starting = True
            self._token.run_sync_soon(self._start)

    async def wait_room(self) -> None:
        """See `engine.log.Log.wait_room`."""
        while 2 * self._entries >= QUEUE_ENTRIES_MAX or 2 * self._bytes >= QUEUE_BYTES_MAX:
            if self._room.is_set():
                self._room = trio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Ask again what is in doubt, and get back to servers that went away, until cancelled."""
        while True:
            await self._trouble.wait()
            tries = 0
            while self._away or self._doubtful:
                await trio.sleep(random.uniform(0, min(BACKOFF_S_MAX, BACKOFF_S * 2**tries)))
                tries += 1
                await self._again()
            self._trouble = trio.Event()

    async def _again(self) -> None:
        now_s = trio.current_time()
        doubtful, self._doubtful = self._doubtful, []
        batch = []
        for append in doubtful:
            if append.sent_s is not None and now_s - append.sent_s > PATIENCE_S:
                append.settle(outcome.Error(UnknownOutcome()))
            else:
                batch.append(append)
        self.asked_again += len(batch)
        asked = {append.partition for append in batch}
        for number in set(self._away) - asked:  # nothing to ask there: see whether anybody answers
            batch.append(Append(number, (), (), 0, 0, _ignore, _ignore))
        done = trio.Event()
        self._out.append(batch)
        self._worker.submit(partial(self._send, batch), lambda result: self._complete(batch, result, done))
        await done.wait()  # bounded by the time-outs of the lines

    async def close(self, within_s: float) -> None:
        """Take no more appends, and wait for those that wait."""
        self._closed = Stopping
        with trio.move_on_after(within_s):
            while self._busy or self._queue or self._doubtful:
                self._idle = trio.Event()
                await self._idle.wait()
        self.end(UnknownOutcome)

    def end(self, error: type[OndaError]) -> None:
        """Settle everything that waits, now and later."""
        self._closed = error
        waiting = [*self._queue, *self._doubtful, *(append for batch in self._out for append in batch)]
        self._queue.clear()
        self._doubtful = []
        self._entries = self._bytes = 0
        self._room.set()
        for append in waiting:
            append.settle(outcome.Error(error()))

    def statistics(self) -> dict[str, Any]:
        """Numbers for operators."""
        return {
            "appends": self.appends,
            "trips": self.trips,
            "asked_again": self.asked_again,
            "queue_entries": self._entries,
            "queue_bytes": self._bytes,
            "doubtful": len(self._doubtful),
            "away": sorted(self._away),
        }

    def _start(self) -> None:
        self._starting = False
        if not self._busy and self._queue:
            self._begin()

    def _begin(self) -> None:
        batch: list[Append] = []
        size = 0
        while self._queue and len(batch) < BATCH_APPENDS_MAX and size < BATCH_BYTES_MAX:
            append = self._queue.popleft()
            self._entries -= append.entries
            size += append.size
            batch.append(append)
        self._bytes -= size
        self._room.set()
        self._busy = True
        self._out.append(batch)
        self._worker.submit(partial(self._send, batch), lambda result: self._complete(batch, result, None))

    def _complete(
        self, batch: list[Append], result: outcome.Outcome[list[Any]], again: trio.Event | None
    ) -> None:
        self._out.remove(batch)
        told: list[tuple[Append, outcome.Outcome[Any]]] = []
        try:
            for append, answer in zip(batch, result.unwrap(), strict=True):
                if (word := self._take(append, answer)) is not None:
                    told.append((append, word))
        except Exception as error:  # noqa: BLE001 - there is no caller here that could be told of a bug
            self._fail(error if isinstance(error, LogFailed) else LogFailed(f"the log failed: {error!r}"))
            told += [(append, outcome.Error(UnknownOutcome())) for append in batch]  # those without an answer
        if again is not None:
            again.set()
        else:
            self._busy = False
        if self._away or self._doubtful:
            self._trouble.set()
        if self._queue and not self._busy:
            self._begin()  # Redis first: those who are told now have work to do before they append
        elif not self._doubtful:
            self._idle.set()
        for append, word in told:
            append.settle(word)

    def _take(self, append: Append, answer: Any) -> outcome.Outcome[Any] | None:
        """Return what became of an append by its answer; `None`: it is put aside, to be asked again."""
        if not isinstance(answer, Exception):
            if self._away.pop(append.partition, None) is not None and not self._away:
                logger.warning("Redis is back")
            self.appends += append.entries > 0
            append.taken(answer)
            return outcome.Value(answer)
        if isinstance(answer, Cut | Away):
            if not self._away:
                logger.error("Redis is away, appends are refused: %s", answer)
            refusal: Unavailable = LogAway(f"Redis is away: {answer}")
            self._away[append.partition] = LogAway(refusal.detail)
            if isinstance(answer, Cut) and append.sent_s is None:
                append.sent_s = trio.current_time()
                self.doubts[append.partition] += append.entries > 0
        else:
            passing = refusal_of(answer)
            if passing is None:
                raise answer
            refusal = passing
            now_s = trio.current_time()
            if now_s > self._refused.get(append.partition, (0.0, refusal))[0] + QUIET_S:
                logger.error("Redis refuses appends to partition %d: %s", append.partition, answer)
            self._refused[append.partition] = (now_s + REFUSED_S, refusal)
        if append.sent_s is None:
            return outcome.Error(refusal)
        if append.entries:
            self._away.setdefault(append.partition, LogAway())
            self._doubtful.append(append)
        return None

    # In the thread

    def _send(self, batch: list[Append]) -> list[Any]:
        """Send appends, in their order per server; return the answer or what went wrong with each."""
        if not batch:
            return []
        self.trips += 1
        try:
            addresses = self._lines.route.addresses()
        except Away as error:
            return [error] * len(batch)
        answers: list[Any] = [None] * len(batch)
        order = sorted(range(len(batch)), key=lambda number: addresses[batch[number].partition])
        for address, group in groupby(order, key=lambda number: addresses[batch[number].partition]):
            numbers = list(group)
            for number, answer in zip(
                numbers, self._send_to(address, [batch[n] for n in numbers]), strict=True
            ):
                answers[number] = answer
        return answers

    def _send_to(self, address: tuple[str, int], batch: list[Append]) -> list[Any]:
        try:
            line = self._lines.to(address)
        except (Away, Cut) as error:
            self._lines.route.forget()
            return [Away(str(error))] * len(batch)
        try:
            calls = [(append.keys, append.arguments) for append in batch if append.entries]
            done = iter(line.run(APPEND, calls) if calls else line.call([("PING",)] * len(batch)))
            answers = [next(done) if append.entries or not calls else b"PONG" for append in batch]
        except Cut as error:
            self._lines.drop(address)
            self._lines.route.forget()
            return [error] * len(batch)
        if any(isinstance(answer, Exception) and has_moved(answer) for answer in answers):
            self._lines.drop(address)
            self._lines.route.forget()
        return answers


def _ignore(_: Any) -> None:
    """Nobody waits for what became of a mere question."""
