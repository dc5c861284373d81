"""What a log that several nodes append to promises (`engine.log.SharedLog`), over each of them."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import pytest
import trio

from engine.errors import Conflict, CursorUnusable, Forked
from engine.log import EVER, WAITS_S, Head, SharedLog, Turns, end_of
from engine.log.memory import MemoryLog
from engine.records import Entry
from tests.log.redis_site import STREAM, basis, entry, needs_redis, opened, until
from tests.relays.redis_server import redis_server

Both = tuple[SharedLog, SharedLog]


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def both(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Both]:
    """One log as two nodes have it."""
    if request.param == "memory":
        log = MemoryLog()
        yield log, log
        return
    with redis_server(tmp_path) as server:
        async with opened(server) as one, opened(server) as other:
            yield one.partitions[0], other.partitions[0]


async def test_the_first_to_append_wins(both: Both) -> None:
    """Of two appends that were decided on the same record the second is a conflict, which says where the
    stream is; nothing of it happens.
    """
    one, other = both
    assert one.epoch == other.epoch
    assert await one.append([entry(1)], basis(one, "", "a")) == 1
    assert await one.append([entry(2, b"one")], basis(one, "a", "b")) == 2
    with pytest.raises(Conflict) as caught:
        await other.append([entry(2, b"other"), entry(3)], basis(other, "a", "c", "d"))
    assert not isinstance(caught.value, Forked)
    assert (caught.value.version, caught.value.id) == (2, "b")
    assert await other.append([entry(3)], basis(other, "b", "c")) == 3
    assert [read.body for _, read in await one.follow(0, 5)][:2] == [b"{}", b"one"]
    await until(lambda: one.head == 3)


async def test_the_same_append_again_gives_its_first_position(both: Both) -> None:
    """Whoever asks again, also after others have appended; but only the whole of it, and only the same."""
    one, other = both
    batch = [entry(1), entry(2)]
    assert await one.append(batch, basis(one, "", "a", "b")) == 2
    assert await one.append(batch, basis(one, "", "a", "b")) == 2
    assert await one.append([entry(1, stream="table:s1/1")], basis(one, "", "t")) == 3
    assert await other.append([entry(3)], basis(other, "b", "c")) == 4
    assert await other.append(batch, basis(other, "", "a", "b")) == 2
    for ids in (("a", "x"), ("x", "b")):
        with pytest.raises(Conflict):
            await other.append(batch, basis(other, "", *ids))
    with pytest.raises(Conflict):
        await other.append([*batch, entry(3)], basis(other, "", "a", "b", "x"))
    assert one.head in (3, 4)
    assert other.head == 4


async def test_what_was_decided_on_another_record_is_a_fork(both: Both) -> None:
    """The version fits but the id does not, or the stream is shorter than it was: acknowledged records have
    gone.
    """
    one, _ = both
    await one.append([entry(1)], basis(one, "", "a"))
    for versions, after in (([2], "other"), ([3], "b")):
        with pytest.raises(Forked):
            await one.append([entry(version) for version in versions], basis(one, after, "c"))
    await one.append([entry(2)], basis(one, "a", "b"))
    with pytest.raises(Forked):
        await one.append([entry(2)], basis(one, "other", "c"))
    with pytest.raises(Forked, match="epoch"):
        await one.append([entry(3)], basis(one, "b", "c")._replace(epoch="elsewhen"))
    assert one.head == 2


async def test_a_stream_is_read_by_itself(both: Both) -> None:
    """Its records after a version, with their positions, and where it ends; in chunks, if need be."""
    one, other = both
    after = ""
    for version in range(1, 200):
        await one.append([entry(version, b"x" * 100)], basis(one, after, f"a{version}"))
        after = f"a{version}"
        await one.append([entry(version, stream="user:u1")], None)
    head, found = await other.read_stream(STREAM, 0)
    assert head == Head(199, "a199")
    assert found == [(2 * version - 1, entry(version, b"x" * 100)) for version in range(1, 200)]
    head, found = await other.read_stream(STREAM, 70, 1)
    assert (head.version, [read.version for _, read in found]) == (199, [71])
    assert await other.read_stream(STREAM, 199) == (head, [])
    assert await other.read_stream("store:nobody", 0) == (Head(0, ""), [])
    with pytest.raises(CursorUnusable) as caught:
        await other.read_stream(STREAM, 200)
    assert caught.value.reason == "ahead"


async def test_a_stream_whose_records_were_trimmed_is_expired(both: Both) -> None:
    """What is kept is read; a stream that nothing is kept of still says where it ends, and goes on there."""
    one, _ = both
    await one.append([entry(1, stream="user:u1")], basis(one, "", "u"))
    for version in range(1, 40):
        await one.append(
            [entry(version)], basis(one, f"a{version - 1}" if version > 1 else "", f"a{version}")
        )
    await until(lambda: one.head == 40)
    await until_seen(one, 40)
    await one.trim(21)
    assert one.first == 22
    with pytest.raises(CursorUnusable) as caught:
        await one.read_stream(STREAM, 19)
    assert caught.value.reason == "expired"
    assert [read.version for _, read in (await one.read_stream(STREAM, 20))[1]] == list(range(21, 40))
    assert await one.read_stream("user:u1", 1) == (Head(1, "u"), [])
    assert await one.append([entry(2, stream="user:u1")], basis(one, "u", "v")) == 41
    assert [read.version for _, read in (await one.read_stream("user:u1", 1))[1]] == [2]


def turns(who: str, told: list[int], *, more: bool = False) -> Turns:
    """How `who` takes turns; what it is told goes to `told`."""
    return Turns(who, more, told.append)


async def late(log: SharedLog, who: str) -> None:
    """Let `who` meet a conflict at the stream, which has a record."""
    with pytest.raises(Conflict):
        await log.append([entry(1)], basis(log, "", who)._replace(turns=turns(who, [])))


async def test_who_appends_is_told_who_was_too_late(both: Both) -> None:
    """Until it has appended itself. Those who take no turns are not told, and nobody is told of them."""
    one, other = both
    told: list[int] = []
    await one.append([entry(1)], basis(one, "", "a"))
    with pytest.raises(Conflict):
        await other.append([entry(1)], basis(other, "", "x"))
    await one.append([entry(2)], basis(one, "a", "b")._replace(turns=turns("one", told)))
    assert told == [0]
    await late(other, "other")
    await one.append([entry(3)], basis(one, "b", "c"))
    await one.append([entry(4)], basis(one, "c", "d")._replace(turns=turns("one", told)))
    assert told == [0, 1]
    assert await one.append([entry(4)], basis(one, "c", "d")._replace(turns=turns("one", told))) == 4
    assert told == [0, 1], "it was appended before"
    await other.append([entry(5)], basis(other, "d", "e")._replace(turns=turns("other", told)))
    await one.append([entry(6)], basis(one, "e", "f")._replace(turns=turns("one", told)))
    assert told == [0, 1, 0, 0]
    await late(other, "other")
    await one.append([entry(1, stream="user:u1")], basis(one, "", "u")._replace(turns=turns("one", told)))
    assert told == [0, 1, 0, 0, 0], "of another stream"


async def test_those_who_have_more_to_append_take_turns(both: Both) -> None:
    """Each is told of those who came before it, and waits behind them; who does not come is passed over."""
    one, other = both
    last, version = "", 0

    async def append(log: SharedLog, who: str, *, more: bool = True) -> int:
        nonlocal last, version
        told: list[int] = []
        version += 1
        id_ = f"{who}{version}"
        decided = basis(log, last, id_)._replace(turns=turns(who, told, more=more))
        await log.append([entry(version)], decided)
        last = id_
        return told[0]

    assert await append(one, "a") == 0
    await late(other, "b")
    await late(other, "c")
    await late(other, "b")
    assert await append(one, "a") == 2  # b, c
    assert await append(other, "b") == 2  # c, a
    assert await append(other, "c") == 2  # a, b
    assert await append(one, "a") == 2  # b, c
    assert await append(other, "c") == 1  # a: b did not come
    assert await append(one, "a", more=False) == 1  # c
    assert await append(other, "c") == 0
    assert await append(one, "a") == 0


async def test_who_waits_is_forgotten_after_a_while(both: Both) -> None:
    """Somebody who has no more to append does not keep it."""
    one, other = both
    told: list[int] = []
    await one.append([entry(1)], basis(one, "", "1"))
    await late(other, "other")
    with trio.fail_after(5 * WAITS_S):
        while 0 not in told:
            version = len(told) + 2
            decided = basis(one, str(version - 1), str(version))
            await one.append([entry(version)], decided._replace(turns=turns("one", told)))
            await trio.sleep(WAITS_S / 20)
    assert set(told) == {0, 1}


async def until_seen(log: SharedLog, position: int) -> None:
    """Wait until everything up to a position can be followed."""
    seen = 0
    with trio.fail_after(10):
        while seen < position:
            seen = (await log.follow(seen, 1) or [(seen, None)])[-1][0]


async def test_what_others_append_is_followed(both: Both) -> None:
    """In order and without a hole, whoever appended it, as soon as it is there."""
    one, other = both
    taken: list[tuple[int, Entry]] = []

    async def follow() -> None:
        while len(taken) < 300:
            taken.extend(await one.follow(taken[-1][0] if taken else 0, 5))

    async def append(log: SharedLog, stream: str) -> None:
        for version in range(1, 101):
            await log.append([entry(version, stream=stream)], None)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            nursery.start_soon(append, one, "user:a")
            nursery.start_soon(append, other, "user:b")
            nursery.start_soon(append, other, "user:c")
    assert [position for position, _ in taken] == list(range(1, 301))
    for stream in ("user:a", "user:b", "user:c"):
        assert [read.version for _, read in taken if read.stream == stream] == list(range(1, 101))
    with trio.fail_after(5):
        assert await one.follow(300, 0.05) == []


async def test_epochs_say_how_far_each_holds(both: Both) -> None:
    """The first one names the log; the last one holds whatever comes, and one that never was is not known."""
    one, other = both
    await one.append([entry(1)], basis(one, "", "a"))
    epochs = await other.epochs()
    assert epochs == [(one.epoch, 0)]
    assert end_of(one.epoch, epochs) == EVER
    epochs += [("b", 7), ("c", 5)]
    assert [end_of(name, epochs) for name in (one.epoch, "b", "c", "x")] == [5, 5, EVER, None]
