"""The segments that a log keeps: which of them holds a position, and dropping the oldest."""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

from engine.log import frames
from engine.log.disk import Disk
from engine.log.frames import HEADER_BYTES, SegmentHeader
from engine.log.reading import Stretch
from engine.log.recovery import SegmentFound
from engine.log.segments import MARK_EVERY_BYTES, Mark, segment_path


@dataclass(slots=True)
class _Kept:
    header: SegmentHeader
    marks: list[Mark]
    end: int


class Shelf:
    """The segments of an open log, oldest first. Belongs to trio's thread."""

    def __init__(self, folder: str, found: Sequence[SegmentFound]) -> None:
        self._folder = folder
        self._kept = [_Kept(header, list(marks), end) for header, marks, end in found]

    @property
    def first(self) -> int:
        """Position of the first entry that is kept, or would be."""
        return self._kept[0].header.first_position

    @property
    def last_segment(self) -> int:
        """Number of the segment that is being written."""
        return self._kept[-1].header.segment

    @property
    def segments(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Size of the segments on disk."""
        return sum(kept.header.segment_bytes for kept in self._kept)

    def rolled(self, header: SegmentHeader) -> None:
        """A segment was added at the end."""
        self._kept.append(_Kept(header, [Mark(HEADER_BYTES, frames.start_chain(header))], HEADER_BYTES))

    def grew(self, end: int, chain: frames.Chain) -> None:
        """The last segment is durable up to `end`."""
        last = self._kept[-1]
        last.end = end
        if end - last.marks[-1].offset >= MARK_EVERY_BYTES:
            last.marks.append(Mark(end, chain))

    def stretch(self, after: int, head: int) -> Stretch:
        """Return the durable part of the segment that holds the entry at `after` + 1, which exists."""
        at = bisect_right(self._kept, after + 1, key=lambda kept: kept.header.first_position) - 1
        kept = self._kept[at]
        following = self._kept[at + 1] if at + 1 < len(self._kept) else None
        return Stretch(
            segment_path(self._folder, kept.header.segment),
            kept.header.align,
            kept.end,
            following.header.first_position - 1 if following else head,
            kept.marks,
        )

    def remember(self, marks: list[Mark], mark: Mark) -> None:
        """Keep a place that reading came to, in a segment that opening did not read through."""
        at = bisect_left(marks, mark.offset, key=lambda known: known.offset)
        before = marks[at - 1].offset if at else 0
        after = marks[at].offset if at < len(marks) else before + 2 * MARK_EVERY_BYTES + mark.offset
        if mark.offset - before >= MARK_EVERY_BYTES and after - mark.offset >= MARK_EVERY_BYTES:
            insort(marks, mark, key=lambda known: known.offset)

    def drop(self, upto: int) -> list[str]:
        """Take off whole segments at positions ≤ `upto`, never the last; return their paths, oldest first."""
        paths = []
        while len(self._kept) > 1 and self._kept[1].header.first_position <= upto + 1:
            paths.append(segment_path(self._folder, self._kept.pop(0).header.segment))
        return paths


def drop_segment(disk: Disk, folder: str, path: str) -> None:
    """Remove a segment, for good before the next one may go: a hole would look like damage."""
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(path)
    disk.sync_folder(folder)
