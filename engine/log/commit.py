"""Group commit: what waits becomes one frame, written and synced while the next one gathers.

All state belongs to trio's thread, except the `SegmentWriter`, which belongs to the worker's thread while a
batch is under way.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import outcome
import trio

from engine.errors import LogFailed, OndaError, Overloaded, ReadOnly, Stopping, UnknownOutcome
from engine.log import frames
from engine.log.counts import Counts, OnSync
from engine.log.heads import Heads
from engine.log.segments import payload_bytes_max
from engine.log.shelf import Shelf
from engine.log.worker import Worker
from engine.log.writer import NoSpace, SegmentWriter
from engine.records import Entry

logger = logging.getLogger("onda.log")

BATCH_BYTES_MAX = 4 << 20
"""Payload of one frame, so also of one append: what a restart may have to read at once."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a log.

    Attributes:
        segment_bytes: size of the segments to come.
        align: frames start at multiples of it.
        queue_entries_max: entries that may wait for the disk.
        queue_bytes_max: their bytes.
    """

    segment_bytes: int
    align: int
    queue_entries_max: int
    queue_bytes_max: int

    @property
    def append_bytes_max(self) -> int:
        """How large one append may be."""
        room = payload_bytes_max(self.segment_bytes, self.align)
        return min(BATCH_BYTES_MAX, room, self.queue_bytes_max)


class _Append(NamedTuple):
    """What one caller wants appended, and who is told what became of it."""

    entries: Sequence[Entry]
    data: bytes
    settle: Callable[[outcome.Outcome[int]], None]


class GroupCommit:
    """Takes appends and makes them durable in batches.

    Attributes:
        head: position of the last durable entry.
        blocked: read-only, as there was no space.
        counts: what was done.
        failure: why the log is broken for good.
        spare_wanted: set when somebody should call `spare_ready` or `spare_missing` after trying to make one.
        unsealed: set when something was appended since the last seal.
    """

    def __init__(
        self,
        worker: Worker,
        shelf: Shelf,
        heads: Heads,
        head: int,
        limits: Limits,
        on_sync: OnSync | None,
    ) -> None:
        self._worker = worker
        self._shelf = shelf
        self._heads = heads
        self._limits = limits
        self._append_bytes_max = limits.append_bytes_max
        self._on_sync = on_sync
        self._token = trio.lowlevel.current_trio_token()
        self._queue: deque[_Append] = deque()
        self._queue_entries = 0
        self._queue_bytes = 0
        self._batch: list[_Append] = []
        self._began = 0.0
        self._busy = False
        self._starting = False
        self._spare = False
        self._spare_error: OSError | None = None
        self.blocked = True
        self._closing = False
        self._refusal: type[OndaError] | None = ReadOnly
        self._idle = trio.Event()
        self._room = trio.Event()
        self.writer: SegmentWriter | None = None
        self.head = head
        self.failure: LogFailed | None = None
        self.failed = trio.Event()
        self.spare_wanted = trio.Event()
        self.spare_wanted.set()
        self.unsealed = trio.Event()
        self.counts = Counts()

    @property
    def writable(self) -> bool:
        """Whether appends are taken."""
        return self._refusal is None

    @property
    def busy(self) -> bool:
        """Whether a batch is under way or waiting."""
        return self._busy or bool(self._queue)

    def start(self, writer: SegmentWriter) -> None:
        """Take appends from now on."""
        self.writer = writer
        self.blocked = False
        self._review()

    def submit(self, entries: Sequence[Entry], done: Callable[[outcome.Outcome[int]], None]) -> None:
        """See `engine.log.Log.submit`."""
        if self._refusal is not None:
            self.counts.refused += 1
            raise self._refusal()
        data = b"".join([frames.pack_entry(entry) for entry in entries])
        if not 0 < len(data) <= self._append_bytes_max:
            raise ValueError(f"an append of {len(data)} bytes; 1 to {self._append_bytes_max} are possible")
        if (
            self._queue_entries + len(entries) > self._limits.queue_entries_max
            or self._queue_bytes + len(data) > self._limits.queue_bytes_max
        ):
            self.counts.refused += 1
            raise Overloaded
        self._heads.advance(entries)
        self._queue.append(_Append(tuple(entries), data, done))
        self._queue_entries += len(entries)
        self._queue_bytes += len(data)
        if not self._busy and not self._starting:
            self._starting = True
            self._token.run_sync_soon(self._start)

    async def wait_room(self) -> None:
        """See `engine.log.Log.wait_room`. Who is woken looks again: others may have filled it up."""
        while (
            2 * self._queue_entries >= self._limits.queue_entries_max
            or 2 * self._queue_bytes >= self._limits.queue_bytes_max
        ):
            if self._room.is_set():
                self._room = trio.Event()
            await self._room.wait()

    def seal(self, flags: int) -> None:
        """Begin to write a frame without entries, if nothing else is going on and there is none yet."""
        if self.writer is None or self.busy or self.blocked or self.failure is not None:
            return
        if self.writer.flags & flags != flags:
            self._submit([], flags)

    async def close(self) -> None:
        """Take no more appends, finish those that wait, and leave the mark of an orderly end."""
        self._closing = True
        self._review()
        await self._wait_idle()
        self.seal(frames.SEAL | frames.CLEAN)
        await self._wait_idle()

    def spare_ready(self) -> None:
        """There is a spare segment now."""
        if self._spare_error is not None:
            logger.warning("there is space again: appends are taken")
        self._spare = True
        self._spare_error = None
        self.spare_wanted = trio.Event()
        if self.writer is not None:
            self.blocked = False
            self._review()
        if not self._busy and self._queue:
            self._begin()

    def spare_missing(self, error: OSError) -> None:
        """No spare segment can be made at the moment."""
        if self._spare_error is None:
            logger.error("no spare segment, read-only once this one is full: %s", error)
        self._spare_error = error
        if not self._busy and self._queue:
            self._begin()

    def fail(self, error: BaseException) -> None:
        """The disk failed: nobody may rely on anything that is not yet durable."""
        if self.failure is None:
            logger.critical("the log failed, the process has to end: %r", error)
            self.failure = LogFailed(f"the log failed: {error!r}")
            self.failure.__cause__ = error
        self._review()
        self._settle_all(UnknownOutcome)
        self.unsealed = trio.Event()
        self.failed.set()

    def statistics(self) -> dict[str, Any]:
        """Counts since the log was opened, and what is going on."""
        return {
            **self.counts.as_dict(),
            "queue_entries": self._queue_entries,
            "queue_bytes": self._queue_bytes,
            "outstanding_s": trio.current_time() - self._began if self._busy else 0.0,
            "spare": self._spare,
        }

    def _start(self) -> None:
        self._starting = False
        if not self._busy and self._queue:
            self._begin()

    def _begin(self) -> None:
        assert self.writer is not None
        batch = self._take(min(self._append_bytes_max, self.writer.room))
        if batch:
            self._submit(batch, 0)
        elif self._spare:
            self._submit(self._take(self._append_bytes_max), 0, roll=True)
        elif self._spare_error is not None:
            self._block(self._spare_error)

    def _take(self, bytes_max: int) -> list[_Append]:
        batch: list[_Append] = []
        queue = self._queue
        left = bytes_max
        while queue and len(queue[0].data) <= left:
            waiting = queue.popleft()
            left -= len(waiting.data)
            self._queue_entries -= len(waiting.entries)
            batch.append(waiting)
        self._queue_bytes -= bytes_max - left
        self._room.set()
        return batch

    def _submit(self, batch: list[_Append], flags: int, *, roll: bool = False) -> None:
        assert self.writer is not None
        self._busy = True
        self._batch = batch
        self._began = trio.current_time()
        payload = b"".join([waiting.data for waiting in batch])
        entries = sum([len(waiting.entries) for waiting in batch])
        self._worker.submit(partial(self._write, self.writer, payload, entries, flags, roll), self._written)

    def _write(self, writer: SegmentWriter, payload: bytes, entries: int, flags: int, roll: bool) -> None:
        if roll:
            writer.roll(self._limits.segment_bytes, self._limits.align)
        writer.append(payload, entries, flags)

    def _written(self, result: outcome.Outcome[None]) -> None:
        try:
            self._complete(result)
        except Exception as error:  # noqa: BLE001  there is no caller here that could be told of a bug
            self.fail(error)

    def _complete(self, result: outcome.Outcome[None]) -> None:
        self._busy = False
        error = result.error if isinstance(result, outcome.Error) else None
        if error is not None and not isinstance(error, NoSpace):
            self.fail(error)
            return
        assert self.writer is not None
        if self.writer.header.segment != self._shelf.last_segment:
            self._shelf.rolled(self.writer.header)
            self._spare = False
            self.spare_wanted.set()
        durable: list[tuple[_Append, int]] = []
        try:
            if error is not None:
                self._block(error)
            else:
                before, durable = self.head, self._durable(self.writer)
                self._note(durable, self.head - before)
            if self._queue:
                self._begin()  # the disk first: those who are told now have work to do before they append
            else:
                self._idle.set()
        finally:
            for waiting, position in durable:
                waiting.settle(outcome.Value(position))

    def _durable(self, writer: SegmentWriter) -> list[tuple[_Append, int]]:
        """The batch is durable now; return who is to be told, and of which position."""
        batch, self._batch = self._batch, []
        told = []
        position = self.head
        self.head = writer.chain.position
        for waiting in batch:
            position += len(waiting.entries)
            told.append((waiting, position))
        return told

    def _note(self, durable: list[tuple[_Append, int]], entries: int) -> None:
        """Keep count of a batch that became durable."""
        assert self.writer is not None
        self._shelf.grew(self.writer.end, self.writer.chain)
        size = sum([len(waiting.data) for waiting, _ in durable])
        seconds = trio.current_time() - self._began
        self.counts.note_batch(len(durable), entries, size, seconds)
        if self._on_sync is not None:
            self._on_sync(seconds, entries)
        if durable:
            self.unsealed.set()
        else:
            self.unsealed = trio.Event()

    def _block(self, error: Exception) -> None:
        """Read-only: everyone who waits learns that nothing happened."""
        logger.error("read-only, appends are refused: %s", error)
        self.blocked = True
        self._spare = False
        self._review()
        undone = [*self._batch, *self._queue]
        self._heads.take_back(entry for waiting in reversed(undone) for entry in reversed(waiting.entries))
        self._settle_all(ReadOnly)
        self.spare_wanted.set()

    def _settle_all(self, error: type[OndaError]) -> None:
        settled = [*self._batch, *self._queue]
        self._batch = []
        self._queue.clear()
        self._queue_entries = self._queue_bytes = 0
        self._room.set()
        for waiting in settled:
            waiting.settle(outcome.Error(error()))
        self._idle.set()

    def _review(self) -> None:
        if self.failure is not None:
            self._refusal = UnknownOutcome
        elif self._closing:
            self._refusal = Stopping
        else:
            self._refusal = ReadOnly if self.blocked else None

    async def _wait_idle(self) -> None:
        while self.busy and self.failure is None:
            self._idle = trio.Event()
            await self._idle.wait()  # no deadline: what the disk does cannot be called off
