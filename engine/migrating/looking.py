"""Reading all of a log in Redis, and seeing that its keys fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.errors import LogCorrupt
from engine.log.redis_asking import Record
from engine.migrating.shared import WHERE, Meta, Piece, Shared
from engine.migrating.tally import TOLD_EVERY, Head, Origin, Tally, Told, compare_heads

AT_ONCE = 10_000
"""Positions that are asked for at once."""


class Spots:
    """Adds up where the records of streams are: equal sums are equal places."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, stream: str, version: int, position: int) -> None:
        """Take one."""
        self.total += hash((stream, version, position))

    def compare(self, shared: Shared, heads: Mapping[str, Head]) -> None:
        """See that the lists of streams say the same.

        Raises:
            LogCorrupt: they do not.
        """
        found = Spots()
        for number, pieces in _some(heads):
            for piece, positions in zip(pieces, shared.spots(number, pieces), strict=True):
                first = heads[piece.stream].low + piece.start
                for version, position in enumerate(positions, first):
                    found.add(piece.stream, version, position)
        if found.total != self.total:
            raise LogCorrupt(WHERE, 0, "the positions of streams are not those of their records")


def _some(heads: Mapping[str, Head]) -> Iterator[tuple[int, list[Piece]]]:
    """Yield pieces of all lists, some of one partition at a time."""
    waiting: dict[int, list[Piece]] = {}
    for name, head in heads.items():
        for start in range(0, max(1, head.kept), AT_ONCE):
            last = start + AT_ONCE >= head.kept
            pieces = waiting.setdefault(head.partition, [])
            pieces.append(Piece(name, start, -1 if last else start + AT_ONCE - 1))
            if not last or len(pieces) == AT_ONCE // 100:
                yield head.partition, waiting.pop(head.partition)
    yield from waiting.items()


def read_heads(shared: Shared) -> dict[str, Head]:
    """Return the heads of all streams as `:heads` has them."""
    return {
        name: Head(number, low, version, id_)
        for number in range(shared.partitions)
        for name, version, low, id_ in shared.heads(number)
    }


def check_heads(found: Tally, heads: Mapping[str, Head]) -> None:
    """See that the heads are those of the records that were counted.

    Raises:
        LogCorrupt: they are not.
    """
    compare_heads({name: head for name, head in heads.items() if head.kept}, found.heads, WHERE)


def read_partition(
    shared: Shared, number: int, meta: Meta, found: Tally, spots: Spots
) -> Iterator[tuple[Record, bytes, Origin]]:
    """Count the records of a partition one by one; yield each with its bytes and what its envelope says.

    Raises:
        LogCorrupt: they are not what the partition says of itself.
    """
    position = meta.first - 1
    for record in shared.records(number, position):
        entry, position = record.entry, record.position
        head, data, origin = found.add(entry)
        if head.partition != number or origin.id != record.id:
            raise LogCorrupt(WHERE, 0, f"what is at position {position} of partition {number} is wrong there")
        spots.add(entry.stream, entry.version, position)
        yield record, data, origin
    if position != meta.head or (found.counts[number] and found.last[number] != meta.last):
        raise LogCorrupt(WHERE, 0, f"partition {number} ends at {position}, not at {meta.head}")


def read_shared(shared: Shared, metas: Sequence[Meta], told: Told) -> tuple[dict[str, Head], Tally]:
    """Read everything; return heads, and what was counted.

    Raises:
        LogCorrupt: something does not fit.
    """
    found, spots = Tally(shared.partitions, WHERE), Spots()
    for number, meta in enumerate(metas):
        for _ in read_partition(shared, number, meta, found, spots):
            if found.records % TOLD_EVERY == 0:
                told("read back", found.records)
    heads = read_heads(shared)
    check_heads(found, heads)
    spots.compare(shared, heads)
    return heads, found
