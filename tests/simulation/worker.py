"""A worker without threads, so that a seed decides everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


class InlineWorker:
    """Keeps the contract of `engine.log.worker.Worker` in trio's own thread."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._held: list[Callable[[], None]] | None = None

    def submit(self, work: Callable[[], T], done: Callable[[outcome.Outcome[T]], Any]) -> None:
        def run() -> None:
            done(outcome.capture(work))

        if self._held is None:
            self._token.run_sync_soon(run)
        else:
            self._held.append(run)

    async def run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work()

    def close(self) -> None:
        """Nothing to end."""

    @property
    def waiting(self) -> int:
        """How much work is held back."""
        return len(self._held or ())

    def hold(self) -> None:
        """Do not begin what is submitted from now on: a slow disk."""
        self._held = []

    def release(self) -> None:
        """Do what was held back, and everything else at once again."""
        held, self._held = self._held or [], None
        for run in held:
            self._token.run_sync_soon(run)
