"""Opening a log: what is there, whether a bad end is a torn tail or damage, and making the end trustworthy.

One batch is under way at a time, so at most one frame, the last, can be incomplete after a crash, and
nobody was told that it is durable. The rules for the first bad frame:

1. It is not in the last segment that holds frames, or the chain of segments is broken: refuse.
2. A whole frame lies behind it: it had been synced before that one was begun, so it is damaged: refuse.
3. Somebody knows of a position that the log no longer reaches (`floor`): refuse.
4. Otherwise it is a torn tail: copied to `*.torn`, reported, cut.

Refusing (`LogCorrupt`) changes nothing on the disk. What remains: damage to the very last batch of a
process that was killed before the seal behind it (50 ms later) looks like a torn tail, if no checkpoint had
reached it.

After anything but an orderly end the page cache is not believed, as a failed sync leaves pages there that
the disk does not have: the last segment is written again from what was verified, synced, and renamed over
the old one. The same step cuts a torn tail. Every step can be interrupted and done again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from engine.errors import LogCorrupt, LogMoved
from engine.log import frames
from engine.log.disk import Disk, opened, read_all, write_all
from engine.log.frames import HEADER_BYTES, Bad, Frame, SegmentHeader
from engine.log.segments import (
    BACKUP,
    INCOMPLETE,
    MOVED,
    Mark,
    Scan,
    load,
    make_spare,
    read_header,
    replace_segment,
    scan,
    segment_numbers,
    segment_path,
)

_NO_LOGS = {
    INCOMPLETE: "this folder holds a copy that was not finished: empty it and copy again",
    BACKUP: "this folder holds a backup: restore it into another one, which gets an epoch of its own",
}


class SegmentFound(NamedTuple):
    """One segment of an opened log."""

    header: SegmentHeader
    marks: list[Mark]
    end: int
    """Where its frames end; its size when it was not read through."""


class Found(NamedTuple):
    """An opened log, and what still has to be written before anything may be appended."""

    segments: list[SegmentFound]
    last: Scan
    data: bytes
    """Of the last segment up to the end of its frames; empty when nothing is to be rewritten."""
    torn: bytes
    unmarked: Scan | None
    """The segment before the last, when its rolled mark may be missing or torn, or be only in the cache."""


def refuse_moved(disk: Disk, folder: str) -> None:
    """Refuse a log that goes on elsewhere.

    Raises:
        LogMoved: it does.
    """
    if MOVED in disk.list(folder):
        with opened(disk, os.path.join(folder, MOVED)) as file:
            text = read_all(disk, file, 1000).decode(errors="replace").strip()
        back = "`onda migrate --undo` lets it be used again, without what came since"
        raise LogMoved(f"the log in {folder} was moved {text or 'elsewhere'}; {back}")


def examine(
    disk: Disk, folder: str, floor: int, verified: int, visit: Callable[[Frame], object]
) -> Found | None:
    """Read a log and decide what it is; None when there is none. Writes nothing.

    Args:
        disk: where it is.
        folder: of the log.
        floor: a position that is known to have been acknowledged.
        verified: segments that end at or before this position are not read through; reading them checks them.
        visit: called with each frame that holds entries.

    Raises:
        LogCorrupt, LogTooNew: refuse to open it.
    """
    for name, why in _NO_LOGS.items():
        if name in disk.list(folder):
            raise LogCorrupt(os.path.join(folder, name), 0, why)
    numbers = segment_numbers(disk, folder)
    if not numbers:
        if floor:
            raise LogCorrupt(folder, 0, f"there is no log, but position {floor} had been acknowledged")
        return None
    headers = _headers(disk, folder, numbers)
    segments = []
    before: Scan | None = None
    for header, following in pairwise(headers):
        if following.first_position <= verified + 1 and following is not headers[-1]:
            start = frames.start_chain(header)
            segments.append(SegmentFound(header, [Mark(HEADER_BYTES, start)], header.segment_bytes))
            continue
        path = segment_path(folder, header.segment)
        before = _scan(path, *load(disk, path), visit)
        check_link(path, before, following)
        if following is not headers[-1]:
            check_mark(path, before)
        segments.append(SegmentFound(header, before.marks, before.end))
    return _examine_last(disk, folder, floor, visit, segments, before)


def _headers(disk: Disk, folder: str, numbers: list[int]) -> list[SegmentHeader]:
    headers: list[SegmentHeader] = []
    for number in numbers:
        path = segment_path(folder, number)
        with opened(disk, path) as file:
            header = read_header(path, read_all(disk, file, 128))
        if headers:
            previous = headers[-1]
            if number != previous.segment + 1:
                missing = segment_path(folder, previous.segment + 1)
                raise LogCorrupt(missing, 0, "this segment is missing, but a later one is there")
            if header.log != previous.log:
                raise LogCorrupt(path, 0, "this segment belongs to another log")
        headers.append(header)
    return headers


def _scan(path: str, header: SegmentHeader, data: bytes, visit: Callable[[Frame], object]) -> Scan:
    try:
        return scan(header, data, visit)
    except (
        ValueError
    ) as error:  # checksums that are good around entries that are not: written by a fault of ours
        raise LogCorrupt(path, HEADER_BYTES, str(error)) from error


def check_link(path: str, before: Scan, following: SegmentHeader) -> None:
    """Check that a segment which has a successor holds all that the successor continues (rule 1)."""
    start = frames.start_chain(following)
    chain = before.chain
    if (chain.position, chain.sequence, chain.crc) != (start.position, start.sequence, start.crc):
        why = (
            f"{before.bad.value} after position {chain.position}, but the next segment begins "
            f"after position {start.position}: {_range(chain.position + 1, start.position)}"
        )
        raise LogCorrupt(path, before.end, why)
    mark_end = before.end + frames.aligned(frames.FRAME_BYTES, before.header.align)
    if before.bad is Bad.FOREIGN or before.written > mark_end:
        raise LogCorrupt(path, before.end, "bytes that do not belong there, behind the segment's last frame")


def check_mark(path: str, before: Scan) -> None:
    """Check that a segment whose successor is in use ends with the mark that says so."""
    if not before.rolled:
        why = "the mark that ends a segment is missing, although the next one is in use"
        raise LogCorrupt(path, before.end, why)


def _examine_last(
    disk: Disk,
    folder: str,
    floor: int,
    visit: Callable[[Frame], object],
    segments: list[SegmentFound],
    before: Scan | None,
) -> Found:
    number = segments[-1].header.segment + 1 if segments else segment_numbers(disk, folder)[0]
    path = segment_path(folder, number)
    with opened(disk, path, write=True) as file:
        disk.sync(file)  # what a killed process left in the cache; dirty pages cannot be dropped
        fresh = disk.drop_cache(file)
    header, data = load(disk, path)
    last = _scan(path, header, data, visit)
    if before is not None and last.frames:
        check_mark(segment_path(folder, number - 1), before)
    unmarked = before if not last.frames else None
    torn = _torn_tail(path, last, data, floor)
    trusted = fresh and not torn and (last.flags & frames.CLEAN) != 0
    segments.append(SegmentFound(header, last.marks, last.end))
    return Found(segments, last, b"" if trusted else data[: last.end], torn, unmarked)


def _torn_tail(path: str, last: Scan, data: bytes, floor: int) -> bytes:
    """Return what lies behind the last good frame, or refuse (rules 1 to 4)."""
    head = last.chain.position
    if last.rolled:
        raise LogCorrupt(path, last.end, "the segment after this one is missing")
    if last.bad is Bad.FOREIGN:
        raise LogCorrupt(path, last.end, f"{last.bad.value} after position {head}")
    later = frames.find_frame(data, last.end + 1) if last.written > last.end else None
    if later is not None:
        lost = _range(head + 1, frames.positions_at(data, later)[0] - 1)
        raise LogCorrupt(path, last.end, f"{last.bad.value}, but a later frame is there (at {later}): {lost}")
    if floor > head:
        lost = _range(head + 1, floor)
        raise LogCorrupt(path, last.end, f"the log ends at position {head} ({last.bad.value} behind): {lost}")
    return data[last.end : last.written]


def _range(first: int, last: int) -> str:
    if last < first:
        return "no acknowledged position is lost"
    return f"positions {first} to {last} had been acknowledged and cannot be read"


def repair(disk: Disk, folder: str, found: Found) -> Found:
    """Keep a torn tail aside and make the last segment trustworthy; may be called again after any error."""
    last = found.last
    path = segment_path(folder, last.header.segment)
    if found.torn:
        keep_aside(disk, folder, f"{path}.{last.end}", found.torn)
    if not found.data:
        return found
    data = bytes(found.data)
    chain, end, flags = last.chain, last.end, last.flags
    if last.frames and not flags & frames.SEAL:
        seal, chain = frames.pack_frame(chain, b"", 0, frames.SEAL)
        end += frames.aligned(len(seal), last.header.align)
        flags = frames.SEAL
        data = (data + seal).ljust(end, b"\0")
    replace_segment(disk, folder, last.header, data)
    if found.unmarked is not None:  # only now is it certain that the last segment keeps its name
        _mark_rolled(disk, folder, found.unmarked)
    last = last._replace(chain=chain, end=end, flags=flags, written=end)
    segments = [*found.segments[:-1], found.segments[-1]._replace(end=end)]
    return Found(segments, last, b"", b"", None)


def _mark_rolled(disk: Disk, folder: str, before: Scan) -> None:
    mark, _ = frames.pack_frame(before.chain, b"", 0, frames.ROLLED)
    with opened(disk, segment_path(folder, before.header.segment), write=True) as file:
        write_all(disk, file, mark, before.end)
        disk.sync(file)


def keep_aside(disk: Disk, folder: str, name: str, data: bytes) -> str:
    """Store bytes that are about to be cut as `<name>.torn`, durably, and return the path."""
    names = disk.list(folder)
    path = f"{name}.torn"
    again = 1
    while os.path.basename(path) in names:
        with opened(disk, path) as file:
            if read_all(disk, file, len(data) + 1) == data:
                disk.sync_folder(folder)
                return path
        again += 1
        path = f"{name}.{again}.torn"
    fresh = f"{name}.new"
    if os.path.basename(fresh) in names:
        disk.unlink(fresh)
    with opened(disk, fresh, create=True) as file:
        write_all(disk, file, data, 0)
        disk.sync(file)
    disk.rename(fresh, path)
    disk.sync_folder(folder)
    return path


def create(disk: Disk, folder: str, header: SegmentHeader) -> Found:
    """Make the first segment of a new log."""
    make_spare(disk, folder, header.segment_bytes, 0)
    replace_segment(disk, folder, header, frames.pack_segment(header).ljust(HEADER_BYTES, b"\0"))
    chain = frames.start_chain(header)
    marks = [Mark(HEADER_BYTES, chain)]
    last = Scan(header, chain, HEADER_BYTES, 0, 0, False, Bad.NOTHING, HEADER_BYTES, marks)
    return Found([SegmentFound(header, marks, last.end)], last, b"", b"", None)
