"""From a folder's name to a log that is locked, verified and, unless the disk is full, ready for appends."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from engine.errors import LogFailed
from engine.log import recovery
from engine.log.disk import NO_SPACE, Disk, boot_id
from engine.log.frames import Frame, SegmentHeader, last_versions
from engine.log.heads import Heads
from engine.log.recovery import Found
from engine.log.segments import LOCK
from engine.log.writer import SegmentWriter

logger = logging.getLogger("onda.log")


class Birth(NamedTuple):
    """What a new log is made with."""

    log: bytes
    epoch: str
    segment_bytes: int
    align: int


class Opened(NamedTuple):
    """A log that this process owns."""

    lock: int
    found: Found
    heads: Heads
    torn_bytes: int
    writer: SegmentWriter | None
    """None when the disk has no space for the repairs that must come first (`start_writing`)."""


def open_folder(disk: Disk, folder: str, birth: Birth, floor: int, verified: int) -> Opened:
    """Lock and open the log in a folder, making a new one in an empty folder.

    Raises:
        LogLocked, LogCorrupt, LogTooNew, LogMoved: it stays as it is.
        LogFailed: the disk failed.
    """
    try:
        disk.make_folder(folder)
        owner = f"process {os.getpid()}, boot {boot_id()}\n"
        lock = disk.lock(os.path.join(folder, LOCK), owner)
    except OSError as error:
        raise LogFailed(f"cannot open the log in {folder}: {error}") from error
    try:
        return _open_locked(disk, folder, birth, floor, verified, lock)
    except BaseException as error:
        with contextlib.suppress(OSError):
            disk.unlock(lock)
        if isinstance(error, OSError):
            raise LogFailed(f"cannot open the log in {folder}: {error}") from error
        raise


def _open_locked(disk: Disk, folder: str, birth: Birth, floor: int, verified: int, lock: int) -> Opened:
    heads = Heads(complete=False)

    def visit(frame: Frame) -> None:
        for stream, version in last_versions(frame.payload, frame.entries).items():
            heads.note(stream, version)

    recovery.refuse_moved(disk, folder)
    found = recovery.examine(disk, folder, floor, verified, visit)
    if found is None:
        header = SegmentHeader(birth.align, birth.log, birth.epoch, 1, birth.segment_bytes, 1, 1, 0)
        found = recovery.create(disk, folder, header)
    heads.complete = not verified and found.segments[0].header.first_position == 1
    if found.torn:
        logger.warning(
            "torn tail: %d bytes that were never acknowledged are kept in a .torn file; the log ends at %d",
            len(found.torn),
            found.last.chain.position,
        )
    torn_bytes = len(found.torn)
    try:
        found, writer = start_writing(disk, folder, found)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        logger.error("no space to repair the log's end, read-only until there is: %s", error)
        return Opened(lock, found, heads, torn_bytes, None)
    return Opened(lock, found, heads, torn_bytes, writer)


def start_writing(disk: Disk, folder: str, found: Found) -> tuple[Found, SegmentWriter]:
    """Write what has to be written before the first append; after an error it may be called again."""
    found = recovery.repair(disk, folder, found)
    last = found.last
    return found, SegmentWriter(disk, folder, last.header, last.chain, last.end, last.flags)


def new_epoch(entropy: Callable[[int], bytes]) -> str:
    """Return a name for a log's incarnation that was never used."""
    return base64.b32encode(entropy(5)).decode().lower()
