"""Copying a data folder while its node runs, and making a folder for a node out of such a copy.

A copy holds the databases as of some moment and then the log up to a later one, so that the log always
reaches further than what the checkpoint says. Segments are opened before the checkpoint is copied: what the
checkpoint needs cannot be dropped from under the copy. While a copy is being made its log folder holds the
file `INCOMPLETE`, and nothing opens it.

A restored log has a new epoch: what happened after the copy is lost, and cursors that know of it must not
be resumed. So nothing opens a backup itself: it holds the file `BACKUP`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.errors import ConfigError, LogCorrupt
from engine.log import frames
from engine.log.disk import Disk, OSDisk, opened, read_all, write_all
from engine.log.opening import new_epoch
from engine.log.recovery import check_link
from engine.log.segments import BACKUP, INCOMPLETE, Scan, load_file, scan, segment_numbers, segment_path
from engine.log.verify import verify

LOG = "log"
CHECKPOINT = "checkpoint.db"
SECRET = "secret"


class Copied(NamedTuple):
    """What a backup or a restored folder holds."""

    epoch: str
    first: int
    head: int
    segments: int
    databases: list[str]


def backup(data: str, target: str, disk: Disk | None = None) -> Copied:
    """Copy the data folder of a node, which may be running, into an empty or new folder.

    Raises:
        ConfigError: `target` is not empty, or there is no log in `data`.
        LogCorrupt: the log is damaged; `target` stays marked as incomplete.
        OSError: a disk failed; the same.
    """
    disk = disk or OSDisk()
    log = os.path.join(data, LOG)
    with _Source(disk, log) as source, _unfinished(disk, target) as copy:
        databases = _copy_databases(disk, data, target)
        source.find_new()
        last = source.copy_to(copy)
        with opened(disk, os.path.join(copy, BACKUP), create=True) as file:
            disk.sync(file)
    return Copied(last.header.epoch, source.first, last.chain.position, source.segments, databases)


def restore(
    source: str, target: str, disk: Disk | None = None, entropy: Callable[[int], bytes] = os.urandom
) -> Copied:
    """Make a data folder, empty or new, out of a backup; its log gets a new epoch.

    Raises:
        ConfigError: `target` is not empty, or `source` is no backup.
        LogCorrupt: the backup is damaged or was not finished.
    """
    disk = disk or OSDisk()
    log = os.path.join(source, LOG)
    report = verify(log, disk)
    if report.damage:
        raise LogCorrupt(*report.damage[0][:3])
    with _unfinished(disk, target) as copy, _Source(disk, log) as segments:
        databases = _copy_databases(disk, source, target)
        last = segments.copy_to(copy, new_epoch(entropy))
    return Copied(last.header.epoch, segments.first, last.chain.position, segments.segments, databases)


@contextlib.contextmanager
def _unfinished(disk: Disk, target: str) -> Iterator[str]:
    """Make the folders of a copy and mark them as incomplete until the block ends well."""
    disk.make_folder(target)
    if disk.list(target):
        raise ConfigError(f"{target} is not empty")
    log = os.path.join(target, LOG)
    disk.make_folder(log)
    marker = os.path.join(log, INCOMPLETE)
    with opened(disk, marker, create=True) as file:
        disk.sync(file)
    disk.sync_folder(log)
    disk.sync_folder(target)
    disk.sync_folder(os.path.dirname(os.path.abspath(target)))
    yield log
    disk.sync_folder(log)
    disk.sync_folder(target)
    disk.unlink(marker)
    disk.sync_folder(log)


class _Source:
    """The segments of a log, held open so that they stay readable when they are dropped."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self._files: dict[int, int] = {}
        self.first = 1

    @property
    def segments(self) -> int:
        return len(self._files)

    def __enter__(self) -> _Source:
        try:
            self.find_new()
        except FileNotFoundError:
            raise ConfigError(f"there is no log in {self._folder}") from None
        if not self._files:
            raise ConfigError(f"there is no log in {self._folder}")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            self._disk.close(file)

    def find_new(self) -> None:
        """Open the segments that are not open yet."""
        while True:
            numbers = segment_numbers(self._disk, self._folder)
            wanted = [number for number in numbers if number > max(self._files, default=0)]
            try:
                for number in wanted:
                    self._files[number] = self._disk.open(segment_path(self._folder, number))
                return
            except FileNotFoundError:
                if self._files:
                    raise  # those behind one that is held can only go when that one went before
            # the oldest was dropped between listing and opening

    def copy_to(self, folder: str, epoch: str | None = None) -> Scan:
        """Copy the good frames of all segments; return the last one. With an epoch, that gets it and a
        seal.
        """
        numbers = sorted(self._files)
        before: Scan | None = None
        for number in numbers:
            last = number == numbers[-1]
            header, data = load_file(self._disk, self._files[number], segment_path(self._folder, number))
            if before is not None:
                check_link(segment_path(self._folder, before.header.segment), before, header)
            found = scan(header, data)
            if before is None:
                self.first = header.first_position
            if last and epoch is not None:
                found = found._replace(header=header._replace(epoch=epoch))
            self._write(folder, found, data, last, epoch is not None)
            before = found
        assert before is not None
        return before

    def _write(self, folder: str, found: Scan, data: bytes, last: bool, sealed: bool) -> None:
        header = found.header
        first = frames.pack_segment(header)
        content = first + data[len(first) : found.end]
        if (
            not last
        ):  # the source's own mark may not have been there yet, or be there for one that was not copied
            content += frames.pack_frame(found.chain, b"", 0, frames.ROLLED)[0]
        elif sealed and not found.flags & frames.CLEAN:
            content += frames.pack_frame(found.chain, b"", 0, frames.SEAL | frames.CLEAN)[0]
        with opened(self._disk, segment_path(folder, header.segment), create=True) as file:
            write_all(self._disk, file, content, 0)
            self._disk.truncate(file, header.segment_bytes)
            self._disk.sync(file)


def _copy_databases(disk: Disk, data: str, target: str) -> list[str]:
    """Copy what lies beside the log: the checkpoint before other databases, then the key of the tokens."""
    names = disk.list(data)
    databases = [name for name in names if name.endswith(".db")]
    databases.sort(key=lambda name: name != CHECKPOINT)
    for name in databases:
        _copy_database(os.path.join(data, name), os.path.join(target, name))
    if SECRET in names:
        with opened(disk, os.path.join(data, SECRET)) as file:
            secret = read_all(disk, file, disk.size(file))
        with opened(disk, os.path.join(target, SECRET), create=True) as file:
            write_all(disk, file, secret, 0)
    for name in [*databases, *([SECRET] if SECRET in names else [])]:
        with opened(disk, os.path.join(target, name), write=True) as file:
            disk.sync(file)
    return databases


def _copy_database(source: str, target: str) -> None:
    address = f"{pathlib.Path(source).absolute().as_uri()}?mode=ro"
    with (
        contextlib.closing(sqlite3.connect(address, uri=True)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
        new.execute("PRAGMA journal_mode = DELETE")  # one plain file, also readable where nobody may write
        verdict = new.execute("PRAGMA quick_check").fetchone()[0]
    if verdict != "ok":
        raise LogCorrupt(source, 0, f"the database is damaged: {verdict}")
