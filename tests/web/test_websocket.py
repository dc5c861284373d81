"""The WebSocket: the same envelopes as everywhere, commands, errors, and how it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Request,
    TextMessage,
)

from tests.web.site import Running, order, running, set_up, token, wait_until


class Talk:
    """A WebSocket that speaks JSON, on wsproto."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._socket = WSConnection(ConnectionType.CLIENT)
        self._text = ""

    async def open(self, site: Running, headers: list[tuple[str, str]]) -> None:
        """Shake hands."""
        raw = [(name.encode(), value.encode()) for name, value in headers]
        host = f"127.0.0.1:{site.port}"
        await self.send(Request(host=host, target="/v1/ws", extra_headers=raw))
        assert isinstance(await self._event(), AcceptConnection)

    async def send(self, event: Event) -> None:
        await self.stream.send_all(self._socket.send(event))

    async def _event(self) -> Event:
        """Wait for the next event; answers pings and closes."""
        with trio.fail_after(5):
            while True:
                for event in self._socket.events():
                    if isinstance(event, Ping) or self._socket.state is ConnectionState.REMOTE_CLOSING:
                        await self.send(event.response())
                    return event
                self._socket.receive_data(await self.stream.receive_some(65_536) or None)

    async def say(self, **message: Any) -> None:
        await self.send(TextMessage(json.dumps(message)))

    async def hear(self, op: str | None = None) -> dict[str, Any]:
        """Wait for the next message, or for the next with this op."""
        while True:
            event = await self._event()
            assert isinstance(event, TextMessage), event
            self._text += event.data
            if event.message_finished:
                message: dict[str, Any] = json.loads(self._text)
                self._text = ""
                if op is None or message["op"] == op:
                    return message

    async def ask(self, **message: Any) -> dict[str, Any]:
        await self.say(**message)
        return await self.hear()

    async def wait_closed(self) -> int:
        """Wait for the end; return the close code."""
        while not isinstance(event := await self._event(), CloseConnection):
            pass
        return event.code


@asynccontextmanager
async def talking(site: Running, who: str | None = "service", **options: Any) -> AsyncIterator[Talk]:
    """Open a WebSocket; at the end just hang up."""
    headers = list(options.pop("extra_headers", []))
    if who:
        headers.append(("authorization", f"Bearer {token(who, **options)}"))
    async with await site.connect() as stream:
        talk = Talk(stream)
        await talk.open(site, headers)
        yield talk


@asynccontextmanager
async def handshake(
    site: Running, headers: list[tuple[str, str]]
) -> AsyncIterator[tuple[trio.SocketStream, bytes]]:
    """Ask for a WebSocket over a raw connection; gives the connection, and the answer to the handshake."""
    lines = ["GET /v1/ws HTTP/1.1", "host: x", "upgrade: websocket", "connection: upgrade"]
    lines += ["sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += [f"{name}: {value}" for name, value in headers]
    async with await site.connect() as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        with trio.fail_after(5):
            while b"\r\n\r\n" not in answer or (b" 101 " not in answer and b"}" not in answer):
                answer += await stream.receive_some(4096)
        yield stream, answer


async def test_a_feed_starts_with_a_snapshot_and_goes_on_with_envelopes(shop: Running) -> None:
    """The envelopes are those of the answer to the command."""
    async with talking(shop, "owner:s1") as talk, shop.client("owner:s1") as client:
        first = await talk.ask(op="subscribe", feed="stores/s1")
        synced = (await client.get("/v1/stores/s1/sync")).json()
        assert first == {
            "op": "snapshot",
            "feed": "stores/s1",
            "cursor": synced["cursor"],
            "state": synced["state"],
        }
        done = await order(client)
        for event in done["events"]:
            assert await talk.hear() == {"op": "event", "feed": "stores/s1", "event": event}


async def test_a_feed_goes_on_from_a_cursor(shop: Running) -> None:
    """A good cursor is confirmed and what was missed follows; a bad one is a reset."""
    async with talking(shop) as talk, shop.client("service") as client:
        cursor = (await client.get("/v1/stores/s1/sync")).json()["cursor"]
        done = await order(client)
        first = await talk.ask(op="subscribe", feed="stores/s1", after=cursor)
        assert first == {"op": "subscribed", "feed": "stores/s1", "cursor": cursor}
        assert [(await talk.hear())["event"] for _ in done["events"]] == done["events"]
        reset = await talk.ask(op="subscribe", feed="users/u1", after="other-7")
        assert (reset["op"], reset["reason"]) == ("reset", "epoch")


async def test_types_leave_others_out_and_move_the_cursor(shop: Running) -> None:
    """As on an event stream."""
    async with talking(shop) as talk, shop.client("service") as client:
        await talk.ask(op="subscribe", feed="stores/s1", types=["OrderPlaced"])
        await order(client)
        assert (await talk.hear("event"))["event"]["type"] == "OrderPlaced"
        accepted = (await client.post("/v1/stores/s1/accept-order", json={"order": "o1"})).json()
        assert (await talk.hear("cursor"))["cursor"] <= accepted["cursor"]


async def test_an_unsubscribed_feed_is_silent(shop: Running) -> None:
    """After the word that it is over nothing more comes of it; it can be taken up again."""
    async with talking(shop) as talk, shop.client("service") as client:
        await talk.ask(op="subscribe", feed="stores/s1")
        assert await talk.ask(op="unsubscribe", feed="stores/s1") == {
            "op": "unsubscribed",
            "feed": "stores/s1",
        }
        await order(client)
        assert await talk.ask(op="ping", ref=7) == {"op": "pong", "ref": 7}
        assert shop.node.statistics()["subscribers"] == 0
        assert (await talk.ask(op="subscribe", feed="stores/s1"))["op"] == "snapshot"


async def test_a_command_is_answered_as_over_http(shop: Running) -> None:
    """The body is that of the HTTP answer; the key is the same key."""
    body = {"lines": [{"product": "ramen", "quantity": 1}]}
    async with talking(shop) as talk, shop.client("service") as client:
        path = "stores/s1/create-order"
        first = await talk.ask(op="command", path=path, body=body, key="k-1", ref=1)
        again = await talk.ask(op="command", path=path, body=body, key="k-1", ref="two")
        over_http = await client.post(f"/v1/{path}", json=body, headers={"idempotency-key": "k-1"})
    assert (first["op"], first["ref"], first["replayed"], first["pending"]) == ("answer", 1, False, False)
    assert (again["ref"], again["replayed"]) == ("two", True)
    assert first["body"] == again["body"] == over_http.json()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"op": "command", "path": "stores/s1/fly"}, "unknown_command"),
        ({"op": "command", "path": "stores/s1"}, "not_found"),
        ({"op": "command", "path": "stores/s1/create-order", "body": {"lines": []}}, "malformed"),
        ({"op": "command", "path": "stores/s1/create-order", "body": 7}, "malformed"),
        ({"op": "command", "path": "stores/s2/open-store"}, "unknown_store"),
        ({"op": "command", "path": "stores/s1/accept-order", "body": {"order": "o9"}}, "unknown_order"),
        ({"op": "command", "path": "stores/s1/open-store", "key": "a b"}, "malformed"),
        ({"op": "subscribe", "feed": "kitchens/s1"}, "malformed"),
        ({"op": "subscribe", "feed": "stores/s2"}, "unknown_store"),
        ({"op": "subscribe", "feed": "stores/s1", "after": "x"}, "malformed"),
        ({"op": "unsubscribe", "feed": "stores/s1"}, "not_found"),
        ({"op": "dance"}, "malformed"),
        ({"op": "ping", "more": 1}, "malformed"),
    ],
)
async def test_what_is_wrong_is_told_and_the_talk_goes_on(
    shop: Running, message: dict[str, Any], code: str
) -> None:
    """An error names its code, and its ref where the message could be read."""
    async with talking(shop) as talk:
        error = await talk.ask(**message, ref=5)
        assert (error["op"], error["code"]) == ("error", code)
        assert error["detail"]
        if code != "malformed":
            assert error["ref"] == 5
        assert (await talk.ask(op="ping"))["op"] == "pong"


async def test_what_is_no_message_is_told(shop: Running) -> None:
    """No JSON, and bytes."""
    async with talking(shop) as talk:
        bad = [TextMessage("{"), TextMessage("[]"), TextMessage(""), BytesMessage(b"\0"), BytesMessage(b"")]
        for message in bad:
            await talk.send(message)
            assert (await talk.hear())["code"] == "malformed"


async def test_rights_are_those_of_the_token(shop: Running) -> None:
    """Streams and commands of others are refused."""
    async with talking(shop, "table:s1/3") as talk:
        assert (await talk.ask(op="subscribe", feed="stores/s1"))["code"] == "forbidden"
        assert (await talk.ask(op="command", path="stores/s1/open-store"))["code"] == "forbidden"
        assert (await talk.ask(op="subscribe", feed="tables/s1/3"))["op"] == "snapshot"


@pytest.mark.parametrize("headers", [[], [("authorization", "Bearer nonsense")]])
async def test_without_a_token_nobody_comes_in(shop: Running, headers: list[tuple[str, str]]) -> None:
    """The handshake is answered 401 with a problem."""
    async with handshake(shop, headers) as (_, answer):
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b'"code":"unauthorized"' in answer


async def test_a_page_of_another_site_cannot_use_the_cookie(shop: Running) -> None:
    """A browser sends the cookie with every handshake; the origin tells whose page it is."""
    cookie = ("cookie", f"onda_token={token('owner:s1')}")
    async with handshake(shop, [cookie, ("origin", "https://evil.example")]) as (_, answer):
        assert answer.startswith(b"HTTP/1.1 403 ")
    async with talking(shop, None, extra_headers=[cookie, ("origin", shop.url)]) as talk:
        assert (await talk.ask(op="ping"))["op"] == "pong"


async def test_many_commands_at_once_are_all_answered(shop: Running) -> None:
    """More than may be under way at once wait their turn."""
    async with talking(shop) as talk:
        for ref in range(40):
            body = {"lines": [{"product": "ramen", "quantity": 1}]}
            await talk.say(op="command", path="stores/s1/create-order", body=body, ref=ref)
        refs = {(await talk.hear("answer"))["ref"] for _ in range(40)}
    assert refs == set(range(40))


async def test_too_many_feeds_are_refused(shop: Running) -> None:
    """32 are good, and each one once."""
    async with talking(shop) as talk:
        for number in range(32):
            assert (await talk.ask(op="subscribe", feed=f"users/u{number}"))["op"] == "snapshot"
        assert (await talk.ask(op="subscribe", feed="users/u1"))["code"] == "malformed"
        assert (await talk.ask(op="subscribe", feed="users/u99"))["code"] == "malformed"


async def test_a_message_that_is_too_large_ends_it(shop: Running) -> None:
    """With the close code that says so; nothing of it is kept."""
    async with handshake(shop, [("authorization", f"Bearer {token('service')}")]) as (stream, _):
        size = 3 << 20
        await stream.send_all(b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * size)
        said = b""
        with trio.fail_after(5), suppress(trio.BrokenResourceError):
            while more := await stream.receive_some(4096):
                said += more
    assert said == b"\x88\x02" + (1009).to_bytes(2, "big")
    await wait_until(lambda: not shop.site.streams["websocket"])


async def test_it_pings_and_ends_with_its_token() -> None:
    """Pings come as messages; at the token's end there is a bye and its close code."""
    async with running(ping_s=0.1) as site, talking(site, "user:u1", ttl_s=1.5) as talk:
        ping = await talk.hear("ping")
        assert ping["node"] in {one.node.node_id for one in site.serving}
        bye = await talk.hear("bye")
        assert bye["reason"] == "unauthorized"
        assert bye["retry_ms"] > 0
        assert await talk.wait_closed() == 4401


async def test_a_stopping_server_says_bye(shop: Running) -> None:
    """One bye, however many feeds there are."""
    async with talking(shop.first) as talk, trio.open_nursery() as nursery:
        for feed in ("stores/s1", "users/u1"):
            await talk.ask(op="subscribe", feed=feed)
        nursery.start_soon(shop.server.stop)
        assert (await talk.hear())["reason"] == "shutdown"
        assert await talk.wait_closed() == 1012


async def test_a_feed_that_falls_behind_ends_it(shop: Running) -> None:
    """Never a silent hole: the client is told to come back with its cursors."""
    async with talking(shop.first) as talk, shop.client("service") as client:
        await talk.ask(op="subscribe", feed="stores/s1")
        (subscription,) = shop.node.feeds["store:s1"].subscriptions
        subscription.version = -1
        await order(client)
        assert (await talk.hear())["reason"] == "lagging"
        assert await talk.wait_closed() == 4008


async def test_a_client_that_leaves_lets_go_of_its_feeds(shop: Running) -> None:
    """When it says so, and when it just hangs up."""
    async with talking(shop) as talk, talking(shop) as polite:
        await talk.ask(op="subscribe", feed="stores/s1")
        await polite.ask(op="subscribe", feed="stores/s1")
        await polite.send(CloseConnection(1000))
        assert await polite.wait_closed() == 1000
    await wait_until(lambda: not shop.node.statistics()["subscribers"] and not shop.site.streams["websocket"])


async def test_a_client_that_floods_and_does_not_read_is_cut() -> None:
    """Its commands are not read further than its answers are taken, and it ends at the send timeout."""
    async with running(send_timeout_s=0.3, send_buffer_bytes=4096) as site:
        async with site.client("service") as client:
            await set_up(client)
        async with handshake(site, [("authorization", f"Bearer {token('service')}")]) as (stream, answer):
            assert answer.startswith(b"HTTP/1.1 101 ")
            text = b'{"op":"ping","ref":"' + b"x" * 1000 + b'"}'
            frame = b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                while True:
                    await stream.send_all(frame * 50)
            await wait_until(lambda: not site.site.streams["websocket"])
