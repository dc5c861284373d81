"""The server at its edges: caps, slow and stalled clients, rubbish, and an end that nobody can delay."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from engine import Answer, open_node
from tests.web.site import Listener, Running, config, listening, order, running, set_up, token, wait_until
from web.server import open_server
from web.site import make_site

pytestmark = pytest.mark.first_node

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


async def talk(stream: trio.SocketStream, said: bytes) -> bytes:
    """Say something and return all that is answered until the end."""
    await stream.send_all(said)
    return await read_all(stream)


async def read_all(stream: trio.SocketStream) -> bytes:
    """Return what comes until the other side ends."""
    heard = b""
    with trio.fail_after(8):
        try:
            while more := await stream.receive_some(65_536):
                heard += more
        except trio.BrokenResourceError:
            return heard + b"[reset]"
    return heard


def stream_request(who: str = "service", path: str = "/v1/stores/s1/stream") -> bytes:
    """The request of an event stream, raw."""
    return f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token(who)}\r\n\r\n".encode()


async def test_too_many_connections_are_told_so() -> None:
    """One more than the cap is answered 503 with Retry-After and closed; a place that comes free is given."""
    async with running(connections_max=2) as site, AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(await site.connect()) for _ in range(2)]
        for stream in kept:
            await stream.send_all(GET)
            assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 200 ")
        async with await site.connect() as more:
            heard = await talk(more, GET)
            assert heard.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 2\r\n" in heard
            assert heard.endswith(b'"code":"overloaded"}')
        await kept[0].aclose()
        await wait_until(lambda: site.site.connections == 1)
        async with await site.connect() as again:
            await again.send_all(GET)
            assert (await again.receive_some(4096)).startswith(b"HTTP/1.1 200 ")


async def test_too_many_connections_from_one_address_are_told_so() -> None:
    """429, so that one client cannot take all places."""
    async with running(connections_per_address_max=1) as site, await site.connect() as kept:
        await kept.send_all(GET)
        assert (await kept.receive_some(4096)).startswith(b"HTTP/1.1 200 ")
        async with await site.connect() as more:
            heard = await talk(more, GET)
    assert heard.startswith(b"HTTP/1.1 429 ")
    assert b'"code":"too_many_requests"' in heard


async def test_a_head_that_is_never_finished_is_cut() -> None:
    """A client that sends its request letter by letter does not hold a place."""
    async with running(head_timeout_s=0.2) as site, await site.connect() as stream:
        await stream.send_all(b"GET /healthz HT")
        heard = await read_all(stream)
        assert b"200" not in heard
        await wait_until(lambda: site.site.connections == 0)


async def test_an_idle_connection_is_closed() -> None:
    """A kept-alive connection without a request ends after its time, in order."""
    async with running(idle_timeout_s=0.2) as site, await site.connect() as stream:
        assert (await talk(stream, GET)).startswith(b"HTTP/1.1 200 ")


async def test_a_body_that_does_not_come_is_408() -> None:
    """The promise of a body holds a connection only so long."""
    async with running(body_timeout_s=0.2) as site, await site.connect() as stream:
        head = b"POST /v1/stores/s1/open-store HTTP/1.1\r\nhost: x\r\n"
        head += b"content-length: 5\r\nconnection: close\r\n\r\n{"
        assert (await talk(stream, head)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no host
        (b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"414"),
        (b"GET /" + b"y" * 9_000 + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"414"),
    ],
)  # fmt: skip
async def test_rubbish_is_refused_and_does_no_harm(said: bytes, status: bytes) -> None:
    """What is not HTTP, or too much of it, gets a status where it can; the server goes on."""
    async with running() as site:
        async with await site.connect() as stream:
            heard = await talk(stream, said)
        assert heard.startswith(b"HTTP/1.1 " + status) or heard == b"[reset]"
        async with site.client() as client:
            assert (await client.get("/healthz")).status_code == 200


async def test_requests_in_one_packet_are_answered_in_order() -> None:
    """Pipelined requests are served one after the other."""
    async with running() as site, await site.connect() as stream:
        last = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        heard = await talk(stream, GET + GET + last)
    assert heard.count(b"HTTP/1.1 200 ") == 3
    assert heard.endswith(b'"node":"onda-1","writable":true}')


async def test_absolute_addresses_and_http_1_0_work() -> None:
    """As a proxy asks, and an old client."""
    async with running() as site:
        async with await site.connect() as stream:
            said = (
                b"GET http://shop.example/healthz HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n"
            )
            assert (await talk(stream, said)).startswith(b"HTTP/1.1 200 ")
        async with await site.connect() as stream:
            assert (await talk(stream, b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "said",
    [
        GET[:-2]
        + b"connection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_http_2_is_not_spoken(said: bytes) -> None:
    """Who asks for it gets HTTP/1.1."""
    async with running() as site, await site.connect() as stream:
        heard = await talk(stream, said)
    assert heard.startswith(b"HTTP/1.1 ")
    assert not heard.startswith(b"HTTP/1.1 101")


async def test_a_stalled_reader_is_cut_and_bounded() -> None:
    """A client that stops reading is closed hard after the send timeout; others get every event meanwhile."""
    async with running(send_timeout_s=0.5, send_buffer_bytes=4096) as site, site.client("service") as client:
        await set_up(client)
        async with await site.connect() as stalled, listening(client, "/v1/stores/s1/stream") as live:
            await stalled.send_all(stream_request())
            await live.message("snapshot")
            await wait_until(lambda: site.node.statistics()["subscribers"] == 2)
            note = {"lines": [{"product": "ramen", "quantity": 1, "note": "x" * 400}] * 50}
            with trio.fail_after(20):
                while site.node.statistics()["subscribers"] == 2:
                    answer = await client.post("/v1/stores/s1/create-order", json=note)
                    for event in answer.json()["events"]:
                        assert await live.message() == event
            heard = await read_all(stalled)
            await wait_until(lambda: site.site.streams["sse"] == 1)
    assert heard.endswith(b"[reset]")


async def test_stalled_readers_cannot_delay_the_end() -> None:
    """100 clients that never read, and streams that do: it stops within 5 s, and who reads gets its bye."""
    items: list[Any] = []

    async def read(reader: Listener) -> None:
        items.extend(await reader.rest())

    async with trio.open_nursery() as nursery, AsyncExitStack() as clients:
        async with running(send_buffer_bytes=4096) as site:
            async with site.client("service") as client:
                await set_up(client)
                for _ in range(100):
                    stream = await clients.enter_async_context(await site.connect())
                    await stream.send_all(stream_request())
                reader = await clients.enter_async_context(listening(client, "/v1/stores/s1/stream"))
                await wait_until(lambda: site.node.statistics()["subscribers"] == 101)
                note = {"lines": [{"product": "ramen", "quantity": 1, "note": "x" * 400}] * 80}
                for _ in range(4):
                    await client.post("/v1/stores/s1/create-order", json=note)
            nursery.start_soon(read, reader)
            began = time.monotonic()
        took_s = time.monotonic() - began
        await wait_until(lambda: items)
    assert took_s < 5
    assert [item.event for item in items if hasattr(item, "event")][-1] == "bye"


async def test_at_the_end_a_command_under_way_is_answered(
    shop: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked before the end is answered, then the connection is closed."""
    asked, go_on = trio.Event(), trio.Event()
    ask = shop.node.ask

    async def ask_late(*given: Any, **named: Any) -> Answer:
        answer = await ask(*given, **named)
        asked.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(shop.node, "ask", ask_late)
    async with shop.client("service") as client, trio.open_nursery() as nursery:
        nursery.start_soon(order, client)
        await asked.wait()
        nursery.start_soon(shop.server.stop)
        await wait_until(lambda: shop.node.draining)
        go_on.set()
    with trio.fail_after(1):
        await wait_until(lambda: not shop.site.connections)


async def test_after_the_end_nobody_is_let_in(shop: Running) -> None:
    """The port is closed as soon as it stops."""
    await shop.server.stop()
    with pytest.raises(OSError, match="failed"):
        await shop.connect()


async def test_a_server_that_is_stopped_at_once_ends_in_order() -> None:
    """Before it has taken its first connection."""
    chosen = config()
    async with open_node(chosen) as node:
        site = make_site(node, chosen)
        with trio.CancelScope() as scope:
            async with open_server(site):
                scope.cancel()
    assert scope.cancel_called
