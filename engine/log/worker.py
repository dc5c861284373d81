"""Where the log's blocking work runs: a thread of its own for writing, trio's threads for everything else.

One hop through trio's thread pool costs about as much as syncing to a good drive, and the pool may be busy;
so the writer has its own thread that is fed by a queue and reports back once per batch. Simulations hand in
a worker that runs everything in place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import outcome
import trio

T = TypeVar("T")

_READERS_MAX = 4


class Worker(Protocol):
    """Runs blocking work."""

    def submit(self, work: Callable[[], T], done: Callable[[outcome.Outcome[T]], Any]) -> None:
        """Run `work` after what was submitted before, then `done` in trio's thread; not cancellable."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` beside everything else and return its result."""

    def close(self) -> None:
        """End once all that was submitted is done."""


class ThreadWorker:
    """Runs submitted work in one thread of its own."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], Any]] | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._limiter = trio.CapacityLimiter(_READERS_MAX)
        # A daemon: when the disk hangs, the process must still be able to exit.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, work: Callable[[], T], done: Callable[[outcome.Outcome[T]], Any]) -> None:
        self._jobs.put((work, done))

    async def run(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    def close(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            result = outcome.capture(work)
            try:
                self._token.run_sync_soon(done, result)
            except trio.RunFinishedError:
                return
