"""What operators do at one of several nodes holds at all of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import RedisServer, redis_server
from tests.web.process import onda
from tests.web.site import Running, listening, running, set_up, token, wait_until
from web.tokens import read_token

pytestmark = needs_redis

PARTITIONS = 4


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, *ALWAYS) as server:
        yield server


@asynccontextmanager
async def nodes(redis: RedisServer, *names: str, **settings: Any) -> AsyncIterator[list[Running]]:
    """Servers on this Redis; they end with the block."""
    async with AsyncExitStack() as stack:
        found = []
        for name in names:
            chosen = {"node_id": name, "log_url": redis.url, "redis_partitions": PARTITIONS, **settings}
            found.append(await stack.enter_async_context(running(**chosen)))
        yield found


async def make_shop(site: Running, *others: Running) -> None:
    """Make `s1`, and wait until the others know it."""
    async with site.client("owner:s1") as client:
        await set_up(client)
    for other in others:
        await wait_until(lambda other=other: other.node.stores)


async def test_a_revoked_token_ends_at_every_node(redis: RedisServer, tmp_path: Path) -> None:
    """`onda token --revoke --log`: requests are refused, and streams end, within a second at both nodes; also
    at one that starts later, and while Redis is away.
    """
    key = token("owner:s1", jti="t1")
    async with nodes(redis, "a", "b") as (a, b):
        await make_shop(a, b)
        query = {"params": {"token": key}}
        async with a.client() as at_a, b.client() as at_b:
            for client in (at_a, at_b):
                assert (await client.get("/v1/stores/s1/sync", **query)).status_code == 200
            async with listening(at_b, "/v1/stores/s1/stream", **query) as stream:
                command = ("token", "--revoke", key, "--log", redis.url, "--data", str(tmp_path))
                done = await trio.to_thread.run_sync(lambda: onda(*command))
                revoked_s = time.monotonic()
                assert done.stdout == "revoked owner:kim (t1)\n", done.stderr
                assert (await stream.message("bye"))["reason"] == "unauthorized"
                assert time.monotonic() - revoked_s < 1.5
            redis.stop()
            await wait_until(lambda: not a.node.writable and not b.node.writable)
            for client in (at_a, at_b):
                assert (await client.get("/v1/stores/s1/sync", **query)).status_code == 401
            redis.start()
    assert not (tmp_path / "revoked").exists()
    async with nodes(redis, "c") as (c,), c.client() as client:
        assert (await client.get("/v1/stores/s1/sync", **query)).status_code == 401


async def test_what_one_nodes_file_says_holds_at_all(redis: RedisServer, tmp_path: Path) -> None:
    """A token that was revoked while that was the only node, or without `--log`."""
    key = token("owner:s1", jti="t1")
    done = await trio.to_thread.run_sync(lambda: onda("token", "--revoke", key, "--data", str(tmp_path)))
    assert done.returncode == 0, done.stderr
    async with nodes(redis, "b") as (b,):
        async with nodes(redis, "a", data=str(tmp_path)):
            await wait_until(lambda: read_token(key, b.site.gate.secret).token_id in b.site.gate.revoked)
