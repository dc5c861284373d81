"""Redis, or a node, goes away under two nodes behind nginx: nothing is missed, and nothing happens twice."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import redis
import trio

from tests.chaos.deadline import wait_until, wait_until_it_holds
from tests.chaos.process import Server
from tests.deploy.cluster import Cluster, cluster, needs_nginx, needs_redis, redis_options
from tests.log.redis_site import client
from tests.log.test_redis_servers import ready, sentinel
from tests.relays.redis_server import RedisServer, redis_server
from tests.web.site import Listener, listening, order, set_up
from web.sse import Message

pytestmark = [needs_nginx, needs_redis]

SHOP = "/v1/stores/s1"
RAMEN = {"lines": [{"product": "ramen", "quantity": 1}]}
GUESTS, ORDERS = 4, 12
SETTINGS = {"ping_s": "0.4"}


async def test_redis_and_then_a_node_goes_away(tmp_path: Path) -> None:
    """The screens stay, orders wait; and what a killed node leaves is taken up by the other one."""
    async with cluster(tmp_path, **SETTINGS) as two, two.front.client() as http:
        await set_up(http)
        near = await two.asked(http, "GET", f"{SHOP}/sync")
        async with listening(http, f"{SHOP}/stream") as board:
            await board.message("snapshot")
            assert (await board.message("ping"))["node"] == near.env["ONDA_NODE_ID"]
            await without_redis(two, http, board)
            cursor = await without_its_node(two, http, board, near)
        await comes_back(two, http, cursor)


async def without_redis(two: Cluster, http: httpx.AsyncClient, board: Listener) -> None:
    """Orders are refused in Onda's words, reads and streams go on, no node is taken out; then it goes on."""
    two.redis.stop()
    for node in two.nodes:
        await wait_until_it_holds(lambda node=node: unready(http, node))
    for _ in range(6):
        answer = await try_order(http, "away")
        assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert (await http.get(f"{SHOP}/sync")).status_code == 200
        assert (await http.get("/healthz")).status_code == 200
    async with listening(http, f"{SHOP}/stream") as late:
        await late.message("snapshot")
    for _ in range(2):
        await board.message("ping")
    two.redis.start()
    await wait_until_it_holds(lambda: taken(http, "away"))
    for type_ in ("OrderCreated", "OrderPlaced"):  # the one order that was asked for again and again
        assert (await board.message())["type"] == type_


async def without_its_node(two: Cluster, http: httpx.AsyncClient, board: Listener, near: Server) -> str:
    """Kill the node of the shop while guests order there; return where its screen was, and repeat all."""
    answers: dict[str, Any] = {}

    async def guest(number: int) -> None:
        async with two.front.client() as own:
            for count in range(ORDERS):
                key = f"g{number}.{count}"
                await wait_until_it_holds(lambda key=key: taken(own, key, answers))

    async with trio.open_nursery() as nursery:
        for number in range(GUESTS):
            nursery.start_soon(guest, number)
        await wait_until(lambda: len(answers) >= 8)
        await near.kill()
        assert len(answers) < GUESTS * ORDERS, "all was over before the node was killed"
    state = (await http.get(f"{SHOP}/sync")).json()["state"]
    assert len(state["orders"]) == 1 + GUESTS * ORDERS
    for key, first in answers.items():
        again = await try_order(http, key)
        assert (again.headers["idempotent-replayed"], again.json()) == ("true", first)
    return await last_cursor(board)


async def last_cursor(board: Listener) -> str:
    """The id of the last whole block that came before the connection was cut."""
    with pytest.raises(h11.RemoteProtocolError, match="incomplete"):
        await board.rest()
    return re.findall(rb"^id: (\S+)$", board.raw.rpartition(b"\n\n")[0], re.MULTILINE)[-1].decode()


async def comes_back(two: Cluster, http: httpx.AsyncClient, cursor: str) -> None:
    """By its cursor the screen gets each event after it from the other node, and no snapshot."""
    epoch, _, seen = cursor.partition("-")
    head = (await http.get(f"{SHOP}/sync")).json()["cursor"]
    assert head.startswith(f"{epoch}-")
    last = int(head.partition("-")[2])
    assert 0 < int(seen) < last
    async with listening(http, f"{SHOP}/stream", headers={"last-event-id": cursor}) as board:
        missed = [(await board.message())["version"] for _ in range(last - int(seen))]
        assert missed == list(range(int(seen) + 1, last + 1))
        assert b"event: snapshot" not in board.raw
        assert b"event: reset" not in board.raw
        done = await order(http)
        assert [await board.message() for _ in done["events"]] == done["events"]


async def try_order(http: httpx.AsyncClient, key: str) -> httpx.Response:
    """Order once, whatever comes of it."""
    return await http.post(f"{SHOP}/create-order", json=RAMEN, headers={"idempotency-key": key})


async def unready(http: httpx.AsyncClient, node: Server) -> bool:
    """Whether a node says that it takes no commands."""
    return (await http.get(f"{node.base}/readyz")).status_code == 503


async def taken(http: httpx.AsyncClient, key: str, answers: dict[str, Any] | None = None) -> bool:
    """Whether an order is taken; anything else has to be a word that says: ask again."""
    answer = await try_order(http, key)
    if answer.status_code == 200:
        if answers is not None:
            answers[key] = answer.json()
        return True
    assert answer.status_code in (502, 503, 504), answer.text
    return False


async def test_another_redis_takes_over(tmp_path: Path) -> None:
    """The primary is killed, Sentinel promotes its replica: orders go on, with those from before."""
    async with watched(tmp_path) as (one, replica, url):
        async with cluster(tmp_path, log=url, **SETTINGS) as two, two.front.client() as http:
            await set_up(http)
            await order(http)
            with client(one) as upper, client(replica) as lower:
                for key in upper.keys("{onda:*}:log"):
                    await wait_until(lambda key=key: lower.exists(key) and lower.xlen(key) == upper.xlen(key))
            async with listening(http, f"{SHOP}/stream") as board:
                cursor = (await board.message("snapshot"))["cursor"]
                one.stop()
                await wait_until_it_holds(lambda: taken(http, "after"), 30)
                assert [item.event for item in await board.rest() if isinstance(item, Message)][-1] == "bye"
            await starts_anew(two, http, cursor)


async def starts_anew(two: Cluster, http: httpx.AsyncClient, cursor: str) -> None:
    """What came after a failover is another epoch: a screen is told, gets all that is there, and goes on."""
    async with listening(http, f"{SHOP}/stream", headers={"last-event-id": cursor}) as board:
        reset = await board.message("reset")
        assert (reset["reason"], len(reset["state"]["orders"])) == ("epoch", 2)
        done = await order(http)
        assert [await board.message() for _ in done["events"]] == done["events"]
    for node in two.nodes:
        await wait_until_it_holds(lambda node=node: has(http, node, 3))


async def has(http: httpx.AsyncClient, node: Server, orders: int) -> bool:
    """Whether a node shows so many orders."""
    state = (await http.get(f"{node.base}{SHOP}/sync")).json()["state"]
    return len(state["orders"]) == orders


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[RedisServer, RedisServer, str]]:
    """A primary, its replica, and where a Sentinel tells which is which."""
    with ExitStack() as stack:
        for name in ("one", "two"):
            (folder / name).mkdir()
        at_once = ("--repl-diskless-sync-delay", "0")
        one = stack.enter_context(redis_server(folder / "one", *redis_options(), *at_once))
        replica = (*redis_options(), "--replicaof", "127.0.0.1", str(one.port))
        two = stack.enter_context(redis_server(folder / "two", *replica))
        with client(two) as lower:
            await wait_until(lambda: lower.info("replication")["master_link_status"] == "up")
        watcher = stack.enter_context(sentinel(folder / "sentinel", one))
        with redis.Redis(port=watcher.port, decode_responses=True, protocol=2) as asked:
            await wait_until(lambda: ready(asked))
        yield one, two, f"redis+sentinel://127.0.0.1:{watcher.port}/orders"
