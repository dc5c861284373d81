"""A way to Redis that spoils what a subscriber hears: messages are lost, come twice, or come late.

It knows which connection subscribes by the command, and messages by their frames, so that all of Redis'
protocol stays whole: what a node gets is what a bad network of brokers might bring, not garbage.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.chaos.proxy import Proxy, Way

KINDS = ("lost", "doubled", "late")


class Messy(Proxy):
    """See the module. `done`: what was done to messages, in order."""

    def __init__(self, nursery: trio.Nursery, target: int, seed: int) -> None:
        super().__init__(nursery, target)
        self.done: list[str] = []
        self._chance = random.Random(seed)
        self._share = 0.0
        self._subscribers: set[trio.SocketStream] = set()

    def spoil(self, share: float) -> None:
        """Spoil such a share of the messages from now on."""
        self._share = share

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, way: Way) -> None:
        if way == Way.UP:
            await super()._pump(Watched(source, self._subscribers, sink), sink, way)  # type: ignore[arg-type]
        else:
            await super()._pump(Spoilt(source, self), sink, way)  # type: ignore[arg-type]

    def subscribes(self, server: trio.SocketStream) -> bool:
        """Return whether a connection to Redis is one that listens."""
        return server in self._subscribers

    def pass_on(self, late: list[bytes], messages: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Return what a subscriber hears now, and what it hears after the next messages."""
        passed: list[bytes] = []
        for message in messages:
            is_message = b"message\r\n" in message[:24]  # else the answer to a command
            kind = self._chance.choice(KINDS) if is_message and self._chance.random() < self._share else ""
            if kind:
                self.done.append(kind)
            if kind == "late":
                late = [*late, message]
                continue
            if kind != "lost":
                passed += [message] * (2 if kind == "doubled" else 1)
            passed += late
            late = []
        return passed, late


class Watched:
    """What a client sends: takes note when it subscribes."""

    def __init__(
        self, source: trio.SocketStream, subscribers: set[trio.SocketStream], sink: trio.SocketStream
    ) -> None:
        self._source = source
        self._subscribers = subscribers
        self._sink = sink

    async def receive_some(self, bytes_max: int) -> bytes:
        chunk = await self._source.receive_some(bytes_max)
        if b"SUBSCRIBE\r\n" in chunk:
            self._subscribers.add(self._sink)
        return bytes(chunk)

    async def aclose(self) -> None:
        await self._source.aclose()


class Spoilt:
    """What Redis sends to a client, message by message."""

    def __init__(self, source: trio.SocketStream, messy: Messy) -> None:
        self._source = source
        self._messy = messy
        self._rest = b""
        self._late: list[bytes] = []

    async def receive_some(self, bytes_max: int) -> bytes:
        while True:
            chunk = bytes(await self._source.receive_some(bytes_max))
            if not chunk or not self._messy.subscribes(self._source):
                return chunk
            self._rest += chunk
            whole = []
            while (end := frame_end(self._rest, 0)) is not None:
                whole.append(self._rest[:end])
                self._rest = self._rest[end:]
            passed, self._late = self._messy.pass_on(self._late, whole)
            if passed:
                return b"".join(passed)

    async def aclose(self) -> None:
        await self._source.aclose()


def frame_end(data: bytes, at: int) -> int | None:
    """Return where the frame of RESP at `at` ends; `None`: it is not whole yet."""
    end = data.find(b"\r\n", at)
    if end < 0:
        return None
    kind, text, after = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b"$":
        after += max(0, int(text) + 2)
        return after if after <= len(data) else None
    if kind == b"*":
        for _ in range(int(text)):
            found = frame_end(data, after)
            if found is None:
                return None
            after = found
    return after


@asynccontextmanager
async def open_messy(target: int, seed: int) -> AsyncIterator[Messy]:
    """Run one in front of a port of the loopback."""
    async with trio.open_nursery() as nursery:
        messy = Messy(nursery, target, seed)
        await messy.heal()
        yield messy
        nursery.cancel_scope.cancel()
