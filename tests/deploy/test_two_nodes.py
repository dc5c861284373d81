"""What clients see of two real nodes behind nginx with the shipped configuration."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import h11
import httpx
import pytest
import trio
from trio_websocket import open_websocket_url

from engine.config import Config
from engine.log import partition_of
from tests.chaos.deadline import wait_until_it_holds
from tests.chaos.process import Server, token
from tests.deploy.cluster import DEPLOY, Cluster, cluster, needs_nginx, needs_redis
from tests.web.site import Listener, listening, order, set_up

pytestmark = [needs_nginx, needs_redis]

PING_S = "0.4"
CHANGES = {
    # 75 s against a ping each 15 s, in short; so 2.5 s without an event are a minute and a half.
    "proxy_read_timeout 75s;": "proxy_read_timeout 1200ms;",
    # That nothing is held back must not depend on what a node says about it.
    "proxy_buffering off;": "proxy_buffering off; proxy_ignore_headers X-Accel-Buffering;",
}

QUIET_S = 2.5
AT_ONCE_S = 1.0
TRIES = 40
"""A path without a shop goes to either node by chance: never to meet one of them has a chance of 2 ** -40."""


async def node_of(events: Listener) -> str:
    """Which node an event stream of a user comes from: its pings say so."""
    while True:
        data = await events.message()
        if data.get("type") == "ping":
            return str(data["serverId"])


async def event(events: Listener) -> dict[str, object]:
    """The next event that is not a ping."""
    while True:
        data = await events.message()
        if data.get("type") != "ping":
            return dict(data)


async def test_the_session_over_two_servers(tmp_path: Path) -> None:
    """The stream is held by one node, the account is made on the other, the event is told at once."""
    async with cluster(
        tmp_path, "--open", "--plugin", "examples.accounts", changes=CHANGES, ping_s=PING_S
    ) as two:
        async with two.front.client() as http, listening(http, "/events/sse?userId=123") as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            near = await node_of(events)
            await across(two, http, events, near)
            await one_by_one(http, events)
            await quiet(events, near)
            await fail_over(two, http, events, near)


async def across(two: Cluster, http: httpx.AsyncClient, events: Listener, near: str) -> None:
    """Make accounts until one is made on the other node."""
    body = {"name": "다중서버테스트", "balance": 999999}
    for made in range(1, TRIES):
        began = time.perf_counter()
        node = await two.asked(http, "POST", "/accounts", json=body)
        told = await event(events)
        took_s = time.perf_counter() - began
        assert (told["eventType"], told["snapshotCount"]) == ("snapshots.generated", made)
        assert took_s < AT_ONCE_S
        if (far := node.env["ONDA_NODE_ID"]) != near:
            print(f"\nmade on {far}, told by {near} after {1000 * took_s:.0f} ms")
            for each in two.nodes:  # the account is there, whoever is asked
                await wait_until_it_holds(lambda each=each, made=made: lists(http, each, made))
            return
    raise AssertionError("every account was made on the node of the stream")


async def lists(http: httpx.AsyncClient, node: Server, accounts: int) -> bool:
    """Whether a node has so many accounts."""
    return len((await http.get(f"{node.base}/accounts")).json()) == accounts


async def one_by_one(http: httpx.AsyncClient, events: Listener) -> None:
    """Each event arrives before the next one is sent: nothing is held back."""
    for number in range(5):
        body = {"event_type": "test", "data": {"n": number}}
        assert (await http.post("/v1/users/123/send-event", json=body)).status_code == 200
        with trio.fail_after(AT_ONCE_S):
            assert (await event(events))["n"] == number


async def quiet(events: Listener, near: str) -> None:
    """Without any event the pings hold the stream open for longer than nginx waits for a node."""
    until = trio.current_time() + QUIET_S
    while trio.current_time() < until:
        assert await node_of(events) == near


async def fail_over(two: Cluster, http: httpx.AsyncClient, events: Listener, near: str) -> None:
    """The node is killed: its streams end, and whoever comes back is served by the other one, every time."""
    await two.named(near).kill()
    with pytest.raises(h11.RemoteProtocolError, match="incomplete"):  # cut, and not ended as if all were said
        await events.rest()
    for _ in range(4):
        async with listening(http, "/events/sse?userId=123") as again:
            assert again.status == 200
            assert await node_of(again) != near
        made = await http.post("/accounts?userId=123", json={"name": "한 대", "balance": 1})
        assert made.status_code == 201


async def test_a_partition_is_at_one_node(tmp_path: Path) -> None:
    """nginx spreads shops and users over nodes as Onda does over partitions, whatever is asked for."""
    asked = {f"/v1/users/u{number}": f"user:u{number}" for number in range(4)}
    for shop in ("s1", "a", "shop-2.x", "S_3", "b0", "b1"):
        paths = f"/v1/stores/{shop}/sync", f"/v1/tables/{shop}/3/sync", f"/v1/stores/{shop}/menu"
        asked |= dict.fromkeys(paths, f"store:{shop}")
    async with cluster(tmp_path, changes=CHANGES) as two, two.front.client() as http:
        for path in asked:
            await http.get(path)
        await wait_until_it_holds(lambda: all_written_down(two, asked))
        for path, place in asked.items():
            port = two.nodes[partition_of(place, 2)].port
            assert two.front.answered("GET", path) == [port], path


async def all_written_down(two: Cluster, paths: Iterable[str]) -> bool:
    await trio.lowlevel.checkpoint()
    return all(two.front.answered("GET", path) for path in paths)


async def test_a_shop_behind_nginx(tmp_path: Path) -> None:
    """Orders, repeats, streams, WebSockets and Onda's own refusals pass; tokens stay out of the logs."""
    async with cluster(tmp_path, changes=CHANGES, ping_s=PING_S) as two, two.front.client() as http:
        await set_up(http)
        await repeat(http)
        await screens(two, http)
        await talk(two)
        await refusals(http)
        await browser(two)
        await unlogged(two)


async def screens(two: Cluster, http: httpx.AsyncClient) -> None:
    """An order through nginx is on the screens of both nodes, with the same bytes."""
    path = "/v1/stores/s1/stream"
    async with AsyncExitStack() as stack:
        through = await stack.enter_async_context(listening(http, path))
        direct = [await stack.enter_async_context(listening(http, node.base + path)) for node in two.nodes]
        for events in (through, *direct):
            await events.message("snapshot")
        done = await order(http)
        with trio.fail_after(AT_ONCE_S):
            for events in (through, *direct):
                assert [await events.message() for _ in done["events"]] == done["events"]
        shown = [events.raw.partition(b"OrderCreated")[2].partition(b"\n")[0] for events in direct]
        assert shown[0] == shown[1] != b""


async def repeat(http: httpx.AsyncClient) -> None:
    """The same key again, on other connections too, is the first answer; there is one order."""
    body = {"lines": [{"product": "ramen", "quantity": 1}]}
    key = {"idempotency-key": "till-7-000123"}
    first = await http.post("/v1/stores/s1/create-order", json=body, headers=key)
    assert first.status_code == 200, first.text
    assert "idempotent-replayed" not in first.headers
    for _ in range(8):
        again = await http.post(
            "/v1/stores/s1/create-order", json=body, headers={**key, "connection": "close"}
        )
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json() == first.json()
    state = (await http.get("/v1/stores/s1/sync")).json()["state"]
    assert len(state["orders"]) == 1


async def talk(two: Cluster) -> None:
    """A WebSocket through nginx: a feed, a command, its event; and it stays through silence."""
    url = f"ws://127.0.0.1:{two.front.port}/v1/ws"
    with trio.fail_after(15):
        async with open_websocket_url(url, extra_headers=[("authorization", f"Bearer {token()}")]) as socket:
            await socket.send_message('{"op":"subscribe","feed":"users/u1"}')
            assert json.loads(await socket.get_message())["op"] == "snapshot"
            await trio.sleep(QUIET_S)
            await socket.send_message(
                '{"op":"command","path":"users/u1/notify","key":"k","ref":1,"body":{"title":"나왔어요"}}'
            )
            heard = set()
            while not {"event", "answer"} <= heard:
                heard.add(json.loads(await socket.get_message())["op"])


async def refusals(http: httpx.AsyncClient) -> None:
    """What Onda refuses comes with Onda's code; a body that is too large ends at nginx and harms no node."""
    for _ in range(4):
        large = await http.post("/v1/stores/s1/create-order", content=b" " * (3 << 19))
        assert large.status_code == 413
        assert large.text.startswith("nginx: ")
    unknown = await http.post("/v1/stores/nobody/open-store", json={})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_store")
    assert (await http.get("/metrics")).status_code == 403
    assert (await http.get("/readyz")).json()["status"] == "ready"


async def browser(two: Cluster) -> None:
    """A page's POST has a cookie and an `Origin`, which Onda compares with the `Host` that it is told."""
    async with httpx.AsyncClient(base_url=two.front.url, cookies={"onda_token": token()}) as page:
        for origin, status in ((two.front.url, 200), ("http://elsewhere.example", 403)):
            answer = await page.post("/v1/users/u1/notify", json={"title": "x"}, headers={"origin": origin})
            assert answer.status_code == status, answer.text


async def unlogged(two: Cluster) -> None:
    """A token in a query is in no log, also when no node answers."""
    secret = token(sub="told-nobody")
    async with httpx.AsyncClient(base_url=two.front.url) as page:
        path = f"/v1/stores/s1/sync?token={secret}"
        assert (await page.get(path)).status_code == 200
        await two.nodes[1].kill()
        assert (await page.get(path)).status_code == 200  # of the other one
        await two.nodes[0].kill()
        answer = await page.get(path)
    assert answer.status_code == 502
    assert "/v1/stores/s1/sync" in two.front.log
    assert " 502 " in two.front.log
    assert secret not in two.front.log


def test_the_read_timeout_outlasts_the_silence() -> None:
    """nginx waits for longer than twice the time between pings, and its idle connections end first."""
    text = (DEPLOY / "nginx" / "onda.conf").read_text()
    [waits_s] = re.findall(r"^ *proxy_read_timeout (\d+)s;", text, re.MULTILINE)
    idle_s = re.findall(r"keepalive 64;.*?keepalive_timeout (\d+)s;", text, re.DOTALL)
    settings = Config()
    assert int(waits_s) > max(2 * settings.ping_s, settings.gateway_timeout_s)
    assert len(idle_s) == text.count("\nupstream ") == 1
    assert all(int(each) < settings.idle_timeout_s for each in idle_s)
