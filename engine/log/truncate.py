"""Giving up the end of a damaged log, on an operator's word and never by itself; a copy of it is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from engine.errors import ConfigError, LogCorrupt
from engine.log import frames
from engine.log.disk import Disk, OSDisk
from engine.log.frames import HEADER_BYTES, Chain, Frame, SegmentHeader
from engine.log.opening import new_epoch
from engine.log.recovery import check_link, keep_aside
from engine.log.segments import (
    LOCK,
    load,
    replace_segment,
    scan,
    segment_numbers,
    segment_path,
)


class Truncated(NamedTuple):
    """What `truncate_at` did."""

    head: int
    """Where the log ends now: at the position asked for, or before it, as batches are dropped whole."""
    epoch: str
    kept_aside: list[str]
    """Files that hold what was given up."""


def truncate_at(
    folder: str,
    position: int,
    disk: Disk | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
) -> Truncated:
    """Drop everything after `position`. The log gets a new epoch, as clients may know what is dropped.

    May be interrupted and called again.

    Raises:
        ConfigError: the log does not reach back to `position`.
        LogCorrupt: there is damage before `position` too.
        LogLocked: the log is in use.
    """
    disk = disk or OSDisk()
    lock = disk.lock(os.path.join(folder, LOCK), f"process {os.getpid()}, truncating\n")
    try:
        return _truncate(folder, position, disk, new_epoch(entropy))
    finally:
        disk.unlock(lock)


def _truncate(folder: str, position: int, disk: Disk, epoch: str) -> Truncated:
    header, data = _segment_of(folder, position, disk)
    path = segment_path(folder, header.segment)
    end, chain, flags = _walk(path, header, data, position)
    kept = []
    for later in reversed([other for other in segment_numbers(disk, folder) if other > header.segment]):
        removed = f"{segment_path(folder, later)}.removed"
        disk.rename(segment_path(folder, later), removed)
        disk.sync_folder(
            folder
        )  # from the end, one by one: what is left always ends too early, and is refused
        kept.append(removed)
    rest = data[end:].rstrip(b"\0")
    if rest:
        kept.append(keep_aside(disk, folder, f"{path}.{end}", rest))
    header = header._replace(epoch=epoch)
    first = frames.pack_segment(header)
    content = first + data[len(first) : end]
    if not flags & frames.CLEAN:
        content += frames.pack_frame(chain, b"", 0, frames.SEAL | frames.CLEAN)[0]
    replace_segment(disk, folder, header, content)
    return Truncated(chain.position, epoch, kept)


def _segment_of(folder: str, position: int, disk: Disk) -> tuple[SegmentHeader, bytes]:
    """Return the last readable segment that begins at or before the position after `position`."""
    found: tuple[SegmentHeader, bytes] | None = None
    for number in segment_numbers(disk, folder):
        path = segment_path(folder, number)
        try:
            header, data = load(disk, path)
        except LogCorrupt:
            break
        if header.first_position > position + 1 or (found and number != found[0].segment + 1):
            break
        if found is not None:
            check_link(segment_path(folder, found[0].segment), scan(*found), header)
        found = header, data
    if found is None:
        raise ConfigError(f"the log in {folder} does not reach back to position {position}")
    return found


def _walk(path: str, header: SegmentHeader, data: bytes, position: int) -> tuple[int, Chain, int]:
    """Return end, chain and flags of the last frame whose entries are all at or before `position`."""
    end, chain, flags = HEADER_BYTES, frames.start_chain(header), 0
    why = "the segment after this one is missing"
    while True:
        frame = frames.parse_frame(data, end, header.segment_bytes, header.align, chain)
        if not isinstance(frame, Frame):
            why = frame.value
            break
        if frame.flags & frames.ROLLED:
            break
        if frame.chain.position > position:
            return end, chain, flags
        end, chain, flags = frame.end, frame.chain, frame.flags
    if chain.position < position:
        raise LogCorrupt(path, end, f"{why}: it cannot be read beyond position {chain.position}")
    return end, chain, flags
