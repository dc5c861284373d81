"""A whole server within the test: a node in memory, a site, real sockets, and small clients to talk to it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import h11
import httpx
import jwt
import msgspec
import trio

from engine import MEMORY, Config, Node, open_node
from engine.partition import Partition
from engine.payments import open_gateways
from tests import nodes
from tests.relays.redis_server import redis_server
from web.server import Server, open_server
from web.site import Site, make_site
from web.sse import Message, Moved, Parser, Retry

SECRET = "test-secret-" * 6


class Serving(NamedTuple):
    """One node with its server."""

    node: Node
    site: Site
    server: Server

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])


class Running:
    """A server under test. `url` is where it is.

    With `--nodes 2` it is two nodes on one Redis, `serving`, and clients and raw connections go to one after
    the other. `node`, `site`, `server`, `url` and `port` are the first one's; a test that looks inside takes
    `first`, so that what it does is done there.

    A read without a cursor is as fresh as what its node has heard. So that tests may read what they have just
    written, each request first waits until every node has heard what is in the log: see `settle`.
    """

    def __init__(self, node: Node, site: Site, server: Server, others: Sequence[Serving] = ()) -> None:
        self.node = node
        self.site = site
        self.server = server
        self.url = server.url
        self.port = int(server.url.rpartition(":")[2])
        self.serving = [Serving(node, site, server), *others]
        self._going_to = self.serving[:1] if nodes.ALL_TO_FIRST else self.serving
        self._turn = count()

    @property
    def first(self) -> Running:
        """The same, whose clients all go to the first node."""
        alone = Running(*self.serving[0], self.serving[1:])
        alone._going_to = self.serving[:1]
        return alone

    def client(self, who: str | None = None, **options: Any) -> httpx.AsyncClient:
        """An HTTP client with a token of `who`: see `token`."""
        headers = {"authorization": f"Bearer {token(who)}"} if who else {}
        options = {"verify": False, **options}  # no reading of all authorities' certificates, for plain HTTP
        if len(self.serving) > 1:
            return Client(self, headers=headers, timeout=10, **options)
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10, **options)

    async def connect(self) -> trio.SocketStream:
        """A raw connection."""
        await self.settle()
        return await trio.open_tcp_stream("127.0.0.1", self.next().port)

    def next(self) -> Serving:
        """The node whose turn it is."""
        return self._going_to[next(self._turn) % len(self._going_to)]

    async def settle(self) -> None:
        """Wait until every node has heard what any of them knows to be in the log, and the shop's own flow
        (copies for tables and guests), which takes a trip to Redis for each step, has come to rest.
        """
        if len(self.serving) == 1:
            return
        heads: list[int] = []
        while heads != (heads := self._heads()):  # a step of the flow may be a record that others wait for
            await wait_until(lambda: any(one.node.draining for one in self.serving) or self._past(heads), 15)

    def _partitions(self) -> Iterable[tuple[Partition, ...]]:
        return zip(*(one.node.partitions for one in self.serving), strict=True)

    def _heads(self) -> list[int]:
        return [max(partition.log.head for partition in same) for same in self._partitions()]

    def _past(self, heads: list[int]) -> bool:
        for head, same in zip(heads, self._partitions(), strict=True):
            flows = [run.position for one in same for run in one.runners if run.name == "follow"]
            if any(partition.followed < head for partition in same) or max(flows, default=-1) < head:
                return False
        return True


class Client(httpx.AsyncClient):
    """Sends each request to the next node."""

    def __init__(self, running: Running, **options: Any) -> None:
        super().__init__(base_url=running.url, **options)
        self.running = running

    def build_request(self, *arguments: Any, **options: Any) -> httpx.Request:
        self.base_url = self.running.next().server.url
        return super().build_request(*arguments, **options)

    async def send(self, *arguments: Any, **options: Any) -> httpx.Response:
        await self.running.settle()
        return await super().send(*arguments, **options)


def config(**settings: Any) -> Config:
    """Settings for a test: nothing on disk, a free port, our secret."""
    return Config(**{"data": MEMORY, "port": 0, "secret": SECRET, "demo": False, **settings})


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Running]:
    """Run a server until the block ends."""
    async with AsyncExitStack() as stack:
        if nodes.several():
            if "log_url" in settings:  # the Redis is the test's own
                url = settings["log_url"]
            elif "data" in settings:  # what is there has to be there again the next time
                url = nodes.log_of(Path(settings["data"]))
            else:
                folder = stack.enter_context(TemporaryDirectory())
                url = stack.enter_context(redis_server(Path(folder))).url
            each = [_node_settings(name, url, settings) for name in nodes.names()]
        else:
            each = [settings]
        first, *others = [await stack.enter_async_context(_serving(config(**one))) for one in each]
        yield Running(*first, others)


@asynccontextmanager
async def _serving(chosen: Config) -> AsyncIterator[Serving]:
    async with open_gateways(chosen) as gateways, open_node(chosen, gateways=gateways) as node:
        site = make_site(node, chosen)
        async with open_server(site) as server:
            gateways.links.publish(server.url)
            yield Serving(node, site, server)


def _node_settings(name: str, url: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of one of several nodes: the first has the id and the folder of a single one."""
    chosen = {"node_id": name, "redis_partitions": nodes.PARTITIONS, **settings, "log_url": url}
    if name != nodes.names()[0]:
        chosen |= {"node_id": name, "port": 0}
        if "data" in settings:
            chosen["data"] = f"{settings['data']}.{name}"
    return chosen


async def wait_until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait until the condition holds."""
    with trio.fail_after(within_s):
        while not condition():
            await trio.sleep(0.005)


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
    """An event stream that is read item by item, on a connection of its own, through the incremental parser.

    (Not through httpx, whose response bodies are generators that trio cannot close in order.)
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.status = 0
        self.headers = httpx.Headers()
        self.raw = b""
        self._http = h11.Connection(h11.CLIENT)
        self._parser = Parser()
        self._items: list[Message | Moved | Retry] = []

    async def open(self, request: httpx.Request) -> None:
        """Send the request and wait for the head of the answer."""
        head = h11.Request(method="GET", target=request.url.raw_path, headers=request.headers.raw)
        await self.stream.send_all(self._http.send(head) + self._http.send(h11.EndOfMessage()))
        answer = await self._event()
        assert isinstance(answer, h11.Response)
        self.status = answer.status_code
        self.headers = httpx.Headers(list(answer.headers.raw_items()))

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.stream.receive_some(65_536))
        return event

    async def _more(self) -> bool:
        """Take the next piece of the body; false at its end."""
        event = await self._event()
        if not isinstance(event, h11.Data):
            return False
        self.raw += bytes(event.data)
        self._items += self._parser.feed(bytes(event.data))
        return True

    async def next(self) -> Message | Moved | Retry:
        """Wait for the next item."""
        with trio.fail_after(5):
            while not self._items:
                assert await self._more(), "the stream has ended"
        return self._items.pop(0)

    async def message(self, event: str = "message") -> Any:
        """Wait for the next message of a type, passing over everything else; return its data."""
        while True:
            item = await self.next()
            if isinstance(item, Message) and item.event == event:
                return msgspec.json.decode(item.data)

    async def rest(self) -> list[Message | Moved | Retry]:
        """Wait for the end; return what came before it."""
        with trio.fail_after(5):
            while await self._more():
                pass
        items, self._items = self._items, []
        return items


@asynccontextmanager
async def listening(client: httpx.AsyncClient, path: str, **options: Any) -> AsyncIterator[Listener]:
    """Open an event stream as the client would ask for it."""
    request = client.build_request("GET", path, **options)
    if isinstance(client, Client):
        await client.running.settle()
    async with await trio.open_tcp_stream(request.url.host, request.url.port or 80) as stream:
        listener = Listener(stream)
        with trio.fail_after(5):
            await listener.open(request)
        yield listener
