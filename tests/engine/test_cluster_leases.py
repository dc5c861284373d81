"""Which node has a partition: the one at which its commands come in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
import trio

from engine import Node, shared_partition
from engine.lease import AT_LEAST, Asked, is_far_more, next_holder
from engine.lease_redis import ALIVE_S, Leases, RedisLease
from engine.log import partition_of
from engine.log.redis_shared import open_redis_log
from tests.engine.cluster import Cluster, RedisCluster, cluster, redis_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order, state_of, wait_until
from tests.log.redis_site import client, needs_redis

__all__ = ["cluster", "redis_cluster"]

TABLE = "table:s1/1"
SECONDS = 5.0


def test_a_shop_is_in_one_partition_with_its_tables() -> None:
    for count in (1, 2, 7, 16):
        for shop in ("s1", "가게", "b.c-d_e"):
            places = {partition_of(f"{kind}", count) for kind in (f"store:{shop}", f"table:{shop}/3")}
            assert len(places) == 1
    assert {partition_of(f"store:s{number}", 16) for number in range(200)} == set(range(16))
    assert {partition_of(f"user:u{number}", 16) for number in range(200)} == set(range(16))


def test_who_gets_a_lease() -> None:
    assert not is_far_more(AT_LEAST - 1, 0)
    assert is_far_more(AT_LEAST, 0)
    assert not is_far_more(2 * 50, 50), "a little more is not worth it"
    assert is_far_more(2 * 50 + AT_LEAST, 50)
    asked = {"b": Asked(300, True), "c": Asked(400), "d": Asked(350, True)}
    assert next_holder(10, asked) == "d", "the most of those who ask"
    assert next_holder(300, asked) is None
    assert next_holder(10, {}) is None


@asynccontextmanager
async def leases(cluster: RedisCluster, *names: str) -> AsyncIterator[list[Leases]]:
    """Leases of nodes that there are not."""
    async with open_redis_log(cluster.server.url, partitions=4) as log:
        made = [Leases(log, name) for name in names]
        for one in made:
            await one.count()
        for one in made:
            one._counted_s = 0.0
            await one.count()  # they know of each other
        yield made


@needs_redis
async def test_a_lease_goes_to_whoever_has_more_to_do(redis_cluster: RedisCluster) -> None:
    async with leases(redis_cluster, "a", "b") as (a, b):
        mine, other = RedisLease(a, 0), RedisLease(b, 0)
        assert await mine.hold(SECONDS)
        mine.note(20)
        other.note(200)
        assert not await other.hold(SECONDS)
        assert other.wishes
        assert await mine.hold(SECONDS)
        assert mine.next is None, "that it asks is said with the next call"
        assert not await other.hold(SECONDS)
        assert await mine.hold(SECONDS)
        assert mine.next == "b"
        await mine.release()
        assert (await mine.holder(), mine.next) == ("b", None)
        assert await other.hold(SECONDS)
        assert not other.wishes
        assert not await mine.hold(SECONDS)
        assert not mine.wishes
        assert (a.held, b.held) == (set(), {0})


@needs_redis
async def test_what_nobody_uses_is_shared_out(redis_cluster: RedisCluster) -> None:
    """Of two nodes with four partitions each takes two; one that gets all commands takes those with any, and
    gives back what it has beyond its share and does nothing in.
    """
    async with leases(redis_cluster, "a", "b") as (a, b):
        both = [[RedisLease(one, number) for number in range(4)] for one in (a, b)]
        taken = [await lease.hold(SECONDS) for lease in both[0]]
        assert taken == [True, True, False, False]
        taken = [await lease.hold(SECONDS) for lease in both[1]]
        assert taken == [False, False, True, True]
        for number in (0, 2, 3):  # all orders are at a, which has 0 and 1
            both[0][number].note(100)
        for _ in range(4):
            for number in range(4):
                await step(both, number)
        assert (a.held, b.held) == ({0, 2, 3}, {1})
        for _ in range(4):
            for number in range(4):
                await step(both, number)
        assert (a.held, b.held) == ({0, 2, 3}, {1}), "and there it stays"


async def step(both: list[list[RedisLease]], number: int) -> None:
    """What partitions do with their leases."""
    for leases in both:
        if await leases[number].hold(SECONDS) and leases[number].next is not None:
            await leases[number].release()


@needs_redis
async def test_duty_goes_on_while_memory_is_full(redis_cluster: RedisCluster) -> None:
    async with leases(redis_cluster, "a", "b") as (a, b):
        mine, other = RedisLease(a, 0), RedisLease(b, 0)
        assert await mine.hold(SECONDS)
        with client(redis_cluster.server) as direct:
            direct.config_set("maxmemory", "1mb")
            with pytest.raises(redis.OutOfMemoryError):
                direct.set("something", "more")
        assert await mine.hold(SECONDS)
        assert not await other.hold(SECONDS)
        await mine.release()
        assert await other.hold(SECONDS)


@needs_redis
async def test_a_node_that_is_gone_asks_for_nothing(redis_cluster: RedisCluster) -> None:
    async with leases(redis_cluster, "a", "b") as (a, b):
        mine, other = RedisLease(a, 0), RedisLease(b, 0)
        assert await mine.hold(SECONDS)
        other.note(200)
        for _ in range(2):
            await other.hold(SECONDS)
        direct = client(redis_cluster.server)
        said, count, wish = direct.hget("{onda:0}:asked", "b").split(" ")
        assert wish == "1"
        direct.hset("{onda:0}:asked", "b", f"{int(said) - int(ALIVE_S) - 1} {count} 1")
        assert await mine.hold(SECONDS)
        assert mine.next is None
        assert not direct.hexists("{onda:0}:asked", "b")


async def keeper_of(nodes: list[Node]) -> Node:
    await wait_until(lambda: any(node.partition_of(STORE).on_duty for node in nodes), 20)
    return next(node for node in nodes if node.partition_of(STORE).on_duty)


async def test_duty_goes_where_the_orders_are(
    cluster: Cluster | RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node that gets a shop's orders comes to be on duty for it; nothing that follows is left out or
    done twice meanwhile.
    """
    monkeypatch.setattr(shared_partition, "LEASE_S", 0.6)
    monkeypatch.setattr(shared_partition, "STAY_S", 0.1)
    async with cluster.open("a", "b") as nodes:
        await make_shop(nodes[0])
        keeper = await keeper_of(nodes)
        (other,) = [node for node in nodes if node is not keeper]
        await other.catch_up(STORE)
        made = 0
        with trio.fail_after(30):
            while not (other.partition_of(STORE).on_duty and made >= 60):
                await other.ask(STORE, order(table="1"), by=OWNER)
                made += 1
                await trio.sleep(0.01)
        assert not keeper.partition_of(STORE).on_duty
        for _ in range(5):  # also those after it
            await other.ask(STORE, order(table="1"), by=OWNER)
            made += 1

        async def copied() -> int:
            return len((await state_of(other, TABLE))["orders"])

        with trio.fail_after(20):
            while await copied() < made:
                await trio.sleep(0.02)
        await keeper.catch_up(STORE)
        orders = (await state_of(keeper, STORE))["orders"]
        assert len(orders) == made
        table = await state_of(other, TABLE)
        assert {one["order"] for one in table["orders"].values()} == {one["order"] for one in orders.values()}
