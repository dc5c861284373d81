"""Reads at several nodes: what one node has shown, another neither denies nor shows an older state of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from engine import Cursor, Node
from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.table.calls import CallStaff
from engine.domain.table.sitting import OpenTable
from engine.errors import LogAway, Rejected
from engine.log import redis_shared
from engine.log.redis_asking import Witness
from engine.partition import Partition
from tests.engine.cluster import Cluster, RedisCluster, cluster, redis_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order, state_of, wait_until
from tests.engine.test_cluster import same
from tests.log.redis_site import needs_redis

__all__ = ["cluster", "redis_cluster"]

TABLE = "table:s1/3"
MADE_UP = 10**6


def deafen(node: Node) -> None:
    """Let a node hear nothing of what others append: what it learns it has to ask for."""

    def hear(stream: str, records: Sequence[Any]) -> None:
        pass

    for partition in node.partitions:
        setattr(partition, "_hand_out", hear)  # noqa: B010 - in place of the method


def count_reads(partition: Partition) -> list[str]:
    """Return a list that gets the name of each stream that is read from a partition's log."""
    log: Any = partition.log
    read, asked = log.read_stream, []

    async def counted(stream: str, *arguments: Any) -> Any:
        asked.append(stream)
        return await read(stream, *arguments)

    log.read_stream = counted
    return asked


async def test_a_cursor_of_another_node_is_good_at_once(cluster: Cluster | RedisCluster) -> None:
    """Who comes with it gets what follows, though this node had not heard of its record."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        deafen(b)
        answer = await a.ask(STORE, order(), by=OWNER)
        assert (await b.read(STORE)).cursor != answer.cursor
        with await b.subscribe(STORE, Cursor.parse(answer.cursor)) as screen:
            assert screen.reset is None
            assert screen.take() == []
        answer = await a.ask(STORE, order(), by=OWNER)
        assert (await b.read(STORE, seen=Cursor.parse(answer.cursor))).cursor == answer.cursor


async def test_a_cursor_that_no_log_has_is_ahead(cluster: Cluster | RedisCluster) -> None:
    """It gets a reset, with everything that there is."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        deafen(b)
        answer = await a.ask(STORE, order(), by=OWNER)
        after = Cursor(Cursor.parse(answer.cursor).epoch, MADE_UP)
        with await b.subscribe(STORE, after) as screen:
            assert screen.reset == "ahead"
            assert screen.snapshot is not None
            assert screen.snapshot.cursor == answer.cursor


async def test_a_cursor_of_an_old_epoch_is_looked_up_once(cluster: Cluster | RedisCluster) -> None:
    """Also one that nobody here has ever heard of."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        log: Any = b.partition_of(STORE).log
        look, looks = log.look, []

        async def counted() -> None:
            looks.append(1)
            await look()

        log.look = counted
        for _ in range(3):
            with await b.subscribe(STORE, Cursor("longago", 3)) as screen:
                assert screen.reset == "epoch"
        assert len(looks) == 1


async def test_a_store_of_another_node_is_there_at_once(cluster: Cluster | RedisCluster) -> None:
    """Reads, subscriptions and commands of it and of its tables, though this node had not heard of it."""
    async with cluster.open("a", "b") as (a, b):
        deafen(b)
        await make_shop(a)
        assert STORE not in b.stores
        await b.ask(TABLE, OpenTable(), by="staff:kim")
        for stream in ("store:s2", "store:s3", "store:s4", "store:s5"):
            await make_shop(a, stream)
        assert await b.exists("store:s2")
        assert len((await state_of(b, "store:s3"))["products"]) == 1
        with await b.subscribe("table:s4/3") as screen:
            assert screen.snapshot is not None
        await b.ask("store:s5", order(), by=OWNER)
        for stream in ("store:nobody", "table:nobody/3"):
            assert not await b.exists(stream)
            with pytest.raises(Rejected, match="no store"):
                await b.read(stream)
            with pytest.raises(Rejected, match="no store"):
                await b.subscribe(stream)
        with pytest.raises(Rejected, match="no store"):
            await b.ask("table:nobody/3", OpenTable(), by="staff:kim")


async def test_a_store_that_is_known_is_not_asked_for(cluster: Cluster | RedisCluster) -> None:
    """The log is asked once."""
    async with cluster.open("a", "b") as (a, b):
        deafen(b)
        await make_shop(a)
        assert await b.exists(STORE)
        asked = count_reads(b.partition_of(STORE))
        assert await b.exists(STORE)
        assert await b.exists(TABLE)
        assert asked == []


async def test_a_refusal_is_decided_on_what_the_log_has(cluster: Cluster | RedisCluster) -> None:
    """Also by a node that has not heard of what has changed meanwhile, and refuses what is possible now."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        with pytest.raises(Rejected, match="closed"):
            await b.ask(TABLE, CallStaff(kind="water"), by=TABLE)
        deafen(b)
        await a.ask(TABLE, OpenTable(), by="staff:kim")
        assert len((await b.ask(TABLE, CallStaff(kind="water"), by=TABLE)).events) == 1
        with pytest.raises(Rejected, match="coupon"):
            await b.ask(STORE, IssueCoupon(coupon="c", user="u1"), by="user:u1")
        await a.ask(STORE, CreateCoupon(coupon="c", name="C", discount=100, stock=1), by=OWNER)
        await b.ask(STORE, IssueCoupon(coupon="c", user="u1"), by="user:u1")


async def test_refusals_of_one_turn_are_confirmed_together(cluster: Cluster | RedisCluster) -> None:
    """A flash sale that is sold out asks the log once per turn, not once per guest."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        asked = count_reads(b.partition_of(STORE))
        refused: list[str] = []

        async def guest(user: str) -> None:
            try:
                await b.ask(STORE, IssueCoupon(coupon="none", user=user), by=f"user:{user}")
            except Rejected as error:
                refused.append(error.code)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(guest, f"u{number}")
        assert len(refused) == 100
        assert 0 < len(asked) < 10


@needs_redis
async def test_while_redis_is_away_nothing_older_is_shown(redis_cluster: RedisCluster) -> None:
    """Who has seen more than this node is told to come again; who has not is served from memory."""
    async with redis_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        known = Cursor.parse((await b.read(STORE)).cursor)
        deafen(b)
        answer = await a.ask(STORE, order(), by=OWNER)
        ahead = Cursor.parse(answer.cursor)
        redis_cluster.server.stop()
        for seen in (ahead, Cursor("unheard", 3)):
            with trio.fail_after(5):
                with pytest.raises(LogAway):
                    await b.subscribe(STORE, seen)
                with pytest.raises(LogAway):
                    await b.read(STORE, seen=seen)
        for stream in ("store:s2", "table:s2/3"):
            with trio.fail_after(5), pytest.raises(LogAway):
                await b.exists(stream)
        with await b.subscribe(STORE, known) as screen:
            assert screen.reset is None
        redis_cluster.server.start()
        await wait_until(lambda: b.writable, 15)
        with await b.subscribe(STORE, ahead) as screen:
            assert screen.reset is None


@needs_redis
async def test_a_cursor_of_an_epoch_that_is_not_known_yet(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that has not looked since it began looks before it says that the epoch is another one."""
    monkeypatch.setattr(redis_shared, "LOOK_S", 60.0)
    async with redis_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        log: Any = a.partition_of(STORE).log
        log._host.asking.fork(log.number, log.epoch, Witness(log.head, "another"))
        await log.look()
        before = b.partition_of(STORE).epoch
        await wait_until(lambda: a.partition_of(STORE).epoch not in (before, ""))
        after = Cursor.parse((await a.read(STORE)).cursor)
        assert b.partition_of(STORE).epoch == before
        with await b.subscribe(STORE, after) as screen:
            assert screen.reset is None
        with await b.subscribe(STORE, Cursor(before, after.version)) as screen:
            assert screen.reset == "epoch"
