"""What the log does about a full disk, which passes, and about a broken one, which is final."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from engine.errors import (
    CursorUnusable,
    LogCorrupt,
    LogFailed,
    OndaError,
    ReadOnly,
    UnknownOutcome,
)
from engine.log.verify import verify
from engine.log.wal import Wal
from engine.records import Entry
from tests.log.journal import read_all
from tests.log.simulated import FOLDER, SEGMENT_BYTES, entries, open_log, segment
from tests.simulation.disk import Fault, SimulatedDisk
from tests.simulation.worker import InlineWorker

Append = Callable[..., Awaitable[int]]


@pytest.fixture
def disk() -> SimulatedDisk:
    """An empty disk."""
    return SimulatedDisk()


def fail_next(disk: SimulatedDisk, name: str, fault: Fault, after: int = 0) -> None:
    """Let the next call of this name fail, or a later one of that name."""
    real = disk._call
    seen = 0

    def call(called: str, detail: str = "", *, space: bool = False) -> bool:
        nonlocal seen
        if called == name and disk._call is not real:
            seen += 1
            if seen == after + 1:
                disk._call = real  # type: ignore[method-assign]
                disk.fail_at[disk.calls + 1] = fault
        return real(called, detail, space=space)

    disk._call = call  # type: ignore[method-assign]


async def fill(wal: Wal, stream: str = "store:s1") -> int:
    """Append until the log is read-only; return the last version."""
    version = 0
    with pytest.raises(ReadOnly):
        while True:
            await wal.append(entries(stream, version + 1, [3_000]))
            version += 1
    return version


async def test_a_full_disk_is_read_only_until_there_is_space(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock
) -> None:
    """The last segment is used up; then reading goes on, and appending too as soon as there is space."""
    disk.capacity = 3 * SEGMENT_BYTES
    async with open_log(disk) as wal:
        last = await fill(wal)
        assert wal.statistics()["segments"] == 3
        assert last > 24
        assert not wal.writable
        with pytest.raises(ReadOnly):
            await wal.append(entries("table:s1/1", 1, [10]))
        await trio.sleep(30)
        assert (len(await read_all(wal)), wal.head) == (last, last)
        disk.capacity = 5 * SEGMENT_BYTES
        await trio.sleep(1.1)
        assert wal.writable
        assert await wal.append(entries("store:s1", last + 1, [3_000])) == last + 1
        assert await wal.append(entries("table:s1/1", 1, [10])) == last + 2
    async with open_log(disk) as wal:
        assert wal.head == last + 2


async def test_a_reserve_is_left_to_others(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock
) -> None:
    """The log stops growing while there is still room for checkpoints, and trimming makes room again."""
    disk.capacity = 6 * SEGMENT_BYTES
    async with open_log(disk, reserve_bytes=2 * SEGMENT_BYTES) as wal:
        last = await fill(wal)
        assert disk.free(FOLDER) == 2 * SEGMENT_BYTES
        await wal.trim(last)
        await trio.sleep(1.1)
        assert wal.writable
        assert await wal.append(entries("store:s1", last + 1, [3_000])) == last + 1


async def test_a_log_opens_on_a_full_disk(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock
) -> None:
    """After a crash on a full disk the log can be read at once, and written as soon as it can be repaired."""
    async with open_log(disk) as wal:
        await wal.append(entries("store:s1", 1, [100] * 5))
        disk.power_cut()
        disk.dead = True
    disk.restart()
    if "spare" in disk.names(FOLDER):
        disk.remove(f"{FOLDER}/spare")
    disk.capacity = disk.used
    async with open_log(disk) as wal:
        assert (wal.head, wal.writable) == (5, False)
        assert len(await read_all(wal)) == 5
        with pytest.raises(ReadOnly):
            await wal.append(entries("store:s1", 6, [10]))
        disk.capacity += 2 * SEGMENT_BYTES
        await trio.sleep(1.1)
        assert await wal.append(entries("store:s1", 6, [10])) == 6
        assert len(await read_all(wal)) == 6
    async with open_log(disk) as wal:
        assert wal.head == 6


async def test_the_spare_is_enough_to_recover_on_a_full_disk(disk: SimulatedDisk) -> None:
    """Repairs after a crash use up the spare, so a disk without a free byte does not keep the log closed."""
    async with open_log(disk) as wal:
        await wal.append(entries("store:s1", 1, [100] * 5))
        await trio.testing.wait_all_tasks_blocked()
        disk.restart()
        disk.dead = True
    disk.restart()
    assert "spare" in disk.names(FOLDER)
    disk.capacity = disk.used
    async with open_log(disk) as wal:
        assert await wal.append(entries("store:s1", 6, [10])) == 6


@pytest.mark.parametrize("fault", [Fault.NO_SPACE, Fault.SHORT_FULL])
async def test_a_batch_without_space_is_as_if_it_had_never_been(
    disk: SimulatedDisk, fault: Fault, autojump_clock: trio.testing.MockClock
) -> None:
    """All who wait hear that nothing happened, versions are free again, and half a frame is wiped out."""
    worker = InlineWorker()
    async with open_log(disk, worker=worker) as wal:
        await wal.append(entries("store:s1", 1, [100]))
        await trio.sleep(0.2)
        before = disk.content(segment(1))
        fail_next(disk, "pwrite", fault)
        refused = []

        async def act(stream: str, version: int) -> None:
            try:
                await wal.append(entries(stream, version, [500]))
            except ReadOnly:
                refused.append(stream)

        async with trio.open_nursery() as nursery:
            worker.hold()
            nursery.start_soon(act, "store:s1", 2)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(act, "table:s1/1", 1)
            await trio.testing.wait_all_tasks_blocked()
            worker.release()
        assert sorted(refused) == ["store:s1", "table:s1/1"]
        assert not wal.writable
        assert disk.content(segment(1)) == before
        await trio.sleep(1.1)
        assert await wal.append(entries("store:s1", 2, [100])) == 2
        assert await wal.append(entries("table:s1/1", 1, [100])) == 3


@pytest.mark.parametrize("name", ["rename", "sync_folder", "pwrite", "sync"])
@pytest.mark.parametrize("fault", [Fault.NO_SPACE, Fault.EIO])
async def test_a_roll_that_fails_is_taken_back(
    disk: SimulatedDisk, name: str, fault: Fault, autojump_clock: trio.testing.MockClock
) -> None:
    """Without the next segment nothing is appended, also nothing small that the old one had room for."""
    async with open_log(disk) as wal:
        room = wal.append_bytes_max
        await wal.append([Entry("store:s1", 1, b"", bytes(room - 3_000))])
        await trio.testing.wait_all_tasks_blocked()
        fail_next(disk, name, fault)
        with pytest.raises(ReadOnly):
            await wal.append([Entry("store:s1", 2, b"", bytes(room // 2))])
        with pytest.raises(ReadOnly):
            await wal.append(entries("store:s1", 2, [10]))
        await trio.sleep(1.1)
        assert await wal.append(entries("store:s1", 2, [10])) == 2  # fits into the old segment
        for power in (False, True):
            killed = disk.copy()
            killed.power_cut() if power else killed.restart()
            async with open_log(killed, acked_floor=2) as again:
                assert again.head == 2
        assert await wal.append([Entry("store:s1", 3, b"", bytes(room // 2))]) == 3
        assert wal.statistics()["segments"] == 2
        disk.power_cut()
        disk.dead = True
    disk.restart()
    async with open_log(disk, acked_floor=3) as wal:
        assert wal.head == 3
    assert verify(FOLDER, disk).ok


async def test_a_batch_waits_for_the_spare_that_is_being_made(disk: SimulatedDisk) -> None:
    """A full segment without a spare is no error as long as nobody knows that none can be made."""
    async with open_log(disk) as wal, trio.open_nursery() as nursery:
        for version in range(
            1, 5
        ):  # each needs a segment; all are handed over before the first spare is there
            body = bytes(wal.append_bytes_max - 100)
            nursery.start_soon(wal.append, [Entry("store:s1", version, b"", body)])
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert wal.head == 4


@pytest.mark.parametrize(("name", "calls"), [("pwrite", 0), ("sync", 0), ("pwrite", 1)])
async def test_a_broken_disk_is_final(
    disk: SimulatedDisk, name: str, calls: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever waits, and whoever comes later, gets `UnknownOutcome`; nothing is written any more."""
    told: list[type[OndaError]] = []
    worker = InlineWorker()

    async def act(wal: Wal, stream: str) -> None:
        with pytest.raises(UnknownOutcome):
            await wal.append(entries(stream, 1, [100]))
        told.append(UnknownOutcome)

    async with open_log(disk, worker=worker) as wal:
        await wal.append(entries("store:s1", 1, [100]))
        await trio.sleep(0.2)
        if calls:  # first the disk is full, then wiping out the half frame fails
            disk.fail_at[disk.calls + 1] = Fault.SHORT_FULL
            disk.fail_at[disk.calls + 3] = Fault.EIO
        else:
            fail_next(disk, name, Fault.EIO)
        async with trio.open_nursery() as nursery:
            worker.hold()
            nursery.start_soon(act, wal, "table:s1/1")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(act, wal, "table:s1/2")
            await trio.testing.wait_all_tasks_blocked()
            worker.release()
        assert len(told) == 2
        made = disk.calls
        await act(wal, "table:s1/3")
        failure = await wal.wait_failed()
        assert isinstance(failure, LogFailed)
        assert isinstance(failure.__cause__, OSError)
        assert failure.__cause__.errno == errno.EIO
        assert not wal.writable
        assert wal.statistics()["failed"]
        await trio.sleep(60)
        assert disk.calls == made
        assert len(await read_all(wal)) == 1  # what was durable can still be read
    assert not verify(FOLDER, disk).clean


async def test_a_failed_sync_is_not_believed_after_a_restart(disk: SimulatedDisk) -> None:
    """What only the cache holds after a failed sync is not counted as durable by the next process."""
    for seed in range(40):
        disk = SimulatedDisk(seed)
        async with open_log(disk) as wal:
            await wal.append(entries("store:s1", 1, [100]))
            await trio.testing.wait_all_tasks_blocked()
            fail_next(disk, "sync", Fault.EIO)
            with pytest.raises(UnknownOutcome):
                await wal.append(entries("store:s1", 2, [9_000]))
        disk.restart()
        async with open_log(disk, acked_floor=1) as wal:
            head = wal.head
            last = await wal.append(entries("table:s1/1", 1, [100]))
            disk.power_cut()
            disk.dead = True
        disk.restart()
        async with open_log(disk, acked_floor=last) as wal:
            assert wal.head == last == head + 1


async def test_damage_found_while_reading_is_an_error(disk: SimulatedDisk) -> None:
    """A damaged frame or a disk that does not deliver is never the end of the log."""
    async with open_log(disk) as wal:
        for version in range(1, 30):
            await wal.append(entries("store:s1", version, [2_000]))
        disk.flip(segment(2), 9_000, 3)
        with pytest.raises(LogCorrupt) as caught:
            await read_all(wal)
        assert caught.value.file == segment(2)
        fail_next(disk, "pread", Fault.EIO)
        with pytest.raises(LogFailed):
            await wal.read(0)
        assert len(await wal.read(0, 10)) == 1
        assert await wal.append(entries("store:s1", 30, [100])) == 30


async def test_trimming_that_fails_is_done_the_next_time(disk: SimulatedDisk) -> None:
    """Segments go strictly from the oldest on, whatever fails in between: there is never a hole."""
    for name, fault in (("unlink", Fault.EIO), ("sync_folder", Fault.EIO), ("unlink", Fault.NO_SPACE)):
        disk = SimulatedDisk()
        async with open_log(disk) as wal:
            for version in range(1, 60):
                await wal.append(entries("store:s1", version, [2_000]))
            await trio.testing.wait_all_tasks_blocked()
            fail_next(disk, name, fault, after=1)
            await wal.trim(40)
            first = wal.first
            with pytest.raises(CursorUnusable):
                await wal.read(first - 2)
            numbers = [int(name[:10]) for name in disk.names(FOLDER) if name.endswith(".seg")]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            await wal.trim(40)
            left = [int(name[:10]) for name in disk.names(FOLDER) if name.endswith(".seg")]
            assert left[0] > 2
            assert wal.first == first
        async with open_log(disk) as wal:
            assert (wal.first, wal.head) == (first, 59)


@pytest.mark.parametrize("name", ["create", "pwrite", "sync", "rename", "sync_folder"])
@pytest.mark.parametrize("fault", [Fault.EIO, Fault.NO_SPACE])
async def test_a_spare_that_cannot_be_made_is_no_failure(
    disk: SimulatedDisk, name: str, fault: Fault, autojump_clock: trio.testing.MockClock
) -> None:
    """An error while preparing a segment throws the new file away; the log goes on with what it has."""
    async with open_log(disk) as wal:
        fail_next(disk, name, fault)
        await trio.testing.wait_all_tasks_blocked()
        assert not wal.statistics()["spare"]
        for version in range(1, 8):
            await wal.append(entries("store:s1", version, [3_000]))
        await trio.sleep(1.1)
        assert wal.statistics()["spare"]
        for version in range(8, 30):
            await wal.append(entries("store:s1", version, [3_000]))
        assert len(await read_all(wal)) == 29


async def test_a_fault_of_ours_ends_the_log_and_nobody_waits_for_ever(disk: SimulatedDisk) -> None:
    """Whatever goes wrong while a batch is being reported, the log fails instead of hanging."""

    def broken(seconds: float, entries: int) -> None:
        raise RuntimeError("a metric")

    async with open_log(disk, on_sync=broken) as wal:
        assert await wal.append(entries("store:s1", 1, [100])) == 1
        failure = await wal.wait_failed()
        assert isinstance(failure.__cause__, RuntimeError)
        with pytest.raises(UnknownOutcome):
            await wal.append(entries("store:s1", 2, [100]))
