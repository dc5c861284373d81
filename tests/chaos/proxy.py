"""A TCP proxy that does what networks do: cut, stall, forget one direction, delay, refuse, reset.

Each fault is a method and takes effect at once on every connection; `heal` ends those that last. `misbehave`
plays a seeded schedule of them.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import trio

CHUNK_BYTES = 64 << 10


class Way(StrEnum):
    """A direction through the proxy."""

    UP = "up"
    """from the client to the server"""

    DOWN = "down"
    """from the server to the client"""


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`. Made by `open_proxy`."""

    def __init__(self, nursery: trio.Nursery, target: int) -> None:
        self.port = 0
        self.target = target
        self.delay_s = 0.0
        self.accepted = 0
        self.forwarded = {Way.UP: 0, Way.DOWN: 0}
        self._nursery = nursery
        self._blocked: set[Way] = set()
        self._opened = trio.Event()
        self._links: set[tuple[trio.SocketStream, trio.SocketStream]] = set()
        self._listening: trio.CancelScope | None = None
        self._deaf = trio.Event()

    @property
    def base(self) -> str:
        """Where clients connect to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_links(self) -> int:
        """Connections that go through right now."""
        return len(self._links)

    async def cut(self) -> None:
        """Close every connection in good order (FIN on both sides); new ones are welcome."""
        for link in list(self._links):
            for end in link:
                await trio.aclose_forcefully(end)

    async def reset(self) -> None:
        """Break every connection (RST): what was on its way is lost."""
        for link in list(self._links):
            for end in link:
                if end.socket.fileno() != -1:  # not closed in the meantime
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await trio.aclose_forcefully(end)

    def stall(self) -> None:
        """Stop reading and forwarding, both ways; connections stay, also new ones."""
        self._blocked = {Way.UP, Way.DOWN}

    def half_open(self, way: Way) -> None:
        """Stop forwarding one way only."""
        self._blocked = {way}

    async def refuse(self) -> None:
        """Stop listening (connection refused), and cut what there is."""
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
            await self._deaf.wait()
        await self.cut()

    async def heal(self) -> None:
        """End every fault that lasts."""
        self.delay_s = 0.0
        self._blocked = set()
        self._opened.set()
        self._opened = trio.Event()
        if self._listening is None:
            await self._listen()

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self.port = listener.getsockname()[1]
        self._listening = trio.CancelScope()
        self._deaf = trio.Event()
        self._nursery.start_soon(self._serve, trio.socket.from_stdlib_socket(listener), self._listening)

    async def _serve(self, listener: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        with scope, listener:
            while True:
                client, _ = await listener.accept()
                self.accepted += 1
                self._nursery.start_soon(self._link, trio.SocketStream(client))
        self._deaf.set()

    async def _link(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self.target)
            except OSError:
                return  # no server behind: the client sees its connection closed
            async with server:
                link = (client, server)
                self._links.add(link)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pump, client, server, Way.UP)
                        nursery.start_soon(self._pump, server, client, Way.DOWN)
                finally:
                    self._links.discard(link)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, way: Way) -> None:
        """Forward one way until that side ends."""
        try:
            while True:
                await self._pass(way)
                chunk = await source.receive_some(CHUNK_BYTES)
                await self._pass(way)
                if not chunk:
                    await sink.send_eof()
                    return
                if self.delay_s:
                    await trio.sleep(self.delay_s)
                self.forwarded[way] += len(chunk)
                await sink.send_all(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            for end in (source, sink):  # one side is gone: so is the other
                await trio.aclose_forcefully(end)

    async def _pass(self, way: Way) -> None:
        """Wait while this way is blocked."""
        while way in self._blocked:
            await self._opened.wait()


@asynccontextmanager
async def open_proxy(target: int) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a port of the loopback."""
    async with trio.open_nursery() as nursery:
        proxy = Proxy(nursery, target)
        await proxy.heal()
        yield proxy
        nursery.cancel_scope.cancel()


async def misbehave(proxy: Proxy, chance: random.Random, faults: int, most_s: float = 0.6) -> list[str]:
    """Play a schedule of faults, each followed by a moment of peace; return what was done."""
    done = []
    for _ in range(faults):
        fault = chance.choice(["cut", "reset", "stall", "half-open up", "half-open down", "delay", "refuse"])
        lasts_s = chance.uniform(0, most_s)
        match fault:
            case "cut":
                await proxy.cut()
            case "reset":
                await proxy.reset()
            case "stall":
                proxy.stall()
            case "half-open up":
                proxy.half_open(Way.UP)
            case "half-open down":
                proxy.half_open(Way.DOWN)
            case "delay":
                proxy.delay_s = lasts_s / 4
            case _:
                await proxy.refuse()
        await trio.sleep(lasts_s)
        if fault.startswith(("stall", "half")) and chance.random() < 0.5:
            await proxy.reset()  # many a stall ends with the connection dead
        await proxy.heal()
        await trio.sleep(chance.uniform(0, most_s))
        done.append(f"{fault} {lasts_s:.2f} s")
    return done
