"""A member of a group in this process: `async for record in node.consume(topic, group)`.

    async with node.consume("customer-events", "analytics") as records:
        async for record in records:
            ...                      # leaving the block by an exception gives the record back

Asking for the next record says that the one before is handled. Some records are fetched ahead, all with their
lease, which is renewed as long as somebody holds the `Consuming`. With `async with`, an exception gives the
record back to the group at once, and the member leaves; without it, what it has goes to others when its lease
ends. `handle` does more at a time: records of different keys side by side, each acknowledged or given back by
itself.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Protocol

import trio

from engine.clock import Clock
from engine.domain.group.members import Leave, Renew
from engine.domain.group.words import Ack, Nack
from engine.errors import Crashed, Rejected, Stopping, Unavailable, UnknownOutcome
from engine.topics import Delivery, Topics

LEASE_MS = 30_000
PULL_S = 20.0
BATCH = 50
AHEAD = 8
"""Records that a loop fetches at once. What it leaves counts as given out: well below `DELIVERIES_MAX`."""
AGAIN_S = 0.5
GOODBYE_S = 2.0

_NOT_NOW = (Unavailable, UnknownOutcome, Crashed)

logger = logging.getLogger("onda.consuming")


class Host(Protocol):
    """What a member needs of its node."""

    clock: Clock
    topics: Topics

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None: ...


class Consuming:
    """One member; made by `Node.consume`."""

    def __init__(
        self, host: Host, topic: str, group: str, member: str | None, lease_ms: int = LEASE_MS
    ) -> None:
        self.topic = topic
        self.group = group
        self.member = member or f"m-{host.clock.new_id()}"
        self._host = host
        self._lease_ms = lease_ms
        self._ready: deque[Delivery] = deque()
        self._hand: set[str] = set()
        self._current: Delivery | None = None
        self._joined = False
        self._renewing: trio.CancelScope | None = None

    def __aiter__(self) -> Consuming:
        return self

    async def __anext__(self) -> Delivery:
        """Acknowledge the record before, and return the next one. Ends when the node goes down."""
        try:
            if self._current is not None:
                lease = self._current.lease
                if lease in await self._say(Ack(self.member, (lease,))):
                    self._ready.clear()  # others may have them too by now: begin afresh
                    self._joined = False
                self._current = None
            while not self._ready:
                self._ready.extend(await self._pull(AHEAD))
        except Stopping:
            self._stop()
            raise StopAsyncIteration from None
        self._current = self._ready.popleft()
        return self._current

    async def __aenter__(self) -> Consuming:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current, self._current = self._current, None
        if self._renewing is None:
            return
        self._stop()
        self._ready.clear()
        with trio.move_on_after(GOODBYE_S) as scope:
            scope.shield = True
            try:
                if current is not None and error is None:
                    await self._say(Ack(self.member, (current.lease,)))
                elif current is not None and isinstance(error, Exception):
                    await self._say(Nack(self.member, (current.lease,), reason=_reason(error)))
                await self._host.topics.ask(self.topic, self.group, Leave(self.member))
            except (*_NOT_NOW, Rejected) as problem:
                logger.info("%s of %s ended without a word: %s", self.member, self.group, problem)

    async def handle(self, handler: Callable[[Delivery], Awaitable[None]]) -> None:
        """Hand every record to `handler`, those of one pull side by side, until the node goes down; leave
        then, and when cancelled.

        An exception of the handler gives its record back to the group, which tries it again later and parks
        it in the end. `Unavailable` is nobody's fault and waited out.
        """
        async with self:
            try:
                while True:
                    await self._handle_batch(handler, await self._pull(BATCH))
            except Stopping:
                return

    async def _handle_batch(
        self, handler: Callable[[Delivery], Awaitable[None]], batch: list[Delivery]
    ) -> None:
        words: list[Ack | Nack] = []
        async with trio.open_nursery() as nursery:
            for record in batch:
                nursery.start_soon(self._handle_one, handler, record, words)
        done = tuple(lease for word in words if isinstance(word, Ack) for lease in word.leases)
        if done:
            await self._say(Ack(self.member, done))
        for word in words:
            if isinstance(word, Nack):
                await self._say(word)

    async def _handle_one(
        self, handler: Callable[[Delivery], Awaitable[None]], record: Delivery, words: list[Ack | Nack]
    ) -> None:
        while True:
            try:
                await handler(record)
            except Stopping:
                return
            except _NOT_NOW as error:
                logger.info("%s waits with %s %d: %s", self.group, self.topic, record.offset, error)
                await trio.sleep(AGAIN_S)
                continue
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure
                level = logger.warning if isinstance(error, Rejected) else logger.exception
                level("%s failed at %s %d: %s", self.group, self.topic, record.offset, error)
                words.append(Nack(self.member, (record.lease,), reason=_reason(error)))
            else:
                words.append(Ack(self.member, (record.lease,)))
            return

    async def _pull(self, limit: int) -> list[Delivery]:
        """Wait for records; join first, and again when the lease has ended or it is not sure what is in
        hand.
        """
        topics, member = self._host.topics, self.member
        while True:
            try:
                if not self._joined:
                    await topics.join(self.topic, self.group, member, lease_ms=self._lease_ms)
                    self._joined = True
                    self._hand.clear()
                    if self._renewing is None:
                        self._renewing = trio.CancelScope()
                        pause_s = self._lease_ms / 3000
                        self._host.start_soon(partial(_renew, weakref.ref(self), self._renewing, pause_s))
                given = await topics.pull(self.topic, self.group, member, limit=limit, wait_s=PULL_S)
                if given:
                    self._hand.update(one.lease for one in given)
                    return given
            except Rejected as error:
                if error.code != "unknown_member":
                    raise
                self._joined = False
            except Stopping:
                raise
            except _NOT_NOW as error:
                logger.info("%s waits: %s", self.group, error)
                self._joined = False
                await trio.sleep(AGAIN_S)

    async def _say(self, word: Ack | Nack) -> list[str]:
        """Say it until it is heard: what is in hand is renewed, so nobody else would get it. Return the
        leases that were lost before.
        """
        while True:
            try:
                told = await self._host.topics.ask(self.topic, self.group, word)
            except Stopping:
                raise
            except _NOT_NOW as error:
                logger.info("%s has no word yet: %s", self.group, error)
                await trio.sleep(AGAIN_S)
            else:
                self._hand.difference_update(word.leases)
                late: list[str] = told["late"]
                return late

    async def renew(self) -> None:
        """Say that the member lives, and works on what it has.

        Raises:
            Stopping: the node is going down.
        """
        try:
            await self._host.topics.ask(self.topic, self.group, Renew(self.member, tuple(self._hand)))
        except Stopping:
            raise
        except (*_NOT_NOW, Rejected) as error:
            logger.info("%s of %s was not renewed: %s", self.member, self.group, error)

    def _stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None


async def _renew(member: weakref.ref[Consuming], scope: trio.CancelScope, pause_s: float) -> None:
    """Renew a member while somebody holds it: one that was let go has to lose what it has."""
    with scope:
        while True:
            await trio.sleep(pause_s)
            there = member()
            if there is None:
                return
            try:
                await there.renew()
            except Stopping:
                return
            del there


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
