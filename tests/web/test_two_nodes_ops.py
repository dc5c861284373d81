"""What operators do at one of several nodes holds at all of them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from engine import Committed, Reaction, open_node, operating
from engine.log import partition_of
from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import RedisServer, redis_server
from tests.web.process import onda
from tests.web.site import SHOP, Running, config, listening, order, set_up, token, wait_until
from web.server import open_server
from web.site import make_site
from web.tokens import read_token

pytestmark = needs_redis

PARTITIONS = 4


@pytest.fixture
def redis(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with redis_server(tmp_path, *getattr(request, "param", ALWAYS)) as server:
        yield server


@asynccontextmanager
async def nodes(
    redis: RedisServer, *names: str, reactions: Sequence[Reaction] = (), **settings: Any
) -> AsyncIterator[list[Running]]:
    """Servers on this Redis; they end with the block."""
    async with AsyncExitStack() as stack:
        found = []
        for name in names:
            chosen = config(node_id=name, log_url=redis.url, redis_partitions=PARTITIONS, **settings)
            node = await stack.enter_async_context(open_node(chosen, reactions=reactions))
            site = make_site(node, chosen)
            found.append(Running(node, site, await stack.enter_async_context(open_server(site))))
        yield found


class Stubborn:
    """A reaction that fails at orders until it is mended; `seen` are those that it took."""

    def __init__(self) -> None:
        self.broken = True
        self.seen: list[str] = []
        self.reaction = Reaction("stubborn", frozenset({"OrderCreated"}), self.handle)

    async def handle(self, record: Committed) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise ValueError("not yet")
        self.seen.append(record.event.order)


async def shared_out(*sites: Running) -> None:
    """Wait until every partition has a node on duty, and each node has its share."""
    share = PARTITIONS // len(sites)
    await wait_until(
        lambda: all(sum(one.on_duty for one in site.node.partitions) == share for site in sites), 30
    )


def on_duty(sites: Sequence[Running], stream: str) -> Running:
    return next(site for site in sites if site.node.partition_of(stream).on_duty)


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
                while (await at_a.get("/v1/stores/s1/sync", **query)).status_code == 200:
                    await trio.sleep(0.02)
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


async def test_reactions_and_streams_are_those_of_all_nodes(redis: RedisServer) -> None:
    """Each node tells the same: who is on duty for what, how far that is, and which streams are where."""
    async with nodes(redis, "a", "b") as sites:
        a, b = sites
        await make_shop(a, b)
        await shared_out(a, b)
        duties = {
            number: site.node.node_id
            for site in sites
            for number, one in enumerate(site.node.partitions)
            if one.on_duty
        }
        assert sorted(duties) == list(range(PARTITIONS))
        async with a.client("service") as at_a, b.client("service") as at_b:
            async with listening(at_b, "/v1/stores/s1/stream"):
                for client in (at_a, at_b):
                    rows = (await client.get("/v1/ops/reactions")).json()["reactions"]
                    assert {row["partition"]: row["node"] for row in rows} == duties
                    names = {row["reaction"] for row in rows if row["partition"] == 0}
                    assert {"flow", "tasks"} & names
                    assert all(row["lag"] >= 0 and row["parked"] == 0 for row in rows)
                    page = (await client.get("/v1/ops/streams")).json()
                    assert page["open"] == {"sse": 1}
                    assert page["nodes"]["b"]["open"] == {"sse": 1}
                    assert {n: name for name in "ab" for n in page["nodes"][name]["on_duty"]} == duties
                    watched = [row for row in page["streams"] if row["subscribers"]]
                    assert [(row["stream"], row["node"]) for row in watched] == [("store:s1", "b")]


@pytest.mark.parametrize("verb", ["replay", "skip"])
async def test_what_is_parked_is_settled_from_any_node(redis: RedisServer, verb: str) -> None:
    """Listed, refused and settled at the node that is not on duty as at the one that is; and once, however
    many ask.
    """
    stubborn = Stubborn()
    few = {"reaction_retries": 1, "reaction_backoff_ms": 1}
    async with nodes(redis, "a", "b", reactions=[stubborn.reaction], **few) as sites:
        await make_shop(*sites)
        await shared_out(*sites)
        holder = on_duty(sites, "store:s1")
        other = next(site for site in sites if site is not holder)
        async with holder.client("service") as at_holder, other.client("service") as client:
            orders = [(await order(at_holder))["result"]["order"] for _ in range(2)]
            rows: list[Any] = []
            with trio.fail_after(10):
                while len(rows) < 2:
                    rows = (await client.get("/v1/ops/parked")).json()["parked"]
            assert rows == (await at_holder.get("/v1/ops/parked")).json()["parked"]
            assert {row["node"] for row in rows} == {holder.node.node_id}
            first, second = (row["id"] for row in rows)
            refused = await client.post(f"/v1/ops/parked/{second}/{verb}")
            assert (refused.status_code, refused.json()["code"]) == (422, "not_first")
            if verb == "replay":
                refused = await client.post(f"/v1/ops/parked/{first}/{verb}")
                assert (refused.status_code, refused.json()["code"]) == (422, "replay_failed")
            for unknown in (first + 1024 * 50, 1023, 7):
                assert (await client.post(f"/v1/ops/parked/{unknown}/{verb}")).status_code == 404
            stubborn.broken = False
            codes: list[int] = []

            async def settle(at: Any) -> None:
                codes.append((await at.post(f"/v1/ops/parked/{first}/{verb}")).status_code)

            async with trio.open_nursery() as nursery:
                for at in (client, at_holder, client):
                    nursery.start_soon(settle, at)
            assert sorted(codes) == [200, 404, 404]
            assert stubborn.seen == (orders if verb == "replay" else orders[1:])
            for at in (client, at_holder):
                assert (await at.get("/v1/ops/parked")).json()["parked"] == []
            assert not holder.node.parked()


async def test_what_a_dead_node_parked_is_settled_by_who_takes_over(redis: RedisServer) -> None:
    """The other one's operators wait for it, but not for ever; while Redis is away they are told so."""
    stubborn = Stubborn()
    few = {"reaction_retries": 0, "reaction_backoff_ms": 1}
    async with nodes(redis, "b", reactions=[stubborn.reaction], **few) as (b,):
        async with nodes(redis, "a", reactions=[stubborn.reaction], **few) as (a,):
            await make_shop(a, b)
            await shared_out(a, b)
            async with a.client("service") as client:
                await order(client)
            with trio.fail_after(10):
                while not (rows := await operating.parked(a.node)):
                    await trio.sleep(0.02)
        stubborn.broken = False
        async with b.client("service") as client:
            answer = await client.post(f"/v1/ops/parked/{rows[0]['id']}/replay", timeout=30)
            assert answer.status_code == 200, answer.text
            assert len(stubborn.seen) == 1
            redis.stop()
            await wait_until(lambda: not b.node.writable)
            for page in ("reactions", "parked", "streams"):
                refused = await client.get(f"/v1/ops/{page}")
                assert (refused.status_code, refused.json()["code"]) == (503, "log_unavailable"), page
            redis.start()


async def test_money_that_another_node_moved_is_seen(redis: RedisServer) -> None:
    """A store that is not in memory here may have changed all the same."""
    async with nodes(redis, "a", "b", idle_s=0.05, checkpoint_s=0.05) as sites:
        await make_shop(*sites)
        await shared_out(*sites)
        holder = on_duty(sites, "store:s1")
        other = next(site for site in sites if site is not holder)
        async with holder.client("service") as client, other.client("service") as asked:
            assert (await asked.get("/v1/ops/payments")).json()["payments"] == []
            await wait_until(lambda: "store:s1" not in other.node.actors, 20)
            await order(client)
            version = (await holder.node.read("store:s1")).version
            with trio.fail_after(10):
                while (await other.site.money._of("store:s1")).version != version:
                    await trio.sleep(0.02)


async def scraped(site: Running) -> dict[str, list[float]]:
    """Return what `/metrics` says of each partition, by the name of the metric."""
    async with site.client() as client:
        text = (await client.get("/metrics")).text
    found: dict[str, list[float]] = {}
    for name, number, value in re.findall(
        r'^onda_partition_(\w+)\{partition="(\d+)"\} (\S+)$', text, re.MULTILINE
    ):
        assert int(number) == len(found.setdefault(name, []))
        found[name].append(float(value))
    return found


async def told(site: Running, ready: Callable[[dict[str, list[float]]], bool]) -> None:
    """Wait until what is scraped is so."""
    with trio.fail_after(15):
        while not ready(await scraped(site)):
            await trio.sleep(0.05)


@pytest.mark.parametrize("redis", [("--appendonly", "yes", "--appendfsync", "everysec")], indirect=True)
async def test_each_partition_has_its_numbers(redis: RedisServer) -> None:
    """Who is on duty, how far it is; that Redis is away, since when; and that a restart may have lost
    something.
    """
    async with nodes(redis, "a", "b") as (a, b):
        await make_shop(a, b)
        await shared_out(a, b)
        at_a, at_b = await scraped(a), await scraped(b)
        assert {len(values) for values in at_a.values()} == {PARTITIONS}
        assert [one + other for one, other in zip(at_a["on_duty"], at_b["on_duty"], strict=True)] == [
            1.0
        ] * PARTITIONS
        await told(b, lambda found: sum(found["head"]) >= len(SHOP) and sum(found["lag"]) == 0)
        assert at_a["away"] == at_a["epochs_total"] == [0.0] * PARTITIONS
        assert max(at_a["silent_seconds"]) < 3
        redis.stop()
        await told(a, lambda found: found["away"] == [1.0] * PARTITIONS and min(found["silent_seconds"]) > 1)
        redis.start()
        await told(a, lambda found: found["epochs_total"] == [1.0] * PARTITIONS and not any(found["away"]))
        await told(a, lambda found: max(found["silent_seconds"]) < 2)


async def test_conflicts_and_doubts_are_counted_where_they_happen(redis: RedisServer) -> None:
    """In the partition of the stream, and nowhere else."""
    async with nodes(redis, "a", "b") as (a, b):
        await make_shop(a, b)
        number = partition_of("store:s1", PARTITIONS)
        async with a.client("service") as at_a, b.client("service") as at_b, trio.open_nursery() as nursery:

            async def keep_ordering(client: Any) -> None:
                while True:
                    with suppress(httpx.TimeoutException):  # while Redis hangs
                        await client.post(
                            "/v1/stores/s1/create-order",
                            json={"lines": [{"product": "ramen", "quantity": 1}]},
                        )

            for client in (at_a, at_b, at_a, at_b):
                nursery.start_soon(keep_ordering, client)

            async def counted(what: str) -> set[int]:
                """Wait until either node has counted some; return in which partitions."""
                seen = Counter[int]()
                with trio.fail_after(15):
                    while not seen:
                        for site in (a, b):
                            seen += Counter(dict(enumerate(map(int, (await scraped(site))[what]))))
                return set(seen)

            assert await counted("conflicts_total") == {number}
            redis.hang()
            await wait_until(lambda: not a.node.writable and not b.node.writable, 15)
            redis.go_on()
            assert await counted("in_doubt_total") == {number}
            nursery.cancel_scope.cancel()
