"""A copy of a running log, and a node's folder made out of it, on the real disk."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import sqlite3

import pytest
import trio

from engine.errors import ConfigError, LogCorrupt
from engine.log.backup import backup, restore
from engine.log.disk import OSDisk
from engine.log.segments import INCOMPLETE
from engine.log.verify import verify
from engine.log.wal import Wal, open_wal
from engine.records import Entry
from tests.log.journal import check_versions, read_all

SEGMENT_BYTES = 1 << 16


@contextlib.asynccontextmanager
async def running(folder: pathlib.Path) -> Wal:
    """Open a log beside a checkpoint, as a node does."""
    (folder / "log").mkdir(parents=True, exist_ok=True)
    async with open_wal(str(folder / "log"), segment_bytes=SEGMENT_BYTES, reserve_bytes=0) as wal:
        yield wal


def take_checkpoint(folder: pathlib.Path, position: int) -> None:
    """Note a position in `checkpoint.db`."""
    with contextlib.closing(sqlite3.connect(folder / "checkpoint.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE IF NOT EXISTS meta (position INTEGER)")
        with db:
            db.execute("DELETE FROM meta")
            db.execute("INSERT INTO meta VALUES (?)", (position,))


def checkpoint_of(folder: pathlib.Path) -> int:
    """Return that position."""
    with contextlib.closing(sqlite3.connect(folder / "checkpoint.db")) as db:
        position: int = db.execute("SELECT position FROM meta").fetchone()[0]
        return position


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Return what a folder holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_copying_a_running_log(tmp_path: pathlib.Path) -> None:
    """While ten tasks append, and checkpoints and trimming go on, each copy holds all that was acknowledged
    before it began; restored, it verifies, has a new epoch and takes appends.
    """
    data = tmp_path / "data"
    copied: list[tuple[int, pathlib.Path]] = []
    async with running(data) as wal:
        stop = False

        async def act(stream: str) -> None:
            version = 0
            while not stop:
                version += 1
                await wal.append([Entry(stream, version, b"", b"x" * (version % 900))])

        async def trim() -> None:
            while not stop:
                take_checkpoint(data, wal.head)
                await wal.trim(wal.head)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(act, f"table:s1/{number}")
            while wal.statistics()["segments"] < 3:
                await trio.sleep(0.005)
            take_checkpoint(data, 1)
            nursery.start_soon(trim)
            for number in range(6):
                before = wal.head
                target = tmp_path / f"copy-{number}"
                done = await trio.to_thread.run_sync(backup, str(data), str(target))
                assert before <= done.head <= wal.head + 10  # a batch is on disk before its tasks are told
                assert done.epoch == wal.epoch
                assert done.databases == ["checkpoint.db"]
                copied.append((done.head, target))
            stop = True

    for head, copy in copied:
        restored = tmp_path / f"restored-{copy.name}"
        before = files(copy)
        done = restore(str(copy), str(restored))
        assert files(copy) == before
        assert done.head == head
        assert verify(str(restored / "log")).ok
        assert done.first <= checkpoint_of(restored) + 1 <= head + 1
        for opened in range(2):
            async with running(restored) as again:
                assert again.epoch == done.epoch != wal.epoch
                assert again.head == head + opened
                check_versions(await read_all(again, 1 << 20))
                await again.append([Entry("table:new/1", opened + 1, b"", b"{}")])


async def test_copying_a_stopped_log(tmp_path: pathlib.Path) -> None:
    """All entries, the checkpoint and the key of the tokens are in the copy, and come back from it."""
    data, copy, restored = tmp_path / "data", tmp_path / "copy", tmp_path / "new" / "restored"
    async with running(data) as wal:
        for version in range(1, 200):
            await wal.append([Entry("store:s1", version, b"m", b"x" * version)])
        found = await read_all(wal)
    take_checkpoint(data, 150)
    (data / "secret").write_text("key")
    assert backup(str(data), str(copy)).head == 199
    assert restore(str(copy), str(restored)).head == 199
    assert (restored / "secret").read_text() == "key"
    assert checkpoint_of(restored) == 150
    async with running(restored) as wal:
        assert await read_all(wal) == found


async def test_a_backup_is_only_restored_from(tmp_path: pathlib.Path) -> None:
    """Nobody goes on in a backup itself: its epoch is that of the log it was taken from."""
    async with running(tmp_path / "data") as wal:
        await wal.append([Entry("store:s1", 1, b"", b"{}")])
    backup(str(tmp_path / "data"), str(tmp_path / "copy"))
    with pytest.raises(LogCorrupt, match="restore it"):
        async with running(tmp_path / "copy"):
            pass
    assert verify(str(tmp_path / "copy" / "log")).ok
    backup(str(tmp_path / "copy"), str(tmp_path / "copy-of-copy"))
    assert restore(str(tmp_path / "copy-of-copy"), str(tmp_path / "restored")).head == 1
    async with running(tmp_path / "restored") as again:
        assert again.epoch != wal.epoch


async def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: pathlib.Path) -> None:
    """Neither a backup nor a restore is ever mixed with something else."""
    async with running(tmp_path / "data") as wal:
        await wal.append([Entry("store:s1", 1, b"", b"{}")])
    backup(str(tmp_path / "data"), str(tmp_path / "copy"))
    full = tmp_path / "full"
    full.mkdir()
    (full / "photo.jpg").write_bytes(b"x")
    for take in (backup, restore):
        with pytest.raises(ConfigError, match="not empty"):
            take(str(tmp_path / "copy"), str(full))
    assert files(full) == {"photo.jpg": b"x"}
    with pytest.raises(ConfigError, match="no log"):
        backup(str(full), str(tmp_path / "nothing"))


async def test_a_damaged_backup_is_not_restored(tmp_path: pathlib.Path) -> None:
    """A flipped bit is found before anything is made; a damaged log is not silently copied either."""
    async with running(tmp_path / "data") as wal:
        for version in range(1, 200):
            await wal.append([Entry("store:s1", version, b"", b"x" * 900)])
    backup(str(tmp_path / "data"), str(tmp_path / "copy"))
    for folder in ("copy", "data"):
        path = tmp_path / folder / "log" / "0000000001.seg"
        damaged = bytearray(path.read_bytes())
        damaged[20_000] ^= 4
        path.write_bytes(damaged)
    with pytest.raises(LogCorrupt):
        restore(str(tmp_path / "copy"), str(tmp_path / "restored"))
    assert not (tmp_path / "restored").exists()
    with pytest.raises(LogCorrupt):
        backup(str(tmp_path / "data"), str(tmp_path / "again"))
    assert (tmp_path / "again" / "log" / INCOMPLETE).exists()


class _Failing(OSDisk):
    """Fails after a number of writes."""

    def __init__(self, writes: int) -> None:
        self.writes = writes

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        self.writes -= 1
        if self.writes < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(file, data, offset)


@pytest.mark.parametrize("take", [backup, restore])
async def test_an_unfinished_copy_is_never_opened(tmp_path: pathlib.Path, take: object) -> None:
    """A copy that ended in the middle is refused as a log and as a backup, however much of it is there."""
    async with running(tmp_path / "data") as wal:
        for version in range(1, 200):
            await wal.append([Entry("store:s1", version, b"", b"x" * 900)])
    backup(str(tmp_path / "data"), str(tmp_path / "copy"))
    for writes in range(3):
        target = tmp_path / f"target-{writes}"
        with pytest.raises(OSError, match="No space"):
            take(str(tmp_path / "copy"), str(target), _Failing(writes))  # type: ignore[operator]
        with pytest.raises(LogCorrupt, match="not finished"):
            async with running(target):
                pass
        with pytest.raises(LogCorrupt, match="not finished"):
            restore(str(target), str(tmp_path / "x"))
