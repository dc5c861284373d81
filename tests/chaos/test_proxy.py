"""The proxy does each of its faults: a chaos test with a gentle proxy would prove nothing."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.chaos.deadline import wait_until
from tests.chaos.proxy import Proxy, Way, misbehave, open_proxy


@asynccontextmanager
async def echoed() -> AsyncIterator[Proxy]:
    """A proxy in front of a server that sends everything back."""

    async def echo(stream: trio.SocketStream) -> None:
        try:
            async for chunk in stream:
                await stream.send_all(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the proxy broke it, as it should

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, echo, listeners)
            async with open_proxy(listeners[0].socket.getsockname()[1]) as proxy:
                yield proxy
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def dialled(proxy: Proxy) -> AsyncIterator[trio.SocketStream]:
    """Connect through the proxy, and see a byte come back."""
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        await stream.send_all(b"!")
        assert await stream.receive_some(1) == b"!"
        yield stream


async def test_it_forwards_and_ends_when_an_end_does():
    """Without faults it is a wire."""
    async with echoed() as proxy:
        async with dialled(proxy) as stream:
            await stream.send_all(b"x" * 300_000)
            got = 0
            while got < 300_000:
                got += len(await stream.receive_some())
            await stream.send_eof()
            assert await stream.receive_some() == b""
        await wait_until(lambda: not proxy.open_links)


async def test_cut_ends_in_good_order_and_reset_does_not():
    """A cut reads as the end of the stream, a reset as an error."""
    async with echoed() as proxy:
        async with dialled(proxy) as stream:
            await proxy.cut()
            assert await stream.receive_some() == b""
        async with dialled(proxy) as stream:
            await proxy.reset()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


@pytest.mark.parametrize("way", [None, Way.UP, Way.DOWN])
async def test_nothing_comes_through_a_stall_until_it_heals(way: Way | None):
    """While a way is blocked nothing passes and nothing is lost."""
    async with echoed() as proxy, dialled(proxy) as stream:
        if way is None:
            proxy.stall()
        else:
            proxy.half_open(way)
        before = proxy.forwarded[Way.DOWN]
        await stream.send_all(b"hello")
        with trio.move_on_after(0.1) as waited:
            await stream.receive_some()
        assert waited.cancelled_caught
        assert proxy.forwarded[Way.DOWN] == before
        assert (proxy.forwarded[Way.UP] > 1) == (way is Way.DOWN)
        await proxy.heal()
        assert await stream.receive_some() == b"hello"


async def test_refuse_and_heal_keep_the_port():
    """While refusing, nobody listens; afterwards the same port works."""
    async with echoed() as proxy:
        async with dialled(proxy):
            await proxy.refuse()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", proxy.port)
        await proxy.heal()
        async with dialled(proxy):
            assert proxy.open_links == 1


async def test_delay_holds_bytes_back():
    """Each chunk waits."""
    async with echoed() as proxy, dialled(proxy) as stream:
        proxy.delay_s = 0.05
        began = trio.current_time()
        await stream.send_all(b"x")
        await stream.receive_some()
        assert trio.current_time() - began >= 0.1


async def test_a_schedule_is_the_same_for_the_same_seed():
    """A failure can be played again."""
    async with echoed() as proxy:
        first = await misbehave(proxy, random.Random(7), 6, most_s=0.01)
        assert await misbehave(proxy, random.Random(7), 6, most_s=0.01) == first
        async with dialled(proxy):
            assert proxy.open_links == 1
