"""The log: durable append and read of entries, bytes only; it knows no domain type.

Two logs keep this contract, and `tests/log/test_contract.py` runs over both: `wal.py` (files on this machine)
and `memory.py` (nothing survives; ships for embedding and simulation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from outcome import Outcome

from engine.errors import LogFailed
from engine.records import Entry


class Log(Protocol):
    """A totally ordered, durable sequence of entries. Positions count from 1 without a hole."""

    epoch: str
    """Name of this log's incarnation; a new one after acknowledged entries were lost or a backup restored."""

    @property
    def head(self) -> int:
        """Position of the last durable entry; 0 when there is none."""

    @property
    def first(self) -> int:
        """Position of the oldest entry that is still kept; `head + 1` when none is."""

    @property
    def writable(self) -> bool:
        """False while there is no space: appends are refused with `ReadOnly`."""

    async def append(self, entries: Sequence[Entry]) -> int:
        """Make entries durable, all or none, next to each other and in order; return the last one's position.

        They are taken over before the first `await`: cancelling the caller ends only the wait, and the
        outcome is then unknown to it.

        Raises:
            Conflict: an entry's version does not follow its stream's last one.
            Overloaded: more than the bound is waiting already; nothing happened.
            ReadOnly: no space; nothing happened.
            UnknownOutcome: the log failed while this was under way, or had failed before.
        """

    def submit(self, entries: Sequence[Entry], done: Callable[[Outcome[int]], None]) -> None:
        """As `append`, without a task that waits: `done` gets the position or the error, in trio's thread and
        never before this returns. It must not raise.

        Raises:
            Conflict, Overloaded, ReadOnly, UnknownOutcome: as `append`, and then `done` is not called.
        """

    async def wait_room(self) -> None:
        """Wait until less than half of what may wait is waiting; returns at once when appends are refused."""

    async def read(self, after: int, bytes_max: int = 1 << 20) -> list[tuple[int, Entry]]:
        """Return durable entries with position > `after`, in order: at least one, about `bytes_max`.

        `[]` means that there is nothing after `after`.

        Raises:
            CursorUnusable: entries after `after` have been dropped already (`expired`).
        """

    async def trim(self, upto: int) -> None:
        """Allow entries at positions ≤ `upto` to be dropped; may keep more."""

    async def wait_failed(self) -> LogFailed:
        """Wait until the log has failed for good, and return why: the process has to end."""

    def statistics(self) -> dict[str, Any]:
        """Numbers for operators; the keys are those of the metrics."""
