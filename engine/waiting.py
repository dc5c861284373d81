"""One task waiting for one thing: the smallest way to park a trio task and hand it a result.

`trio.Event` serves many waiters and allocates for each; an actor answers tens of thousands of commands a
second, so its mailbox and its answers use this instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import outcome
import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

T = TypeVar("T")


class Reply(Generic[T]):
    """A result that one task waits for, and that is set once."""

    __slots__ = ("_result", "_task")

    def __init__(self) -> None:
        self._task: Task | None = None
        self._result: outcome.Maybe[T] | None = None

    @property
    def settled(self) -> bool:
        return self._result is not None

    def set(self, value: T) -> None:
        """Hand over the result; a second call has no effect."""
        self._settle(outcome.Value(value))

    def fail(self, error: Exception) -> None:
        """Hand over an error that `wait` raises; a second call has no effect."""
        self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Maybe[T]) -> None:
        if self._result is None:
            self._result = result
            if self._task is not None:
                reschedule(self._task)
                self._task = None

    async def wait(self) -> T:
        """Wait for the result. Being cancelled ends only the wait."""
        if self._result is None:
            self._task = current_task()
            await wait_task_rescheduled(self._abandon)
        else:
            await trio.lowlevel.checkpoint()
        assert self._result is not None
        return self._result.unwrap()

    def _abandon(self, _raise_cancel: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


class Notice:
    """A result that nobody waits for: `done` is called once, with the error or None. It must not raise, as it
    runs in the task of whoever has the result.
    """

    __slots__ = ("_done",)

    def __init__(self, done: Callable[[Exception | None], None]) -> None:
        self._done: Callable[[Exception | None], None] | None = done

    def set(self, _value: object) -> None:
        """There is a result; a second call has no effect."""
        self.fail(None)

    def fail(self, error: Exception | None) -> None:
        """There is an error; a second call has no effect."""
        done, self._done = self._done, None
        if done is not None:
            done(error)


class Bell:
    """Wakes the one task that sleeps on it; a ring while nobody sleeps is kept for the next `wait`."""

    __slots__ = ("_rung", "_task")

    def __init__(self) -> None:
        self._task: Task | None = None
        self._rung = False

    def ring(self) -> None:
        if self._task is not None:
            reschedule(self._task)
            self._task = None
        else:
            self._rung = True

    async def wait(self) -> None:
        """Sleep until the next ring; at once when it rang since the last wait."""
        if self._rung:
            self._rung = False
            await trio.lowlevel.checkpoint()
            return
        self._task = current_task()
        await wait_task_rescheduled(self._abandon)

    def _abandon(self, _raise_cancel: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED
