"""Small questions to Redis: what waits goes out together in one trip, by one thread, while the next gathers.

Actors that are loaded, refusals that are confirmed, answers from the checkpoint: each asks for one answer,
and by itself each would cost a trip and a hop to a thread and back. They have nothing to do with each other,
so each gets its own answer or error. A trip that takes its time holds nobody up: after `SLOW_S` what has
gathered meanwhile goes out beside it, by another thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import outcome
import trio

from engine.errors import Stopping
from engine.log.redis_lines import Command
from engine.log.worker import ThreadWorker
from engine.waiting import Bell, Reply

SMALL_BYTES = 1 << 20
"""What asks for more than this is no small question."""
BATCH_MAX = 64
SLOW_S = 0.01
"""How long a trip may take before the next one begins: several times what one usually takes."""
TRIPS_MAX = 4
"""At the same time."""

Questions = Sequence[tuple[int, Command]]
"""Each a partition and a command for its server."""


class Trips:
    """Takes questions. `ask_all` asks some and returns the answers, errors among them; it runs in a thread.

    Attributes:
        questions: how many were taken to Redis.
        trips: how often somebody went.
    """

    def __init__(self, ask_all: Callable[[Questions], list[Any]]) -> None:
        self._ask_all = ask_all
        self._token = trio.lowlevel.current_trio_token()
        self._waiting: deque[_Question] = deque()
        self._out: list[list[_Question]] = []
        self._idle: list[ThreadWorker] = []
        self._starting = False
        self._ended = False
        self._bell = Bell()  # rings when somebody waits for a trip to come back
        self.questions = 0
        self.trips = 0

    async def ask(self, partition: int, command: Command) -> Any:
        """Return the answer. Being cancelled takes a question back that is still waiting.

        Raises:
            Stopping: there are no more trips.
            Exception: whatever `ask_all` has in place of the answer.
        """
        if self._ended:
            raise Stopping
        question = _Question(partition, command)
        self._waiting.append(question)
        if self._out:
            self._bell.ring()
        elif not self._starting:  # at the end of this moment: others may ask, too
            self._starting = True
            self._token.run_sync_soon(self._start)
        try:
            return await question.reply.wait()
        except trio.Cancelled:
            question.abandoned = True
            raise

    async def run(self) -> None:
        """See that nobody waits for a slow trip, until cancelled."""
        while True:
            await self._bell.wait()
            trips = self.trips
            await trio.sleep(SLOW_S)
            if self.trips == trips and len(self._out) < TRIPS_MAX:
                self._begin()
            if self._waiting:
                self._bell.ring()

    def end(self) -> None:
        """Take no more questions, and tell those who wait."""
        self._ended = True
        for question in [*self._waiting, *(question for batch in self._out for question in batch)]:
            question.reply.fail(Stopping())
        self._waiting.clear()
        for worker in self._idle:
            worker.close()

    def _start(self) -> None:
        self._starting = False
        if not self._out:
            self._begin()

    def _begin(self) -> None:
        batch: list[_Question] = []
        while self._waiting and len(batch) < BATCH_MAX:
            question = self._waiting.popleft()
            if not question.abandoned:
                batch.append(question)
        if not batch:
            return
        self.questions += len(batch)
        self.trips += 1
        self._out.append(batch)
        worker = self._idle.pop() if self._idle else ThreadWorker("onda-redis-asks")
        asked = [(question.partition, question.command) for question in batch]
        worker.submit(partial(self._ask_all, asked), partial(self._end_trip, worker, batch))
        if self._waiting:
            self._bell.ring()

    def _end_trip(
        self, worker: ThreadWorker, batch: list[_Question], result: outcome.Outcome[list[Any]]
    ) -> None:
        self._out.remove(batch)
        self._idle.append(worker)
        if self._ended:
            worker.close()
            return
        if not self._out:
            self._begin()  # Redis first: those who are told now have work to do before they ask again
        try:
            answers = result.unwrap()
        except Exception as error:  # noqa: BLE001 - a fault is told to those who asked
            answers = [error] * len(batch)
        for question, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                question.reply.fail(answer)
            else:
                question.reply.set(answer)


class _Question:
    __slots__ = ("abandoned", "command", "partition", "reply")

    def __init__(self, partition: int, command: Command) -> None:
        self.partition = partition
        self.command = command
        self.abandoned = False
        self.reply: Reply[Any] = Reply()
