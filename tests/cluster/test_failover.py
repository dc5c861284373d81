"""Sentinel makes a replica the primary: with all that was acknowledged, or without the end of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from tests.chaos.deadline import wait_until
from tests.cluster.history import now_ns
from tests.cluster.site import Site, check, open_site
from tests.log.redis_site import client, needs_redis
from tests.log.test_redis_servers import ready, sentinel
from tests.relays.redis_server import RedisServer, redis_server

pytestmark = [pytest.mark.slow, needs_redis]

NOBODY = 1
"""A port on which nobody is."""


@pytest.mark.parametrize("lags", [True, False], ids=["the replica lags", "the replica has all"])
async def test_a_failover(tmp_path: Path, seed: int, cluster_rounds: int, lags: bool) -> None:
    """The primary dies under load, the nodes find the new one: what the replica did not have is told to be
    lost; when it had all, nothing is lost. Either way a new epoch begins.
    """
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        one = stack.enter_context(redis_server(tmp_path / "one"))
        two = stack.enter_context(redis_server(tmp_path / "two", "--replicaof", "127.0.0.1", str(one.port)))
        watcher = stack.enter_context(sentinel(tmp_path / "sentinel", one))
        await wait_until(lambda: knows_a_replica(watcher))
        url = f"redis+sentinel://127.0.0.1:{watcher.port}/orders"
        async with open_site(tmp_path, seed, server=one, log_url=url) as site:
            upper, lower = one, two
            for number in range(max(1, cluster_rounds // 2)):
                if number:
                    await join(upper, lower, watcher)
                await fail_over(site, upper, lower, lags=lags)
                upper, lower = lower, upper
            verdict = await site.verdict(may_lose=lags)
            check(site, f"failover, {'lagging' if lags else 'complete'}", verdict)
            assert (verdict.told > 0) == lags
            assert all(len(epochs) > 1 for epochs in site.history.epochs.values())


async def fail_over(site: Site, upper: RedisServer, lower: RedisServer, *, lags: bool) -> None:
    """Kill the primary, under load if the replica is not to have everything."""
    async with site.load():
        await site.acknowledged(40)
        await wait_until(lambda: is_level(upper, lower))
        if lags:
            with client(lower) as direct:
                direct.replicaof("127.0.0.1", NOBODY)
            await site.acknowledged(30)
            since_ns = now_ns()
            await promoted(site, upper, lower)
            await site.healed(since_ns)
    if not lags:
        await wait_until(lambda: is_level(upper, lower))
        since_ns = now_ns()
        await promoted(site, upper, lower)
        async with site.load():
            await site.healed(since_ns)


async def promoted(site: Site, upper: RedisServer, lower: RedisServer) -> None:
    """Kill one server, and wait until the other takes its place."""
    upper.stop()
    await wait_until(lambda: is_primary(lower), 20)
    site.redis, site.ledger.port = lower, lower.port


async def join(upper: RedisServer, lower: RedisServer, watcher: RedisServer) -> None:
    """Start a server that died as a replica of the one that took its place."""
    lower.start()
    with client(lower) as direct:
        direct.replicaof("127.0.0.1", upper.port)
        await wait_until(lambda: direct.info("replication")["master_link_status"] == "up")
    await wait_until(lambda: has_replica(watcher, lower), 20)


def is_primary(server: RedisServer) -> bool:
    with client(server) as direct:
        return bool(direct.execute_command("ROLE")[0] == "master")


def is_level(upper: RedisServer, lower: RedisServer) -> bool:
    """Return whether a replica has everything."""
    with client(upper) as first, client(lower) as second:
        return bool(
            second.info("replication").get("slave_repl_offset")
            == first.info("replication")["master_repl_offset"]
        )


def knows_a_replica(watcher: RedisServer) -> bool:
    with redis.Redis(port=watcher.port, decode_responses=True, protocol=2) as asked:
        return ready(asked)


def has_replica(watcher: RedisServer, lower: RedisServer) -> bool:
    """Return whether a Sentinel sees a replica that is in touch with its primary."""
    with redis.Redis(port=watcher.port, decode_responses=True, protocol=2) as asked:
        found = asked.execute_command("SENTINEL", "REPLICAS", "orders")
    lines = [dict(zip(one[::2], one[1::2], strict=True)) if isinstance(one, list) else one for one in found]
    return any(
        int(line["port"]) == lower.port and line["flags"] == "slave" and line["master-link-status"] == "ok"
        for line in lines
    )
