"""How a task waits for an append: the log's `submit` with a task in place of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from outcome import Outcome
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from engine.log import Basis
from engine.records import Entry


class Submits(Protocol):
    """What is appended to (`engine.log.Log`)."""

    def submit(
        self, entries: Sequence[Entry], done: Callable[[Outcome[int]], None], basis: Basis | None = None
    ) -> None: ...


async def append_to(log: Submits, entries: Sequence[Entry], basis: Basis | None = None) -> int:
    """Submit entries and wait for their end; see `engine.log.Log.append`."""
    wait = _Wait()
    log.submit(entries, wait.settle, basis)
    position: int = await wait_task_rescheduled(wait.abandon)
    return position


class _Wait:
    """A task that waits for its append."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Task | None = current_task()

    def abandon(self, _: Any) -> Abort:
        """Cancelled: only the wait ends."""
        self._task = None
        return Abort.SUCCEEDED

    def settle(self, result: Outcome[int]) -> None:
        if self._task is not None:
            reschedule(self._task, result)
            self._task = None
