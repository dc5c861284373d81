"""The checkpoint: states of actors, answers to commands and places of reactions, so that a start replays only
the tail.

Everything that belongs to one moment is written together with the log position up to which it is complete;
each state may be a little newer than that position (replay skips by version). What reactions must not forget
between two checkpoints (attempts, parked records) is written at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from engine.answers import Answer, Known
from engine.log import Head, SharedLog
from engine.records import Entry


class SavedState(NamedTuple):
    """One actor's state as a checkpoint holds it; `state` is JSON."""

    stream: str
    version: int
    state: bytes
    deadline_ms: int | None


class Kept(NamedTuple):
    """What checkpoint and log have of one stream: the saved state with the commands whose answers are saved
    (as `load_known`; none without a state), the head, and records with their positions.
    """

    saved: SavedState | None
    known: Sequence[tuple[str, Known]]
    head: Head
    records: Sequence[tuple[int, Entry]]


PARTITIONS_MAX = 1024
"""Of a shared log. An id of a parked record there says by its remainder which partition it is of."""


class Parked(NamedTuple):
    """A record that a reaction gave up on, or that stands behind one in its stream."""

    id: int
    reaction: str
    stream: str
    position: int
    version: int
    body: bytes
    error: str
    attempts: int
    at_ms: int


class Moment(NamedTuple):
    """Everything that one checkpoint writes.

    `position`: the log is complete in it up to here; `floor`: and nothing in it is newer than this; `refill`:
    rings are refilled from the log after this position; `answers`: (stream, key, what is known);
    `horizon_ms`: answers older than this are dropped; `epoch`: of the log, when the states were.
    """

    position: int
    floor: int
    refill: int
    states: Sequence[SavedState]
    answers: Sequence[tuple[str, str, Known]]
    positions: dict[str, int]
    horizon_ms: int
    epoch: str = ""


class Checkpoint(Protocol):
    """What two keepers keep: a file (`checkpoint_sqlite.py`) and the Redis that has the log
    (`checkpoint_redis.py`). `position`, `floor` and `refill` are those of the last one that was taken, as far
    as is known here.

    Raises:
        Unavailable: no space, or Redis is away.
        LogFailed: it cannot be written any more.
    """

    position: int
    floor: int
    refill: int

    async def refresh(self) -> None:
        """Look again what was taken last: by this node, as nobody else writes here."""

    async def take(self, moment: Moment) -> None:
        """Write one checkpoint, all of it or nothing.

        Raises:
            ReadOnly: no space; the last one stays in force.
            LogFailed: the file cannot be written.
        """

    async def load_states(self, streams: Iterable[str]) -> dict[str, SavedState]:
        """Return the saved states of those streams that have one.

        Raises:
            LogCorrupt: a state's bytes do not match their checksum.
        """

    async def load_known(self, stream: str) -> list[tuple[str, Known]]:
        """Return the commands of a stream whose answers are saved (without the answers), oldest first."""

    async def load_stream(self, stream: str, log: SharedLog, back: int, bytes_max: int) -> Kept:
        """Return what is kept of a stream of `log`, beside which this is. The records begin `back` versions
        behind the state (if the log ends before that: with the first one), or with the oldest one after that
        that is kept; they are about `bytes_max`, at least one unless there is none.

        All of it is of one moment, or the state is of an earlier one than the records: what is appended,
        saved and dropped in between may leave a gap behind an old state, but no state is newer than the head
        unless the log has lost records.

        Raises:
            LogCorrupt: a state's bytes do not match their checksum.
        """

    async def find_saved(self, stream: str, keys: Sequence[str]) -> list[str]:
        """Return those of some commands of a stream whose answers are saved."""

    async def load_answer(self, stream: str, key: str) -> Answer | None:
        """Return a saved answer."""

    async def deadlines(self) -> list[tuple[str, int]]:
        """Return every saved stream that wants to be woken, and when (ms since 1970)."""

    async def overdue(self, now_ms: int) -> list[tuple[str, int]]:
        """Return the saved streams that wanted to be woken by now, and when, the longest overdue first."""

    async def stores(self) -> list[str]:
        """Return the names of every saved stream of kind `store`."""

    async def positions(self) -> dict[str, int]:
        """Return each reaction's saved position: everything up to it is done."""

    async def add_rerun(self, reaction: str, low: int, high: int) -> None:
        """Write down that the records in (low, high] may have been tried before this start."""

    async def tries(self, reaction: str) -> tuple[list[tuple[int, int]], dict[int, int]]:
        """Return a reaction's reruns as (low, high], and the counted attempts by position."""

    async def count_attempt(self, reaction: str, position: int, count: int) -> None:
        """Write down, before the handler runs, that this is its attempt number `count`."""

    async def park(self, parked: Parked) -> Parked:
        """Put a record aside, once per reaction and position; return it with its id."""

    async def unpark(self, id_: int) -> None:
        """Take a record out of the parking: it was handled or skipped."""

    async def parked(self) -> list[Parked]:
        """Return all parked records in the order of the log."""

    async def add_task(self, task: str, user: str, gone: Iterable[str]) -> None:
        """Write down whose a task is, and that those in `gone` are nobody's (of this user's) any more. A task
        stays with the user who had it first.
        """

    async def task_user(self, task: str) -> str | None:
        """Return whose a task is."""

    async def count_tasks(self) -> int:
        """Return how many tasks are known."""

    async def close(self) -> None:
        """Let go of it."""
