"""The log: durable append and read of entries, bytes only; it knows no domain type.

Three logs keep this contract, and `tests/log/test_contract.py` runs over all: `wal.py` (files on this
machine), `redis.py` (one partition of a Redis that several nodes share) and `memory.py` (nothing survives;
ships for embedding and simulation).

A log that others append to, too, is a `SharedLog`: an append names what it was decided on, a stream is read
by itself, and what others append is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from zlib import crc32

from outcome import Outcome

from engine.errors import LogFailed, Unavailable
from engine.records import Entry

WAITS_S = 1.0
"""How long a shared log remembers who waits to append to a stream when nobody is added."""


class Turns(NamedTuple):
    """How those who append to one stream of a shared log let each other go first. Who met a conflict waits;
    who appends is told how many wait, and, when it has more to append, waits behind them from then on. The
    log refuses nobody for it.

    `who`: its name among them; `more`: whether it will soon append again; `ahead`: gets how many are to go
    first, once this is appended and before `done` is called.
    """

    who: str
    more: bool
    ahead: Callable[[int], None]


class Basis(NamedTuple):
    """What an append was decided on, and the ids of its events: what a shared log compares.

    `epoch`: the log's when it was decided; `after`: id of the record that the first entry follows in its
    stream, `""` when it is the stream's first; `ids`: of the entries' events, one each; `turns`: how it takes
    turns with others, if it does.
    """

    epoch: str
    after: str
    ids: Sequence[str]
    turns: Turns | None = None


class Head(NamedTuple):
    """The end of a stream: its last version and that record's id; `(0, "")` when there is none."""

    version: int
    id: str


def partition_of(stream: str, partitions: int) -> int:
    """Return which partition a stream belongs to; part of the format of a shared log.

    A shop and its tables are in one, so that what one command leads to stays at the node that has it. And the
    bits are those that nginx takes for `hash` without `consistent` (`ngx_http_upstream_hash_module.c`, after
    Cache::Memcached): where the number of partitions is a multiple of that of nodes, it sends all shops of a
    partition to the same node (`deploy/nginx/onda.conf`).
    """
    kind, _, rest = stream.partition(":")
    place = f"store:{rest.partition('/')[0]}" if kind == "table" else stream
    return (crc32(place.encode()) >> 16 & 0x7FFF) % partitions


EVER = 1 << 62


def end_of(epoch: str, epochs: Sequence[tuple[str, int]]) -> int | None:
    """Return where an epoch of a shared log ended, by all `epochs` with the positions after which they began:
    the least at which a later one did. `EVER` while it lasts, `None` when it never was.
    """
    names = [name for name, _ in epochs]
    if epoch not in names:
        return None
    return min((began for _, began in epochs[names.index(epoch) + 1 :]), default=EVER)


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

    def submit(
        self, entries: Sequence[Entry], done: Callable[[Outcome[int]], None], basis: Basis | None = None
    ) -> None:
        """Make entries durable, all or none, next to each other and in order; `done` gets the last one's
        position, or the error, in trio's thread and never before this returns. It must not raise.

        With a `basis` they are of one stream; a log with one writer need not look at it.

        Raises, or hands to `done`, which is not called then:
            Conflict: an entry's version does not follow its stream's last one, or not the record of `basis`.
            Forked: a shared log's epoch is another one, or the record of `basis` is not there any more.
            Overloaded: more than the bound is waiting already; nothing happened.
            Unavailable: a shared log is away; nothing happened.
            ReadOnly: no space; nothing happened.
            UnknownOutcome: the log failed while this was under way, or had failed before; a shared log that
                has not failed did not answer in time, and may yet have it.
        """

    async def append(self, entries: Sequence[Entry], basis: Basis | None = None) -> int:
        """As `submit` (`appending.append_to` makes the one of the other), and wait; raises all of its errors.

        Entries are taken over before the first `await`: cancelling the caller ends only the wait, and the
        outcome is then unknown to it.
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


class SharedLog(Log, Protocol):
    """A log that several nodes append to, each by what it has seen of a stream."""

    attended: bool
    """Whether anybody here waits for what others append. If not, `follow` may return it somewhat later."""

    @property
    def refusal(self) -> Unavailable | None:
        """What an append would be refused with just now; `None` when `writable`."""

    async def read_stream(
        self, stream: str, after: int, bytes_max: int = 1 << 20, *, oldest: bool = False
    ) -> tuple[Head, list[tuple[int, Entry]]]:
        """Return a stream's head, and its entries with version > `after` with their positions: about
        `bytes_max`, at least one unless there is none. `oldest`: from the oldest one on that is kept, when
        those after `after` are not.

        Raises:
            CursorUnusable: entries after `after` have been dropped already (`expired`), or there is no such
                version (`ahead`).
            Unavailable: the log is away.
        """

    async def follow(self, after: int, timeout_s: float) -> list[tuple[int, Entry]]:
        """Return entries with position > `after` as soon as there are some, by whomever they were appended;
        `[]` after `timeout_s`, or at once when the epoch changes meanwhile.

        Raises:
            CursorUnusable: they have been dropped already.
        """

    async def look(self) -> None:
        """Learn which epoch it is now; those who ask at the same time share a look.

        Raises:
            Unavailable: the log is away.
        """

    async def wait_epoch(self, epoch: str) -> str:
        """Wait until the epoch is not `epoch`, and return it: what is known of the log has to be forgotten
        and read again.
        """

    async def epochs(self) -> list[tuple[str, int]]:
        """Return every epoch that is known of, with the position after which it began; the first one is that
        of the log's beginning, and names the log for ever.

        Raises:
            Unavailable: the log is away.
        """
