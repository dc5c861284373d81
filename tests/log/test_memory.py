"""What tests and embedders can do with the log in memory beyond the contract."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.errors import Forked, LogFailed, ReadOnly, UnknownOutcome
from engine.log import Basis, Head
from engine.log.memory import MemoryLog
from engine.records import Entry
from tests.log.simulated import entries


async def test_a_held_log_is_a_slow_disk() -> None:
    """What waits is not durable and not readable; cancelled or not, it becomes so in order on release."""
    log = MemoryLog()
    positions = []

    async def act(stream: str) -> None:
        positions.append(await log.append(entries(stream, 1, [10])))

    log.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(act, "store:a")
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await act("store:b")
        nursery.start_soon(act, "store:c")
        await trio.testing.wait_all_tasks_blocked()
        assert (log.head, await log.read(0), positions) == (0, [], [])
        log.release()
    assert sorted(positions) == [1, 3]
    assert [entry.stream for _, entry in await log.read(0)] == ["store:a", "store:b", "store:c"]


async def test_a_full_log_is_read_only() -> None:
    """As on a full disk: refused at once, and taken again later."""
    log = MemoryLog()
    log.set_writable(False)
    with pytest.raises(ReadOnly):
        await log.append(entries("store:s1", 1, [10]))
    log.set_writable(True)
    assert await log.append(entries("store:s1", 1, [10])) == 1


async def test_a_failed_log_leaves_outcomes_unknown() -> None:
    """As on a broken disk: who waits and who comes later learns nothing, and `wait_failed` says why."""
    log = MemoryLog()
    log.hold()

    async def act() -> None:
        with pytest.raises(UnknownOutcome):
            await log.append(entries("store:s1", 1, [10]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(act)
        await trio.testing.wait_all_tasks_blocked()
        log.fail("broken")
    await act()
    assert isinstance(await log.wait_failed(), LogFailed)
    assert log.head == 0
    assert log.statistics()["failed"]


async def test_it_can_lose_what_it_had_acknowledged() -> None:
    """As a failover does: the last entries are gone, the epoch is another one, and what stood on them is a
    fork; what is left goes on.
    """
    log = MemoryLog()
    await log.append([Entry("store:s1", 1, b"", b"{}")], Basis(log.epoch, "", ["a"]))
    await log.append([Entry("store:s1", 2, b"", b"{}")], Basis(log.epoch, "a", ["b"]))
    epoch = log.epoch
    log.lose(1, "later")
    assert await log.wait_epoch(epoch) == "later"
    for old in (Basis(epoch, "b", ["c"]), Basis("later", "b", ["c"])):
        with pytest.raises(Forked):
            await log.append([Entry("store:s1", 3, b"", b"{}")], old)
    assert await log.append([Entry("store:s1", 2, b"", b"{}")], Basis("later", "a", ["d"])) == 2
    assert (await log.read_stream("store:s1", 0))[0] == Head(2, "d")
