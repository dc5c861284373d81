"""The machine's disk and the simulated one: both do what the log expects of a disk."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from engine.errors import LogLocked
from engine.log.disk import Disk, OSDisk, opened, read_all, write_all, zero
from tests.simulation.disk import Fault, SimulatedDisk


@pytest.fixture(params=["machine", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[Disk, str]:
    """A disk and a folder on it."""
    disk: Disk = OSDisk() if request.param == "machine" else SimulatedDisk()
    folder = str(tmp_path / "a" / "b") if request.param == "machine" else "/a/b"
    disk.make_folder(folder)
    disk.make_folder(folder)
    return disk, folder


def test_files(place: tuple[Disk, str]) -> None:
    """Create, write, read, rename over, list, remove."""
    disk, folder = place
    one, two = f"{folder}/one", f"{folder}/two"
    for path, data in ((one, b"first"), (two, b"second")):
        with opened(disk, path, create=True) as file:
            write_all(disk, file, data, 3)
            disk.sync(file)
            assert disk.size(file) == 3 + len(data)
    disk.sync_folder(folder)
    assert disk.list(folder) == ["one", "two"]
    with pytest.raises(FileExistsError), opened(disk, one, create=True):
        pass
    with opened(disk, one) as held:
        disk.rename(two, one)
        assert read_all(disk, held, 100) == b"\0\0\0first"
        disk.drop_cache(held)
    with opened(disk, one, write=True) as file:
        assert read_all(disk, file, 4, 4) == b"econ"
        disk.truncate(file, 6)
        assert read_all(disk, file, 100) == b"\0\0\0sec"
        disk.truncate(file, 8)
        assert read_all(disk, file, 100) == b"\0\0\0sec\0\0"
        zero(disk, file, 2, 3_000_000)
        assert disk.size(file) == 3_000_000
        assert not read_all(disk, file, 3_000_000).strip(b"\0")
    disk.unlink(one)
    assert disk.list(folder) == []
    with pytest.raises(FileNotFoundError), opened(disk, one):
        pass
    with pytest.raises(FileNotFoundError):
        disk.unlink(one)
    assert disk.free(folder) > 0


def test_locks(place: tuple[Disk, str]) -> None:
    """A lock has one owner, in this process too, and can be taken again afterwards."""
    disk, folder = place
    path = f"{folder}/LOCK"
    lock = disk.lock(path, "me")
    with pytest.raises(LogLocked):
        disk.lock(path, "you")
    disk.unlock(lock)
    disk.unlock(disk.lock(path, "you"))


def test_a_lock_goes_with_its_process(tmp_path: pathlib.Path) -> None:
    """Another process is refused and told who owns it; when the owner dies, the lock is free."""
    path = str(tmp_path / "LOCK")
    script = (
        "import sys; from engine.log.disk import OSDisk; OSDisk().lock(sys.argv[1], 'the till');"
        "print(1, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        with pytest.raises(LogLocked, match="the till"):
            OSDisk().lock(path, "me")
        process.kill()
        process.wait(10)
        lock = OSDisk().lock(path, "me")
    OSDisk().unlock(lock)


def test_writing_goes_on_after_a_short_write() -> None:
    """A write that takes a part is continued until all is there."""
    disk = SimulatedDisk()
    disk.make_folder("/a")
    with opened(disk, "/a/one", create=True) as file:
        disk.fail_at = dict.fromkeys(range(disk.calls + 1, disk.calls + 5), Fault.SHORT)
        write_all(disk, file, bytes(range(200)), 0)
        assert read_all(disk, file, 300) == bytes(range(200))
        assert disk.trace.count("pwrite") == 5


class TestPowerCut:
    """The simulated disk loses what it may, and nothing else."""

    def test_unsynced_sectors_survive_one_by_one(self) -> None:
        """Over many seeds every combination of two sectors is seen, and synced bytes never change."""
        seen = set()
        for seed in range(200):
            disk = SimulatedDisk(seed)
            disk.make_folder("/a")
            with opened(disk, "/a/one", create=True) as file:
                write_all(disk, file, b"s" * 2048, 0)
                disk.sync(file)
                disk.sync_folder("/a")
                write_all(disk, file, b"n" * 1024, 1024)
            disk.power_cut()
            data = disk.content("/a/one")
            assert data[:1024] == b"s" * 1024
            seen.add((data[1024:1536], data[1536:]))
        assert len(seen) == 4

    def test_names_need_their_folder_synced(self) -> None:
        """A new name, a rename and a removal may each be lost until then, and are not afterwards."""
        outcomes = set()
        for seed in range(100):
            disk = SimulatedDisk(seed)
            disk.make_folder("/a")
            for name in ("/a/one", "/a/two"):
                with opened(disk, name, create=True) as file:
                    write_all(disk, file, name.encode(), 0)
                    disk.sync(file)
            disk.sync_folder("/a")
            disk.rename("/a/two", "/a/three")
            disk.unlink("/a/one")
            if seed % 2:
                disk.sync_folder("/a")
            disk.power_cut()
            if seed % 2:
                assert disk.names("/a") == ["three"]
            else:
                outcomes.add(tuple(disk.names("/a")))
        assert outcomes == {("one", "two"), ("three",), ("two",), ("one", "three")}

    def test_a_failed_sync_leaves_a_cache_that_lies(self) -> None:
        """What it did not write can be read until the cache is dropped; a later sync does not write it."""
        lied = 0
        for seed in range(50):
            disk = SimulatedDisk(seed)
            disk.make_folder("/a")
            with opened(disk, "/a/one", create=True) as file:
                write_all(disk, file, b"s" * 512, 0)
                disk.sync(file)
                disk.sync_folder("/a")
                write_all(disk, file, b"n" * 512, 0)
                disk.fail_at = {disk.calls + 1: Fault.EIO}
                with pytest.raises(OSError, match="simulated"):
                    disk.sync(file)
                assert read_all(disk, file, 512) == b"n" * 512
                disk.sync(file)
                disk.drop_cache(file)
                lied += read_all(disk, file, 512) == b"s" * 512
        assert 5 < lied < 45
