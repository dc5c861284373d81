"""The write-ahead log as its callers see it: batches, bounds, seals, cancelling, ending."""

from __future__ import annotations

import pathlib
import random

import pytest
import trio
import trio.testing

from engine.errors import ConfigError, LogLocked, LogTooNew, Overloaded, Stopping
from engine.log import frames
from engine.log.frames import SegmentHeader
from engine.log.truncate import truncate_at
from engine.log.verify import verify
from engine.log.wal import open_wal
from engine.records import Entry
from tests.log.journal import read_all
from tests.log.simulated import FOLDER, SEGMENT_BYTES, entries, open_log, segment
from tests.simulation.disk import SimulatedDisk
from tests.simulation.worker import InlineWorker


@pytest.fixture
def disk() -> SimulatedDisk:
    """An empty disk."""
    return SimulatedDisk()


async def test_everyone_who_waits_shares_one_sync(disk: SimulatedDisk) -> None:
    """Fifty tasks that append at the same moment cost one write and one sync."""
    async with open_log(disk) as wal:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(wal.append, entries(f"table:s1/{number}", 1, [50]))
        statistics = wal.statistics()
        assert (statistics["appends"], statistics["entries"], statistics["batches"]) == (50, 50, 1)


async def test_the_next_batch_gathers_while_one_is_under_way(disk: SimulatedDisk) -> None:
    """What arrives during a sync becomes one batch; nothing of it counts as durable before."""
    worker = InlineWorker()
    async with open_log(disk, worker=worker) as wal, trio.open_nursery() as nursery:
        worker.hold()
        for number in range(10):
            nursery.start_soon(wal.append, entries(f"table:s1/{number}", 1, [50]))
            await trio.testing.wait_all_tasks_blocked()
        assert worker.waiting == 1
        assert (wal.head, await wal.read(0)) == (0, [])
        worker.release()
        await trio.testing.wait_all_tasks_blocked()
        assert (wal.head, wal.statistics()["batches"]) == (10, 2)


async def test_cancelling_one_waiter_leaves_the_others(disk: SimulatedDisk) -> None:
    """A cancelled append becomes durable with its batch; only its caller does not hear of it."""
    worker = InlineWorker()
    positions = []

    async def act(stream: str) -> None:
        positions.append(await wal.append(entries(stream, 1, [50])))

    async with open_log(disk, worker=worker) as wal, trio.open_nursery() as nursery:
        worker.hold()
        with trio.CancelScope() as scope:
            nursery.start_soon(act, "store:a")
            async with trio.open_nursery() as cancelled:
                cancelled.start_soon(act, "store:b")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        nursery.start_soon(act, "store:c")
        await trio.testing.wait_all_tasks_blocked()
        worker.release()
        await trio.testing.wait_all_tasks_blocked()
        assert len(positions) == 2
        assert wal.head == 3
        assert {entry.stream for _, entry in await wal.read(0)} == {"store:a", "store:b", "store:c"}


@pytest.mark.parametrize("bound", [{"queue_entries_max": 5}, {"queue_bytes_max": 4_400}])
async def test_the_queue_is_bounded(disk: SimulatedDisk, bound: dict[str, int]) -> None:
    """What does not fit into the queue is refused at once, and nothing of it happens."""
    worker = InlineWorker()
    async with open_log(disk, worker=worker, **bound) as wal, trio.open_nursery() as nursery:
        worker.hold()
        for number in range(6):  # one is under way, five wait
            nursery.start_soon(wal.append, entries(f"table:s1/{number}", 1, [800]))
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await wal.append(entries("store:s1", 1, [800]))
        worker.release()
        await trio.testing.wait_all_tasks_blocked()
        assert await wal.append(entries("store:s1", 1, [800])) == 7
        assert wal.statistics()["refused"] == 1


async def test_the_largest_append_fits_and_one_more_byte_is_refused(disk: SimulatedDisk) -> None:
    """`append_bytes_max` is what fits into a segment of its own."""
    async with open_log(disk) as wal:
        room = wal.append_bytes_max - frames.entry_bytes(Entry("store:s1", 1, b"", b""))
        assert room > SEGMENT_BYTES * 3 // 4
        with pytest.raises(ValueError, match="bytes"):
            await wal.append([Entry("store:s1", 1, b"", bytes(room + 1))])
        for version in (1, 2, 3):
            await wal.append([Entry("store:s1", version, b"", bytes(room))])
        assert wal.statistics()["segments"] == 3
        assert [len(entry.body) for _, entry in await read_all(wal)] == [room] * 3


@pytest.mark.parametrize("options", [{"pad": 512}, {"segment_bytes": 10_000}, {"segment_bytes": 4096}])
async def test_settings_that_make_no_sense_are_refused(disk: SimulatedDisk, options: dict[str, int]) -> None:
    """A log that could not hold anything is a fault of the settings, found before anything is made."""
    with pytest.raises(ConfigError):
        async with open_log(disk, **options):
            pass
    assert disk.calls == 0


async def test_an_idle_log_is_sealed_once(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock
) -> None:
    """After 50 ms without an append one seal is written, and no more until the next append."""
    async with open_log(disk) as wal:
        await trio.sleep(1)
        assert wal.statistics()["seals"] == 0
        for version in (1, 2):
            await wal.append(entries("store:s1", version, [50]))
            assert wal.statistics()["seals"] == version - 1
            await trio.sleep(0.11)
            assert wal.statistics()["seals"] == version
            calls = disk.calls
            await trio.sleep(60)
            assert disk.calls == calls
    assert verify(FOLDER, disk).frames == 5


async def test_an_orderly_end_leaves_its_mark(disk: SimulatedDisk) -> None:
    """A clean seal is the last thing; opening again writes nothing new over the segment."""
    async with open_log(disk) as wal:
        await wal.append(entries("store:s1", 1, [50]))
    assert verify(FOLDER, disk).clean
    before = disk.content(segment(1))
    async with open_log(disk) as wal:
        assert wal.head == 1
    assert disk.content(segment(1)) == before


async def test_batches_fill_a_segment_before_the_next_is_begun(disk: SimulatedDisk) -> None:
    """A queue larger than what is left is split between appends, never within one."""
    worker = InlineWorker()
    async with open_log(disk, worker=worker) as wal, trio.open_nursery() as nursery:
        worker.hold()
        for number in range(30):
            nursery.start_soon(wal.append, entries(f"table:s1/{number}", 1, [1_000, 1_000]))
            await trio.testing.wait_all_tasks_blocked()
        worker.release()
        await trio.testing.wait_all_tasks_blocked()
        assert wal.head == 60
        assert wal.statistics()["batches"] == 4  # one append, then 26 KiB each
        assert wal.statistics()["segments"] == 3
        found = await read_all(wal)
    assert all(found[at][1].stream == found[at + 1][1].stream for at in range(0, 60, 2))


async def test_padded_frames_begin_at_sectors(disk: SimulatedDisk) -> None:
    """With `pad` no acknowledged byte shares 4096 bytes with a later batch."""
    async with open_log(disk, pad=4096) as wal:
        for version in (1, 2, 3):
            await wal.append(entries("store:s1", version, [50]))
    data = disk.content(segment(1))
    assert [at for at in range(0, len(data), 8) if data[at : at + 4] == b"\xf6ONF"] == [
        4096,
        8192,
        12288,
        16384,
    ]


async def test_a_log_has_one_owner(tmp_path: pathlib.Path) -> None:
    """A second one is refused while the first is open, and not afterwards."""
    folder = str(tmp_path)
    async with open_wal(folder, reserve_bytes=0, segment_bytes=1 << 16) as wal:
        with pytest.raises(LogLocked, match="process"):
            async with open_wal(folder):
                pass
        await wal.append(entries("store:s1", 1, [50]))
    async with open_wal(folder, segment_bytes=1 << 16) as wal:
        assert wal.head == 1


async def test_a_newer_log_is_left_alone(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a newer version can read is refused, and not a byte changes."""
    with monkeypatch.context() as newer:
        newer.setattr(frames, "FORMAT", 7)
        newer.setattr(frames, "MIN_READER", 7)
        async with open_log(disk) as wal:
            await wal.append(entries("store:s1", 1, [50]))
    before = disk.content(segment(1)), disk.names(FOLDER)
    with pytest.raises(LogTooNew, match="7"):
        async with open_log(disk):
            pass
    assert (disk.content(segment(1)), disk.names(FOLDER)) == before


async def test_a_log_keeps_its_epoch(tmp_path: pathlib.Path) -> None:
    """The epoch is eight letters and digits, another one for each log, and stays."""
    epochs = []
    for name in ("a", "b", "a"):
        async with open_wal(str(tmp_path / name), segment_bytes=1 << 16, reserve_bytes=0) as wal:
            epochs.append(wal.epoch)
    assert epochs[0] == epochs[2] != epochs[1]
    assert SegmentHeader(8, bytes(16), epochs[0], 1, 1 << 16, 1, 1, 0) == frames.unpack_segment(
        frames.pack_segment(SegmentHeader(8, bytes(16), epochs[0], 1, 1 << 16, 1, 1, 0))
    )


async def test_the_end_finishes_what_waits(disk: SimulatedDisk) -> None:
    """Appends that were taken become durable although the log is being closed; later ones are refused."""
    worker = InlineWorker()
    positions = []

    async def act(stream: str) -> None:
        positions.append(await wal.append(entries(stream, 1, [50])))

    async with trio.open_nursery() as nursery:
        async with open_log(disk, worker=worker) as wal:
            worker.hold()
            nursery.start_soon(act, "store:a")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(act, "store:b")
            await trio.testing.wait_all_tasks_blocked()
            worker.release()
        assert not wal.writable
        with pytest.raises(Stopping):
            await wal.append(entries("store:c", 1, [50]))
    assert positions == [1, 2]


async def test_an_error_of_the_body_comes_out_as_it_is(disk: SimulatedDisk) -> None:
    """The log's own tasks do not wrap what the caller raises, and a cancelled caller stays cancelled."""
    with pytest.raises(KeyError):
        async with open_log(disk):
            raise KeyError("mine")
    with trio.move_on_after(0) as scope:
        async with open_log(disk):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert verify(FOLDER, disk).clean


async def test_what_operators_see(disk: SimulatedDisk, autojump_clock: trio.testing.MockClock) -> None:
    """Batches are reported with their time; one that took longer than a second is counted."""
    worker = InlineWorker()
    syncs: list[tuple[float, int]] = []
    async with (
        open_log(disk, worker=worker, on_sync=lambda s, n: syncs.append((s, n))) as wal,
        trio.open_nursery() as nursery,
    ):
        worker.hold()
        nursery.start_soon(wal.append, entries("store:s1", 1, [50, 50]))
        await trio.sleep(2)
        assert wal.statistics()["outstanding_s"] == pytest.approx(2)
        worker.release()
        await trio.testing.wait_all_tasks_blocked()
        assert syncs == [(pytest.approx(2), 2)]
        statistics = wal.statistics()
        assert (statistics["slow_syncs"], statistics["sync_s_max"]) == (1, pytest.approx(2))
        assert (statistics["segments"], statistics["bytes"]) == (1, SEGMENT_BYTES)
        assert (statistics["head"], statistics["first"], statistics["torn_bytes"]) == (2, 1, 0)


@pytest.mark.parametrize("pad", [0, 4096])
@pytest.mark.parametrize("seed", range(12))
async def test_a_segment_that_is_full_to_the_brim(
    disk: SimulatedDisk, pad: int, seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """However a process idles, ends or is killed behind the last batch, the mark still fits when it rolls."""
    source = random.Random(seed)
    async with open_log(disk, pad=pad) as wal:
        writer = wal._commit.writer
        assert writer is not None
        room = writer.room - frames.entry_bytes(Entry("store:s1", 1, b"", b""))
        await wal.append([Entry("store:s1", 1, b"", bytes(room - room % 8))])
        assert writer.room == 0
    for _ in range(6):
        how = source.choice(("idle", "kill", "end", "truncate"))
        if how == "truncate":
            truncate_at(FOLDER, 1, disk)
            continue
        async with open_log(disk, pad=pad) as wal:
            if how == "idle":
                await trio.sleep(1)
            disk.dead = how == "kill"
        disk.restart()
    async with open_log(disk, pad=pad) as wal:
        assert await wal.append([Entry("store:s1", 2, b"", b"{}")]) == 2
        assert wal.statistics()["segments"] == 2
    assert verify(FOLDER, disk).ok
    async with open_log(disk, pad=pad) as wal:
        assert wal.head == 2


async def test_numbers_that_are_too_large_for_the_format_are_refused(disk: SimulatedDisk) -> None:
    """They are a fault of the caller and leave nothing behind."""
    async with open_log(disk) as wal:
        for entry in (Entry("x" * 70_000, 1, b"", b""), Entry("store:s1", 1 << 64, b"", b"")):
            with pytest.raises(ValueError, match="version"):
                await wal.append([entry])
        assert await wal.append(entries("store:s1", 1, [10])) == 1


@pytest.mark.parametrize("bytes_max", [1, 1 << 20])
async def test_frames_larger_than_one_read_are_read(tmp_path: pathlib.Path, bytes_max: int) -> None:
    """Several MB in one batch, as when all of a busy evening writes at once: not taken for damage."""
    async with open_wal(str(tmp_path)) as wal:
        sizes = [3 << 20, 2 << 20, 100, 3 << 20]
        for version, size in enumerate(sizes, 1):
            await wal.append(entries("store:s1", version, [size]))
        found: list[int] = []
        while len(found) < len(sizes):
            found += [len(entry.body) for _, entry in await wal.read(len(found), bytes_max)]
        assert [size >= wanted for size, wanted in zip(found, sizes, strict=True)] == [True] * 4
