"""The write-ahead log in files on this machine.

Theory of operation. `append` encodes its entries, queues them and waits (`commit.py`). When the disk is
idle the next batch begins one scheduler turn later, so that everyone who is about to append gets in; while
a batch is being written and synced in the log's own thread (`writer.py`, `worker.py`), what arrives gathers
as the next one. The thread reports back once per batch into trio's thread, which wakes the waiters and
begins the next batch at once.

After 50 ms without an append an empty *seal* frame proves that the last batch had been synced
(`recovery.py` says why). A spare segment is prepared in the background (`segments.py`). Without one, and
with the segment full, the log is read-only until a spare can be made again: tried every second. Any other
failure of the disk is final: everyone who waits gets `UnknownOutcome`, `wait_failed` returns, and the
process must end so that the restart reads the truth.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import outcome
import trio

from engine.errors import ConfigError, CursorUnusable, LogFailed
from engine.log import Basis, frames
from engine.log.appending import append_to
from engine.log.commit import GroupCommit, Limits
from engine.log.counts import OnSync
from engine.log.disk import NO_SPACE, Disk, OSDisk
from engine.log.opening import Birth, Opened, new_epoch, open_folder, start_writing
from engine.log.reading import read_chunk
from engine.log.segments import make_spare
from engine.log.shelf import Shelf, drop_segment
from engine.log.worker import ThreadWorker, Worker
from engine.log.writer import SegmentWriter
from engine.records import Entry

logger = logging.getLogger("onda.log")

RETRY_S = 1.0
"""How often a full disk is looked at again."""

SEGMENT_BYTES = 16 << 20
QUEUE_ENTRIES_MAX = 65_536
QUEUE_BYTES_MAX = 64 << 20


class Wal:
    """An open log; see `engine.log.Log` for the contract.

    Attributes:
        epoch: name of this log's incarnation.
        torn_bytes: what recovery cut off and kept aside.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        worker: Worker,
        opened: Opened,
        limits: Limits,
        reserve_bytes: int,
        seal_after_s: float,
        on_sync: OnSync | None,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._worker = worker
        self._found = opened.found
        self._limits = limits
        self._reserve_bytes = reserve_bytes
        self._seal_after_s = seal_after_s
        self._shelf = Shelf(folder, opened.found.segments)
        self._trimming = trio.Lock()
        self._doomed: deque[str] = deque()
        head = opened.found.last.chain.position
        self._commit = GroupCommit(worker, self._shelf, opened.heads, head, limits, on_sync)
        self.epoch = opened.found.last.header.epoch
        self.torn_bytes = opened.torn_bytes
        if opened.writer is not None:
            self._commit.start(opened.writer)

    @property
    def head(self) -> int:
        """Position of the last durable entry; 0 when there is none."""
        return self._commit.head

    @property
    def first(self) -> int:
        """Position of the oldest entry that is still kept; `head + 1` when none is."""
        return self._shelf.first

    @property
    def writable(self) -> bool:
        """Whether appends are taken; False while the disk is full."""
        return self._commit.writable

    @property
    def append_bytes_max(self) -> int:
        """How large the entries of one append may be together, counted by `frames.entry_bytes`."""
        return self._limits.append_bytes_max

    def append(self, entries: Sequence[Entry], basis: Basis | None = None) -> Coroutine[Any, Any, int]:
        """See `engine.log.Log.append`; no entries, or more than `append_bytes_max`, is a `ValueError`. Nobody
        else writes here, so `basis` is always right.
        """
        return append_to(self, entries, basis)

    def submit(
        self,
        entries: Sequence[Entry],
        done: Callable[[outcome.Outcome[int]], None],
        basis: Basis | None = None,
    ) -> None:
        """See `engine.log.Log.submit`; the same."""
        self._commit.submit(entries, done)

    def wait_room(self) -> Coroutine[Any, Any, None]:
        """See `engine.log.Log.wait_room`."""
        return self._commit.wait_room()

    async def read(self, after: int, bytes_max: int = 1 << 20) -> list[tuple[int, Entry]]:
        """See `engine.log.Log.read`; one chunk ends with its segment.

        Raises:
            CursorUnusable: entries after `after` have been dropped already.
            LogCorrupt: a frame that had been durable is damaged.
            LogFailed: the disk did not deliver it.
        """
        if after >= self.head:
            await trio.lowlevel.checkpoint()
            return []
        if after + 1 < self.first:
            raise CursorUnusable("expired")
        stretch = self._shelf.stretch(after, self.head)
        try:
            chunk = await self._worker.run(partial(read_chunk, self._disk, stretch, after, max(1, bytes_max)))
        except OSError as error:
            if after + 1 < self.first:  # dropped in the meantime
                raise CursorUnusable("expired") from None
            raise LogFailed(f"cannot read {stretch.path}: {error}") from error
        self._shelf.remember(stretch.marks, chunk.mark)
        return chunk.entries

    async def trim(self, upto: int) -> None:
        """Drop whole segments at positions ≤ `upto`; never the one that is being written.

        A disk that refuses is tried again by the next call: what stays only takes space.
        """
        async with self._trimming:
            self._doomed.extend(self._shelf.drop(min(upto, self.head)))
            while self._doomed:
                path = self._doomed[0]
                try:
                    await self._worker.run(partial(drop_segment, self._disk, self._folder, path))
                except OSError as error:
                    logger.error("cannot drop %s, the next trim tries again: %s", path, error)
                    return
                self._doomed.popleft()

    async def wait_failed(self) -> LogFailed:
        """Wait until the log has failed for good, and return why: the process has to end."""
        await self._commit.failed.wait()
        assert self._commit.failure is not None
        return self._commit.failure

    def statistics(self) -> dict[str, Any]:
        """Numbers for operators; times in seconds, sizes in bytes."""
        return {
            "head": self.head,
            "first": self.first,
            "segments": self._shelf.segments,
            "bytes": self._shelf.bytes,
            "writable": self.writable,
            "failed": self._commit.failure is not None,
            "torn_bytes": self.torn_bytes,
            **self._commit.statistics(),
        }

    async def run(self) -> None:
        """Seal what is idle and keep a spare segment, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_spare)
            nursery.start_soon(self._seal_when_idle)

    async def finish(self) -> None:
        """Finish what waits and leave the mark of an orderly end, unless the log failed."""
        await self._commit.close()

    def close(self) -> None:
        """Let go of the file that is being written; nothing may be under way."""
        if self._commit.writer is not None:
            self._commit.writer.close()

    async def _keep_spare(self) -> None:
        commit = self._commit
        missing = False
        while True:
            await commit.spare_wanted.wait()
            if missing or commit.blocked:
                await trio.sleep(RETRY_S)
            try:
                if commit.writer is None:
                    commit.start(await self._worker.run(self._repair))
                await self._worker.run(self._make_spare)
            except OSError as error:
                if commit.writer is None and error.errno not in NO_SPACE:
                    commit.fail(error)
                    return
                missing = True
                commit.spare_missing(error)
            else:
                missing = False
                commit.spare_ready()

    def _repair(self) -> SegmentWriter:
        self._found, writer = start_writing(self._disk, self._folder, self._found)
        return writer

    def _make_spare(self) -> None:
        assert self._commit.writer is not None
        self._commit.writer.make_room()  # does nothing unless a roll failed, and then nobody appends
        make_spare(self._disk, self._folder, self._limits.segment_bytes, self._reserve_bytes)

    async def _seal_when_idle(self) -> None:
        while True:
            await self._commit.unsealed.wait()
            batches = -1
            while batches != self._commit.counts.batches:
                batches = self._commit.counts.batches
                await trio.sleep(self._seal_after_s)
            self._commit.seal(frames.SEAL)


@asynccontextmanager
async def open_wal(
    folder: str,
    *,
    disk: Disk | None = None,
    worker: Worker | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    pad: int = 0,
    seal_after_s: float = 0.05,
    reserve_bytes: int = 64 << 20,
    queue_entries_max: int = QUEUE_ENTRIES_MAX,
    queue_bytes_max: int = QUEUE_BYTES_MAX,
    acked_floor: int = 0,
    verified: int = 0,
    on_sync: OnSync | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
) -> AsyncIterator[Wal]:
    """Open the log in a folder, or make one there; it is closed in order at the end of the `async with`.

    Args:
        folder: made when it is missing.
        disk: the machine's by default.
        worker: where blocking work runs; a thread by default.
        segment_bytes: size of new segments, a multiple of 4096.
        pad: 4096: each batch has its sectors to itself, so that a torn sector never holds acknowledged
            bytes; 0: no padding.
        seal_after_s: idle time after which the last batch is proven by a seal.
        reserve_bytes: free space that is left to others before the log goes read-only; 0: none.
        queue_entries_max: entries that may wait for the disk; one more is `Overloaded`.
        queue_bytes_max: their bytes.
        acked_floor: a position that something else (the checkpoint) knows to have been durable.
        verified: segments that end at or before this position are checked when they are read, not now.
        on_sync: called with seconds and entries of every batch.
        entropy: random bytes for the names of a new log.

    Raises:
        LogLocked: another process owns the folder.
        LogCorrupt: acknowledged entries are damaged or missing; nothing was changed.
        LogTooNew: a newer version wrote it; nothing was changed.
        LogFailed: the disk failed.
    """
    limits = Limits(segment_bytes, 8 if pad == 0 else pad, queue_entries_max, queue_bytes_max)
    if limits.align not in (8, 4096) or segment_bytes % 4096 or limits.append_bytes_max < 1024:
        raise ConfigError(f"a log cannot have segment_bytes={segment_bytes} with pad={pad}")
    disk = disk or OSDisk()
    worker = worker or ThreadWorker("onda-log")
    birth = Birth(entropy(16), new_epoch(entropy), segment_bytes, limits.align)
    try:
        opened = await worker.run(partial(open_folder, disk, folder, birth, acked_floor, verified))
        wal = Wal(disk, folder, worker, opened, limits, reserve_bytes, seal_after_s, on_sync)
        try:
            async with _running(wal):
                yield wal
        finally:
            for let_go in (wal.close, partial(disk.unlock, opened.lock)):
                with contextlib.suppress(OSError):
                    let_go()
    finally:
        worker.close()


@asynccontextmanager
async def _running(wal: Wal) -> AsyncIterator[None]:
    """Run a log's background tasks; finish in order whatever the body does, and raise its error as it is."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wal.run)
        try:
            yield
        except BaseException as error:  # noqa: BLE001  raised below, out of the nursery
            failure = error
        with trio.CancelScope(shield=True):
            await wal.finish()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
