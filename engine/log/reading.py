"""Reading entries back from segments, a chunk at a time, each frame verified again."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from engine.errors import LogCorrupt
from engine.log import frames
from engine.log.disk import Disk, opened, read_all
from engine.log.frames import Bad, Frame
from engine.log.segments import MARK_EVERY_BYTES, Mark
from engine.records import Entry


class Stretch(NamedTuple):
    """The durable part of one segment, as it was when the read began."""

    path: str
    align: int
    end: int
    last_position: int
    """Of the last entry in it."""
    marks: list[Mark]


class Chunk(NamedTuple):
    """What one read found, and where the next one may begin."""

    entries: list[tuple[int, Entry]]
    mark: Mark


def nearest(marks: list[Mark], after: int) -> Mark:
    """Return the last mark from which the entry at `after` + 1 can be reached."""
    return marks[max(0, bisect_right(marks, after, key=_position) - 1)]


def read_chunk(disk: Disk, stretch: Stretch, after: int, bytes_max: int) -> Chunk:
    """Return entries of one segment with position > `after`, at least one, about `bytes_max` of them.

    Raises:
        LogCorrupt: a frame that had been durable is damaged; never taken for the end of the log.
        OSError: the disk failed.
    """
    offset, chain = nearest(stretch.marks, after)
    found: list[tuple[int, Entry]] = []
    found_bytes = 0
    with opened(disk, stretch.path) as file:
        start = offset
        data = b""
        while chain.position < stretch.last_position and found_bytes < bytes_max:
            size = _frame_bytes(data, offset - start, stretch.align)
            if size is None or offset - start + size > len(data):
                if found:
                    break
                start = offset
                wanted = max(bytes_max, MARK_EVERY_BYTES, size or 0) + MARK_EVERY_BYTES
                data = read_all(disk, file, min(wanted, stretch.end - start), start)
                size = _frame_bytes(data, 0, stretch.align)
                if size is not None and size > len(data):  # only now its header tells how large it is
                    data = read_all(disk, file, min(size, stretch.end - start), start)
            frame = frames.parse_frame(data, offset - start, stretch.end - start, stretch.align, chain)
            if not isinstance(frame, Frame):
                raise _damaged(stretch, offset, frame, chain.position)
            if frame.first_position + frame.entries > after + 1:
                try:
                    found_bytes += _take(frame, after, bytes_max - found_bytes, found)
                except ValueError as error:
                    raise LogCorrupt(stretch.path, offset, str(error)) from error
                if found[-1][0] < frame.chain.position:
                    break  # the frame has more: the next read starts at it again
            offset, chain = start + frame.end, frame.chain
    return Chunk(found, Mark(offset, chain))


def _position(mark: Mark) -> int:
    return mark.chain.position


def _frame_bytes(data: bytes, offset: int, align: int) -> int | None:
    payload_bytes = frames.payload_bytes_at(data, offset)
    return None if payload_bytes is None else frames.aligned(frames.FRAME_BYTES + payload_bytes, align)


def _take(frame: Frame, after: int, bytes_max: int, found: list[tuple[int, Entry]]) -> int:
    entries = frames.unpack_entries(frame.payload, frame.entries)
    if frame.first_position > after and len(frame.payload) <= bytes_max:
        found.extend(enumerate(entries, frame.first_position))
        return len(frame.payload)
    taken = 0
    for position, entry in enumerate(entries, frame.first_position):
        if position > after:
            found.append((position, entry))
            taken += frames.entry_bytes(entry)
            if taken >= bytes_max:
                break
    return taken


def _damaged(stretch: Stretch, offset: int, bad: Bad, position: int) -> LogCorrupt:
    why = f"{bad.value} after position {position}, which had been read as good before"
    return LogCorrupt(stretch.path, offset, why)
