"""The one place that appends to segments: frames, the next segment, and what a failure there means.

Runs in the log's own thread, one call at a time. After a call that raised anything but `NoSpace` nothing is
known about the disk any more: never call again. A failed sync is never retried, as the system may have
dropped the pages.
"""

from __future__ import annotations

import errno

from engine.log import frames
from engine.log.disk import NO_SPACE, Disk, write_all
from engine.log.frames import Chain, SegmentHeader
from engine.log.segments import adopt_spare, forget_segment, payload_bytes_max, segment_path


class NoSpace(Exception):
    """Nothing was appended, and the log is as it was; call `make_room` before anything else."""


class SegmentWriter:
    """Appends to the last segment of a log.

    Attributes:
        header: of the segment that is being written.
        chain: what the next frame continues; its position is the log's durable head.
        end: where the next frame goes; everything before is durable.
        flags: of the last frame.
    """

    def __init__(
        self, disk: Disk, folder: str, header: SegmentHeader, chain: Chain, end: int, flags: int
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._file = disk.open(segment_path(folder, header.segment), write=True)
        self._unfinished: int | None = None
        self.header = header
        self.chain = chain
        self.end = end
        self.flags = flags

    @property
    def room(self) -> int:
        """How large a payload fits into the segment."""
        return payload_bytes_max(self.header.segment_bytes, self.header.align, self.end)

    def append(self, payload: bytes, entries: int, flags: int = 0) -> None:
        """Write one frame and return when it is durable.

        Raises:
            NoSpace: nothing was appended.
            OSError: the disk failed.
        """
        data, chain = frames.pack_frame(self.chain, payload, entries, flags)
        self._write(data + bytes(-len(data) % self.header.align))
        self._disk.sync(self._file)
        self.end += frames.aligned(len(data), self.header.align)
        self.chain = chain
        self.flags = flags

    def roll(self, segment_bytes: int, align: int) -> None:
        """Go on in the spare, which must be ready.

        Raises:
            NoSpace: still in the old segment.
            OSError: the disk failed.
        """
        chain = self.chain
        header = SegmentHeader(
            align,
            chain.log,
            self.header.epoch,
            self.header.segment + 1,
            segment_bytes,
            chain.position + 1,
            chain.sequence + 1,
            chain.crc,
        )
        try:
            file = adopt_spare(self._disk, self._folder, header)
        except OSError as error:
            self._unfinished = header.segment
            raise NoSpace(f"no next segment: {error}") from error
        mark, _ = frames.pack_frame(chain, b"", 0, frames.ROLLED)
        try:
            self._write(mark)
        except NoSpace as error:  # the next segment exists: the mark cannot be left out any more
            raise OSError(errno.EIO, f"cannot mark the segment: {error}") from error
        self._disk.sync(self._file)
        self._disk.close(self._file)
        self._file = file
        self.header = header
        self.chain = frames.start_chain(header)
        self.end = frames.HEADER_BYTES
        self.flags = 0

    def make_room(self) -> None:
        """Undo what a failed `roll` left.

        Raises:
            OSError: not yet possible; call again.
        """
        if self._unfinished is not None:
            forget_segment(self._disk, self._folder, self._unfinished)
            self._unfinished = None

    def close(self) -> None:
        """Close the file; appends nothing."""
        self._disk.close(self._file)

    def _write(self, data: bytes) -> None:
        if self.end + len(data) > self.header.segment_bytes:
            raise RuntimeError(
                "a frame that does not fit into its segment"
            )  # room was counted wrong: our fault
        written = 0
        view = memoryview(data)
        try:
            while written < len(data):
                step = self._disk.pwrite(self._file, view[written:], self.end + written)
                if step <= 0:
                    raise OSError(errno.EIO, "the disk takes no bytes")
                written += step
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            if written:
                write_all(self._disk, self._file, bytes(len(data)), self.end)
                self._disk.sync(self._file)
            raise NoSpace(str(error)) from error
