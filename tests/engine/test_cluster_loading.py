"""How an actor comes into memory at a node of several: with one trip to the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from engine import Node
from engine.answers import Answer, Known
from engine.checkpoint import Checkpoint, Kept, Moment, SavedState
from engine.checkpoint_redis import RedisCheckpoint
from engine.checkpoint_sqlite import open_checkpoint
from engine.domain.table.calls import CallStaff
from engine.domain.table.sitting import OpenTable
from engine.errors import LogCorrupt
from engine.log import Head, SharedLog
from engine.log.memory import MemoryLog
from engine.log.redis_lines import Line
from engine.log.redis_trips import Questions
from engine.mailbox import StateLost
from engine.replay import rebuild_shared
from engine.witnesses import Witnesses
from tests.engine.cluster import Cluster, RedisCluster, memory_cluster, redis_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order, wait_until
from tests.engine.test_cluster import same
from tests.log.redis_site import client, entry, needs_redis, opened, until
from tests.relays.redis_server import redis_server

__all__ = ["memory_cluster", "redis_cluster"]

TABLE = "table:s1/3"
Ground = tuple[SharedLog, Checkpoint]


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """A log and its checkpoint."""
    if request.param == "memory":
        checkpoint = await open_checkpoint(":memory:")
        yield MemoryLog(), checkpoint
        await checkpoint.close()
        return
    with redis_server(tmp_path) as server:
        async with opened(server) as log:
            with client(server) as plain:
                plain.set("{onda:0}:lease", "me")
            yield log.partitions[0], RedisCheckpoint(log, 0, "me", Witnesses(None))


def moment(log: SharedLog, version: int, *keys: str) -> Moment:
    """A checkpoint with the state of a stream at a version, and the answers to these commands."""
    answers = [
        (STORE, key, Known(number, "digest", Answer("c", 1, [], b"1"))) for number, key in enumerate(keys)
    ]
    return Moment(0, 0, 0, [SavedState(STORE, version, b"{}", None)], answers, {}, 0, log.epoch)


def versions(kept: Kept) -> Sequence[int]:
    assert all(record.stream == STORE for _, record in kept.records)
    return [record.version for _, record in kept.records]


async def test_a_stream_is_loaded_with_its_state(ground: Ground) -> None:
    """The records begin a stretch behind the state, or with the oldest one that is kept."""
    log, checkpoint = ground
    for version in range(1, 31):
        await log.append([entry(version, b"x" * 50, STORE), entry(version, stream="user:u1")], None)
    head = (await log.read_stream(STORE, 0))[0]
    await until(lambda: log.head == 60)
    kept = await checkpoint.load_stream(STORE, log, 10, 1 << 20)
    assert (kept.saved, list(kept.known), kept.head, versions(kept)) == (None, [], head, list(range(1, 31)))
    assert kept.records[0] == (1, entry(1, b"x" * 50, STORE))
    assert await checkpoint.load_stream("store:none", log, 10, 1) == Kept(None, [], Head(0, ""), [])
    await checkpoint.take(moment(log, 20, "b", "a"))
    kept = await checkpoint.load_stream(STORE, log, 10, 1 << 20)
    assert kept.saved is not None
    assert (kept.saved.version, kept.saved.state, kept.head) == (20, b"{}", head)
    known = [(key, one.at_ms, one.digest, one.answer) for key, one in kept.known]
    assert known == [("b", 0, "digest", None), ("a", 1, "digest", None)]
    assert versions(kept) == list(range(11, 31))
    assert versions(await checkpoint.load_stream(STORE, log, 10, 1)) == [11]
    assert versions(await checkpoint.load_stream(STORE, log, 1000, 1)) == [1]
    await trim(log, 30)
    assert versions(await checkpoint.load_stream(STORE, log, 10, 1 << 20)) == list(range(16, 31))
    assert versions(await checkpoint.load_stream(STORE, log, 2, 1 << 20)) == list(range(19, 31))
    for ahead in (31, 99):  # what it is of is lost
        await checkpoint.take(moment(log, ahead))
        kept = await checkpoint.load_stream(STORE, log, 2, 1 << 20)
        assert kept.saved is not None
        assert (kept.saved.version, kept.head, versions(kept)) == (ahead, head, list(range(16, 31)))


async def trim(log: SharedLog, upto: int) -> None:
    with trio.fail_after(10):
        while log.first <= upto:
            await log.trim(upto)
            await trio.sleep(0.01)


async def duty_and_other(cluster: Cluster | RedisCluster, a: Node, b: Node) -> tuple[Node, Node]:
    """Return who is on duty for the table, which has some records, and the node that has not opened it."""
    await wait_until(lambda: any(node.partition_of(TABLE).on_duty for node in (a, b)), 10)
    duty, other = (a, b) if a.partition_of(TABLE).on_duty else (b, a)
    await make_shop(duty)
    await same(duty, other, STORE)
    await duty.ask(TABLE, OpenTable(), by="staff:kim", id="k1")
    await duty.ask("table:s1/4", OpenTable(), by="staff:kim")
    await other.read("table:s1/4")  # Redis knows the scripts
    return duty, other


SETTINGS: dict[str, Any] = {"checkpoint_s": 3600, "refill_bytes": 0}


@needs_redis
@pytest.mark.parametrize("how", ["unsaved", "saved", "dropped", "new"])
async def test_a_table_is_opened_in_one_trip(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whatever there is of it; its screen and repeated commands are right afterwards."""
    async with redis_cluster.open("a", "b", **SETTINGS) as (a, b):
        duty, other = await duty_and_other(redis_cluster, a, b)
        stream = "table:s1/9" if how == "new" else TABLE
        part = duty.partition_of(stream)
        if how in ("saved", "dropped"):
            assert await part.upkeep.take()
        if how == "dropped":
            await trim(part.log, part.log.head)
        elif how == "saved":
            await duty.ask(TABLE, CallStaff(kind="water"), by=TABLE)
        call, asked = Line.call, []

        def counted(line: Line, commands: Sequence[Sequence[Any]]) -> list[Any]:
            asked.extend(words for words in commands if stream in words)
            return call(line, commands)

        assert stream not in other.partition_of(stream).actors
        monkeypatch.setattr(Line, "call", counted)
        found = await other.read(stream)
        assert len(asked) == 1
        monkeypatch.undo()
        assert (found.version, found.state) == ((shown := await duty.read(stream)).version, shown.state)
        if how != "new":
            assert (await other.ask(TABLE, OpenTable(), by="staff:kim", id="k1")).replayed


async def test_a_stream_is_read_to_its_end_once(memory_cluster: Cluster) -> None:
    """Nobody asks for what comes behind the end: what is appended meanwhile is heard."""
    async with memory_cluster.open("a", "b", **SETTINGS) as (a, b):
        _, other = await duty_and_other(memory_cluster, a, b)
        log: Any = other.partition_of(TABLE).log
        read, asked = log.read_stream, []

        async def counted(stream: str, *words: Any, **options: Any) -> Any:
            asked.append(stream)
            return await read(stream, *words, **options)

        log.read_stream = counted
        await other.read(TABLE)
        assert asked == [TABLE]


@needs_redis
async def test_tables_that_are_opened_together_share_trips(
    redis_cluster: RedisCluster,
) -> None:
    """A screen of the whole floor costs a trip or two, not one per table."""
    async with redis_cluster.open("a", "b", **SETTINGS) as (a, b):
        _, other = await duty_and_other(redis_cluster, a, b)
        tables = [f"table:s1/{number}" for number in range(10, 40)]
        log: Any = other.partition_of(TABLE).log
        ask_all, trips = log._host.trips._ask_all, []

        def counted(questions: Questions) -> list[Any]:
            trips.append(sum(any(table in words for table in tables) for _, words in questions))
            return ask_all(questions)

        log._host.trips._ask_all = counted
        async with trio.open_nursery() as nursery:
            for table in tables:
                nursery.start_soon(other.read, table)
        assert sum(trips) == len(tables)
        assert sum(count > 0 for count in trips) <= 3


class Halfway:
    """A node's partition whose checkpoint was taken, and its log trimmed, between the two looks at them."""

    def __init__(self, node: Node, saved: SavedState | None) -> None:
        self.__dict__.update(vars(node.partition_of(TABLE)))
        self.checkpoint = self
        self._kept = node.partition_of(TABLE).checkpoint
        self._saved = saved

    async def load_stream(self, stream: str, *_: Any) -> Kept:
        head = Head(2, "x")
        return Kept(None, [], head, [(9, entry(2, stream=stream))])

    async def load_states(self, streams: Sequence[str]) -> dict[str, SavedState]:
        return {} if self._saved is None else {self._saved.stream: self._saved}


async def test_a_gap_behind_the_state_is_explained(memory_cluster: Cluster) -> None:
    """By a checkpoint that was taken meanwhile; without one, records are lost."""
    async with memory_cluster.open("a", **SETTINGS) as (a,):
        await make_shop(a)
        await a.read(TABLE)
        actor: Any = a.partition_of(TABLE).actors[TABLE]
        with pytest.raises(StateLost):
            await rebuild_shared(Halfway(a, SavedState(TABLE, 2, b"{}", None)), actor)  # type: ignore[arg-type]
        with pytest.raises(LogCorrupt, match="first records are dropped"):
            await rebuild_shared(Halfway(a, None), actor)  # type: ignore[arg-type]


@needs_redis
async def test_what_is_not_used_off_duty_is_dropped_and_not_followed(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would follow what the other node does for nobody; who comes back finds all of it."""
    monkeypatch.setattr("engine.upkeep.OFF_DUTY_IDLE_S", 0.0)
    async with redis_cluster.open("a", "b", checkpoint_s=0.05) as both:
        await make_shop(both[0])
        parts = [node.partition_of(STORE) for node in both]
        await wait_until(lambda: any(part.on_duty for part in parts), 20)
        duty = next(number for number, part in enumerate(parts) if part.on_duty)
        busy, quiet = parts[duty], parts[1 - duty]
        await wait_until(lambda: STORE in both[1 - duty].stores)
        with await both[1 - duty].subscribe(STORE):
            assert quiet.log.attended
            await both[duty].ask(STORE, order(), by=OWNER)
            await same(*both, STORE)
            await trio.sleep(0.2)
            assert STORE in quiet.actors, "somebody follows it"
        await wait_until(lambda: STORE not in quiet.actors)
        await both[duty].ask(STORE, order(), by=OWNER)
        await wait_until(lambda: not quiet.feeds and not quiet.log.attended)
        assert STORE in busy.actors
        assert busy.log.attended
        await same(*both, STORE)
