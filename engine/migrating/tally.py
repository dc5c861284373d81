"""Counting what is moved: the entries of each partition, the head of each stream, and a digest of all bytes.

Source and target are counted by the same rules, each by partition, as that is the order that both have.
Memory grows with the number of streams, not with that of records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b, sha256
from typing import Any, NamedTuple, TypeVar

import msgspec

from engine.answers import Known
from engine.checkpoint import SavedState
from engine.errors import LogCorrupt
from engine.log import frames, partition_of
from engine.migrating.places import Places
from engine.records import Entry

T = TypeVar("T")

Told = Callable[[str, int], object]
"""Is told what is being done, and with how many records so far."""
TOLD_EVERY = 1000


def quiet(what: str, count: int) -> None:
    """A `Told` who does not want to know."""


class Origin(msgspec.Struct, gc=False):
    """What a move reads of an envelope: which event it is, and of which command."""

    id: str
    cause: str


_decode = msgspec.json.Decoder(Origin).decode
_pack = msgspec.msgpack.encode


class Head:
    """Of one stream: the oldest version that is kept, the last one, and the last event's id."""

    __slots__ = ("id", "low", "partition", "version")

    def __init__(self, partition: int, low: int, version: int, id_: str) -> None:
        self.partition = partition
        self.low = low
        self.version = version
        self.id = id_

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and str(self) == str(other)

    def __str__(self) -> str:
        """As it stands in `:heads`."""
        return f"{self.version} {self.low} {self.id}"

    @property
    def kept(self) -> int:
        """How many records of the stream are kept."""
        return self.version - self.low + 1


class Tally:
    """What was counted.

    Attributes:
        heads: by stream.
        counts: records by partition.
        last: id of the last record by partition.
        records: how many there are.
        bytes: of all entries.
    """

    def __init__(self, partitions: int, where: str) -> None:
        self.heads: dict[str, Head] = {}
        self.counts = [0] * partitions
        self.last = [""] * partitions
        self.records = 0
        self.bytes = 0
        self._where = where
        self._hashes = [sha256() for _ in range(partitions)]

    def add(self, entry: Entry) -> tuple[Head, bytes, Origin]:
        """Count one entry; return its stream's head, its bytes, and what its envelope says.

        Raises:
            LogCorrupt: its version does not follow, or it has no envelope.
        """
        stream, version, _, body = entry
        try:
            origin = _decode(body)
        except msgspec.DecodeError as error:
            raise LogCorrupt(self._where, 0, f"{stream} version {version}: {error}") from error
        head = self.heads.get(stream)
        if head is None:
            head = Head(partition_of(stream, len(self.counts)), version, version, origin.id)
            self.heads[stream] = head
        elif version != head.version + 1:
            raise LogCorrupt(self._where, 0, f"{stream}: version {version} follows {head.version}")
        else:
            head.version, head.id = version, origin.id
        data = frames.pack_entry(entry)
        number = head.partition
        self.counts[number] += 1
        self.records += 1
        self.last[number] = origin.id
        self.bytes += len(data)
        self._hashes[number].update(data)  # each says how long it is
        return head, data, origin

    @property
    def digest(self) -> str:
        """Of all entries, in the order of each partition."""
        return sha256(b"".join(one.digest() for one in self._hashes)).hexdigest()

    def add_resting(self, states: Iterable[tuple[str, int]], epoch: str) -> None:
        """Take in the streams of which only a state is left, and see that the others have one where their
        first records are gone.

        What the id of such a stream's last event was nobody knows any more. It is only compared, so the
        cursor at that version stands for it: no other version of any stream has the same.

        Raises:
            LogCorrupt: a state that is newer than the log, or one that is missing.
        """
        saved = dict(states)
        for stream, version in saved.items():
            head = self.heads.get(stream)
            if head is None and version > 0:
                number = partition_of(stream, len(self.counts))
                self.heads[stream] = Head(number, version + 1, version, f"{epoch}-{version}")
            elif head is not None and version > head.version:
                ends = f"its state is at version {version}, the log ends at {head.version}"
                raise LogCorrupt(self._where, 0, f"{stream}: {ends}")
        for stream, head in self.heads.items():
            if head.low > saved.get(stream, 0) + 1:
                gone = f"versions up to {head.low - 1} are dropped, and no saved state has them"
                raise LogCorrupt(self._where, 0, f"{stream}: {gone}")

    def gone(self) -> list[int]:
        """Return by partition how many records were dropped, of all streams together."""
        found = [0] * len(self.counts)
        for head in self.heads.values():
            found[head.partition] += head.low - 1
        return found

    def compare(self, other: Tally) -> None:
        """Make sure that source and target hold the same.

        Raises:
            LogCorrupt: they do not.
        """
        if self.counts != other.counts:
            raise LogCorrupt(other._where, 0, f"{other.records} records came out of {self.records}")
        if self.digest != other.digest:
            raise LogCorrupt(other._where, 0, f"digest {other.digest} came out of {self.digest}")


def compare_heads(wanted: Mapping[str, Head], found: Mapping[str, Head], where: str) -> None:
    """Make sure that heads of streams are the same.

    Raises:
        LogCorrupt: they are not.
    """
    if len(wanted) != len(found):
        raise LogCorrupt(where, 0, f"{len(found)} streams came out of {len(wanted)}")
    for name, head in wanted.items():
        if found.get(name) != head:
            raise LogCorrupt(where, 0, f"{name}: {found.get(name)} came out of {head}")


class Sum:
    """Counts and adds up items that come in any order: equal sums are equal items."""

    def __init__(self) -> None:
        self.count = 0
        self._total = 0

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Count items, and hand them on."""
        for item in items:
            self._add(item)
            yield item

    def each_answer(self, items: Iterable[tuple[str, str, Known]]) -> Iterator[tuple[str, str, Known]]:
        """The same for answers."""
        for stream, key, known in items:
            self._add((stream, key, known.at_ms, known.digest, known.answer))
            yield stream, key, known

    def _add(self, item: Any) -> None:
        self.count += 1
        self._total += int.from_bytes(blake2b(_pack(item), digest_size=16).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and (self.count, self._total) == (other.count, other._total)


class Kept(NamedTuple):
    """Sums of what a checkpoint has beside positions."""

    states: Sum
    answers: Sum
    tasks: Sum

    @classmethod
    def empty(cls) -> Kept:
        """Of nothing."""
        return cls(Sum(), Sum(), Sum())

    @classmethod
    def of(
        cls,
        states: Iterable[SavedState],
        answers: Iterable[tuple[str, str, Known]],
        tasks: Iterable[tuple[str, str]],
    ) -> Kept:
        """Of all of these."""
        found = cls.empty()
        for items in (found.states.each(states), found.answers.each_answer(answers), found.tasks.each(tasks)):
            for _ in items:
                continue
        return found


class Report(NamedTuple):
    """What was moved. `fresh`: a new epoch began, as something was lost in Redis, or may have been; `ends`:
    position in the partition and id of the last record of each, for those who count in positions.
    """

    epoch: str
    fresh: bool
    records: int
    bytes: int
    streams: int
    partitions: int
    states: int
    answers: int
    tasks: int
    reactions: int
    parked: int
    digest: str
    ends: list[tuple[int, str]]

    @classmethod
    def of(cls, tally: Tally, epoch: str, kept: Kept, places: Places, *, fresh: bool = False) -> Report:
        """Put it together."""
        return cls(
            epoch,
            fresh,
            tally.records,
            tally.bytes,
            len(tally.heads),
            len(tally.counts),
            kept.states.count,
            kept.answers.count,
            kept.tasks.count,
            len(places.positions),
            len(places.parked),
            tally.digest,
            [
                (gone + count, last)
                for gone, count, last in zip(tally.gone(), tally.counts, tally.last, strict=True)
            ],
        )
