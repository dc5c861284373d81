"""What Redis had acknowledged and lost: found by whoever knew of it, told as a new epoch, never silent, and
never version 0 again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import redis
import trio

from engine.errors import ConfigError, Conflict, Forked, LogAway, LogFailed, LogTooNew, UnknownOutcome
from engine.log import Head
from engine.log.redis_asking import Witness
from engine.log.redis_kept import KeptLog
from engine.migrating.shared import find
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
from tests.relays.redis_server import RedisServer, redis_server

pytestmark = needs_redis


def lose_the_end(server: RedisServer, folder: Path, count: int) -> None:
    """Kill the server and take its last `count` appends off the AOF, as a machine that dies does with
    `everysec`; start it again.
    """
    server.stop()
    (file,) = folder.glob("appendonlydir/*.incr.aof")
    data = file.read_bytes()
    parts = data.split(b"*1\r\n$5\r\nMULTI\r\n")  # each script is one transaction there
    file.write_bytes(b"*1\r\n$5\r\nMULTI\r\n".join(parts[:-count]))
    server.start()


async def test_a_lost_end_begins_a_new_epoch(tmp_path: Path) -> None:
    """`everysec`, and the machine died: whoever has seen the lost records learns of it, before anybody can
    append on what is left under the old epoch.
    """
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "everysec") as server:
        async with opened(server) as one, opened(server) as other:
            log, far = one.partitions[0], other.partitions[0]
            writing = Writing(log)
            for _ in range(10):
                await writing.append()
            await until(lambda: far.seen == 10)
            epoch = log.epoch
            await trio.to_thread.run_sync(lose_the_end, server, tmp_path, 3)
            with trio.fail_after(10):
                fresh = await far.wait_epoch(epoch)
                assert await log.wait_epoch(epoch) == fresh != epoch
            assert (log.head, far.head) == (7, 7)
            with pytest.raises(Forked):
                await patiently(writing.append, LogAway)
            with pytest.raises(Forked):  # even under the new epoch, what it stands on is not there
                await log.append([entry(11)], basis(log, "e10", "x"))
            head, found = await far.read_stream(STREAM, 0)
            assert head == Head(7, "e7")
            assert versions(found) == list(range(1, 8))
            assert await far.append([entry(8, b"again")], basis(far, "e7", "f8")) == 8
            await until(lambda: log.seen == 8)
            assert (await log.follow(7, 1))[0][1].body == b"again"
            with client(server) as direct:
                assert direct.lrange("{onda:0}:epochs", 0, -1) == [f"{epoch} 0", f"{fresh} 7"]
            assert await log.epochs() == [(epoch, 0), (fresh, 7)]


async def test_a_synced_aof_that_lost_its_end_all_the_same_is_found_by_its_witness(tmp_path: Path) -> None:
    """The disk lied. Nothing says so but the records that a node remembers."""
    with redis_server(tmp_path, *ALWAYS) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            for _ in range(10):
                await writing.append()
            epoch = log.epoch
            await trio.to_thread.run_sync(lose_the_end, server, tmp_path, 1)
            with trio.fail_after(10):
                await log.wait_epoch(epoch)
            assert log.head == 9


async def test_a_loss_while_no_node_ran_is_found_at_the_start(tmp_path: Path) -> None:
    """What a node knew when it ended is compared when it starts."""
    with redis_server(tmp_path, *ALWAYS) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            for _ in range(5):
                await writing.append()
            epoch, witness = log.epoch, log.witness
        assert witness == Witness(5, "e5")
        async with opened(server, witnesses={0: witness}) as shared:
            assert shared.partitions[0].epoch == epoch
        await trio.to_thread.run_sync(lose_the_end, server, tmp_path, 2)
        async with opened(server, witnesses={0: witness}) as shared:
            assert shared.partitions[0].epoch != epoch
            assert shared.partitions[0].head == 3


async def test_a_failover_that_lost_records_is_a_fork(tmp_path: Path) -> None:
    """A replica that had not everything is promoted and appended to: the same positions, other records."""
    (tmp_path / "replica").mkdir()
    with redis_server(tmp_path) as server, redis_server(tmp_path / "replica") as replica:
        async with opened(server) as one:
            log = one.partitions[0]
            writing = Writing(log)
            await writing.append(5)
            epoch = log.epoch
            with client(replica) as lower:
                lower.replicaof("127.0.0.1", server.port)
                await until(lambda: lower.exists("{onda:0}:log") and lower.xlen("{onda:0}:log") == 5)
                lower.replicaof("NO", "ONE")  # it goes its own way
            await writing.append(2)
            async with opened(replica) as other:
                far = other.partitions[0]
                assert far.epoch != epoch  # a run that was promoted is a new epoch by itself
                assert await far.append([entry(6, b"other")], basis(far, "e5", "f6")) == 6
                assert await far.append([entry(7, b"other")], basis(far, "f6", "f7")) == 7
                assert await far.append([entry(8, b"other")], basis(far, "f7", "f8")) == 8
                with client(server) as upper:  # the old primary learns that it is none
                    upper.replicaof("127.0.0.1", replica.port)
                    await until(lambda: upper.info("replication")["master_link_status"] == "up")
                    upper.replicaof("NO", "ONE")
                with trio.fail_after(15):
                    await log.wait_epoch(epoch)
                assert log.head == 8
                with pytest.raises(Conflict):
                    await patiently(writing.append, LogAway)
                found = await everything(log)
    assert versions(found) == list(range(1, 9))
    assert [read.body for _, read in found[5:]] == [b"other"] * 3


async def test_the_same_epoch_with_other_records_is_a_fork(tmp_path: Path) -> None:
    """Should nothing else betray it, the chain does: a record that stands on another one than was seen."""
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            await Writing(log).append(3)
            epoch = log.epoch
            await until(lambda: log.seen == 3)
            with client(server) as direct:
                (record,) = direct.xrevrange("{onda:0}:log", count=1)
                direct.delete("{onda:0}:log")
                for position in (1, 2, 3, 4):
                    direct.xadd("{onda:0}:log", {**record[1], "i": f"z{position}"}, id=f"{position}-0")
                direct.hset("{onda:0}:meta", mapping={"head": 4, "last": "z4"})
            with trio.fail_after(10):
                assert await log.wait_epoch(epoch) != epoch


KEYS = ["{onda:0}:meta", "{onda:0}:log", "{onda:0}:heads", f"{{onda:0}}:at:{STREAM}"]


@pytest.mark.parametrize("key", [*KEYS, "everything"])
async def test_a_key_that_is_gone_ends_the_log(tmp_path: Path, key: str) -> None:
    """Deleted or evicted: the next append (or look) finds it, nothing is decided on what is left, and no
    start begins again at version 0.
    """
    with redis_server(tmp_path) as server:
        witness = None
        with pytest.RaisesGroup(LogFailed, allow_unwrapped=True, flatten_subgroups=True):
            async with opened(server) as shared:
                log = shared.partitions[0]
                writing = Writing(log)
                await writing.append(3)
                with client(server) as direct:
                    _ = direct.flushall() if key == "everything" else direct.delete(key)
                with pytest.raises((UnknownOutcome, LogFailed)):
                    await writing.append()
                with pytest.raises((UnknownOutcome, LogFailed)):
                    await log.append([entry(1)], basis(log, "", "new"))
                witness = log.witness
                assert not log.writable
                with trio.fail_after(5):
                    raise await log.wait_failed()
        if key != KEYS[-1]:  # that one is not looked at before its stream is
            with pytest.raises(LogFailed, match="missing in Redis"):
                async with opened(server, witnesses={0: witness}):
                    raise AssertionError("it began again")
        else:
            with pytest.raises(LogFailed, match="store:s1 is missing"):
                async with opened(server) as shared:
                    await shared.partitions[0].read_stream(STREAM, 0)


async def test_a_redis_that_kept_nothing_is_refused_by_those_who_know(tmp_path: Path) -> None:
    """No persistence, and a restart: a node that runs fails; it does not start at version 0."""
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            await Writing(log).append(3)
            server.stop()
            shutil.rmtree(tmp_path / "appendonlydir", ignore_errors=True)
            server.start()
            with trio.fail_after(10):
                failure = await log.wait_failed()
    assert "meta is missing" in str(failure)


async def test_a_first_start_that_came_not_to_its_end_goes_on(tmp_path: Path) -> None:
    """Some partitions were made and nothing is in them: the rest is made. Another number is refused."""
    with redis_server(tmp_path) as server:
        async with opened(server, 4):
            pass
        with client(server) as direct:
            direct.delete("{onda:2}:meta", "{onda:2}:epochs")
            async with opened(server, 4) as shared:
                assert len(shared.partitions) == 4
                await shared.partitions[1].append([entry(1)])
            direct.delete("{onda:2}:meta", "{onda:2}:epochs")
            with pytest.raises(LogFailed):
                async with opened(server, 4):
                    raise AssertionError("partition 2 was lost")
        with pytest.raises(ConfigError, match="redis_partitions is 8, but Redis has 4"):
            async with opened(server, 8):
                raise AssertionError("another number")


@pytest.mark.parametrize(("format_", "error"), [("1", ConfigError), ("3", LogTooNew)])
async def test_another_layout_is_left_alone(tmp_path: Path, format_: str, error: type[Exception]) -> None:
    """By whoever comes: nodes, the command line, a move. (In another layout streams are elsewhere.)"""
    with redis_server(tmp_path) as server:
        async with opened(server, 4) as shared:
            await shared.partitions[1].append([entry(1)])
        with client(server) as direct:
            direct.hset("{onda:0}:meta", "format", format_)
            with pytest.raises(error, match=f"has format {format_}, this version reads 2"):
                async with opened(server, 4):
                    raise AssertionError("another layout")
            with pytest.raises(error):
                KeptLog(server.url)
            with pytest.raises(error):
                find(server.url)
            direct.hset("{onda:0}:meta", "format", "2")
        async with opened(server, 4) as shared:
            assert shared.partitions[1].head == 1


async def test_a_hole_in_the_middle_ends_the_log(tmp_path: Path) -> None:
    """A record is missing that others stand on: nobody goes on past it."""
    with redis_server(tmp_path) as server:
        with pytest.RaisesGroup(LogFailed, allow_unwrapped=True, flatten_subgroups=True):
            async with opened(server) as one:
                log = one.partitions[0]
                await Writing(log).append(3)
                await until(lambda: log.seen == 3)
                one.listener._hear = lambda batch: None
                with client(server) as direct:
                    (record,) = direct.xrevrange("{onda:0}:log", count=1)
                    direct.xadd("{onda:0}:log", {**record[1], "i": "z5", "p": "z4"}, id="5-0")
                    direct.hset("{onda:0}:meta", mapping={"head": 5, "last": "z5"})
                with trio.fail_after(5):
                    raise await log.wait_failed()


async def test_an_append_in_doubt_over_a_new_epoch_is_found(tmp_path: Path) -> None:
    """Redis had it and kept it, the answer was lost, and the restart began a new epoch: it did happen. One
    that was not kept did not.
    """
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "everysec") as server:
        async with open_proxy(server.port) as proxy, opened(f"redis://127.0.0.1:{proxy.port}") as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await writing.append()
            for lost, expected in ((0, 2), (1, None)):
                epoch, before = log.epoch, log.head
                proxy.half_open(Way.DOWN)
                outcome: list[int | None] = []

                async def act(outcome: list[int | None] = outcome) -> None:
                    try:
                        outcome.append(await writing.append())
                    except Forked:
                        outcome.append(None)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(act)
                    with client(server) as direct:
                        await until(lambda before=before: direct.xlen("{onda:0}:log") == before + 1)
                    if lost:
                        await trio.to_thread.run_sync(lose_the_end, server, tmp_path, lost)
                    else:
                        server.stop()
                        server.start()
                    await proxy.reset()
                    await proxy.heal()
                assert outcome == [expected]
                with trio.fail_after(5):
                    await log.wait_epoch(epoch)
                await until(lambda: log.writable)
            assert versions(await everything(log)) == [1, 2]


def moment_of(server: RedisServer) -> dict[bytes, bytes]:
    """Return what is in Redis."""
    with redis.Redis(port=server.port, protocol=2) as plain:
        return {name: plain.dump(name) for name in plain.scan_iter()}


def go_back(server: RedisServer, moment: dict[bytes, bytes]) -> None:
    """Let Redis be what it was, without a word."""
    with redis.Redis(port=server.port, protocol=2) as plain, plain.pipeline(transaction=True) as pipe:
        pipe.flushall()
        for name, dump in moment.items():
            pipe.restore(name, 0, dump)
        pipe.execute()


async def test_what_may_go_is_not_decided_on_another_log(tmp_path: Path) -> None:
    """Records are dropped behind a checkpoint that Redis has lost since, with the records it was made of:
    those that are left stay.
    """
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await writing.append(5)
            await until(lambda: log.seen == 5)
            moment = moment_of(server)
            await writing.append(3)
            await until(lambda: log.seen == 8)
            go_back(server, moment)
            await log.trim(8)
            with client(server) as plain:
                assert plain.xlen("{onda:0}:log") == 5


async def test_a_loss_that_was_told_is_not_told_again(tmp_path: Path) -> None:
    """A node that was away meanwhile comes back and knows of lost records: the epoch is a later one than
    theirs, and what was appended in it is as good as before.
    """
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await writing.append(5)
            moment = moment_of(server)
            await writing.append(3)
            known, epoch = log.witness._replace(epoch=log.epoch), log.epoch
            go_back(server, moment)
            with trio.fail_after(10):
                later = await log.wait_epoch(epoch)
            for version in range(6, 12):
                await log.append([entry(version)])
            async with opened(server, witnesses={0: known}) as again:
                assert again.partitions[0].epoch == later
            await shared.look()
            assert log.epoch == later


async def test_an_epoch_that_was_lost_with_its_beginning(tmp_path: Path) -> None:
    """Redis goes back to an epoch that was over: its cursors were reset and may not be good again, so it
    goes on in a new one, which is the same for everybody.
    """
    with redis_server(tmp_path) as server:
        async with opened(server) as one, opened(server) as other:
            log, far = one.partitions[0], other.partitions[0]
            writing = Writing(log)
            await writing.append(5)
            first, moment = log.epoch, moment_of(server)
            await writing.append(3)
            await until(lambda: far.seen == 8)
            go_back(server, moment)
            with trio.fail_after(10):
                second = await log.wait_epoch(first)
                assert await far.wait_epoch(first) == second
            go_back(server, moment)
            with trio.fail_after(10):
                third = await log.wait_epoch(second)
                assert await far.wait_epoch(second) == third
            await one.look()
            assert third not in (first, second)
            assert (log.epoch, far.epoch) == (third, third)
