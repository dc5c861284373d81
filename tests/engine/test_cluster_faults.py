"""Several nodes on a Redis that goes away, comes back, or loses what it had."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import redis
import trio

from engine import Answer, Cursor, Node, checkpoint_redis
from engine.checkpoint_redis import RedisCheckpoint
from engine.errors import LogAway, LogFailed, OndaError, Rejected, Unavailable, UnknownOutcome
from engine.log import redis_shared
from engine.log.redis_asking import Asking
from engine.opening import _own_clock
from engine.partition import Partition
from tests.engine.cluster import RedisCluster, redis_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order, state_of, wait_until
from tests.engine.test_cluster import same
from tests.log.redis_site import client, needs_redis, patiently
from tests.relays.redis_server import RedisServer

__all__ = ["redis_cluster"]

pytestmark = needs_redis


async def test_while_redis_is_away_screens_stay(redis_cluster: RedisCluster) -> None:
    """Commands are refused, what is in memory is read, streams stay open; when it is back with all that it
    had, everything goes on by itself, on the same streams.
    """
    async with redis_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        before = await a.read(STORE)
        with await b.subscribe(STORE) as screen:
            redis_cluster.server.stop()
            for node in (a, b):
                with pytest.raises((LogAway, UnknownOutcome)):
                    await node.ask(STORE, order(), by=OWNER)
                with pytest.raises(LogAway):
                    await node.ask(STORE, order(), by=OWNER)
                with trio.fail_after(2):
                    assert await node.read(STORE) == before
            assert screen.take() == []
            redis_cluster.server.start()
            answer: Answer = await patiently(
                lambda: a.ask(STORE, order(), by=OWNER), Unavailable, UnknownOutcome
            )
            shown: list[bytes] = []
            with trio.fail_after(10):
                while answer.events[-1] not in shown:
                    await screen.wait()
                    shown += [frame.body for frame in screen.take()]
            await patiently(lambda: b.ask(STORE, order(), by=OWNER), Unavailable, UnknownOutcome)
            await same(a, b, STORE)


async def test_orders_through_a_restart_of_redis(redis_cluster: RedisCluster) -> None:
    """Guests at both nodes repeat what has no answer, with the same key: each order is there once."""
    async with redis_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        done: dict[str, Answer] = {}

        async def guest(node: Node, name: str) -> None:
            for number in range(40):
                key = f"{name}.{number}"
                while key not in done:
                    try:
                        done[key] = await node.ask(STORE, order(), by=OWNER, id=key)
                    except (Unavailable, UnknownOutcome):
                        await trio.sleep(0.02)

        async def restart() -> None:
            await wait_until(lambda: len(done) > 60, 20)
            redis_cluster.server.stop()
            await trio.sleep(0.3)
            redis_cluster.server.start()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(restart)
                for number in range(4):
                    nursery.start_soon(guest, (a, b)[number % 2], f"g{number}")
        await same(a, b, STORE)
        orders = (await state_of(b, STORE))["orders"]
        assert len(orders) == len(done) == 160
        assert len({answer.version for answer in done.values()}) == 160


@pytest.mark.parametrize("after", range(1, 5))
async def test_a_node_that_dies_amid_a_checkpoint(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """However far it came, a command that was answered is carried out once."""
    monkeypatch.setattr(checkpoint_redis, "CALL_BYTES", 1)
    save, calls = RedisCheckpoint._guarded, []

    async def die(self: RedisCheckpoint, text: Any, *arguments: Any) -> None:
        if STORE in arguments:
            calls.append(text)
        if calls and len(calls) > after:
            raise LogAway("the node has died")
        await save(self, text, *arguments)

    async with redis_cluster.open("a", checkpoint_s=3600) as (a,):
        await make_shop(a)
        await wait_until(lambda: all(one.on_duty for one in a.partitions), 10)
        first = [await a.ask(STORE, order(), by=OWNER, id=f"k{number}") for number in range(3)]
        monkeypatch.setattr(RedisCheckpoint, "_guarded", die)
        await a.partition_of(STORE).upkeep.take()
    assert calls
    monkeypatch.setattr(RedisCheckpoint, "_guarded", save)
    async with redis_cluster.open("b") as (b,):
        again = [await b.ask(STORE, order(), by=OWNER, id=f"k{number}") for number in range(3)]
        assert [answer.version for answer in again] == [answer.version for answer in first]
        assert all(answer.replayed for answer in again)


async def test_scripts_that_redis_forgot_are_sent_again(redis_cluster: RedisCluster) -> None:
    """SCRIPT FLUSH costs a trip."""
    async with redis_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        client(redis_cluster.server).script_flush()
        await b.ask(STORE, order(), by=OWNER)
        await same(a, b, STORE)


async def test_a_redis_that_lost_its_end_is_told(redis_cluster: RedisCluster, tmp_path: Path) -> None:
    """A restart on an older copy of its files: a new epoch begins, states are those of the log, and old
    cursors start from a snapshot.
    """
    server = redis_cluster.server
    async with redis_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        kept = await a.ask(STORE, order(), by=OWNER)
        await same(a, b, STORE)
        shutil.copytree(tmp_path / "appendonlydir", tmp_path / "older")
        lost = await a.ask(STORE, order(), by=OWNER)
        epoch = a.partition_of(STORE).epoch
        server.stop()
        shutil.rmtree(tmp_path / "appendonlydir")
        shutil.move(tmp_path / "older", tmp_path / "appendonlydir")
        server.start()
        for node in (a, b):
            await wait_until(lambda node=node: node.partition_of(STORE).epoch != epoch, 10)
            snapshot = await patiently(lambda node=node: node.read(STORE), OndaError)
            with trio.fail_after(10):
                while snapshot.version != kept.version:
                    await trio.sleep(0.02)
                    snapshot = await patiently(lambda node=node: node.read(STORE), OndaError)
            with await node.subscribe(STORE, Cursor.parse(lost.cursor)) as screen:
                assert screen.reset == "epoch"
        await patiently(lambda: b.ask(STORE, order(), by=OWNER), Unavailable, UnknownOutcome)
        await same(a, b, STORE)
        with pytest.raises(Rejected):
            await a.ask("store:nobody", order(), by=OWNER)


async def test_a_redis_that_was_emptied_is_refused(redis_cluster: RedisCluster, tmp_path: Path) -> None:
    """Also when no node ran meanwhile: a node knows by its own disk that there were records."""
    folder = str(tmp_path / "a")
    async with redis_cluster.open("a", data=folder) as (a,):
        await make_shop(a)
    async with redis_cluster.open("a", data=folder) as (a,):
        assert len((await state_of(a, STORE))["products"]) == 1
    client(redis_cluster.server).flushall()
    with pytest.raises(LogFailed, match="missing"):
        async with redis_cluster.open("a", data=folder):
            pass


def keys_of(server: RedisServer, partition: Partition) -> dict[str, bytes]:
    """Return what a partition has in Redis, but for the lease."""
    with redis.Redis(port=server.port, protocol=2) as plain:
        names = plain.keys(f"{{onda:{partition.log.number}}}:*")
        return {name: plain.dump(name) for name in names if not name.endswith((b":lease", b":nodes"))}


def put_back(server: RedisServer, partition: Partition, kept: dict[str, bytes]) -> None:
    """Let a partition be what it was, at one moment, in a server that says nothing of it."""
    gone = keys_of(server, partition).keys() - kept.keys()
    with redis.Redis(port=server.port, protocol=2) as plain, plain.pipeline(transaction=True) as pipe:
        for name in gone:
            pipe.delete(name)
        for name, dump in kept.items():
            pipe.restore(name, 0, dump, replace=True)
        pipe.execute()


async def test_a_checkpoint_of_lost_records_is_refused(redis_cluster: RedisCluster) -> None:
    """Before anybody has found that Redis lost its end, the node on duty takes a checkpoint: what it has of
    lost records may not replace what is right for those that are left, which are dropped behind it.
    """
    server = redis_cluster.server
    async with redis_cluster.open("a", "b", checkpoint_s=1000, refill_bytes=0) as (a, b):
        await make_shop(a)
        kept = await a.ask(STORE, order(), by=OWNER)
        parts = [node.partition_of(STORE) for node in (a, b)]
        await wait_until(lambda: any(part.on_duty for part in parts), 10)
        duty = next(part for part in parts if part.on_duty)
        await same(a, b, STORE)
        assert await duty.upkeep.take()
        await duty.log.trim(duty.log.head)
        moment = keys_of(server, duty)
        lost = [await a.ask(STORE, order(), by=OWNER) for _ in range(3)]
        await same(a, b, STORE)
        put_back(server, duty, moment)
        assert not await duty.upkeep.take()
        for node in (a, b):
            await wait_until(lambda node=node: node.partition_of(STORE).epoch not in lost[0].cursor, 10)
            assert (await node.read(STORE)).version == kept.version
        await b.ask(STORE, order(), by=OWNER)
        await same(a, b, STORE)


async def test_who_meets_a_loss_goes_on_in_the_next_epoch(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor whose last record is gone reads its stream only when that has been told: else it would give
    out versions of the old epoch a second time.
    """
    monkeypatch.setattr(redis_shared, "LOOK_S", 60.0)
    fork = Asking.fork

    def fork_slowly(*words: Any) -> Any:
        time.sleep(0.3)  # in a thread
        return fork(*words)

    async with redis_cluster.open("a") as (a,):
        await make_shop(a)
        part = a.partition_of(STORE)
        moment, epoch = keys_of(redis_cluster.server, part), part.epoch
        lost = [await a.ask(STORE, order(), by=OWNER) for _ in range(3)]
        put_back(redis_cluster.server, part, moment)
        monkeypatch.setattr(Asking, "fork", fork_slowly)
        answer = await patiently(lambda: a.ask(STORE, order(), by=OWNER), Unavailable, UnknownOutcome)
        assert answer.version <= lost[-1].version
        assert Cursor.parse(answer.cursor).epoch != epoch


async def test_a_start_while_records_are_dropped(redis_cluster: RedisCluster) -> None:
    """The node on duty lets go of what a node that starts was about to read: it reads what is left."""
    async with redis_cluster.open("a") as (a,):
        await make_shop(a)
        log = a.partition_of(STORE).log

        class Stale:
            """What a node that met the log a moment ago takes for its beginning."""

            first, head = 1, log.head

            async def read(self, after: int) -> Any:
                try:
                    return await log.read(after)
                finally:
                    self.first = log.first

        await log.trim(log.head - 1)
        assert await _own_clock([Stale()])  # type: ignore[list-item]
