"""Appends to Redis under what goes wrong on the way: lost replies, lost scripts, refusals, restarts."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
import trio

from engine.errors import Conflict, LogAway, ReadOnly, UnknownOutcome
from engine.log import Basis, redis_writer
from engine.log.redis import RedisPartition
from tests.chaos.proxy import Way, open_proxy
from tests.log.redis_site import (
    ALWAYS,
    STREAM,
    Writing,
    basis,
    client,
    entry,
    everything,
    needs_redis,
    opened,
    patiently,
    until,
    versions,
)
from tests.relays.redis_server import redis_server

pytestmark = needs_redis


async def test_two_nodes_hammer_one_stream(tmp_path: Path) -> None:
    """Each record stands on the one before it: none is lost, doubled or out of order, though most attempts
    are conflicts.
    """
    conflicts = 0
    done: dict[str, int] = {}

    async def hammer(log: RedisPartition, name: str) -> None:
        nonlocal conflicts
        head, _ = await log.read_stream(STREAM, 0)
        for number in range(100):
            id_ = f"{name}{number}"
            while True:
                wanted = [entry(head.version + 1, f"{head.id}>{id_}".encode())]
                try:
                    done[id_] = await log.append(wanted, Basis(log.epoch, head.id, (id_,)))
                except Conflict:
                    conflicts += 1
                    head, _ = await log.read_stream(STREAM, head.version)
                else:
                    head = head._replace(version=head.version + 1, id=id_)
                    break

    with redis_server(tmp_path) as server:
        async with opened(server) as one, opened(server) as other:
            async with trio.open_nursery() as nursery:
                for log, name in ((one, "a"), (one, "b"), (other, "c"), (other, "d")):
                    nursery.start_soon(hammer, log.partitions[0], name)
            await until(lambda: one.partitions[0].seen == other.partitions[0].seen == 400)
            found = await everything(one.partitions[0])
    assert versions(found) == list(range(1, 401))
    before = ""
    for position, read in found:
        stood_on, _, name = read.body.decode().partition(">")
        assert stood_on == before
        assert done[name] == position
        before = name
    assert len(done) == 400
    assert conflicts > 0


async def test_a_reply_that_is_lost_is_asked_for_again(tmp_path: Path) -> None:
    """The answer never arrives, the connection is cut: asked again, the append gets its first position."""
    with redis_server(tmp_path) as server:
        async with open_proxy(server.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}") as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await writing.append()
            proxy.half_open(Way.UP)  # blocks what goes up; heal, then block the way down
            await proxy.heal()
            proxy.half_open(Way.DOWN)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writing.append, 2)
                with client(server) as direct:
                    await until(lambda: direct.xlen("{onda:0}:log") == 3)  # it was done
                assert writing.version == 1  # but nobody knows
                await proxy.reset()
                await proxy.heal()
            assert writing.version == 3
            assert shared.writer.asked_again >= 1
            assert await writing.append() == 4
            assert versions(await everything(log)) == [1, 2, 3, 4]


async def test_a_network_that_misbehaves_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    """Cuts in the middle of many appends: each ends, once, where its stream says."""
    chance = random.Random(seed)
    with redis_server(tmp_path) as server:
        async with open_proxy(server.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}") as shared:
            log = shared.partitions[0]
            running = True

            async def act(writing: Writing) -> None:
                while running:
                    await patiently(writing.append, LogAway)

            actors = [Writing(log, f"user:{number}") for number in range(8)]
            async with trio.open_nursery() as nursery:
                for writing in actors:
                    nursery.start_soon(act, writing)
                for _ in range(12):
                    await trio.sleep(chance.uniform(0, 0.1))
                    await (proxy.reset() if chance.random() < 0.5 else proxy.cut())
                running = False
            await until(lambda: log.seen == sum(writing.version for writing in actors))
            found = await everything(log)
            for writing in actors:
                assert versions(found, writing.stream) == list(range(1, writing.version + 1))
            assert min(writing.version for writing in actors) > 0


async def test_what_nobody_can_say_is_an_unknown_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis had it, and does not come back in time; who comes meanwhile learns that nothing happened."""
    monkeypatch.setattr(redis_writer, "PATIENCE_S", 0.3)
    with redis_server(tmp_path, *ALWAYS) as server:
        async with open_proxy(server.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}") as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await writing.append()
            proxy.half_open(Way.DOWN)
            outcomes: list[str] = []

            async def act() -> None:
                with pytest.raises(UnknownOutcome):
                    await writing.append()
                outcomes.append("unknown")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(act)
                with client(server) as direct:
                    await until(lambda: direct.xlen("{onda:0}:log") == 2)
                await proxy.refuse()
                await until(lambda: not log.writable)
                with pytest.raises(LogAway):
                    await Writing(log, "user:u1").append()
                assert isinstance(log.refusal, LogAway)
            assert outcomes == ["unknown"]
            await proxy.heal()
            await until(lambda: log.writable)
            assert (await log.read_stream(STREAM, 0))[0].version == 2
            assert await log.append([entry(2)], basis(log, "e1", "e2")) == 2


async def test_scripts_that_redis_forgot_are_sent_again(tmp_path: Path) -> None:
    """SCRIPT FLUSH between and during appends is not noticed."""
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            actors = [Writing(log, f"user:{number}") for number in range(16)]
            with client(server) as direct:
                for _ in range(10):
                    direct.script_flush()
                    async with trio.open_nursery() as nursery:
                        for writing in actors:
                            nursery.start_soon(writing.append)
                direct.script_flush()
                assert (await log.read_stream("user:3", 9))[0].version == 10
                direct.script_flush()
                await log.trim(10)
            assert log.first == 11
            assert log.head == 160


async def test_a_restart_with_a_synced_aof_keeps_everything(tmp_path: Path) -> None:
    """kill -9 under load with a synced AOF: what was acknowledged is there, once, in the same epoch."""
    with redis_server(tmp_path, *ALWAYS) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            epoch = log.epoch
            actors = [Writing(log, f"user:{number}") for number in range(8)]
            running = True

            async def act(writing: Writing) -> None:
                while running:
                    await patiently(writing.append, LogAway)

            async with trio.open_nursery() as nursery:
                for writing in actors:
                    nursery.start_soon(act, writing)
                for _ in range(2):
                    await trio.sleep(0.2)
                    server.stop()
                    await until(lambda: not log.writable)
                    server.start()
                    await until(lambda: log.writable)
                await trio.sleep(0.1)
                running = False
            await until(lambda: log.seen == sum(writing.version for writing in actors))
            found = await everything(log)
            for writing in actors:
                assert versions(found, writing.stream) == list(range(1, writing.version + 1))
            assert log.epoch == epoch


async def test_no_memory_is_read_only(tmp_path: Path) -> None:
    """Appends are refused and nothing of them happened; reading and trimming go on, and space helps."""
    with redis_server(tmp_path, "--maxmemory", "4mb", "--maxmemory-policy", "noeviction") as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            with pytest.raises(ReadOnly, match="memory"):
                while True:
                    await writing.append(body=b"x" * 50_000)
            assert not log.writable
            assert isinstance(log.refusal, ReadOnly)
            assert len(await log.read(0, 1)) == 1
            version = (await log.read_stream(STREAM, writing.version))[0].version
            assert version == writing.version > 10
            await until(lambda: log.seen == version)
            await log.trim(version)
            await patiently(writing.append, ReadOnly)
            assert log.head == version + 1


async def test_too_few_replicas_is_read_only(tmp_path: Path) -> None:
    """`min-replicas-to-write` without any: nothing happened."""
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            writing = Writing(shared.partitions[0])
            await writing.append()
            with client(server) as direct:
                direct.config_set("min-replicas-to-write", 1)
                with pytest.raises(ReadOnly, match="replicas"):
                    await writing.append()
                direct.config_set("min-replicas-to-write", 0)
            assert await patiently(writing.append, ReadOnly) == 2


async def test_a_replica_takes_no_appends(tmp_path: Path) -> None:
    """A primary that becomes a replica refuses; promoted again, under a new epoch, it goes on."""
    (tmp_path / "other").mkdir()
    with redis_server(tmp_path) as server, redis_server(tmp_path / "other") as primary:
        async with opened(server) as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await writing.append()
            with client(server) as direct, client(primary) as upper:
                upper.replicaof("127.0.0.1", server.port)
                await until(lambda: upper.info("replication").get("master_link_status") == "up")
                await until(lambda: upper.xlen("{onda:0}:log") == 1)
                upper.replicaof("NO", "ONE")
                direct.replicaof("127.0.0.1", primary.port)
                with pytest.raises(LogAway):
                    await writing.append()
                await trio.sleep(0.1)
                with pytest.raises(LogAway):
                    await writing.append()
                direct.replicaof("NO", "ONE")
            assert await patiently(writing.append, LogAway) == 2
            with pytest.raises(LogAway, match="replica"):
                with client(server) as direct:
                    direct.replicaof("127.0.0.1", primary.port)
                async with opened(server):
                    raise AssertionError("it opened a replica")


async def test_redis_that_loads_is_waited_for(tmp_path: Path) -> None:
    """LOADING is no answer about an append: refused while it lasts, then it goes on."""

    async def answer(stream: trio.SocketStream) -> None:
        async for _ in stream:
            await stream.send_all(b"-LOADING Redis is loading the dataset in memory\r\n" * 3)

    with redis_server(tmp_path, *ALWAYS) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await writing.append(5)
            server.stop()
            await until(lambda: not log.writable)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(trio.serve_tcp, answer, server.port, host="127.0.0.1"))
                await until(lambda: "loading" in str(log.refusal))
                with pytest.raises(LogAway):
                    await writing.append()
                nursery.cancel_scope.cancel()
            server.start()
            assert await patiently(writing.append, LogAway) == 6
