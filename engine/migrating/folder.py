"""The log in a data folder, as the one end of a move: reading all of it, making one, and the marks of a move.

A folder that is left has the file `log/MOVED`, and nobody opens it as a shop. One that is being filled has
`log/INCOMPLETE`, as any copy. While a move is under way the folder is locked, as by a server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from engine.errors import ConfigError, LogCorrupt, LogFailed, LogMoved
from engine.log import frames
from engine.log.backup import CHECKPOINT, LOG
from engine.log.disk import Disk, OSDisk, opened, write_all
from engine.log.frames import CLEAN, SEAL, Frame, SegmentHeader
from engine.log.recovery import check_link, check_mark, create, examine, refuse_moved
from engine.log.segments import (
    INCOMPLETE,
    LOCK,
    MOVED,
    drop_spare,
    load,
    make_spare,
    payload_bytes_max,
    scan,
    segment_numbers,
    segment_path,
)
from engine.log.writer import NoSpace, SegmentWriter
from engine.records import Entry

FRAME_BYTES = 1 << 20
"""About what is written and synced at once."""

Visit = Callable[[int, Entry], object]
"""What is done with each record: its position, and itself."""


class Sizes(NamedTuple):
    """Of a log that is made; see `engine.config.Config`."""

    segment_bytes: int
    pad_bytes: int
    reserve_bytes: int


class Folder:
    """A data folder that this process has locked."""

    def __init__(self, data: str, disk: Disk) -> None:
        self.data = data
        self.log = os.path.join(data, LOG)
        self.checkpoint = os.path.join(data, CHECKPOINT)
        self.disk = disk

    @property
    def is_moved(self) -> bool:
        """Whether the log in it was moved away."""
        return MOVED in self.disk.list(self.log)

    @property
    def is_unfinished(self) -> bool:
        """Whether it is a copy, or the target of a move, that did not come to its end."""
        return INCOMPLETE in self.disk.list(self.log)

    def read(self, floor: int, visit: Visit) -> tuple[str, int]:
        """Read the whole log as a start would, and change nothing; return its epoch and its first position.

        Raises:
            LogCorrupt: acknowledged records are damaged.
            LogTooNew: a newer version wrote it.
        """
        found = examine(self.disk, self.log, floor, 0, _each(visit))
        if found is None:
            raise ConfigError(f"there is no log in {self.log}")
        return found.last.header.epoch, found.segments[0].header.first_position

    def read_back(self, visit: Visit) -> None:
        """Read what was just written, from its first byte to its last.

        Raises:
            LogCorrupt: it is not whole.
        """
        numbers = segment_numbers(self.disk, self.log)
        found = []
        for number in numbers:
            path = segment_path(self.log, number)
            found.append((path, scan(*load(self.disk, path), _each(visit))))
        for (path, before), (_, following) in pairwise(found):
            check_link(path, before, following.header)
            check_mark(path, before)
        path, last = found[-1]
        if not last.flags & CLEAN or last.written > last.end:
            raise LogCorrupt(path, last.end, "this is not the end that was written")

    # Marks

    def mark_moved(self, text: str) -> None:
        """Let nobody open the log any more."""
        if not self.is_moved:
            _write_mark(self.disk, self.log, MOVED, text)

    def unmark_moved(self) -> bool:
        """Let it be opened again; return whether it was marked."""
        moved = self.is_moved
        if moved:
            self._drop(MOVED)
        return moved

    def mark_unfinished(self) -> None:
        """Let nobody open the log until `finish`."""
        if not self.is_unfinished:
            _write_mark(self.disk, self.log, INCOMPLETE, "")

    def finish(self) -> None:
        """The log is whole."""
        self.disk.sync_folder(self.log)
        self.disk.sync_folder(self.data)
        self._drop(INCOMPLETE)

    def empty(self) -> None:
        """Take away what an unfinished move has left, but for its mark."""
        for number in segment_numbers(self.disk, self.log):
            self.disk.unlink(segment_path(self.log, number))
        drop_spare(self.disk, self.log)
        for name in self.disk.list(self.data):
            if name.startswith(CHECKPOINT):  # and what SQLite has beside it
                self.disk.unlink(os.path.join(self.data, name))

    def _drop(self, mark: str) -> None:
        self.disk.unlink(os.path.join(self.log, mark))
        self.disk.sync_folder(self.log)


class Filling:
    """Writes a new log.

    Args:
        folder: without a log, and marked as unfinished.
        epoch: of the log.
        first: position of its first record.
        sizes: of its files.
    """

    def __init__(self, folder: Folder, epoch: str, first: int, sizes: Sizes) -> None:
        self._disk = folder.disk
        self._folder = folder.log
        self._sizes = sizes
        self._align = 8 if sizes.pad_bytes == 0 else sizes.pad_bytes
        self._most = min(4 << 20, payload_bytes_max(sizes.segment_bytes, self._align))
        header = SegmentHeader(self._align, os.urandom(16), epoch, 1, sizes.segment_bytes, first, 1, 0)
        found = create(self._disk, self._folder, header).last
        self._writer = SegmentWriter(self._disk, self._folder, header, found.chain, found.end, 0)
        self._waiting: list[bytes] = []
        self._bytes = 0

    def add(self, data: bytes) -> None:
        """Append one entry.

        Raises:
            ConfigError: it does not fit into a segment.
            LogFailed: no space is left.
        """
        if len(data) > self._most:
            most = f"segment_bytes {self._sizes.segment_bytes} has room for {self._most}"
            raise ConfigError(f"a record has {len(data)} bytes: {most}")
        if self._bytes + len(data) > min(FRAME_BYTES, self._most) and self._waiting:
            self._flush()
        self._waiting.append(data)
        self._bytes += len(data)

    def _flush(self) -> None:
        payload = b"".join(self._waiting)
        try:
            if len(payload) > self._writer.room:
                make_spare(self._disk, self._folder, self._sizes.segment_bytes, self._sizes.reserve_bytes)
                self._writer.roll(self._sizes.segment_bytes, self._align)
            self._writer.append(payload, len(self._waiting))
        except NoSpace as error:
            raise LogFailed(str(error)) from error
        self._waiting.clear()
        self._bytes = 0

    def close(self) -> None:
        """Write what waits, and the mark of an orderly end."""
        if self._waiting:
            self._flush()
        self._writer.append(b"", 0, SEAL | CLEAN)
        self._writer.close()


@contextmanager
def source(data: str, *, moved: bool = False) -> Iterator[Folder]:
    """Lock a data folder whose log is to be read. `moved`: also one that was moved already.

    Raises:
        ConfigError: there is no log.
        LogLocked: a server has it open.
        LogMoved: it was moved already.
    """
    with _locked(data, "there is no log in") as folder:
        if not moved:
            refuse_moved(folder.disk, folder.log)
        yield folder


@contextmanager
def target(data: str, *, again: bool, unfinished: bool) -> Iterator[Folder]:
    """Lock a data folder in which a log is to be made. `again`: take away what an unfinished move left there;
    `unfinished`: there must be one.

    Raises:
        ConfigError: there is something already.
        LogLocked: a server has it open.
    """
    disk = OSDisk()
    disk.make_folder(os.path.join(data, LOG))
    with _locked(data) as folder:
        there = [name for name in disk.list(folder.log) if name != LOCK]
        if folder.is_unfinished and not again:
            raise ConfigError(f"a move into {data} was not finished: say --again to begin it anew")
        if not folder.is_unfinished:
            if unfinished:
                raise LogMoved(f"the log was moved already, and {data} has no unfinished move of it")
            there += [name for name in disk.list(data) if name.endswith(".db")]
            if there:
                raise ConfigError(f"{data} is not empty: there is {there[0]}")
        folder.mark_unfinished()
        folder.empty()
        yield folder


@contextmanager
def _locked(data: str, missing: str = "") -> Iterator[Folder]:
    disk = OSDisk()
    folder = Folder(data, disk)
    if missing and not (os.path.isdir(folder.log) and segment_numbers(disk, folder.log)):
        raise ConfigError(f"{missing} {folder.log}")
    lock = disk.lock(os.path.join(folder.log, LOCK), f"process {os.getpid()}, moving the log\n")
    try:
        yield folder
    finally:
        disk.unlock(lock)


def _each(visit: Visit) -> Callable[[Frame], None]:
    def frame(frame: Frame) -> None:
        entries = frames.unpack_entries(frame.payload, frame.entries)
        for position, entry in enumerate(entries, frame.first_position):
            visit(position, entry)

    return frame


def _write_mark(disk: Disk, folder: str, name: str, text: str) -> None:
    with opened(disk, os.path.join(folder, name), create=True) as file:
        write_all(disk, file, text.encode(), 0)
        disk.sync(file)
    disk.sync_folder(folder)
