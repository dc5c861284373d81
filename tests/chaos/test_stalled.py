"""Readers that stop reading: the server's memory stays flat, others notice nothing, SIGTERM still works."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.chaos.crowd import PACE, STORE, open_crowd
from tests.chaos.process import Server, open_server, token
from web.client import Client, open_client

STALLED = 100
NOTE_BYTES = 400
"""Makes an order's frames about 4 KB, so that kernel buffers of stalled readers fill soon."""

EACH_BYTES_MAX = 600 << 10
"""What one stalled reader may hold: one write of 64 KB, with its copies on the way to the socket."""

GROWTH_BYTES_MAX = 16 << 20
"""Once that is held nothing grows: queued one by one, frames would take 100 × 150 × 4 KB = 60 MB more."""

LATENCY_P99_S_MAX = 0.25
"""Generous, because the machine is shared; a reader that waits for a stalled one would see seconds."""


@pytest.mark.alone
@pytest.mark.slow
async def test_stalled_readers_cost_no_memory_and_no_latency(tmp_path: Path):
    """100 SSE readers stop reading while orders flow: RSS flat, p99 of a healthy reader as before."""
    env = {"ONDA_PING_S": "1", "ONDA_CHECKPOINT_S": "1", "ONDA_SEND_TIMEOUT_S": "600"}
    async with (
        open_server(tmp_path / "data", "--no-demo", env=env) as (server, _),
        open_crowd(server.base, 1, tables=1) as (_, client),
        open_client(server.base, token(), pace=PACE) as reader,
    ):
        await order_latencies(client, reader, 40)  # warm-up
        alone = percentile(await order_latencies(client, reader, 60), 99)
        before = server.rss_bytes()
        async with stalled_readers(server, STALLED):
            await order_latencies(client, reader, 100)
            held = server.rss_bytes() - before
            crowded = percentile(await order_latencies(client, reader, 150), 99)
            growth = server.rss_bytes() - before - held
            print(f"p99 {alone * 1e3:.1f} ms alone, {crowded * 1e3:.1f} ms crowded")
            print(f"RSS +{held / 1e6:.1f} MB for {STALLED} stalled readers, then +{growth / 1e6:.1f} MB")
            assert held < STALLED * EACH_BYTES_MAX
            assert growth < GROWTH_BYTES_MAX
            assert crowded < max(LATENCY_P99_S_MAX, 3 * alone)
            began = time.monotonic()
            assert await server.stop(within_s=5) == 0
            print(f"SIGTERM took {time.monotonic() - began:.2f} s")


@pytest.mark.one_node("sockets of one process")
async def test_a_stalled_reader_is_cut(tmp_path: Path):
    """One that takes nothing for longer than the setting is cut: it never holds a connection for good."""
    env = {"ONDA_SEND_TIMEOUT_S": "1", "ONDA_PING_S": "1"}
    async with (
        open_server(tmp_path / "data", "--no-demo", env=env) as (server, _),
        open_crowd(server.base, 1, tables=1) as (_, client),
    ):
        sockets_before = open_sockets(server)
        async with stalled_readers(server, 5):
            assert open_sockets(server) >= sockets_before + 5
            with trio.fail_after(20):
                while open_sockets(server) > sockets_before + 1:
                    await place(client, 0)


@asynccontextmanager
async def stalled_readers(server: Server, many: int) -> AsyncIterator[None]:
    """SSE readers with a tiny receive buffer, which take the response's first bytes and then nothing more."""
    ask = f"GET /v1/stores/{STORE}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\n\r\n"
    async with AsyncExitStack() as stack:
        for _ in range(many):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(_nonblocking(reader)))
            stack.push_async_callback(trio.aclose_forcefully, stream)
            await stream.socket.connect(("127.0.0.1", server.port))
            await stream.send_all(ask.encode())
            with trio.fail_after(10):
                assert b" 200 " in await stream.receive_some(64)
        yield


async def order_latencies(client: Client, reader: Client, orders: int) -> list[float]:
    """Place about 50 orders a second; return for each how long until a reader had it, in seconds."""
    seen: list[float] = []
    took = trio.Event()

    def on_event(envelope: dict) -> None:
        if envelope["type"] == "OrderCreated":
            stamped = int(envelope["data"]["lines"][0]["note"].strip())
            seen.append((time.monotonic_ns() - stamped) / 1e9)
            if len(seen) == orders:
                took.set()

    feed = reader.follow(f"stores/{STORE}", on_event=on_event)
    await feed.wait(lambda feed: feed.status == "live")
    with trio.fail_after(60):
        for _ in range(orders):
            due = trio.current_time() + 0.02
            await place(client, time.monotonic_ns())
            await trio.sleep_until(due)
        await took.wait()
    feed.close()
    return seen


async def place(client: Client, stamp: int) -> None:
    """One order with the time in its note."""
    lines = [{"product": "ramen", "quantity": 1, "note": str(stamp).ljust(NOTE_BYTES)}]
    reply = await client.send(f"stores/{STORE}/create-order", {"lines": lines})
    rejected = {"order": reply.result["order"], "reason": "measured"}
    await client.send(f"stores/{STORE}/reject-order", rejected)


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def open_sockets(server: Server) -> int:
    """Sockets that the server holds, its listener among them."""
    count = 0
    for fd in Path(f"/proc/{server.pid}/fd").iterdir():
        try:
            count += str(fd.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # closed while we looked
    return count


def _nonblocking(plain: socket.socket) -> socket.socket:
    plain.setblocking(False)
    return plain
