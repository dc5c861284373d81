"""Whose a task is: a reaction that keeps a table from task to user, beside the checkpoint's states.

The table is in the checkpoint's file, so it goes wherever that goes; a record that is handled again writes
the same row again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from engine.checkpoint import Checkpoint
from engine.domain.user.tasks import TasksForgotten, TaskStarted
from engine.mailbox import Committed
from engine.partition import Partition
from engine.reactions import Reaction, Runner

NAME = "tasks"
ELSEWHERE_S = 0.3
"""How long another node may take to write a row, when the reaction runs there."""
WAIT_S = 2.0
"""How long a question about a task that is not in the table waits for what the table has not seen yet."""


class Host(Protocol):
    """What the index needs of its node."""

    checkpoint: Checkpoint

    @property
    def partitions(self) -> Sequence[Partition]: ...


class TaskIndex:
    """Finds the user of a task."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.reaction = Reaction(NAME, frozenset({"TaskStarted", "TasksForgotten"}), self._handle)

    async def _handle(self, record: Committed) -> None:
        user = record.stream.partition(":")[2]
        event = record.event
        if isinstance(event, TaskStarted):
            await self._host.checkpoint.add_task(event.task, user, event.dropped)
        elif isinstance(event, TasksForgotten):
            await self._host.checkpoint.add_task("", user, event.tasks)

    async def user_of(self, task: str) -> str | None:
        """Return whose a task is, `None` if there is none; every task that was started before is known."""
        user = await self._host.checkpoint.task_user(task)
        if user is None:
            with trio.move_on_after(WAIT_S):
                await self._catch_up()
            user = await self._host.checkpoint.task_user(task)
        return user

    async def _catch_up(self) -> None:
        """Wait until the table has what is in the log now, as far as this node can say."""
        for partition in self._host.partitions:
            for runner in partition.runners:
                if runner.name == NAME and isinstance(runner, Runner):
                    await runner.wait_beyond(partition.log.head)
        if not all(partition.on_duty for partition in self._host.partitions):
            await trio.sleep(ELSEWHERE_S)

    async def count(self) -> int:
        """Return how many tasks there are."""
        return await self._host.checkpoint.count_tasks()
