"""What only the edge does: both ways by turns on one connection, clients that are slow or leave, proxies."""

from __future__ import annotations

import gc
import re
import socket
import struct
import tracemalloc

import pytest
import trio

from tests.web.site import Running, listening, order, running, set_up, token, wait_until
from tests.web.test_edge_contract import REQUESTS, request
from web.files import FILES_KEPT, raise_file_limit
from web.forwarded import Proxies
from web.messages import Request, Response
from web.plugged import Route, Routes
from web.site import Site

pytestmark = pytest.mark.first_node

SYNC = request("GET /v1/stores/s1/sync")
PAGE = request("GET /", who="")
LENGTH = re.compile(rb"content-length: (\d+)\r\n")


async def answers(stream: trio.SocketStream, count: int) -> list[bytes]:
    """The next answers that have a length, each whole."""
    found: list[bytes] = []
    rest = b""
    with trio.fail_after(5):
        while len(found) < count:
            head, ended, body = rest.partition(b"\r\n\r\n")
            if ended and len(body) >= (size := int(LENGTH.search(head)[1])):
                found.append(head + ended + body[:size])
                rest = body[size:]
                continue
            data = await stream.receive_some(65_536)
            assert data, (found, rest)
            rest += data
    assert not rest
    return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
async def shop() -> Running:
    async with running() as site:
        async with site.client("service") as client:
            await set_up(client, tables=("3",))
        yield site


async def test_both_ways_on_one_connection_by_turns(shop: Running) -> None:
    """A handed-over request gives the connection back; what was sent meanwhile waits for its turn."""
    async with await shop.connect() as stream:
        for _ in range(3):
            await stream.send_all(PAGE)
            assert (await answers(stream, 1))[0].endswith(b"</html>\n")
            await stream.send_all(SYNC + PAGE + SYNC)
            first, second, third = await answers(stream, 3)
            assert b'"mode":"snapshot"' in first
            assert second.endswith(b"</html>\n")
            assert third.partition(b"\r\n\r\n")[2] == first.partition(b"\r\n\r\n")[2]
    await wait_until(lambda: shop.site.connections == 0)


async def test_a_stream_may_follow_a_page_and_a_request_may_follow_the_stream() -> None:
    """The hub gives the connection back once a stream has said goodbye."""
    async with running(rotate_s=0.3) as site:
        async with site.client("service") as client:
            await set_up(client)
        async with await site.connect() as stream:
            for _ in range(2):
                await stream.send_all(PAGE)
                await answers(stream, 1)
                await stream.send_all(request("GET /v1/stores/s1/stream"))
                heard = b""
                with trio.fail_after(5):
                    while not heard.endswith(b"\r\n0\r\n\r\n"):
                        data = await stream.receive_some(65_536)
                        assert data
                        heard += data
                assert b"event: snapshot" in heard
                assert b'"reason":"rotate"' in heard
                await wait_until(lambda: len(site.server._hub) == 0)
            await stream.send_all(SYNC)
            assert status((await answers(stream, 1))[0]) == 200
            assert site.site.connections == 1
        await wait_until(lambda: site.site.connections == 0)
        assert site.site.streams["sse"] == 0


async def test_a_stream_of_the_edge_is_no_task_of_its_own(shop: Running) -> None:
    async with shop.client("service") as client, listening(client, "/v1/stores/s1/stream") as listener:
        await listener.message("snapshot")
        assert len(shop.server._hub) == 1
        assert not [visit for visit in shop.server._visits if visit._sock.getpeername()[1] == 0]
        await order(client)
        assert (await listener.message())["type"] == "OrderCreated"
    await wait_until(lambda: len(shop.server._hub) == 0)


async def test_who_waits_for_100_continue_gets_it(shop: Running) -> None:
    async with await shop.connect() as stream:
        head, _, body = REQUESTS["expects"].partition(b"\r\n\r\n")
        await stream.send_all(head + b"\r\n\r\n")
        with trio.fail_after(5):
            assert await stream.receive_some(4096) == b"HTTP/1.1 100 \r\n\r\n"
        await stream.send_all(body)
        assert status((await answers(stream, 1))[0]) == 200


async def test_a_body_over_the_bound_is_refused_before_it_is_sent(shop: Running) -> None:
    """Also of a page's request, which the edge would only hand on; and nothing reads on after it."""
    for line in ("POST /v1/stores/s1/create-order", "POST /"):
        async with await shop.connect() as stream:
            await stream.send_all(request(line, f"Content-Length: {2 << 20}") + SYNC)
            (only,) = await answers(stream, 1)
            assert status(only) == 413
            with trio.fail_after(5):
                assert await stream.receive_some(4096) == b""


async def test_who_leaves_a_long_poll_is_missed(shop: Running) -> None:
    """A client that is gone does not hold a place for the length of its wait."""
    cursor = (await shop.node.read("store:s1")).cursor
    async with await shop.connect() as stream:
        await stream.send_all(request(f"GET /v1/stores/s1/sync?after={cursor}&wait=30"))
        feed = shop.node.feeds["store:s1"]
        await wait_until(lambda: feed.subscriptions)
    await wait_until(lambda: not feed.subscriptions and shop.site.connections == 0)


async def test_a_long_poll_is_answered_and_what_follows_too(shop: Running) -> None:
    cursor = (await shop.node.read("store:s1")).cursor
    async with await shop.connect() as stream, shop.client("service") as client:
        await stream.send_all(request(f"GET /v1/stores/s1/sync?after={cursor}&wait=30") + SYNC)
        await wait_until(lambda: shop.node.feeds["store:s1"].subscriptions)
        await order(client)
        first, second = await answers(stream, 2)
        assert b'"type":"OrderCreated"' in first
        assert b'"mode":"snapshot"' in second


async def test_who_does_not_take_an_answer_is_cut() -> None:
    """A reader that has stopped costs its answer and its place for the send timeout, no longer."""
    async with running(send_timeout_s=0.4, send_buffer_bytes=16 * 1024) as site:
        async with site.client("service") as client:
            await set_up(client)
            name = "x" * 60_000
            for number in range(8):
                body = {"product": f"p{number}", "name": name, "price": 1}
                if (await client.post("/v1/stores/s1/put-product", json=body)).status_code != 200:
                    body["name"] = "y" * 100
                    assert (await client.post("/v1/stores/s1/put-product", json=body)).status_code == 200
            quiet = socket.socket()
            quiet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with quiet:
                quiet.setblocking(False)
                quiet.connect_ex(("127.0.0.1", site.port))
                await trio.lowlevel.wait_writable(quiet)
                quiet.send(SYNC * 200)
                await wait_until(lambda: site.site.connections >= 2)
                assert (await client.get("/v1/stores/s1/sync")).status_code == 200
                await wait_until(lambda: site.site.connections <= 1)


async def test_a_reset_in_the_middle_is_no_error(shop: Running, caplog: pytest.LogCaptureFixture) -> None:
    for raw in (SYNC * 50, SYNC[:30], request("GET /v1/stores/s1/stream"), PAGE * 20):
        stream = await shop.connect()
        await stream.send_all(raw)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
    await wait_until(lambda: shop.site.connections == 0)
    async with shop.client("service") as client:
        assert (await client.get("/v1/stores/s1/sync")).status_code == 200


@pytest.mark.one_node("memory of one process")
async def test_a_closed_connection_leaves_next_to_nothing(shop: Running) -> None:
    """The wheel knows it until its time would have come, and there may be thousands in a second."""

    async def come_and_go(count: int) -> None:
        for _ in range(count):
            async with await shop.connect() as stream:
                await stream.send_all(PAGE)
                await answers(stream, 1)
        await wait_until(lambda: shop.site.connections == 0)
        gc.collect()

    await come_and_go(20)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await come_and_go(200)
        assert (tracemalloc.get_traced_memory()[0] - before) / 200 < 1000
    finally:
        tracemalloc.stop()


async def test_idle_connections_do_not_hold_up_the_end() -> None:
    async with running() as site:
        stream = await site.connect()
        await stream.send_all(request("GET /healthz"))
        await answers(stream, 1)
        other = await site.connect()
        await wait_until(lambda: site.site.connections == 2)
        began = trio.current_time()
        await site.server.stop()
        assert site.site.connections == 0
        assert trio.current_time() - began < 0.6
        with trio.fail_after(1):
            assert await stream.receive_some(10) == b""
            assert await other.receive_some(10) == b""
        await stream.aclose()
        await other.aclose()


async def test_many_requests_sent_at_once_take_turns_with_others(shop: Running) -> None:
    """However cheap to answer: one packet has room for more than a thousand of them."""
    responses, most, stop = shop.site.responses, 0, trio.CancelScope()

    async def look() -> None:
        nonlocal most
        with stop:
            while True:
                before = responses[200]
                await trio.lowlevel.checkpoint()
                most = max(most, responses[200] - before)

    async with await shop.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await stream.send_all(request("GET /healthz", who="") * 500)
        await answers(stream, 500)
        stop.cancel()
    assert 1 <= most <= 2


async def test_time_in_the_queue_is_not_the_client_s() -> None:
    """Who has to take a turn is not cut for being idle meanwhile."""
    async with running(idle_timeout_s=1.0) as site:
        turnstile = site.server._edge.turnstile

        async def wait() -> None:
            await trio.sleep(1.5)

        turnstile.wait = wait  # type: ignore[method-assign]
        async with await site.connect() as stream:
            for _ in range(2):
                await stream.send_all(request("GET /v1/nothing"))
                assert status((await answers(stream, 1))[0]) == 404
                await trio.sleep(2.0)


@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("to", ["a%0d%0aset-cookie:%20b=c", "a%0aset-cookie:%20b=c", "%ea%b0%80"])
async def test_a_header_s_value_cannot_become_a_header(edge: bool, to: str) -> None:
    """Whatever a plugin puts there: rather no answer, and that connection alone."""

    async def echo(_site: Site, given: Request) -> Response:
        return Response(303, [("location", given.field("to") or "")])

    async with running(edge=edge) as site:
        site.site.routes = Routes([Route("GET", "/echo", echo)])
        async with await site.connect() as stream:
            await stream.send_all(request(f"GET /echo?to={to}", "Connection: close"))
            got = b""
            with trio.fail_after(5):
                while data := await stream.receive_some(4096):
                    got += data
        assert b"\nset-cookie" not in got.lower()
        assert (b"HTTP/1.1 303 " in got) == (b"location: \xea\xb0\x80\r\n" in got) == (to == "%ea%b0%80")
        async with site.client("service") as client:
            assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("peer", "headers", "client", "host"),
    [
        ("10.0.0.1", {"x-forwarded-for": "1.2.3.4"}, "1.2.3.4", "proxy"),
        ("10.0.0.1", {"x-forwarded-for": "6.6.6.6, 1.2.3.4, 10.0.0.7"}, "1.2.3.4", "proxy"),
        ("10.0.0.1", {"x-forwarded-for": "10.0.0.8"}, "10.0.0.8", "proxy"),
        ("10.0.0.1", {}, "10.0.0.1", "proxy"),
        ("10.0.0.1", {"x-forwarded-host": "shop.example"}, "10.0.0.1", "shop.example"),
        ("::ffff:10.0.0.1", {"x-forwarded-for": "1.2.3.4"}, "1.2.3.4", "proxy"),
        ("fd00::5", {"x-forwarded-for": "2001:db8::1"}, "2001:db8::1", "proxy"),
        ("9.9.9.9", {"x-forwarded-for": "1.2.3.4", "x-forwarded-host": "evil"}, "9.9.9.9", "proxy"),
        ("", {"x-forwarded-for": "1.2.3.4"}, "", "proxy"),
    ],
)
def test_only_trusted_proxies_are_believed(
    peer: str, headers: dict[str, str], client: str, host: str
) -> None:
    proxies = Proxies("10.0.0.0/8, fd00::/8")
    found, seen = proxies.look_through(peer, headers | {"host": "proxy"})
    assert (found, seen["host"]) == (client, host)


@pytest.mark.parametrize("edge", [True, False])
async def test_behind_a_proxy_a_forwarded_host_is_the_origin_s(edge: bool) -> None:
    """A cookie's POST comes from the site that the client sees, not from the proxy's name for us."""
    async with running(edge=edge, trusted_proxies="127.0.0.0/8", connections_per_address_max=1) as site:
        async with site.client("service") as client:
            await set_up(client)
            cookie = {"cookie": f"onda_token={token('owner:s1')}", "origin": "http://shop.example"}
            async with site.client() as other:  # a second connection: the bound is not for proxies
                path = "/v1/stores/s1/pause-orders"
                refused = await other.post(path, json={"reason": "x"}, headers=cookie)
                assert refused.status_code == 403
                cookie["x-forwarded-host"] = "shop.example"
                assert (await other.post(path, json={"reason": "x"}, headers=cookie)).status_code == 200


def test_files_are_kept_back_for_the_log() -> None:
    assert raise_file_limit(10) == 10
    assert 1 <= raise_file_limit(1 << 40) <= (1 << 40)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        assert raise_file_limit(1 << 40) == hard - FILES_KEPT
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
