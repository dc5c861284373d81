"""What others append, heard or not: lost, doubled, late and foreign messages, deaf nodes, slow nodes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from engine.errors import CursorUnusable
from engine.log.redis_asking import Meta, Record
from engine.records import Entry
from tests.chaos.proxy import open_proxy
from tests.log.redis_site import (
    STREAM,
    Writing,
    client,
    entry,
    everything,
    needs_redis,
    opened,
    until,
    versions,
)
from tests.relays.redis_server import redis_server

pytestmark = needs_redis


async def follow_to(log: object, position: int, within_s: float = 15) -> list[tuple[int, Entry]]:
    """Follow a partition from its beginning."""
    taken: list[tuple[int, Entry]] = []
    with trio.fail_after(within_s):
        while len(taken) < position:
            taken += await log.follow(len(taken), 1)  # type: ignore[attr-defined]
    return taken


async def test_what_was_appended_here_is_not_waited_for(tmp_path: Path) -> None:
    """It is there once the append is answered, whatever is heard; its own message changes nothing, also when
    others' come in between or some are lost.
    """
    with redis_server(tmp_path) as server:
        async with opened(server) as one, opened(server) as other:
            log, far = one.partitions[0], other.partitions[0]
            hear, held = one.listener._hear, []
            one.listener._hear = held.extend
            for version in (1, 2, 3):
                assert await log.append([entry(version)]) == version
                assert (log.seen, log.head) == (version, version)
            assert await log.follow(0, 1) == [(n, entry(n)) for n in (1, 2, 3)]
            await far.append([entry(4)])
            await until(lambda: len(held) == 4)
            one.listener._hear = hear
            hear([held[0], held[2], held[2], held[3], held[1]])
            assert (log.seen, log.missed) == (4, False)
            assert await log.follow(0, 1) == [(n, entry(n)) for n in (1, 2, 3, 4)]
            assert one.healed == 0


async def test_what_nobody_waits_for_comes_with_what_somebody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is not handed over at once where nobody attends to the partition, nor if it is of what was
    taken when it was answered.
    """
    monkeypatch.setattr("engine.log.redis_tail.LATER_S", 3600.0)
    with redis_server(tmp_path) as server:
        async with opened(server) as one, opened(server) as other:
            log, far = one.partitions[0], other.partitions[0]
            held: list[tuple[int, bytes]] = []
            one.listener._hear = lambda batch: None
            other.listener._hear = held.extend
            await until(lambda: one.listener.up and other.listener.up)
            far.attended = False
            for version in (1, 2, 3):
                await log.append([entry(version)])
            await until(lambda: far.seen == 3)  # it is looked for, all the same
            assert (held, other.healed) == ([], 3)
            far.attended = True
            await log.append([entry(4)])
            await until(lambda: len(held) == 4)
            assert [far.awaits(message) for _, message in held] == [True] * 4
            assert [log.awaits(message) for _, message in held] == [False] * 4
            log.attended = far.attended = False
            assert not any(partition.awaits(held[3][1]) for partition in (log, far))


async def test_what_has_come_is_good_when_redis_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for others to be handed over with."""
    monkeypatch.setattr("engine.log.redis_tail.LATER_S", 3600.0)
    monkeypatch.setattr("engine.log.redis_shared.LOOK_S", 3600.0)
    with redis_server(tmp_path) as server:
        async with opened(server) as one, opened(server) as other:
            log, far = one.partitions[0], other.partitions[0]
            await until(lambda: one.listener.up and other.listener.up)
            await other.look()
            far.attended = False
            await log.append([entry(1)])
            await trio.sleep(0.1)
            assert far.seen == 0
            server.stop()
            await until(lambda: far.seen == 1)
            assert other.healed == 0


async def test_messages_that_are_lost_doubled_or_late_change_nothing(tmp_path: Path, seed: int) -> None:
    """A node that hears badly has every record once, in order: holes are healed by looking."""
    chance = random.Random(seed)
    with redis_server(tmp_path) as server:
        async with opened(server) as one, opened(server) as other:
            log, far = one.partitions[0], other.partitions[0]
            take, late = other.listener._hear, []

            def hear(batch: list[tuple[int, bytes]]) -> None:
                for message in batch:
                    what = chance.random()
                    if what < 0.3:
                        continue
                    if what < 0.5:
                        late.append(message)
                        continue
                    take([message] * (1 + (what > 0.8)))
                if late and chance.random() < 0.5:
                    chance.shuffle(late)
                    take(late)
                    late.clear()

            other.listener._hear = hear
            await until(lambda: other.listener.up)
            writing = Writing(log)
            async with trio.open_nursery() as nursery:

                async def write() -> None:
                    for number in range(300):
                        await writing.append(1 + number % 3)

                nursery.start_soon(write)
                taken = await follow_to(far, 600)
            assert [position for position, _ in taken] == list(range(1, 601))
            assert versions(taken) == list(range(1, 601))
            assert other.healed > 0
            assert one.healed == 0 or one.healed < other.healed


async def test_a_node_that_hears_nothing_looks(tmp_path: Path) -> None:
    """Its listening connection is killed again and again; records come all the same, and within a second even
    when a message is lost that no other follows.
    """
    with redis_server(tmp_path) as server:
        async with opened(server) as one, opened(server) as other:
            far = other.partitions[0]
            writing = Writing(one.partitions[0])
            with client(server) as direct:
                for _ in range(20):
                    await writing.append(5)
                    direct.client_kill_filter(_type="pubsub")
                assert versions(await follow_to(far, 100)) == list(range(1, 101))
                await until(lambda: other.listener.up)
                other.listener._hear = lambda batch: None
                await writing.append()
                with trio.fail_after(2.5):
                    assert await far.follow(100, 2.5) == [(101, entry(101))]


async def test_what_somebody_else_publishes_is_not_taken(tmp_path: Path) -> None:
    """Nonsense on the channel, and records that nobody appended."""
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await until(lambda: shared.listener.up)
            await writing.append(2)
            await until(lambda: log.seen == 2)
            made_up = f"{log.epoch} 3 e1\n".encode() + b"x\n" + bytes(18)
            with client(server) as direct:
                for message in (
                    b"",
                    b"hello",
                    b"a b c d\n",
                    b"\xff\xfe\n\x00",
                    f"{log.epoch} 3 e2\nx\n".encode(),
                    made_up,
                ):
                    direct.publish("{onda:0}:live", message)
                await until(lambda: shared.listener.messages >= 7)
            await writing.append()
            await until(lambda: log.seen == 3)
            assert versions(await everything(log)) == [1, 2, 3]
            assert versions(await log.follow(0, 1)) == [1, 2, 3]


async def test_a_node_that_is_cut_off_has_everything_when_it_is_back(tmp_path: Path) -> None:
    """Redis out of reach of one node only, for a while; the others go on meanwhile."""
    with redis_server(tmp_path) as server:
        async with open_proxy(server.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            async with opened(server) as one, opened(url) as other:
                far, epoch = other.partitions[0], other.partitions[0].epoch
                writing = Writing(one.partitions[0])
                await writing.append()
                await until(lambda: far.seen == 1)
                await proxy.refuse()
                await until(lambda: not far.writable)
                await writing.append(3)
                assert await far.follow(1, 0.1) == []
                await proxy.heal()
                assert versions(await follow_to(far, 4)) == [1, 2, 3, 4]
                await until(lambda: far.writable)
                assert far.epoch == epoch


async def test_records_that_were_trimmed_before_they_were_read_are_expired(tmp_path: Path) -> None:
    """A node that was away for longer than the log is kept goes on behind the hole, and says so."""
    with redis_server(tmp_path) as server:
        async with open_proxy(server.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            async with opened(server) as one, opened(url) as other:
                log, far = one.partitions[0], other.partitions[0]
                writing = Writing(log)
                await writing.append()
                await until(lambda: far.seen == 1)
                await proxy.refuse()
                for _ in range(5):
                    await writing.append(10)
                await until(lambda: log.seen == 51)
                await log.trim(40)
                await proxy.heal()
                await until(lambda: far.seen == 51)
                with pytest.raises(CursorUnusable):
                    await far.follow(1, 1)
                assert [position for position, _ in await far.follow(40, 1)] == list(range(41, 52))


async def test_partitions_are_apart(tmp_path: Path) -> None:
    """Each has positions of its own; a stream is always in the same one; all of them are heard."""
    with redis_server(tmp_path) as server:
        async with opened(server, 16) as one, opened(server, 16) as other:
            streams = [f"user:{number}" for number in range(200)]
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(Writing(one.partition_of(stream), stream).append, 3)
            await until(lambda: sum(log.seen for log in other.partitions) == 600)
            for log in other.partitions:
                found = await everything(log)
                assert [position for position, _ in found] == list(range(1, len(found) + 1))
                assert {other.partition_of(read.stream).number for _, read in found} == {log.number}
            assert min(log.seen for log in other.partitions) > 0
            assert other.statistics()["partitions"] == 16


async def test_only_what_follows_is_taken(tmp_path: Path) -> None:
    """By position and by the id of the record before."""
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            a, b, c = (
                Record(number, f"r{number}", f"r{number - 1}" if number > 1 else "", entry(number))
                for number in (1, 2, 3)
            )
            assert not log.take([b])
            assert log.take([a])
            assert log.take([a])
            assert not log.take([c])
            assert not log.take([b._replace(previous="other")])
            assert log.take([a, b, c])
            assert log.seen == log.head == 3
            assert log.suspects(Meta(log.epoch, 2, 1, "r2"))
            assert log.suspects(Meta(log.epoch, 3, 1, "other"))
            assert not log.suspects(Meta(log.epoch, 4, 1, "r4"))
            assert [read.stream for _, read in await log.follow(0, 1)] == [STREAM] * 3
