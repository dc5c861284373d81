"""A segment as a file: its names, reading it through, making a spare one, replacing one in a single step."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from engine.errors import LogCorrupt, LogTooNew
from engine.log import frames
from engine.log.disk import Disk, opened, read_all, write_all, zero
from engine.log.frames import HEADER_BYTES, Bad, Chain, Frame, SegmentHeader

LOCK = "LOCK"
INCOMPLETE = "INCOMPLETE"
"""While this file is in a folder, the log beside it is a copy that was not finished."""

BACKUP = "BACKUP"
"""With this file in its folder a log is only to be restored from: two logs of one epoch would fork it."""

MOVED = "MOVED"
"""With this file in its folder a log goes on elsewhere: whoever opened it would have a second shop."""

_SPARE = "spare"
_SPARE_NEW = "spare.new"
_REWRITTEN = "rewritten.new"
_NAME = re.compile(r"([0-9]{10})\.seg\Z")

MARK_EVERY_BYTES = 64 << 10
"""How far a reader has to walk from the nearest known frame."""

_BLOCK_BYTES = 64 << 10

TAIL_FRAMES = 3
"""Frames without entries that must still fit behind the last batch: a seal, a clean seal, the mark."""


class Mark(NamedTuple):
    """A place in a segment where a frame begins, and what that frame continues."""

    offset: int
    chain: Chain


class Scan(NamedTuple):
    """What reading a segment from its header to its first bad frame found."""

    header: SegmentHeader
    chain: Chain
    end: int
    """Where the next frame of the chain goes."""
    flags: int
    """Of the last frame; 0 when there is none."""
    frames: int
    rolled: bool
    bad: Bad
    written: int
    """Bytes up to the last one that is not zero; when more than `end`, something lies behind the chain."""
    marks: list[Mark]


def segment_path(folder: str, number: int) -> str:
    """Return the path of a segment."""
    return os.path.join(folder, f"{number:010d}.seg")


def segment_numbers(disk: Disk, folder: str) -> list[int]:
    """Return the numbers of the segments in a folder, ascending."""
    return [int(match[1]) for name in disk.list(folder) if (match := _NAME.match(name))]


def read_header(path: str, data: bytes) -> SegmentHeader:
    """Read a segment's header and check that it is the one its name says.

    Raises:
        LogTooNew: only a newer Onda may open it.
        LogCorrupt: damaged, or another segment under this name.
    """
    try:
        header = frames.unpack_segment(data)
    except frames.TooNew as error:
        raise LogTooNew(f"{path}: {error}") from None
    except frames.NotASegment as error:
        raise LogCorrupt(path, 0, str(error)) from None
    if os.path.basename(path) != os.path.basename(segment_path("", header.segment)):
        raise LogCorrupt(path, 0, f"this is segment {header.segment} under a wrong name")
    return header


def load(disk: Disk, path: str) -> tuple[SegmentHeader, bytes]:
    """Read a whole segment.

    Raises:
        LogTooNew, LogCorrupt: as `read_header`, or the file has not the size that it was made with.
    """
    with opened(disk, path) as file:
        return load_file(disk, file, path)


def load_file(disk: Disk, file: int, path: str) -> tuple[SegmentHeader, bytes]:
    """Read a whole segment from an open file; `path` is for messages."""
    header = read_header(path, read_all(disk, file, 128))
    size = disk.size(file)
    if size != header.segment_bytes:
        raise LogCorrupt(path, size, f"the file has {size} bytes but was made with {header.segment_bytes}")
    return header, read_all(disk, file, size)


def scan(
    header: SegmentHeader,
    data: bytes,
    visit: Callable[[Frame], object] | None = None,
    start: Mark | None = None,
) -> Scan:
    """Walk the frames of a segment, from its first one or `start`; `visit` gets those that have entries."""
    end, chain = start or Mark(HEADER_BYTES, frames.start_chain(header))
    marks = [Mark(end, chain)]
    flags = found = 0
    rolled = False
    limit = header.segment_bytes
    while isinstance(frame := frames.parse_frame(data, end, limit, header.align, chain), Frame):
        if frame.flags & frames.ROLLED:
            rolled = True
            break
        if frame.entries and visit is not None:
            visit(frame)
        chain, end, flags = frame.chain, frame.end, frame.flags
        found += 1
        if end - marks[-1].offset >= MARK_EVERY_BYTES:
            marks.append(Mark(end, chain))
    bad = Bad.NOTHING if isinstance(frame, Frame) else frame
    return Scan(header, chain, end, flags, found, rolled, bad, _written(data), marks)


def _written(data: bytes) -> int:
    """Return how many bytes there are up to the last one that is not zero; the segment is not copied."""
    end = len(data)
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        block = data[start:end]
        if block.count(0) != len(block):
            return start + len(block.rstrip(b"\0"))
        end = start
    return 0


def tail_bytes(align: int) -> int:
    """Return the room that is kept at the end of a segment for frames without entries."""
    return TAIL_FRAMES * frames.aligned(frames.FRAME_BYTES, align)


def payload_bytes_max(segment_bytes: int, align: int, end: int = HEADER_BYTES) -> int:
    """Return how large a payload may be for its frame to fit behind `end`."""
    room = segment_bytes - end - tail_bytes(align)
    return max(0, room - room % align - frames.FRAME_BYTES)


def make_spare(disk: Disk, folder: str, segment_bytes: int, reserve_bytes: int) -> None:
    """Have a zeroed, synced file ready to become the next segment; one that is there already is zeroed again.

    Raises:
        OSError: no spare; whatever was begun is gone again.
    """
    path = os.path.join(folder, _SPARE)
    if _has_size(disk, path, segment_bytes):
        with opened(disk, path, write=True) as file:
            zero(disk, file, 0, segment_bytes)
        return
    drop_spare(disk, folder)
    if disk.free(folder) < segment_bytes + reserve_bytes:
        raise OSError(errno.ENOSPC, "the space that is left is kept for checkpoints and repairs", folder)
    fresh = os.path.join(folder, _SPARE_NEW)
    try:
        with opened(disk, fresh, create=True) as file:
            zero(disk, file, 0, segment_bytes)
        disk.rename(fresh, path)
        disk.sync_folder(folder)
    except OSError:
        with contextlib.suppress(OSError):
            drop_spare(disk, folder)
        raise


def drop_spare(disk: Disk, folder: str) -> None:
    """Remove the spare and what is left of unfinished ones; no entry that matters is ever in there."""
    for name in (_SPARE, _SPARE_NEW, _REWRITTEN):
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(os.path.join(folder, name))


def adopt_spare(disk: Disk, folder: str, header: SegmentHeader) -> int:
    """Turn the spare into the next segment and return it open for writing; its name is durable.

    Raises:
        OSError: it is not certain whether the segment has its name (`forget_segment` makes it certain).
    """
    spare = os.path.join(folder, _SPARE)
    path = segment_path(folder, header.segment)
    with opened(disk, spare, write=True) as file:
        write_all(disk, file, frames.pack_segment(header), 0)
        disk.sync(file)
    disk.rename(spare, path)
    disk.sync_folder(folder)
    return disk.open(path, write=True)


def forget_segment(disk: Disk, folder: str, number: int) -> None:
    """Take back a segment that `adopt_spare` failed to finish: nothing has been appended to it."""
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(segment_path(folder, number))
    disk.sync_folder(folder)


def replace_segment(disk: Disk, folder: str, header: SegmentHeader, content: bytes) -> None:
    """Give a segment new content in one step: it has the old or the new one, whenever the power goes.

    The spare is used up for it where there is one, so that this works on a full disk too.
    """
    spare = os.path.join(folder, _SPARE)
    fresh = os.path.join(folder, _REWRITTEN)
    path = segment_path(folder, header.segment)
    if _has_size(disk, spare, header.segment_bytes):
        with opened(disk, spare, write=True) as file:
            _fill(disk, file, content, header.segment_bytes)
        disk.rename(spare, path)
    else:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(fresh)
        try:
            with opened(disk, fresh, create=True) as file:
                _fill(disk, file, content, header.segment_bytes)
            disk.rename(fresh, path)
        except OSError:
            with contextlib.suppress(OSError):
                disk.unlink(fresh)
            raise
    disk.sync_folder(folder)


def _fill(disk: Disk, file: int, content: bytes, size: int) -> None:
    write_all(disk, file, content, 0)
    zero(disk, file, len(content), size, syncing=False)  # while a log is being opened nobody else writes
    disk.sync(file)


def _has_size(disk: Disk, path: str, size: int) -> bool:
    try:
        with opened(disk, path) as file:
            return disk.size(file) == size
    except FileNotFoundError:
        return False
