"""Logs on the simulated disk: opening them, a scenario that makes every kind of disk call, and running it
with faults.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import trio
from trio.testing import MockClock

from engine.errors import LogFailed, OndaError, ReadOnly, UnknownOutcome
from engine.log.segments import segment_path
from engine.log.wal import Wal, open_wal
from engine.records import Entry
from tests.log.journal import Journal
from tests.simulation.disk import SimulatedDisk
from tests.simulation.worker import InlineWorker

FOLDER = "/data"
STREAMS = ("store:s1", "table:s1/1", "table:s1/2", "user:u1")
SEGMENT_BYTES = 32 * 1024


def open_log(disk: SimulatedDisk, **options: Any) -> AbstractAsyncContextManager[Wal]:
    """Open the log of a simulated disk, without threads and with small segments."""
    settings: dict[str, Any] = {
        "worker": InlineWorker(),
        "segment_bytes": SEGMENT_BYTES,
        "reserve_bytes": 0,
        "entropy": _zeros,
        **options,
    }
    return open_wal(FOLDER, disk=disk, **settings)


def segment(number: int) -> str:
    """Return the path of a segment."""
    return segment_path(FOLDER, number)


def run(seed: int, work: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
    """Run a coroutine function on a clock that jumps, with tasks in an order that only the seed decides."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # trio has no public switch for it
    trio._core._run._r.seed(seed)
    return trio.run(partial(work, *args, **options), clock=MockClock(autojump_threshold=0))


def entries(stream: str, version: int, sizes: list[int]) -> list[Entry]:
    """Return entries whose bodies tell them apart."""
    return [
        Entry(stream, version + at, b"m" * (size % 7), f"{stream}.{version + at}.".encode().ljust(size, b"x"))
        for at, size in enumerate(sizes)
    ]


async def scenario(disk: SimulatedDisk, journal: Journal, seed: int, **options: Any) -> None:
    """Append from four actors over some rolls, idle, read, trim, close, open again and append once more.

    Ends early, and quietly, when the log says that the disk failed.
    """
    source = random.Random(seed)
    versions = dict.fromkeys(STREAMS, 0)

    async def act(wal: Wal, stream: str, appends: int) -> None:
        while appends:
            sizes = [source.randrange(30, 3000) for _ in range(source.randrange(1, 4))]
            batch = entries(stream, versions[stream] + 1, sizes)
            try:
                await journal.append(wal, batch)
            except ReadOnly:
                if disk.dead:
                    return
                await trio.sleep(1.2)
                continue
            except UnknownOutcome:
                return
            versions[stream] += len(batch)
            appends -= 1
            if source.random() < 0.3:
                await trio.sleep(source.random() * 0.2)

    async def act_all(wal: Wal, appends: int) -> None:
        async with trio.open_nursery() as nursery:
            for stream in STREAMS:
                nursery.start_soon(act, wal, stream, appends)

    async def look(wal: Wal) -> None:
        await journal.check(wal)
        versions.update(journal.versions())

    try:
        async with open_log(disk, acked_floor=journal.acked, **options) as wal:
            await look(wal)
            await act_all(wal, 5)
            await trio.sleep(0.3)
            await wal.read(wal.head // 2 + wal.first // 2)
            journal.trimmed = max(journal.trimmed, wal.head - 3)
            await wal.trim(journal.trimmed)
            await act_all(wal, 2)
        async with open_log(disk, acked_floor=journal.acked, **options) as wal:
            await look(wal)
            await act_all(wal, 1)
    except OndaError as error:
        if not isinstance(error, LogFailed):
            raise


def _zeros(size: int) -> bytes:
    return bytes(size)
