"""Every disk call that the log makes, so that a simulated disk can tear, drop, flip and fill up in tests.

Files are plain numbers, as with the operating system. All calls block: they run in threads, never in trio's
own. Calls that only Linux has fall back to the nearest thing that is at least as safe.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Protocol

from engine.errors import LogLocked

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})
"""Errors that pass once somebody makes room; every other one means that the disk itself failed."""

_F_FULLFSYNC = 51  # macOS: fsync alone leaves the bytes in the drive's own cache
_READ_BYTES = 16 << 20
_ZERO_BYTES = 256 << 10
"""Zeros between two syncs: what a sync of the log may have to wait for on a slow card."""


class Disk(Protocol):
    """What the log asks of a disk. Every call raises `OSError` as the operating system does."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:
        """Return a file; `create` makes a new one and fails when the name is taken."""

    def close(self, file: int) -> None: ...

    def pread(self, file: int, size: int, offset: int) -> bytes:
        """Read at most `size` bytes; fewer, or none, at the end of the file or by a signal."""

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        """Write at least one byte and return how many: fewer than given is normal."""

    def sync(self, file: int) -> None:
        """Return when contents and size are on the disk, beyond every cache."""

    def sync_folder(self, path: str) -> None:
        """Return when the names in a folder (created, renamed, unlinked) are on the disk."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what had it, in one step."""

    def unlink(self, path: str) -> None: ...

    def truncate(self, file: int, size: int) -> None: ...

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted."""

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it, unless it is there."""

    def size(self, file: int) -> int: ...

    def free(self, folder: str) -> int:
        """Bytes that can still be written there."""

    def drop_cache(self, file: int) -> bool:
        """Have the next read come from the disk, not from memory; False where that is impossible."""

    def lock(self, path: str, text: str) -> int:
        """Own `path` until `unlock` or the process's end, and write `text` into it for people to read.

        Raises:
            LogLocked: somebody else owns it.
        """

    def unlock(self, lock: int) -> None: ...


class OSDisk:
    """The machine's disk."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:
        flags = os.O_RDWR if write or create else os.O_RDONLY
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)

    def close(self, file: int) -> None:
        os.close(file)

    def pread(self, file: int, size: int, offset: int) -> bytes:
        if sys.platform == "win32":
            os.lseek(file, offset, os.SEEK_SET)  # every file there has one user at a time
            return os.read(file, size)
        return os.pread(file, size, offset)

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        if sys.platform == "win32":
            os.lseek(file, offset, os.SEEK_SET)
            return os.write(file, data)
        return os.pwrite(file, data, offset)

    def sync(self, file: int) -> None:
        if sys.platform == "darwin":
            fcntl.fcntl(file, _F_FULLFSYNC)
        elif hasattr(os, "fdatasync"):
            os.fdatasync(file)
        else:
            os.fsync(file)

    def sync_folder(self, path: str) -> None:
        if sys.platform == "win32":
            return  # NTFS keeps names in its own journal, and a folder cannot be opened
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def list(self, folder: str) -> list[str]:
        return sorted(os.listdir(folder))

    def make_folder(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)

    def size(self, file: int) -> int:
        return os.fstat(file).st_size

    def free(self, folder: str) -> int:
        return shutil.disk_usage(folder).free

    def drop_cache(self, file: int) -> bool:
        if not hasattr(os, "posix_fadvise"):
            return False
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return True

    def lock(self, path: str, text: str) -> int:
        # flock, not POSIX locks: those are lost when anyone in the process closes the file.
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._own(file, path)
            os.ftruncate(file, 0)
            os.write(file, text.encode())
        except BaseException:
            os.close(file)
            raise
        return file

    def _own(self, file: int, path: str) -> None:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:  # Windows
                import msvcrt

                os.lseek(file, 1 << 30, os.SEEK_SET)  # far behind the text, which stays readable
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
                os.lseek(file, 0, os.SEEK_SET)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                raise
            owner = os.pread(file, 200, 0).decode(errors="replace") if fcntl else ""
            raise LogLocked(f"{path} is held by another process ({owner.strip()})") from None

    def unlock(self, lock: int) -> None:
        os.close(lock)


def boot_id() -> str:
    """Name this run of the machine, where the system has such a name."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return "unknown"


@contextlib.contextmanager
def opened(disk: Disk, path: str, *, write: bool = False, create: bool = False) -> Iterator[int]:
    """Open a file for the time of a `with` block."""
    file = disk.open(path, write=write, create=create)
    try:
        yield file
    finally:
        disk.close(file)


def write_all(disk: Disk, file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data`, also when the system takes it piece by piece."""
    written = disk.pwrite(file, data, offset)
    if written == len(data):
        return
    rest = memoryview(data)
    while written < len(rest):
        rest = rest[written:]
        offset += written
        written = disk.pwrite(file, rest, offset)
        if written <= 0:
            raise OSError(errno.EIO, "the disk takes no bytes")


def read_all(disk: Disk, file: int, size: int, offset: int = 0) -> bytes:
    """Read `size` bytes, fewer only at the end of the file."""
    pieces = []
    while size > 0:
        piece = disk.pread(file, min(size, _READ_BYTES), offset)
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
        offset += len(piece)
    return b"".join(pieces)


def zero(disk: Disk, file: int, start: int, end: int, *, syncing: bool = True) -> None:
    """Fill a stretch with zeros; `syncing` as it goes, so that nobody else's sync waits for all of it."""
    for offset in range(start, end, _ZERO_BYTES):
        write_all(disk, file, bytes(min(_ZERO_BYTES, end - offset)), offset)
        if syncing:
            disk.sync(file)
