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

    def submit(self, work: Callable[[], T], done: Callable[[outcome.Outcome[T]], Any]) -> None:
        self._token.run_sync_soon(lambda: done(outcome.capture(work)))

    async def run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work()

    def close(self) -> None:
        """Nothing to end."""
