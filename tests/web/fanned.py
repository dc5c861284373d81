"""A hub within the test: a node in memory, real sockets, and readers as slow as a test wants them."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine import Frame, Node, Subscription, open_node
from engine.feed import Feed
from tests.web.site import config
from web.fanout import Hub
from web.site import Site, make_site
from web.sources import OneFeed
from web.sse import Message, Moved, Parser, Retry
from web.streaming import EventStream
from web.tokens import Identity
from web.wheel import Wheel

SLOW = 2048
"""A send buffer that is full after a few kilobytes."""

HEAD = b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n"


class Reader:
    """The client's end of a subscriber's connection; it reads only when told to.

    `over`: what the hub has said at the end, once; `items`: what was parsed so far; `versions`: of
    the messages among it; `ended`: the terminating chunk has come.
    """

    def __init__(self, sock: socket.socket, stream: EventStream) -> None:
        self.sock = sock
        self.stream = stream
        self.over: list[bool] = []
        self.given_back: socket.socket | None = None
        self.items: list[Message | Moved | Retry] = []
        self.versions: list[int] = []
        self.ended = False
        self._head = HEAD
        self._raw = b""
        self._parser = Parser()

    def on_over(self, sock: socket.socket, alive: bool) -> None:
        self.over.append(alive)
        self.given_back = sock

    def read(self, bytes_max: int = 1 << 20) -> bool:
        """Read what is there, at most so much; false when there was nothing."""
        try:
            data = self.sock.recv(bytes_max)
        except BlockingIOError:
            return False
        self._raw += data
        if self._head:
            if len(self._raw) < len(self._head):
                return bool(data)
            assert self._raw.startswith(self._head)
            self._raw, self._head = self._raw[len(self._head) :], b""
        while (end := self._raw.find(b"\r\n")) >= 0:
            size = int(self._raw[:end], 16)
            if len(self._raw) < end + size + 4:
                break
            assert self._raw[end + 2 + size : end + size + 4] == b"\r\n"
            self._take(self._parser.feed(self._raw[end + 2 : end + 2 + size]))
            self._raw = self._raw[end + size + 4 :]
            if not size:
                assert not self._raw, "something comes behind the end"
                self.ended = True
        return bool(data)

    def _take(self, items: list[Message | Moved | Retry]) -> None:
        self.items += items
        messages = [item for item in items if isinstance(item, Message) and item.event == "message"]
        self.versions += [int(item.data) for item in messages]

    def read_all(self) -> None:
        while self.read():
            pass

    @property
    def bye(self) -> str | None:
        """Why the stream has ended, by the block that must be the last one."""
        last = self.items[-1] if self.items else None
        if not (isinstance(last, Message) and last.event == "bye"):
            return None
        return last.data.partition('"reason":"')[2].partition('"')[0]

    def events(self, name: str) -> list[Message]:
        return [item for item in self.items if isinstance(item, Message) and item.event == name]


class Fan:
    """A hub, and a feed of its own whose frames are numbers."""

    def __init__(self, node: Node, site: Site, hub: Hub, wheel: Wheel) -> None:
        self.node = node
        self.site = site
        self.hub = hub
        self.wheel = wheel
        self.readers: list[Reader] = []
        self.feed = self.new_feed()

    def new_feed(self, name: str = "user:fan", frames_max: int = 4096) -> Feed:
        feed = Feed(name, frames_max, 4 << 20, self.node.metrics)
        feed.prime(0)
        self.node.feeds[name] = feed
        return feed

    def publish(self, count: int = 1, size: int = 0, feed: Feed | None = None, type_: str = "Said") -> None:
        """Publish frames that hold their version, padded to a size."""
        feed = self.feed if feed is None else feed
        first = feed.head + 1
        numbers = range(first, first + count)
        feed.publish([Frame(number, type_, str(number).encode().rjust(size)) for number in numbers])

    def join(
        self,
        *,
        after: int | None = None,
        feed: Feed | None = None,
        types: frozenset[str] | None = None,
        who: Identity | None = None,
        send_buffer: int = 0,
        tcp: bool = False,
    ) -> Reader:
        """Give the hub a subscriber of the feed; it starts at the head unless a version is given."""
        feed = self.feed if feed is None else feed
        ours, theirs = _tcp_pair() if tcp else socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        if send_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        version = feed.head if after is None else after
        subscription = Subscription(feed, self.node.epoch, version, None, None, self.node.metrics)
        source = OneFeed(subscription, types)
        stream = EventStream(self.site, who or somebody(), source)
        reader = Reader(theirs, stream)
        self.readers.append(reader)
        self.hub.adopt(ours, stream, HEAD, reader.on_over)
        return reader

    async def settle(self, rounds: int = 50) -> None:
        """Let the hub's tasks run."""
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()


def somebody(token_id: str = "t0", expires_ms: int | None = None) -> Identity:
    return Identity("service", "test", "*", "", token_id, expires_ms)


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    return ours, theirs


@asynccontextmanager
async def fanned(**settings: Any) -> AsyncIterator[Fan]:
    """Run a hub until the block ends; then every reader's connection is over, and nothing is left behind."""
    chosen = config(**settings)
    async with open_node(chosen) as node:
        site = make_site(node, chosen)
        async with trio.open_nursery() as nursery:
            wheel = Wheel(tick_s=0.02)
            hub = Hub(site, wheel)
            nursery.start_soon(wheel.run)
            nursery.start_soon(hub.run)
            fan = Fan(node, site, hub, wheel)
            try:
                yield fan
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await fan.settle(5)
                for reader in fan.readers:
                    reader.sock.close()
                    if reader.given_back is not None:
                        reader.given_back.close()
    assert len(hub) == 0
    assert all(len(reader.over) == 1 for reader in fan.readers)
    assert site.streams["sse"] == 0
    assert not any(feed.subscriptions or feed.listeners for feed in node.feeds.values())


def slow_read(readers: list[Reader], random_: random.Random) -> None:
    """Let some of the readers read a little."""
    for reader in readers:
        if random_.random() < 0.4:
            reader.read(random_.choice((1, 100, 4096, 100_000)))


async def until(reader: Reader, condition: Callable[[], object]) -> None:
    """Read until the condition holds."""
    with trio.fail_after(10):
        while not condition():
            if reader.read():
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(0.001)
