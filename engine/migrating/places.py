"""Positions in one log, as positions in another one: what was done stays done, and no more than that. Pure.

The write-ahead log has one order, a log in Redis one for each partition. Positions count every record that
there ever was, those that are dropped too, so `first - 1` is the number of those.

Into partitions everything is exact. Out of them a reaction's place is the longest prefix that it has handled
in every partition: what it did behind that it sees again, and its effects are once by ids made of the record.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from engine.checkpoint import Parked
from engine.log import partition_of

T = TypeVar("T")


class Places(NamedTuple):
    """What a checkpoint says in positions of its log; see `engine.checkpoint.Moment`.

    `positions`: by reaction; `reruns`: reaction, low, high; `attempts`: reaction, position, count.
    """

    position: int
    floor: int
    refill: int
    positions: dict[str, int]
    reruns: list[tuple[str, int, int]]
    attempts: list[tuple[str, int, int]]
    parked: list[Parked]

    def ordered(self) -> Places:
        """Return the same in an order of its own, and without ids, for comparing."""
        parked = sorted(one._replace(id=0) for one in self.parked)
        return self._replace(reruns=sorted(self.reruns), attempts=sorted(self.attempts), parked=parked)

    def mentioned(self) -> Iterable[int]:
        """Return every position that stands in it."""
        yield from (self.position, self.floor, self.refill)
        yield from self.positions.values()
        for _, low, high in self.reruns:
            yield from (low, high)
        yield from (position for _, position, _ in self.attempts)
        yield from (parked.position for parked in self.parked)


class Split:
    """Takes the records of the one order, and then says where things are in the partitions."""

    def __init__(self, wanted: Iterable[int], partitions: int) -> None:
        self._wanted = sorted(set(wanted))
        self._next = 0
        self._counts = [0] * partitions
        self._seen: list[int] = [0]
        self._snapshots: list[tuple[int, ...]] = [tuple(self._counts)]
        self._partition: dict[int, int] = {}

    def add(self, position: int, partition: int) -> None:
        """Take the next record."""
        while self._next < len(self._wanted) and self._wanted[self._next] < position:
            self._next += 1  # before the first that is kept
        self._counts[partition] += 1
        if self._next < len(self._wanted) and self._wanted[self._next] == position:
            self._seen.append(position)
            self._snapshots.append(tuple(self._counts))
            self._partition[position] = partition

    def _upto(self, position: int) -> tuple[int, ...]:
        """Return how many records of each partition there are up to a position that was wanted."""
        return self._snapshots[bisect_right(self._seen, position) - 1]

    def places(self, places: Places, gone: Sequence[int]) -> list[Places]:
        """Return what each partition's checkpoint says; `gone`: how many of its records are dropped."""
        found = []
        parked = self._set_aside(places.parked, gone)
        for number, before in enumerate(gone):

            def at(position: int, number: int = number, before: int = before) -> int:
                return before + self._upto(position)[number]

            reruns = {(name, at(low), at(high)) for name, low, high in places.reruns}  # Redis has a set
            attempts = [
                (name, at(position), count)
                for name, position, count in places.attempts
                if self._partition.get(position) == number
            ]
            found.append(
                Places(
                    at(places.position),
                    at(places.floor),
                    at(places.refill),
                    {name: at(position) for name, position in places.positions.items()},
                    [rerun for rerun in sorted(reruns) if rerun[1] < rerun[2]],
                    attempts,
                    parked[number],
                )
            )
        return found

    def _set_aside(self, parked: Sequence[Parked], gone: Sequence[int]) -> list[list[Parked]]:
        """Return the parked records of each partition, in its order."""
        kept: list[list[Parked]] = [[] for _ in gone]
        dropped: list[list[Parked]] = [[] for _ in gone]
        for one in sorted(parked, key=lambda one: one.position):
            number = self._partition.get(one.position)
            if number is None:
                dropped[partition_of(one.stream, len(gone))].append(one)
            else:
                position = gone[number] + self._upto(one.position)[number]
                kept[number].append(one._replace(position=position))
        return [_number(dropped[n], before) + kept[n] for n, before in enumerate(gone)]


def _number(parked: Sequence[Parked], gone: int) -> list[Parked]:
    """Give parked records that the log has dropped already, in their order, the last positions before the
    first that is kept, one for each record.
    """
    order = {key: number for number, key in enumerate(dict.fromkeys((p.stream, p.version) for p in parked))}
    return [one._replace(position=gone - len(order) + 1 + order[one.stream, one.version]) for one in parked]


class Join:
    """Takes the records of all partitions in one order, and then says where things are in that.

    Args:
        places: by partition.
        gone: by partition, how many of its records are dropped.
        saved: version of each stream's saved state.
    """

    def __init__(self, places: Sequence[Places], gone: Sequence[int], saved: dict[str, int]) -> None:
        self.head = self._first = sum(gone)
        self._places = places
        self.saved = saved
        self._limits = {
            name: [one.positions.get(name, before) for one, before in zip(places, gone, strict=True)]
            for name in {name for one in places for name in one.positions}
        }
        self._open = dict(self._limits)
        self._done: dict[str, int] = {}
        self._checked: int | None = None
        self._refill: int | None = None
        self._covers: dict[tuple[str, int], list[int]] = {}
        self._attempts: list[tuple[str, int, int]] = []
        self._tried = [_by_position(one.attempts, [at for _, at, _ in one.attempts]) for one in places]
        set_aside = [_by_position(one.parked, [parked.position for parked in one.parked]) for one in places]
        dropped = [
            parked
            for before, found in zip(gone, set_aside, strict=True)
            for position in sorted(found)
            if position <= before
            for parked in found[position]
        ]
        self._set_aside = set_aside
        self._parked = _number(dropped, self._first)

    def add(self, number: int, position: int, stream: str, version: int) -> None:
        """Take the record that comes next: of this partition, at this position there."""
        places = self._places[number]
        for name in [name for name, limits in self._open.items() if position > limits[number]]:
            del self._open[name]
            self._done[name] = self.head
        covered = position <= places.position and version <= self.saved.get(stream, 0)
        if self._checked is None and not covered:
            self._checked = self.head
        if self._refill is None and position > places.refill:
            self._refill = self.head
        self.head += 1
        self._attempts += [
            (name, self.head, count) for name, _, count in self._tried[number].get(position, ())
        ]
        self._parked += [
            parked._replace(position=self.head) for parked in self._set_aside[number].get(position, ())
        ]
        if places.reruns:
            self._count_starts(number, position)

    def _count_starts(self, number: int, position: int) -> None:
        """Note how many starts found this record. What is said of it in the end covers the records that lie
        between those of a partition, too: a suspect too many is only tried alone.
        """
        starts: defaultdict[str, int] = defaultdict(int)
        for name, low, high in self._places[number].reruns:
            limits = self._limits.get(name)
            if low < position <= high and (limits is None or position > limits[number]):
                starts[name] += 1
                cover = self._covers.setdefault((name, starts[name]), [self.head - 1, self.head])
                cover[1] = self.head

    def places(self) -> Places:
        """Return what the checkpoint says, once all records are there."""
        position = self.head if self._checked is None else self._checked
        refill = self.head if self._refill is None else self._refill
        done = self._done | dict.fromkeys(self._open, self.head)
        reruns = [(name, low, high) for (name, _), (low, high) in sorted(self._covers.items())]
        parked = sorted(self._parked, key=lambda one: one.position)
        return Places(position, self.head, min(refill, position), done, reruns, self._attempts, parked)


def _by_position(items: Sequence[T], positions: Sequence[int]) -> dict[int, list[T]]:
    found: defaultdict[int, list[T]] = defaultdict(list)
    for item, position in zip(items, positions, strict=True):
        found[position].append(item)
    return dict(found)
