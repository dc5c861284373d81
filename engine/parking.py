"""Records put aside: those that a consumer of the log gave up on, and those that stand behind one in their
lane. An operator lets them go on, one lane at a time, or skips the first.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
import trio

from engine.checkpoint import Checkpoint, Parked
from engine.clock import Clock
from engine.config import Config
from engine.errors import Unavailable
from engine.mailbox import Committed
from engine.metrics import Metrics
from engine.onward import to_committed
from engine.records import Entry

T = TypeVar("T")

logger = logging.getLogger("onda.reactions")


class NotParked(KeyError):
    """No such record is parked, or no longer as the first of its lane."""


class Host(Protocol):
    """Where parked records are kept."""

    config: Config
    clock: Clock
    checkpoint: Checkpoint
    metrics: Metrics


class Parking:
    """The parked records of one consumer, by lane. `lock` is held while a lane is being let go.

    The table keeps records without their lanes, which are asked for again after a start.
    """

    def __init__(self, name: str, host: Host, lane: Callable[[Committed], str]) -> None:
        self._name = name
        self._host = host
        self._lane = lane
        self._queues: dict[str, list[Parked]] = {}
        self.lock = trio.Lock()

    def __contains__(self, lane: str) -> bool:
        return lane in self._queues

    @property
    def records(self) -> list[Parked]:
        """What waits for an operator, in the order of the log within each lane."""
        return [parked for queue in self._queues.values() for parked in queue]

    def first(self, parked: Parked) -> Parked:
        """Return the record that holds this one: the first of its lane, which may be itself."""
        return next(queue[0] for queue in self._queues.values() if parked in queue)

    def lane_of(self, record: Committed) -> str:
        """Return the lane of a record, and its stream when that cannot be said."""
        try:
            return self._lane(record)
        except Exception:
            logger.exception("%s: which lane is this?", self._name)
            return record.stream  # the handler will most likely fail, too, and the record is parked

    async def load(self) -> None:
        """Read what earlier runs have parked."""
        for parked in await self._host.checkpoint.parked():
            if parked.reaction == self._name:
                self._queues.setdefault(self._lane_of_parked(parked), []).append(parked)

    def _lane_of_parked(self, parked: Parked) -> str:
        try:
            return self.lane_of(from_parked(parked))
        except (KeyError, msgspec.DecodeError):  # written by another version: an operator has to skip it
            return parked.stream

    async def park(self, record: Committed, lane: str, attempts: int, error: str) -> None:
        """Put a record aside, once; waits for space if there is none."""
        logger.error("%s parked %s %d: %s", self._name, record.stream, record.version, error)
        parked = Parked(
            0, self._name, record.stream, record.position, record.version, record.body, error, attempts,
            self._host.clock.now_ms(),
        )  # fmt: skip
        stored = await keep_trying(lambda: self._host.checkpoint.park(parked), self._host.config)
        queue = self._queues.setdefault(lane, [])
        if all(other.id != stored.id for other in queue):
            queue.append(stored)
        self._host.metrics.reactions.labels(self._name, "parked").inc()

    async def resume(
        self, parked: Parked, handle: Callable[[Committed], Awaitable[None]], *, skip: bool
    ) -> None:
        """Handle a parked record again, once, or skip it for good; then handle those that stand behind it.

        Raises:
            NotParked: somebody else did this meanwhile.
            Exception: what the handler raised; that record stays parked, as the first.
        """
        async with self.lock:
            lane = self._lane_of_parked(parked)
            queue = self._queues.get(lane, [])
            if not queue or queue[0].id != parked.id:
                raise NotParked(parked.id)
            while queue:
                if not skip:
                    await handle(from_parked(queue[0]))
                skip = False
                await self._host.checkpoint.unpark(queue[0].id)
                del queue[0]
            del self._queues[lane]


def from_parked(parked: Parked) -> Committed:
    """Read a parked record. Raises as `to_committed`."""
    return to_committed(parked.position, Entry(parked.stream, parked.version, b"", parked.body))


async def keep_trying(work: Callable[[], Awaitable[T]], config: Config) -> T:
    """Return what `work` returns, once it is no longer unavailable."""
    waited = 0
    while True:
        try:
            return await work()
        except Unavailable:
            await trio.sleep(backoff_s(waited, config))
            waited = min(waited + 1, 16)


def backoff_s(retry: int, config: Config) -> float:
    """Return how long to wait before retry number `retry` (from 0): full jitter under a doubling bound."""
    bound_ms = min(config.reaction_backoff_ms_max, config.reaction_backoff_ms * 2**retry)
    return random.uniform(0, bound_ms) / 1000
