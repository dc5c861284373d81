"""One partition of a topic: records in order, each accepted once.

Pure. `topic:<topic>/0` … hold the records, whose offset is the version of the stream, so every record of such
a stream is a `Published`. `topic:<topic>/partitions` holds how many there are: fixed when the topic is made,
as a record's partition follows from its key, and a key must not change its place.

An `event_id` is accepted once within `ONCE_MS`; its repeat gets the first offset again. The ids are bounded:
of the newest `IDS_MAX` at least, so a partition that takes more than that in a day remembers less than a day.
"""

from __future__ import annotations

from typing import Annotated, Any, assert_never
from zlib import crc32

from msgspec import Meta, Raw, Struct

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Id
from engine.errors import Rejected

RECORDS_MAX = 500
"""Records in one command."""
PARTITIONS_MAX = 64
ONCE_MS = 86_400_000
IDS_MAX = 100_000
_SWEEP_EVERY = 1024

PARTITIONS = "partitions"
"""Second id of the stream that says how many partitions a topic has."""

Key = Annotated[str, Meta(min_length=1, max_length=200)]


class Seen(Struct, frozen=True, array_like=True, gc=False):
    """An id that was accepted: where, and when."""

    offset: int
    at_ms: int


class State(Struct):
    """A partition. `head` is the offset of its last record; `partitions` is 0 but in the stream for that."""

    partitions: int = 0
    head: int = 0
    ids: dict[str, Seen] = {}


COLLECTIONS: tuple[str, ...] = ()


class Record(Struct, frozen=True, gc=False):
    """What is published. `data` is JSON; records with one `key` stay in order; `time` is the publisher's."""

    event_id: Id
    data: Raw
    key: Key | None = None
    type: Id = "Record"
    time: str | None = None


class MakeTopic(contract.Command, frozen=True):
    """Make a topic of so many `partitions`, unless it is there."""

    partitions: Annotated[int, Meta(ge=1, le=PARTITIONS_MAX)]


class Publish(contract.Command, frozen=True):
    """Add `records` to the partition."""

    records: Annotated[tuple[Record, ...], Meta(min_length=1, max_length=RECORDS_MAX)]


class TopicMade(contract.Event, frozen=True):
    """The topic has so many partitions."""

    partitions: int


class Published(contract.Event, frozen=True):
    """A record was accepted."""

    event_id: str
    data: Raw
    at_ms: int
    key: str | None = None
    type: str = "Record"
    time: str | None = None


Command = MakeTopic | Publish
Event = TopicMade | Published


def partition_of(key: str, partitions: int) -> int:
    """Return where records with this key go."""
    return crc32(key.encode()) % partitions


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Accept what is new; `[]` when all is known.

    Raises:
        Rejected: `not_a_partition`.
    """
    match command:
        case MakeTopic(partitions=partitions):
            return [] if state.partitions else [TopicMade(partitions)]
        case Publish(records=records):
            if state.partitions:
                raise Rejected("not_a_partition", "Records go to a numbered partition")
            new: dict[str, contract.Event] = {}
            for record in records:
                if not _is_known(state, record, context) and record.event_id not in new:
                    new[record.event_id] = Published(
                        record.event_id, record.data, context.now_ms, record.key, record.type, record.time
                    )
            return list(new.values())
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Change `state` by one fact. Total: facts are never refused."""
    match event:
        case TopicMade(partitions=partitions):
            state.partitions = partitions
        case Published(event_id=name, at_ms=at_ms):
            state.head += 1
            state.ids.pop(name, None)
            state.ids[name] = Seen(state.head, at_ms)
            if state.head % _SWEEP_EVERY == 0:
                _forget(state, at_ms)
        case _:
            assert_never(event)


def _is_known(state: State, record: Record, context: Context) -> bool:
    """Whether an id was accepted already, within the bounds: so no other record of the same command can push
    it out before the answer is made.
    """
    seen = state.ids.get(record.event_id)
    if seen is None or seen.offset <= state.head - IDS_MAX:
        return False
    return seen.at_ms > context.now_ms - ONCE_MS


def _forget(state: State, now_ms: int) -> None:
    """Drop ids that are too old or too many, all at once: taking single ones off a dict's front is slow."""
    last = state.head - IDS_MAX - RECORDS_MAX
    gone = [name for name, seen in state.ids.items() if seen.at_ms <= now_ms - ONCE_MS or seen.offset <= last]
    for name in gone:
        state.ids.pop(name, None)


def touched(event: Event) -> list[tuple[str, str]]:
    """Nobody follows a partition by its state."""
    return []


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return where each record is, in the order of the command; or how many partitions there are."""
    if isinstance(command, MakeTopic):
        return {"partitions": state.partitions}
    new = {event.event_id for event in events if isinstance(event, Published)}
    told: list[dict[str, Any]] = []
    for record in command.records:
        offset = state.ids[record.event_id].offset
        told.append({"event_id": record.event_id, "offset": offset, "duplicate": record.event_id not in new})
        new.discard(record.event_id)
    return {"records": told}


def deadline(state: State) -> None:
    """A topic waits for nothing."""


def fences(event: Event) -> bool:
    """All groups may read all records."""
    return False
