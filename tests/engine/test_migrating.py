"""A shop's log into a Redis and back: the same bytes, places and cursors, or nothing at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from engine.errors import ConfigError, LogCorrupt, LogLocked, LogMoved, OndaError, ReadOnly
from engine.log import Basis, partition_of
from engine.log.frames import pack_entry, unpack_entry
from engine.log.wal import open_wal
from engine.migrating import (
    from_redis,
    into_redis,
    looking,
    out_of_redis,
    to_redis,
    undo_from_redis,
    undo_to_redis,
)
from engine.records import Entry
from tests.engine.moved import SIZES, check_same, fingerprint, look, make, starts
from tests.log.redis_site import ALWAYS, client, everything, needs_redis, opened
from tests.log.test_redis_servers import cluster
from tests.relays.redis_server import RedisServer, redis_server

pytestmark = needs_redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", *ALWAYS) as server:
        yield server


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps, each of which is told."""
    for module in (into_redis, out_of_redis, looking):
        monkeypatch.setattr(module, "TOLD_EVERY", 60)
    monkeypatch.setattr(into_redis, "CALL_WORDS", 20)
    monkeypatch.setattr(into_redis, "TRIP_BYTES", 10_000)
    monkeypatch.setattr(looking, "AT_ONCE", 100)


@pytest.mark.parametrize(("seed", "partitions"), [(1, 1), (2, 2), (3, 5), (4, 16), (5, 16), (6, 3)])
async def test_there_and_back(tmp_path: Path, redis: RedisServer, seed: int, partitions: int) -> None:
    """Entries byte for byte, in the order of each partition; what the checkpoint says is said of the same
    records; and the source is left as it was.
    """
    await make(tmp_path / "old", seed, trimmed=seed != 3)
    old, untouched = look(tmp_path / "old"), fingerprint(tmp_path / "old")
    report = to_redis(str(tmp_path / "old"), redis.url, partitions)
    assert report.records == len(old.entries)
    assert fingerprint(tmp_path / "old") == untouched
    async with opened(redis, partitions) as shared:
        for number, log in enumerate(shared.partitions):
            assert log.epoch == old.epoch
            there = [pack_entry(entry) for _, entry in await everything(log)]
            mine = [entry for _, entry in old.entries if partition_of(entry.stream, partitions) == number]
            assert there == [pack_entry(entry) for entry in mine]
            for last in mine[-1:]:
                head, kept = await log.read_stream(last.stream, last.version - 1)
                assert (head.version, kept[-1][1]) == (last.version, last)
    with client(redis) as direct:
        for name, place in old.places.positions.items():
            for number in range(partitions):
                streams = [entry.stream for at, entry in old.entries if at <= place]
                done = sum(partition_of(stream, partitions) == number for stream in streams)
                first = int(direct.hget(f"{{onda:{number}}}:meta", "first"))
                assert direct.hget(f"{{onda:{number}}}:positions", name) == str(first - 1 + done)
    from_redis(str(tmp_path / "new"), redis.url, SIZES)
    new = look(tmp_path / "new")
    check_same(old, new)
    was, now = starts(old, "flow"), starts(new, "flow")
    assert all(now[name] >= min(count, 1) for name, count in was.items())
    assert max(now.values(), default=0) <= max(was.values(), default=0)
    if partitions == 1:
        assert new.entries == old.entries
        assert new.places.attempts == old.places.attempts
    async with open_wal(str(tmp_path / "new" / "log"), segment_bytes=SIZES.segment_bytes) as log:
        assert (log.head, log.torn_bytes) == (new.entries[-1][0], 0)


async def test_what_begins_where_it_was_left(tmp_path: Path, redis: RedisServer) -> None:
    """Streams of which only a state is left can be appended to, in Redis and after the way back."""
    await make(tmp_path / "old", 8, share=0.9)
    old = look(tmp_path / "old")
    resting = {one.stream: one.version for one in old.states}
    for _, entry in old.entries:
        resting.pop(entry.stream, None)
    assert resting
    to_redis(str(tmp_path / "old"), redis.url, 4)
    stream, version = next(iter(resting.items()))
    async with opened(redis, 4) as shared:
        log = shared.partition_of(stream)
        head, _ = await log.read_stream(stream, version)
        body = old.entries[-1][1].body.replace(b'"id": "', b'"id": "f')
        fresh = old.entries[-1][1]._replace(stream=stream, version=version + 1, body=body)
        await log.append([fresh], Basis(log.epoch, head.id, [msgspec.json.decode(body)["id"]]))
    from_redis(str(tmp_path / "new"), redis.url, SIZES)
    async with open_wal(str(tmp_path / "new" / "log"), segment_bytes=SIZES.segment_bytes) as wal:
        other, at = list(resting.items())[1]
        await wal.append([fresh._replace(version=version + 2), fresh._replace(stream=other, version=at + 1)])


async def test_interrupted_on_the_way_there(tmp_path: Path, redis: RedisServer, often: None) -> None:
    """Whenever it ends: the source is whole and can be served until the target is, never both; and to begin
    again works.
    """
    await make(tmp_path / "old", 11, commands=200)
    old, untouched, told = look(tmp_path / "old"), fingerprint(tmp_path / "old"), Told()
    with redis_at(tmp_path / "probe") as probe:
        for name in ("copy", "other"):
            shutil.copytree(tmp_path / "old", tmp_path / name)
        to_redis(str(tmp_path / "copy"), probe.url, 3, told=told)
    assert {"read", "write", "checkpoint", "read back", "close", "open"} == {what for what, _ in told.steps}
    for number, (what, _) in enumerate(told.steps):
        with pytest.raises(ZeroDivisionError):
            to_redis(str(tmp_path / "old"), redis.url, 3, again=number > 0, told=Told(number))
        assert fingerprint(tmp_path / "old") == untouched
        if what == "open":
            with pytest.raises(LogMoved):
                async with open_wal(str(tmp_path / "old" / "log")):
                    pass
        if what != "read":
            with pytest.raises(LogMoved, match="not finished"):
                async with opened(redis, 3):
                    pass
            with pytest.raises(ConfigError, match="--again"):
                to_redis(str(tmp_path / "other"), redis.url, 3)
    to_redis(str(tmp_path / "old"), redis.url, 3, again=True)
    from_redis(str(tmp_path / "new"), redis.url, SIZES)
    check_same(old, look(tmp_path / "new"))


async def test_interrupted_on_the_way_back(tmp_path: Path, redis: RedisServer, often: None) -> None:
    """The same: Redis is whole and can be used until the folder is, never both."""
    await make(tmp_path / "old", 12, commands=200)
    old, told = look(tmp_path / "old"), Told()
    to_redis(str(tmp_path / "old"), redis.url, 3)
    from_redis(str(tmp_path / "probe"), redis.url, SIZES, told=told)
    assert undo_from_redis(redis.url)
    assert {"write", "checkpoint", "read back", "close", "open"} == {what for what, _ in told.steps}
    for number, (what, _) in enumerate(told.steps):
        with pytest.raises(ZeroDivisionError):
            from_redis(str(tmp_path / "new"), redis.url, SIZES, again=number > 0, told=Told(number))
        with pytest.raises(LogCorrupt, match="not finished"):
            async with open_wal(str(tmp_path / "new" / "log")):
                pass
        if what == "open":
            with pytest.raises(LogMoved, match="into a data folder"):
                async with opened(redis, 3):
                    pass
            with pytest.raises(LogMoved):
                from_redis(str(tmp_path / "elsewhere"), redis.url, SIZES, again=True)
        else:
            async with opened(redis, 3) as shared:
                assert {log.epoch for log in shared.partitions} == {old.epoch}
            with pytest.raises(ConfigError, match="--again"):
                from_redis(str(tmp_path / "new"), redis.url, SIZES)
    from_redis(str(tmp_path / "new"), redis.url, SIZES, again=True)
    check_same(old, look(tmp_path / "new"))


class Told:
    """Remembers what it was told, or raises at a step."""

    def __init__(self, end: int | None = None) -> None:
        self.steps: list[tuple[str, int]] = []
        self._end = end

    def __call__(self, what: str, count: int) -> None:
        self.steps.append((what, count))
        if self._end == len(self.steps) - 1:
            raise ZeroDivisionError


def redis_at(folder: Path) -> Any:
    folder.mkdir()
    return redis_server(folder, *ALWAYS)


async def test_what_is_refused(tmp_path: Path, redis: RedisServer) -> None:
    """A folder in use, no log, a Redis or a folder that is not empty, and what was moved already."""
    await make(tmp_path / "old", 21, commands=50)
    old = str(tmp_path / "old")
    with pytest.raises(ConfigError, match="no log"):
        to_redis(str(tmp_path / "nothing"), redis.url, 2)
    with pytest.raises(ConfigError, match="no log in this Redis"):
        from_redis(str(tmp_path / "new"), redis.url, SIZES)
    async with open_wal(str(tmp_path / "old" / "log")):
        with pytest.raises(LogLocked):
            to_redis(old, redis.url, 2)
    with client(redis) as direct:
        direct.set("{onda:7}:lease", "x")
        with pytest.raises(ConfigError, match="not empty"):
            to_redis(old, redis.url, 2)
        direct.flushall()
        direct.set("somebody else's", "x")
    to_redis(old, redis.url, 2)
    with pytest.raises(LogMoved):
        to_redis(old, redis.url, 2)
    with pytest.raises(ConfigError, match="already"):
        to_redis(old, redis.url, 2, again=True)
    with redis_at(tmp_path / "second") as second, pytest.raises(LogMoved):
        to_redis(old, second.url, 2, again=True)
    with pytest.raises(ConfigError, match="not empty"):
        from_redis(old, redis.url, SIZES)
    with client(redis) as direct:
        assert direct.get("somebody else's") == "x"
        for key, value in (("{onda:1}:lease", "onda-2.ab"), ("{onda:0}:nodes", "")):
            now = direct.time()[0]
            direct.set(key, value) if value else direct.zadd(key, {"onda-2.ab": now})
            with pytest.raises(LogLocked, match="onda-2"):
                from_redis(str(tmp_path / "new"), redis.url, SIZES)
            direct.delete(key)
    from_redis(str(tmp_path / "new"), redis.url, SIZES)
    with pytest.raises(LogMoved):
        from_redis(str(tmp_path / "newer"), redis.url, SIZES)


async def test_undone(tmp_path: Path, redis: RedisServer) -> None:
    """Either end can be used again when somebody says so, as it was."""
    await make(tmp_path / "old", 22, commands=50)
    untouched = fingerprint(tmp_path / "old")
    to_redis(str(tmp_path / "old"), redis.url, 2)
    assert undo_to_redis(str(tmp_path / "old"))
    assert not undo_to_redis(str(tmp_path / "old"))
    assert fingerprint(tmp_path / "old") == untouched
    async with open_wal(str(tmp_path / "old" / "log")):
        pass
    from_redis(str(tmp_path / "new"), redis.url, SIZES)
    with pytest.raises(LogMoved):
        async with opened(redis, 2):
            pass
    assert undo_from_redis(redis.url)
    async with opened(redis, 2) as shared:
        assert sum(log.head for log in shared.partitions) == look(tmp_path / "new").entries[-1][0]


async def test_a_node_that_was_away_appends_nothing_behind_the_back(
    tmp_path: Path, redis: RedisServer
) -> None:
    """What holds a connection from before finds the log closed, and ends."""
    await make(tmp_path / "old", 23, commands=50)
    to_redis(str(tmp_path / "old"), redis.url, 2)
    async with opened(redis, 2) as late:
        from_redis(str(tmp_path / "new"), redis.url, SIZES)
        with pytest.raises(OndaError):
            await late.partitions[0].append([Entry("user:late", 1, b"", b"{}")])
        assert late.failure is not None


async def test_damage_is_found_before_anything_is_written(tmp_path: Path, redis: RedisServer) -> None:
    """In the folder, and in Redis: a key that is gone, a record that is not what it was."""
    await make(tmp_path / "old", 24)
    shutil.copytree(tmp_path / "old", tmp_path / "bad")
    segment = sorted((tmp_path / "bad" / "log").glob("*.seg"))[0]
    data = bytearray(segment.read_bytes())
    data[5000] ^= 1
    segment.write_bytes(data)
    with pytest.raises(LogCorrupt):
        to_redis(str(tmp_path / "bad"), redis.url, 2)
    with client(redis) as direct:
        assert direct.dbsize() == 0
        to_redis(str(tmp_path / "old"), redis.url, 2)
        key = next(direct.scan_iter("{onda:1}:at:*"))
        kept = direct.lrange(key, 0, -1)
        direct.lset(key, 0, int(kept[0]) + 1)
        with pytest.raises(LogCorrupt, match="positions of streams"):
            from_redis(str(tmp_path / "new"), redis.url, SIZES)
        direct.lset(key, 0, kept[0])
        stream = next(iter(direct.hscan_iter("{onda:0}:heads")))[0]
        direct.hdel("{onda:0}:heads", stream)
        with pytest.raises(LogCorrupt, match="missing"):
            from_redis(str(tmp_path / "new"), redis.url, SIZES, again=True)


COUNTED = ("states", "due", "stores", "kept", "memory", "parked", "tasks", "known", "answers")


@pytest.mark.parametrize("name", COUNTED)
async def test_what_the_checkpoint_counts_is_missed(tmp_path: Path, redis: RedisServer, name: str) -> None:
    """A checkpoint that has lost something is not moved, and its Redis not closed: a command that is known no
    more would take effect again.
    """
    await make(tmp_path / "old", 24)
    to_redis(str(tmp_path / "old"), redis.url, 1)
    with client(redis) as direct:
        key = f"{{onda:0}}:{name}"
        direct.delete(next(direct.scan_iter(f"{key}:*")) if name in ("known", "answers") else key)
        with pytest.raises(LogCorrupt, match=f"{name}.* missing in Redis"):
            from_redis(str(tmp_path / "new"), redis.url, SIZES)
        assert direct.hget("{onda:0}:meta", "partitions") == "1"


async def test_what_was_written_is_compared(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that forgets an answer between writing and reading back gets no shop."""
    await make(tmp_path / "old", 25)

    def spoil(what: str, count: int) -> None:
        if what == "read back":
            with client(redis) as direct:
                direct.hset("{onda:0}:tasks", "t0", "somebody")

    monkeypatch.setattr(looking, "TOLD_EVERY", 100)
    with pytest.raises(LogCorrupt, match="tasks"):
        to_redis(str(tmp_path / "old"), redis.url, 2, told=spoil)
    async with open_wal(str(tmp_path / "old" / "log"), segment_bytes=SIZES.segment_bytes):
        pass


async def test_another_run_of_redis_is_another_epoch(tmp_path: Path) -> None:
    """What was not synced may be lost: cursors must not be believed."""
    await make(tmp_path / "old", 26, commands=50)
    with redis_at(tmp_path / "redis") as server:
        to_redis(str(tmp_path / "old"), server.url, 2)
        with client(server) as direct:
            for number in range(2):
                direct.hset(f"{{onda:{number}}}:meta", "run", "another one")
            direct.config_set("appendfsync", "everysec")
        report = from_redis(str(tmp_path / "new"), server.url, SIZES)
    assert report.fresh
    assert look(tmp_path / "new").epoch == report.epoch != look(tmp_path / "old").epoch


async def test_what_redis_lost_is_not_brought_back(tmp_path: Path, redis: RedisServer) -> None:
    """A partition that lost its last record, and with it what the checkpoint had of it: a new epoch begins,
    and everything else is there.
    """
    await make(tmp_path / "old", 29, trimmed=False)
    to_redis(str(tmp_path / "old"), redis.url, 2)
    tag = "{onda:0}:"
    with Redis(port=redis.port) as direct:
        head = int(direct.hget(tag + "meta", "head") or 0)
        ((_, fields),) = direct.xrange(tag + "log", f"{head}-0", "+")
        lost = unpack_entry(fields[b"r"])[0]
        ((_, before),) = direct.xrevrange(tag + "log", f"{head - 1}-0", "-", count=1)
        same = direct.lrange(tag + "at:" + lost.stream, -2, -2)
        ((_, last),) = direct.xrange(tag + "log", f"{int(same[0])}-0", f"{int(same[0])}-0")
        direct.xdel(tag + "log", f"{head}-0")
        direct.rpop(tag + "at:" + lost.stream)
        direct.hset(tag + "heads", lost.stream, f"{lost.version - 1} 1 {last[b'i'].decode()}")
        direct.hset(tag + "meta", mapping={"head": head - 1, "last": before[b"i"], "epoch": "fresh000"})
        direct.rpush(tag + "epochs", f"fresh000 {head - 1}")
        direct.hincrby(tag + "meta", "states", -int(direct.hdel(tag + "states", lost.stream)))
        direct.hincrby(tag + "meta", "due", -int(direct.zrem(tag + "due", lost.stream)))
    report = from_redis(str(tmp_path / "new"), redis.url, SIZES)
    old, new = look(tmp_path / "old"), look(tmp_path / "new")
    assert report.fresh
    assert new.epoch == report.epoch not in (old.epoch, "fresh000")
    names = {(entry.stream, entry.version) for _, entry in new.entries}
    assert {(e.stream, e.version) for _, e in old.entries} - names == {(lost.stream, lost.version)}
    assert new.states == [one for one in old.states if one.stream != lost.stream]


@pytest.mark.slow
async def test_in_a_cluster(tmp_path: Path) -> None:
    """Partitions lie on several servers; the way back finds all of them."""
    await make(tmp_path / "old", 27)
    (tmp_path / "servers").mkdir()
    with cluster(tmp_path / "servers", 3) as servers:
        url = f"redis+cluster://127.0.0.1:{servers[1].port}"
        with pytest.raises(ZeroDivisionError):
            to_redis(str(tmp_path / "old"), url, 16, told=Told(2))
        to_redis(str(tmp_path / "old"), url, 16, again=True)
        from_redis(str(tmp_path / "new"), url, SIZES)
    check_same(look(tmp_path / "old"), look(tmp_path / "new"))


async def test_a_redis_without_room(tmp_path: Path, redis: RedisServer) -> None:
    """It refuses in the middle, the folder can be served; with room the move is begun anew."""
    await make(tmp_path / "old", 28, commands=2500, trimmed=False)
    with client(redis) as direct:
        direct.config_set("maxmemory", direct.info("memory")["used_memory"] + 600_000)
        with pytest.raises(ReadOnly):
            to_redis(str(tmp_path / "old"), redis.url, 4)
        assert direct.hget("{onda:0}:meta", "partitions") == "moving"
        async with open_wal(str(tmp_path / "old" / "log"), segment_bytes=SIZES.segment_bytes):
            pass
        direct.config_set("maxmemory", 0)
        to_redis(str(tmp_path / "old"), redis.url, 4, again=True)
