"""Restarts behind a network that cuts, stalls and half-opens: screens miss nothing, commands happen once."""

import random
from pathlib import Path

import pytest
import trio

from tests.chaos.acts import run_all
from tests.chaos.crowd import PACE, STORE, Crowd, open_crowd
from tests.chaos.deadline import wait_until
from tests.chaos.logbook import read_log
from tests.chaos.process import Server, open_server, token
from tests.chaos.proxy import Proxy, misbehave, open_proxy
from tests.chaos.test_kill import KEEP_ALL, judge
from web.client import Reply, open_client
from web.follower import Follower


@pytest.mark.slow
async def test_a_bad_network_and_restarts_lose_nothing(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest
):
    """Orders flow through faults of the network and restarts: no gap, no double, each command once."""
    restarts: int = request.config.getoption("--restarts")
    data = tmp_path / "data"
    async with (
        open_server(data, "--no-demo", env=KEEP_ALL) as (server, nursery),
        open_proxy(server.port) as proxy,
        open_crowd(proxy.base, seed, screens=proxy.base) as (crowd, client),
    ):
        async with trio.open_nursery() as load:
            run_all(crowd, client, load)
            await trouble(server, nursery, proxy, crowd, random.Random(seed), restarts)
            crowd.enough = True
        await crowd.wait_quiet(client)
        findings = await crowd.compare(client) + await crowd.replays(client) + crowd.faults()
        states = {feed: (await client.sync(feed))["state"] for feed in crowd.feeds()}
        assert all(screen.follower.status == "live" for screen in crowd.screens)
        assert await server.stop() == 0
    records = await read_log(data)
    findings += judge(crowd, records, states)
    print(f"{restarts} restarts, {len(crowd.acknowledged)} commands acknowledged, {len(records)} records")
    assert findings == []


async def trouble(
    server: Server, nursery: trio.Nursery, proxy: Proxy, crowd: Crowd, chance: random.Random, restarts: int
) -> None:
    """Restart the server, half of the times without warning, with faults of the network in between."""
    for _ in range(restarts):
        await misbehave(proxy, chance, 3)
        with trio.fail_after(30):
            await crowd.wait_acknowledged(10)
        if chance.random() < 0.5:
            await server.kill()
        else:
            assert await server.stop() == 0
        await server.start(nursery)
    with trio.fail_after(30):
        await crowd.wait_acknowledged(20)


async def test_status_follows_the_network(tmp_path: Path):
    """Live, offline while nothing goes through, live again; the outbox empties itself, each command once."""
    settled: dict[str, Reply] = {}
    async with (
        open_server(tmp_path / "data", "--no-demo", env=KEEP_ALL) as (server, _),
        open_proxy(server.port) as proxy,
        open_crowd(server.base, 1, tables=1) as (_, direct),
        open_client(
            proxy.base, token(), pace=PACE, outbox=tmp_path / "outbox", on_settled=settled.__setitem__
        ) as client,
    ):
        feed = client.follow(f"stores/{STORE}")
        await until(feed, "live")
        await proxy.refuse()
        await until(feed, "offline")
        for count in range(5):
            lines = [{"product": "ramen", "quantity": 1, "note": f"n{count}"}]
            await client.enqueue(f"stores/{STORE}/create-order", {"lines": lines}, key=f"k{count}")
        assert (client.unsent, feed.unsent) == (5, 5)
        await proxy.heal()
        with trio.fail_after(10):
            await client.wait_sent()
        await until(feed, "live")
        proxy.stall()
        await until(feed, "offline")
        await proxy.heal()
        await until(feed, "live")
        head = (await direct.sync(f"stores/{STORE}"))["cursor"]
        with trio.fail_after(10):
            await feed.wait(lambda feed: feed.cursor == head)
        notes = [line["note"] for order in feed.state["orders"].values() for line in order["lines"]]
        assert sorted(notes) == [f"n{count}" for count in range(5)]
        assert sorted(settled) == [f"k{count}" for count in range(5)]


async def test_rotation_and_restart_are_seamless_for_a_quiet_screen(tmp_path: Path):
    """A screen on which nothing happens comes back to live after each rotation, without a reset."""
    env = {**KEEP_ALL, "ONDA_ROTATE_S": "0.5"}
    async with (
        open_server(tmp_path / "data", "--no-demo", env=env) as (server, _),
        open_crowd(server.base, 1, tables=1) as (crowd, _),
    ):
        screen = crowd.screens[0]
        await wait_until(lambda: screen.follower.statistics()["streams"] >= 4, what="four streams")
        await until(screen.follower, "live")
        assert crowd.faults() == []


async def until(feed: Follower, status: str) -> None:
    """Wait for a status."""
    with trio.fail_after(15):
        await feed.wait(lambda feed: feed.status == status)
