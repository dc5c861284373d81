"""A whole server within the test: a node in memory, a site, real sockets, and small clients to talk to it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import msgspec
import trio

from engine import MEMORY, Config, Node, open_node
from web.server import Server, open_server
from web.site import Site, make_site
from web.sse import Message, Moved, Parser, Retry

SECRET = "test-secret-" * 6


class Running:
    """A server under test. `url` is where it is."""

    def __init__(self, node: Node, site: Site, server: Server) -> None:
        self.node = node
        self.site = site
        self.server = server
        self.url = server.url
        self.port = int(server.url.rpartition(":")[2])

    def client(self, who: str | None = None, **options: Any) -> httpx.AsyncClient:
        """An HTTP client with a token of `who`: see `token`."""
        headers = {"authorization": f"Bearer {token(who)}"} if who else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10, **options)

    async def connect(self) -> trio.SocketStream:
        """A raw connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)


def config(**settings: Any) -> Config:
    """Settings for a test: nothing on disk, a free port, our secret."""
    return Config(**{"data": MEMORY, "port": 0, "secret": SECRET, "demo": False, **settings})


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Running]:
    """Run a server with the shop `s1` until the block ends."""
    chosen = config(**settings)
    async with open_node(chosen) as node:
        site = make_site(node, chosen)
        async with open_server(site) as server:
            yield Running(node, site, server)


SHOP = [
    ("stores/s1/configure-store", {"name": "온다 분식", "payment_mode": "postpay"}),
    ("stores/s1/open-store", {}),
    ("stores/s1/put-product", {"product": "ramen", "name": "라면", "price": 4500}),
    ("stores/s1/put-product", {"product": "cola", "name": "콜라", "price": 2000, "stock": 3}),
]


async def set_up(client: httpx.AsyncClient, *, tables: tuple[str, ...] = ()) -> None:
    """Make the shop `s1`, and open tables."""
    for path, body in SHOP:
        answer = await client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
    for table in tables:
        answer = await client.post(f"/v1/tables/s1/{table}/open-table", json={})
        assert answer.status_code == 200, answer.text


def token(who: str, *, ttl_s: float = 3600, secret: str = SECRET, **more: Any) -> str:
    """Sign a token: `service`, `owner:s1`, `staff:s1`, `table:s1/3`, `user:u1`."""
    role, _, rest = who.partition(":")
    claims: dict[str, Any] = {"role": role, "sub": "kim", "exp": time.time() + ttl_s}
    if role == "user":
        claims["sub"] = rest
    elif rest:
        store, _, table = rest.partition("/")
        claims |= {"store": store} | ({"table": table} if table else {})
    return jwt.encode({**claims, **more}, secret, algorithm="HS256")


async def order(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    """Order one ramen; return the answer's JSON."""
    body = {"lines": [{"product": "ramen", "quantity": 1}], **more}
    answer = await client.post("/v1/stores/s1/create-order", json=body)
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


class Listener:
    """An event stream that is read item by item, through the incremental parser."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._chunks = response.aiter_raw()
        self._parser = Parser()
        self._items: list[Message | Moved | Retry] = []
        self.raw = b""

    async def next(self) -> Message | Moved | Retry:
        """Wait for the next item."""
        with trio.fail_after(5):
            while not self._items:
                chunk = await anext(self._chunks)
                self.raw += chunk
                self._items = self._parser.feed(chunk)
        return self._items.pop(0)

    async def message(self, event: str = "message") -> Any:
        """Wait for the next message of a type, passing over everything else; return its data."""
        while True:
            item = await self.next()
            if isinstance(item, Message) and item.event == event:
                return msgspec.json.decode(item.data)

    async def rest(self) -> list[Message | Moved | Retry]:
        """Wait for the end; return what came before it."""
        items = list(self._items)
        self._items.clear()
        with trio.fail_after(5):
            async for chunk in self._chunks:
                self.raw += chunk
                items += self._parser.feed(chunk)
        return items


@asynccontextmanager
async def listening(client: httpx.AsyncClient, path: str, **options: Any) -> AsyncIterator[Listener]:
    """Open an event stream."""
    async with client.stream("GET", path, **options) as response:
        yield Listener(response)
