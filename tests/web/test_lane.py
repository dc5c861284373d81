"""The way from the edge to Hypercorn: whose bytes these are, who keeps the connection, who waits for whom."""

from __future__ import annotations

import struct

import pytest
import trio
import trio.testing

from tests.web.site import Running, running, wait_until
from tests.web.test_edge import answers, status
from tests.web.test_edge_contract import TOKENS, request
from web.lane import Lane

pytestmark = pytest.mark.first_node

HEALTH = request("GET /healthz", who="")
PAGE = request("GET /", who="")
UPGRADE = (
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Both ends of a connection."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        theirs = await trio.open_tcp_stream(*listener.getsockname())
        ours, _ = await listener.accept()
    return trio.SocketStream(ours), theirs


async def test_what_is_sent_on_just_as_the_answer_is_out_is_not_lost() -> None:
    """The reader may hold bytes, taken out of the kernel, at the moment when the answer is out."""
    ours, theirs = await connected()
    lane = Lane(ours, 5.0)
    go = trio.Event()

    async def read() -> None:
        while await lane.receive_some(65_536):
            await go.wait()

    async def answer() -> None:
        await go.wait()
        lane.answered()

    async def in_a_moment() -> None:
        await trio.testing.wait_all_tasks_blocked()
        go.set()

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for _ in range(60):
            go = trio.Event()
            await theirs.send_all(b"second")
            nursery.start_soon(answer)
            nursery.start_soon(in_a_moment)
            with trio.fail_after(5):
                await lane.pass_on(b"first")
            early = lane.take_early()
            if not early:
                with trio.fail_after(1):
                    early = await ours.receive_some(6)
            assert early == b"second"
            await trio.testing.wait_all_tasks_blocked()
            assert not lane.take_early()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "raw",
    [
        request("POST /", "Connection: upgrade", *UPGRADE),
        request("GET /", "Connection: upgrade", *UPGRADE, "Connection: keep-alive"),
    ],
    ids=["not a GET", "taken back"],
)
async def test_what_looks_like_an_upgrade_may_be_none(raw: bytes, shop: Running) -> None:
    """Hypercorn decides; the connection is its own then, and serves what follows as well."""
    async with await shop.connect() as stream:
        for _ in range(3):
            await stream.send_all(raw)
            assert status((await answers(stream, 1))[0]) in (200, 404, 405)
            await stream.send_all(HEALTH)
            assert status((await answers(stream, 1))[0]) == 200
    await wait_until(lambda: shop.site.connections == 0)


@pytest.mark.parametrize("edge", [True, False])
async def test_who_is_gone_before_the_answer_leaves_nothing(edge: bool) -> None:
    """Also while Hypercorn reads no further because of an upgrade, or of what was sent on."""
    raws = (request("POST /", "Connection: upgrade", *UPGRADE), PAGE * 5)
    async with running(edge=edge) as site:
        for number in range(60):
            stream = await site.connect()
            await stream.send_all(raws[number % 2])
            linger = struct.pack("ii", 1, 0)
            stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
            stream.socket.close()
        await trio.testing.wait_all_tasks_blocked(0.02)
        await wait_until(lambda: site.site.connections == 0, within_s=2)


async def test_hypercorn_ends_what_is_idle_when_it_keeps_the_connection() -> None:
    async with running(idle_timeout_s=0.3) as site, await site.connect() as stream:
        await stream.send_all(request("POST /", "Connection: upgrade", *UPGRADE))
        await answers(stream, 1)
        with trio.fail_after(3):
            assert await stream.receive_some(10) == b""
        await wait_until(lambda: site.site.connections == 0)


async def test_old_clients_streams_and_polls_do_not_hold_up_pages(shop: Running) -> None:
    """A proxy may speak HTTP/1.0 to us, and each of its streams lasts."""
    cursor = (await shop.node.read("store:s1")).cursor
    waiting = [
        request("GET /v1/stores/s1/stream HTTP/1.0"),
        request(f"GET /v1/stores/s1/sync?after={cursor}&wait=30 HTTP/1.0"),
    ]
    streams = []
    for number in range(40):
        stream = await shop.connect()
        await stream.send_all(waiting[number % 2])
        streams.append(stream)
    feed = shop.node.feeds["store:s1"]
    await wait_until(lambda: len(feed.subscriptions) == 40)
    async with await shop.connect() as stream:
        await stream.send_all(PAGE)
        assert status((await answers(stream, 1))[0]) == 200
    for stream in streams:
        await stream.aclose()
    await wait_until(lambda: shop.site.connections == 0)


async def test_who_is_slow_to_take_a_page_does_not_hold_up_others() -> None:
    async with running(send_buffer_bytes=2048) as site:
        streams = []
        for _ in range(40):
            sock = trio.socket.socket()
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 2048)
            await sock.connect(("127.0.0.1", site.port))
            stream = trio.SocketStream(sock)
            await stream.send_all(request("GET /static/board.js", who="") * 3)
            streams.append(stream)
        await wait_until(lambda: len([v for v in site.server._visits if v._lane]) == 40)
        async with await site.connect() as stream:
            await stream.send_all(PAGE)
            assert status((await answers(stream, 1))[0]) == 200
        for stream in streams:
            await stream.aclose()
        await wait_until(lambda: site.site.connections == 0)


async def test_a_place_is_kept_until_hypercorn_has_closed_the_socket(shop: Running) -> None:
    """Or there would be more sockets open than connections counted, and a stop would cut answers off."""
    async with await shop.connect() as stream:
        await stream.send_all(PAGE)
        await answers(stream, 1)
        (visit,) = shop.server._visits
        lane = visit._lane
        await stream.send_eof()  # we do not close: Hypercorn's side stays for a moment
        await wait_until(lambda: shop.site.connections == 0)
        assert lane.closed.is_set()
        assert lane.socket.fileno() == -1


async def test_a_websocket_s_path_may_be_encoded(shop: Running) -> None:
    async with await shop.connect() as stream:
        line = f"GET /v1/%77s?token={TOKENS['service']}"
        await stream.send_all(request(line, "Connection: upgrade", *UPGRADE, who=""))
        with trio.fail_after(5):
            assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101 ")


async def test_a_page_under_way_still_goes_out_when_the_server_stops() -> None:
    """From the moment when its request was read; what had been answered before is not cut off either."""
    for ticks in range(12):
        async with running() as site, await site.connect() as stream:
            if ticks % 2:
                await stream.send_all(PAGE)
                await answers(stream, 1)
                await wait_until(lambda site=site: not any(v._answering for v in site.server._visits))
            await stream.send_all(PAGE)
            with trio.fail_after(5):
                while not any(visit._answering for visit in site.server._visits):
                    await trio.lowlevel.checkpoint()
            for _ in range(ticks // 2):
                await trio.lowlevel.checkpoint()
            await site.server.stop()
            assert status((await answers(stream, 1))[0]) == 200
            assert await stream.receive_some(10) == b""
