"""Requests to a gateway: what was not sent is tried again, what is too large or unreadable is no answer."""

from __future__ import annotations

import gc
import gzip
import json

import httpx
import pytest
import trio
import trio.testing

from engine.payments.http import ANSWER_BYTES_MAX, Line, Lost, NotSent
from tests.payments.player import Asked, Played, Player, playing


async def test_an_answer_has_a_bound() -> None:
    """Up to it everything is read; one byte more is no answer, and the connection is still good."""
    sizes = [ANSWER_BYTES_MAX, ANSWER_BYTES_MAX + 1, 2]

    def answer(_: Asked) -> Played:
        size = sizes.pop(0)
        return Played(200, b"{" + b" " * (size - 2) + b"}")

    async with playing(answer) as player:
        line = Line(player.url, {})
        assert (await line.get("/")).body == {}
        with pytest.raises(Lost) as lost:
            await line.get("/")
        assert lost.value.code == "answer_too_large"
        assert (await line.get("/")).status == 200
        await line.aclose()


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'"x"', b"{", b"\xff\xfe", b"<html>"])
async def test_what_is_no_object_is_no_answer(content: bytes) -> None:
    """Whatever its status says."""
    async with playing(lambda _: Played(200, content)) as player:
        line = Line(player.url, {})
        with pytest.raises(Lost) as lost:
            await line.post("/charge", json={})
        assert lost.value.code == "http_200_unreadable"
        await line.aclose()


async def test_nothing_compressed_is_taken() -> None:
    """We ask for none, and a small answer must not grow in memory."""
    packed = gzip.compress(json.dumps({"x": "y"}).encode())
    transport = httpx.MockTransport(
        lambda request: httpx.Response(
            200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(packed)
        )
    )
    line = Line("http://gateway.example", {}, transport=transport)
    with pytest.raises(Lost) as lost:
        await line.get("/")
    assert lost.value.code == "unreadable_answer"
    await line.aclose()


async def test_a_refused_connection_is_tried_until_the_gateway_is_back() -> None:
    """Within the caller's time; the request arrives once."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    player = Player(lambda _: Played(200, {}))
    line = Line(f"http://127.0.0.1:{port}", {}, timeout_s=5)
    async with trio.open_nursery() as nursery:

        async def come_back() -> None:
            await trio.sleep(0.1)
            back = await trio.open_tcp_listeners(port, host="127.0.0.1")
            await trio.serve_listeners(player.serve, back)

        nursery.start_soon(come_back)
        with trio.fail_after(5):
            assert (await line.post("/charge", json={})).status == 200
        nursery.cancel_scope.cancel()
    assert len(player.asked) == 1
    await line.aclose()


async def test_it_gives_up_before_its_time_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """So that `not sent` is still certain: no try may be under way at the deadline."""
    tries = []

    def refuse(request: httpx.Request) -> httpx.Response:
        tries.append(trio.current_time())
        raise httpx.ConnectTimeout("no", request=request)

    line = Line("http://gateway.example", {}, timeout_s=60, transport=httpx.MockTransport(refuse))
    with trio.move_on_after(60) as scope, pytest.raises(NotSent):
        await line.post("/charge", json={})
    assert not scope.cancelled_caught
    assert 50 < trio.current_time() <= 55
    assert 10 < len(tries) < 60
    await line.aclose()


@pytest.mark.parametrize(
    "error",
    [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.WriteTimeout],
)
async def test_what_may_have_been_sent_is_never_sent_again(error: type[httpx.RequestError]) -> None:
    """One request, and it is lost."""
    asked = []

    def fail(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise error("broken", request=request)

    line = Line("http://gateway.example", {}, transport=httpx.MockTransport(fail))
    with trio.move_on_after(10), pytest.raises(Lost):
        await line.post("/charge", json={})
    assert len(asked) == 1
    await line.aclose()


async def test_a_call_that_is_cut_off_leaves_nothing_open(recwarn: pytest.WarningsRecorder) -> None:
    """In the middle of an answer that never ends; and a redirect is not followed."""
    async with playing(lambda _: Played(stall=True)) as player:
        line = Line(player.url, {})
        with trio.move_on_after(0.1) as scope:
            await line.get("/")
        assert scope.cancelled_caught
        await line.aclose()
    gc.collect()
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]
    async with playing(lambda _: Played(302, {"code": "moved"})) as player:
        line = Line(player.url, {})
        assert (await line.get("/")).status == 302
        await line.aclose()


def test_what_a_gateway_says_is_made_harmless() -> None:
    """Short, in one line, without control characters and without our secrets, also where one is cut off."""
    line = Line("http://gateway.example", {}, secrets=("s3cr3t", ""))
    assert line.clean("no\r\nset-cookie: x\x00\x1b[1m") == "no set-cookie: x [1m"
    assert line.clean("x" * 500) == "x" * 200
    assert line.clean("x" * 197 + "s3cr3t") == "x" * 197 + "[hi"
    assert line.clean(None) == ""
    assert line.clean(-702) == "-702"
