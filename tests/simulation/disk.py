"""A disk in memory that loses, tears, reorders and refuses what a real one may, from a seed.

What a sync has not confirmed is only in the cache: at a power cut each sector of it has its old content or
that of any later write, independently; each name keeps its old or a newer file. A killed process leaves the
cache as it is. A failed sync leaves pages in the cache that are taken for clean and never reach the disk.
"""

from __future__ import annotations

import enum
import errno
import os
import posixpath
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from engine.errors import LogLocked

SECTOR = 512
PAGE = 4096


class Fault(enum.Enum):
    """What happens instead of the n-th call."""

    EIO = "EIO"
    NO_SPACE = "no space"
    SHORT = "half of a write is taken"
    SHORT_FULL = "half of a write is taken, then there is no space"
    KILL = "the process is killed"
    POWER = "the power goes"


class Stopped(OSError):
    """The process is dead: no call of it has an effect any more."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the process is dead")


@dataclass(eq=False)
class Inode:
    """A file: what the cache says, what the disk has, and the dirty pages between them, in the order of
    writing.
    """

    cached: bytearray = field(default_factory=bytearray)
    stored: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, bytes]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


@dataclass
class _Folder:
    """Names in the cache, names on the disk, and the changes between them."""

    cached: dict[str, Inode] = field(default_factory=dict)
    stored: dict[str, Inode] = field(default_factory=dict)
    dirty: list[Callable[[dict[str, Inode]], object]] = field(default_factory=list)


class SimulatedDisk:
    """Keeps the contract of `engine.log.disk.Disk`.

    Attributes:
        calls: how many calls that can fail have been made.
        trace: their names, for messages.
        fail_at: number of the call → what happens instead.
        capacity: bytes that fit; None for no bound.
        torn_sectors: at a power cut, a sector that was being written may hold garbage, and so its whole page.
    """

    def __init__(self, seed: int = 0, *, capacity: int | None = None, torn_sectors: bool = False) -> None:
        self.random = random.Random(seed)
        self.calls = 0
        self.trace: list[str] = []
        self.fail_at: dict[int, Fault] = {}
        self.capacity = capacity
        self.torn_sectors = torn_sectors
        self.dead = False
        self._full = 0
        self._folders: dict[str, _Folder] = {}
        self._files: dict[int, Inode] = {}
        self._next_file = 3
        self._locks: dict[int, str] = {}

    # What tests do to it

    def restart(self) -> None:
        """Start the next process after `KILL`, or after the old one ended by itself."""
        self.dead = False
        self._full = 0
        self._files.clear()
        self._locks.clear()

    def power_cut(self) -> None:
        """Lose what was not synced, as the seed has it, and start the next process."""
        style = self.random.choice(("nothing", "everything", "any", "any"))
        for folder in self._folders.values():
            survive = _chooser(self.random, style)
            for change in folder.dirty:
                if survive():
                    change(folder.stored)
            folder.cached = dict(folder.stored)
            folder.dirty.clear()
        for inode in {inode for folder in self._folders.values() for inode in folder.stored.values()}:
            self._settle(inode, _chooser(self.random, style))
            inode.cached = bytearray(inode.stored)
        self.restart()

    def flip(self, path: str, offset: int, bit: int) -> None:
        """Damage one bit, on the disk and in the cache."""
        inode = self._inode(path)
        inode.cached[offset] ^= 1 << bit
        inode.stored[offset] ^= 1 << bit

    def overwrite(self, path: str, offset: int, data: bytes) -> None:
        """Put bytes somewhere, on the disk and in the cache, without the log knowing."""
        inode = self._inode(path)
        inode.cached[offset : offset + len(data)] = data
        inode.stored[offset : offset + len(data)] = data

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; unlike `list` this is no call of the process under test."""
        return sorted(posixpath.basename(path) for path in self._folders[folder].cached)

    def content(self, path: str) -> bytes:
        """Return what a file holds."""
        return bytes(self._inode(path).cached)

    def put(self, path: str, data: bytes) -> None:
        """Have a file, durably."""
        folder = self._folder(path)
        inode = Inode(bytearray(data), bytearray(data))
        folder.cached[path] = folder.stored[path] = inode

    def remove(self, path: str) -> None:
        """Have no such file, durably."""
        folder = self._folder(path)
        del folder.cached[path]
        folder.stored.pop(path, None)

    def copy(self) -> SimulatedDisk:
        """Return an independent disk with the same content, everything durable."""
        twin = SimulatedDisk(self.random.randrange(1 << 30), capacity=self.capacity)
        for name, folder in self._folders.items():
            twin._folders[name] = _Folder()
            for path, inode in folder.cached.items():
                twin.put(path, bytes(inode.cached))
        return twin

    # The contract

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:
        self._call("create" if create else "open", path, space=create)
        folder = self._folder(path)
        if create:
            if path in folder.cached:
                raise FileExistsError(errno.EEXIST, "exists", path)
            inode = Inode()
            folder.cached[path] = inode
            folder.dirty.append(lambda names: names.__setitem__(path, inode))
        elif path not in folder.cached:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        file = self._next_file
        self._next_file += 1
        self._files[file] = folder.cached[path]
        return file

    def close(self, file: int) -> None:
        if not self.dead:
            del self._files[file]

    def pread(self, file: int, size: int, offset: int) -> bytes:
        self._call("pread")
        return bytes(self._files[file].cached[offset : offset + size])

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        short = self._call("pwrite", space=True)
        inode = self._files[file]
        taken = bytes(data[: max(1, len(data) // 2)] if short else data)
        end = offset + len(taken)
        if end > len(inode.cached):
            self._need(end - len(inode.cached))
            inode.cached.extend(bytes(end - len(inode.cached)))
            inode.sizes.append(end)
        inode.cached[offset:end] = taken
        start = offset - offset % PAGE
        inode.dirty.append((start, bytes(inode.cached[start : end + -end % PAGE])))
        return len(taken)

    def sync(self, file: int) -> None:
        inode = self._files.get(file)
        try:
            self._call("sync", space=True)
        except Stopped:
            raise
        except OSError:
            assert inode is not None
            self._settle(inode, _chooser(self.random, "any"))
            raise
        assert inode is not None
        self._settle(inode, _chooser(self.random, "everything"))

    def sync_folder(self, path: str) -> None:
        self._call("sync_folder", path, space=True)
        folder = self._folders[path]
        for change in folder.dirty:
            change(folder.stored)
        folder.dirty.clear()

    def rename(self, old: str, new: str) -> None:
        self._call("rename", f"{old} {new}", space=True)
        folder = self._folder(old)
        inode = self._inode(old)

        def change(names: dict[str, Inode]) -> None:
            if names.get(old) is inode:
                del names[old]
            names[new] = inode

        change(folder.cached)
        folder.dirty.append(change)

    def unlink(self, path: str) -> None:
        self._call("unlink", path)
        folder = self._folder(path)
        inode = self._inode(path)

        def change(names: dict[str, Inode]) -> None:
            if names.get(path) is inode:
                del names[path]

        change(folder.cached)
        folder.dirty.append(change)

    def truncate(self, file: int, size: int) -> None:
        self._call("truncate", space=True)
        inode = self._files[file]
        del inode.cached[size:]
        inode.cached.extend(bytes(size - len(inode.cached)))
        inode.sizes.append(size)

    def list(self, folder: str) -> list[str]:
        self._call("list", folder)
        return self.names(folder)

    def make_folder(self, path: str) -> None:
        self._folders.setdefault(path, _Folder())

    def size(self, file: int) -> int:
        return len(self._files[file].cached)

    def free(self, folder: str) -> int:
        return 1 << 40 if self.capacity is None else max(0, self.capacity - self.used)

    @property
    def used(self) -> int:
        """Bytes of all files."""
        inodes = {inode for folder in self._folders.values() for inode in folder.cached.values()}
        return sum(len(inode.cached) for inode in inodes)

    def drop_cache(self, file: int) -> bool:
        inode = self._files[file]
        if not inode.dirty and not inode.sizes:
            inode.cached = bytearray(inode.stored)
        return True

    def lock(self, path: str, text: str) -> int:
        self._call("lock", path, space=True)
        if path in self._locks.values():
            raise LogLocked(path)
        self._next_file += 1
        self._locks[self._next_file] = path
        return self._next_file

    def unlock(self, lock: int) -> None:
        self._locks.pop(lock, None)

    # How it breaks

    def _call(self, name: str, detail: str = "", *, space: bool = False) -> bool:
        """Count a call and let its fault happen; True asks for a short write."""
        if self.dead:
            raise Stopped
        self.calls += 1
        self.trace.append(f"{name} {detail}".strip())
        fault = self.fail_at.get(self.calls)
        if fault in (Fault.KILL, Fault.POWER):
            self.dead = True
            raise Stopped
        if fault is Fault.EIO:
            raise OSError(errno.EIO, f"simulated, call {self.calls}")
        if space and (fault is Fault.NO_SPACE or self._full):
            self._full = max(0, self._full - 1)
            self._no_space()
        short = fault in (Fault.SHORT, Fault.SHORT_FULL) and name == "pwrite"
        if short and fault is Fault.SHORT_FULL:
            self._full = 1
        return short

    def _need(self, size: int) -> None:
        if self.capacity is not None and self.used + size > self.capacity:
            self._no_space()

    def _no_space(self) -> NoReturn:
        raise OSError(errno.ENOSPC, f"simulated, call {self.calls}")

    def _settle(self, inode: Inode, survive: Callable[[], bool]) -> None:
        """Bring dirty sectors to the disk, those that survive; nothing is dirty afterwards."""
        for start, page in inode.dirty:
            for at in range(0, len(page), SECTOR):
                if survive():
                    self._store(inode, start + at, page[at : at + SECTOR])
                elif self.torn_sectors and self.random.random() < 0.2:
                    self._store(inode, start + at, self.random.randbytes(len(page[at : at + SECTOR])))
        for size in inode.sizes:
            if survive():
                del inode.stored[size:]
                inode.stored.extend(bytes(size - len(inode.stored)))
        inode.dirty.clear()
        inode.sizes.clear()

    def _store(self, inode: Inode, offset: int, data: bytes) -> None:
        if offset + len(data) > len(inode.stored):
            inode.stored.extend(bytes(offset + len(data) - len(inode.stored)))
        inode.stored[offset : offset + len(data)] = data

    def _folder(self, path: str) -> _Folder:
        return self._folders[posixpath.dirname(path)]

    def _inode(self, path: str) -> Inode:
        inode = self._folder(path).cached.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return inode


def _chooser(source: random.Random, style: str) -> Callable[[], bool]:
    if style == "any":
        odds = source.random()
        return lambda: source.random() < odds
    return lambda: style == "everything"
