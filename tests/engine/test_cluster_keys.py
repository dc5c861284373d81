"""Each key of a partition deleted while nodes work: it is made again, or the log ends and says so.

The log of these nodes is dropped behind each checkpoint, so there is nothing to make a state again of.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from engine import Node
from engine.checkpoint import Parked
from engine.domain.store.coupons import CreateCoupon
from engine.errors import LogFailed, Unavailable, UnknownOutcome
from engine.partition import Partition
from tests.engine.cluster import RedisCluster, redis_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order, state_of, wait_until
from tests.engine.test_cluster import same
from tests.log.redis_site import client, needs_redis, patiently

__all__ = ["redis_cluster"]

pytestmark = needs_redis

CANNOT_BE_MADE = (
    "meta",
    "log",
    "heads",
    f"at:{STORE}",
    "states",
    "stores",
    "due",
    "kept",
    "memory",
    f"known:{STORE}",
    "parked",
    "reruns",
    "tasks",
)
HEALS = ("check", "positions", "lease", "epochs", "attempts", f"answers:{STORE}")


async def a_shop(node: Node, other: Node, *, dropped: bool = True) -> Partition:
    """Make a shop whose records are all dropped, with one of everything in its checkpoint; return the
    partition of whoever is on duty.
    """
    await make_shop(node)
    await node.ask(STORE, order(), by=OWNER, id="first")
    coupon = CreateCoupon(coupon="c", name="C", discount=100, stock=5, expires_at="2100-01-01T00:00:00Z")
    await node.ask(STORE, coupon, by=OWNER)  # it has a deadline
    await same(node, other, STORE)
    parts = [one.partition_of(STORE) for one in (node, other)]
    await wait_until(lambda: any(part.on_duty for part in parts), 10)
    duty = next(part for part in parts if part.on_duty)
    keeper = duty.checkpoint
    await keeper.add_rerun("none", 1, 1)
    await keeper.add_task("t", "u", [])
    await keeper.park(Parked(0, "none", STORE, 1, 1, b"{}", "why", 4, 0))
    await keeper.count_attempt("none", 1, 1)
    assert await duty.upkeep.take()
    with trio.fail_after(10):
        while dropped and duty.log.first <= duty.log.head:
            await duty.upkeep.take()
            await duty.log.trim(duty.checkpoint.position)
            await trio.sleep(0.01)
    return duty


@pytest.mark.parametrize("key", CANNOT_BE_MADE)
async def test_a_key_that_cannot_be_made_again(redis_cluster: RedisCluster, key: str) -> None:
    """It is found by the next checkpoint at the latest, every node ends, and none starts on what is left."""
    with pytest.raises(LogFailed, match="missing in Redis"):
        dropped = key not in ("log", f"at:{STORE}")  # of nothing there is nothing to lose
        changes = {"refill_bytes": 0} if dropped else {}
        async with redis_cluster.open("a", "b", checkpoint_s=0.1, **changes) as (a, b):
            duty = await a_shop(a, b, dropped=dropped)
            with client(redis_cluster.server) as plain:
                assert plain.delete(f"{{onda:{duty.log.number}}}:{key}") == 1
            await go_on(a, b)
    with pytest.raises(LogFailed, match="missing in Redis"):
        async with redis_cluster.open("c") as (c,):
            await go_on(c)


async def go_on(*nodes: Node) -> None:
    """Order until the nodes end."""
    with trio.fail_after(10):
        while True:
            for node in nodes:
                with suppress(Unavailable, UnknownOutcome):
                    await node.ask(STORE, order(), by=OWNER)
            await trio.sleep(0.01)


@pytest.mark.parametrize("key", HEALS)
async def test_a_key_that_heals(redis_cluster: RedisCluster, key: str) -> None:
    """Nobody notices: states, answers and keys are as before, at these nodes and at one that comes later."""
    changes = {"refill_bytes": 0, "checkpoint_s": 0.1}
    async with redis_cluster.open("a", "b", **changes) as (a, b):
        duty = await a_shop(a, b)
        with client(redis_cluster.server) as plain:
            assert plain.delete(f"{{onda:{duty.log.number}}}:{key}") == 1
        for node in (a, b):
            await patiently(lambda node=node: node.ask(STORE, order(), by=OWNER), Unavailable)
        await same(a, b, STORE)
        async with redis_cluster.open("c", **changes) as (c,):
            await same(a, c, STORE)
            assert len((await state_of(c, STORE))["orders"]) == 3
            if key.startswith("answers"):
                with pytest.raises(UnknownOutcome, match="not kept"):
                    await c.ask(STORE, order(), by=OWNER, id="first")
            else:
                assert (await c.ask(STORE, order(), by=OWNER, id="first")).replayed
