"""What a run asked of a log and was told, and the checkers that compare it with what the log holds
afterwards.

The letters are the invariants of the fault plan: A acknowledged entries are there, with the same content,
in the same order; B the log is a prefix of what was attempted, each append whole or absent; C versions have
no gap.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import Overloaded, ReadOnly, Stopping
from engine.log.wal import Wal
from engine.records import Entry


class Told(enum.Enum):
    """What the caller of an append knows."""

    NOTHING_YET = "the outcome is unknown"
    DURABLE = "durable"
    REFUSED = "nothing happened"


@dataclass
class Attempt:
    """One append."""

    entries: Sequence[Entry]
    told: Told = Told.NOTHING_YET
    position: int = 0


class Journal:
    """All appends of a run, in the order in which the log got them."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.trimmed = 0

    @property
    def acked(self) -> int:
        """The highest position that was acknowledged."""
        return max((attempt.position for attempt in self.attempts), default=0)

    def versions(self) -> dict[str, int]:
        """Return the last version of each stream, as far as it is known."""
        durable = (attempt.entries for attempt in self.attempts if attempt.told is Told.DURABLE)
        return {entry.stream: entry.version for entries in durable for entry in entries}

    async def append(self, wal: Wal, entries: Sequence[Entry]) -> int:
        """Append and note what happened."""
        attempt = Attempt(entries)
        self.attempts.append(attempt)
        try:
            attempt.position = await wal.append(entries)
        except (ReadOnly, Overloaded, Stopping):
            attempt.told = Told.REFUSED
            raise
        attempt.told = Told.DURABLE
        return attempt.position

    async def check(self, wal: Wal) -> None:
        """Check all invariants against an open log; unknown outcomes become known by it."""
        found = await read_all(wal)
        assert [position for position, _ in found] == list(range(wal.first, wal.head + 1))
        assert wal.first <= self.trimmed + 1, "entries are gone that nobody allowed to go"
        assert wal.head >= self.acked, f"A: {wal.head} durable, {self.acked} acknowledged"
        held = dict(found)
        position = 0
        ended = False
        for attempt in self.attempts:
            if attempt.told is Told.REFUSED:
                continue
            first = position + 1
            last = position + len(attempt.entries)
            if last > wal.head or ended:
                assert attempt.told is not Told.DURABLE, f"A: {first} was acknowledged and is missing"
                ended = True
                attempt.told = Told.REFUSED
                continue
            if attempt.told is Told.DURABLE:
                assert attempt.position == last, f"A: acknowledged at {attempt.position}, is at {last}"
            for at, entry in enumerate(attempt.entries, first):
                assert at < wal.first or held[at] == entry, (
                    f"A, B: {at} holds {held[at][:2]}, not {entry[:2]}"
                )
            attempt.told, attempt.position = Told.DURABLE, last
            position = last
        assert position == wal.head, f"B: the log ends at {wal.head}, the attempts explain {position}"
        check_versions(found)


def check_versions(found: Sequence[tuple[int, Entry]]) -> None:
    """C: each stream counts without a gap."""
    versions: dict[str, int] = {}
    for position, entry in found:
        known = versions.get(entry.stream)
        assert known is None or entry.version == known + 1, f"C: {position} {entry} follows {known}"
        versions[entry.stream] = entry.version


async def read_all(wal: Wal, bytes_max: int = 3000) -> list[tuple[int, Entry]]:
    """Return all entries of a log, read in small chunks."""
    found: list[tuple[int, Entry]] = []
    after = wal.first - 1
    while chunk := await wal.read(after, bytes_max):
        found.extend(chunk)
        after = chunk[-1][0]
    return found
