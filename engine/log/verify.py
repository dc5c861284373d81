"""Reading a log end to end and saying what is wrong; beside a running process too, as it writes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.errors import Conflict, LogCorrupt
from engine.log import frames
from engine.log.disk import Disk, OSDisk
from engine.log.frames import Bad, Frame, SegmentHeader
from engine.log.heads import Heads
from engine.log.recovery import check_link, check_mark
from engine.log.segments import INCOMPLETE, Mark, Scan, load, scan, segment_numbers, segment_path

_LOOKS = 5
"""How often damage is looked for before it is believed: a running process may roll, trim or be writing."""


class Damage(NamedTuple):
    """Bytes that are not as they were written."""

    path: str
    offset: int
    why: str
    first_position: int
    last_position: int | None
    """None: not known how far it goes. Less than `first_position`: no entry is touched."""


@dataclass
class Report:
    """What a log holds.

    `bytes` are those of the files; `torn_bytes` are at the end and nobody relies on them: torn by a crash, or
    being written at this moment.
    """

    folder: str
    epoch: str = ""
    segments: int = 0
    frames: int = 0
    entries: int = 0
    bytes: int = 0
    first: int = 1
    head: int = 0
    clean: bool = False
    torn_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No damage; a torn tail is none."""
        return not self.damage


def verify(folder: str, disk: Disk | None = None) -> Report:
    """Read every segment, frame and entry of a log.

    Raises:
        LogTooNew: a newer version wrote it.
        OSError: the disk does not deliver.
    """
    disk = disk or OSDisk()
    report = _Reading(folder, disk).run()
    for _ in range(_LOOKS):
        before, report = report, report if report.ok else _Reading(folder, disk).run()
        if report.damage == before.damage:
            break
    return report


class _Reading:
    """One look at a log."""

    def __init__(self, folder: str, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._report = Report(folder)
        self._heads = Heads(complete=False)
        self._path = ""

    def run(self) -> Report:
        report = self._report
        if INCOMPLETE in self._disk.list(self._folder):
            self._path = os.path.join(self._folder, INCOMPLETE)
            self._note(0, "a copy that was not finished", 1, None)
        before: Scan | None = None
        for number in segment_numbers(self._disk, self._folder):
            if before is not None and number != before.header.segment + 1:
                self._path = segment_path(self._folder, before.header.segment + 1)
                self._note(0, "this segment is missing", report.head + 1, None)
                before = None
            following = self._segment(number, before)
            before = following or before
        if before is not None:
            self._end(before)
        return report

    def _segment(self, number: int, before: Scan | None) -> Scan | None:
        report = self._report
        path = self._path
        self._path = segment_path(self._folder, number)
        try:
            header, data = load(self._disk, self._path)
        except FileNotFoundError:
            self._note(0, "this segment is missing", report.head + 1, None)
            return None
        except LogCorrupt as error:
            self._note(error.offset, error.why, report.head + 1, None)
            return None
        if not report.segments:
            report.first = header.first_position
        report.epoch = header.epoch
        report.segments += 1
        report.bytes += len(data)
        found = self._frames(header, data)
        if before is not None:
            try:
                check_link(path, before, header)
                if found.frames:
                    check_mark(path, before)
            except LogCorrupt as error:
                known = (before.chain.position + 1, header.first_position - 1)
                report.damage.append(Damage(path, error.offset, error.why, *known))
        return found

    def _frames(self, header: SegmentHeader, data: bytes) -> Scan:
        found = scan(header, data, self._visit)
        self._report.frames += found.frames
        while found.written > found.end and not found.rolled:
            start = _resume(header, data, found.end + 1)
            if start is None and found.bad is not Bad.FOREIGN:
                break
            last = start.chain.position if start else None
            self._note(found.end, found.bad.value, found.chain.position + 1, last)
            if start is None:
                break
            found = scan(header, data, self._visit, start)
            self._report.frames += found.frames
        self._report.head = max(self._report.head, found.chain.position)
        return found

    def _visit(self, frame: Frame) -> None:
        first, last = frame.first_position, frame.chain.position
        try:
            entries = frames.unpack_entries(frame.payload, frame.entries)
        except ValueError as error:
            self._note(frame.offset, str(error), first, last)
            return
        self._report.entries += len(entries)
        for position, entry in enumerate(entries, first):
            try:
                self._heads.advance([entry])
            except Conflict as error:
                self._note(frame.offset, error.detail, position, position)

    def _end(self, last: Scan) -> None:
        self._report.clean = (last.flags & frames.CLEAN) != 0
        self._report.torn_bytes = 0 if last.rolled else max(0, last.written - last.end)
        if last.rolled:
            self._note(last.end, "the segment after this one is missing", self._report.head + 1, None)

    def _note(self, offset: int, why: str, first: int, last: int | None) -> None:
        self._report.damage.append(Damage(self._path, offset, why, first, last))
        self._heads = Heads(complete=False)  # versions behind a hole have nothing to follow


def _resume(header: SegmentHeader, data: bytes, offset: int) -> Mark | None:
    """Return where the next frame of this segment is; what belongs elsewhere is skipped."""
    at = frames.find_frame(data, offset)
    while at is not None:
        chain = frames.chain_at(data, at)
        if (chain.log, chain.segment) == (header.log, header.segment):
            return Mark(at, chain)
        at = frames.find_frame(data, at + 1)
    return None
