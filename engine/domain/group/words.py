"""A member's word on its records: handled, to be given out again, or parked.

A word counts only with the lease that came with the record: who lost it in the meantime is told so (`late`),
and the word of whoever has it now decides.
"""

from __future__ import annotations

from typing import Annotated, assert_never

from msgspec import Meta, Struct

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Note, Ref
from engine.domain.group.state import (
    PARKED_MAX,
    TRIES,
    Held,
    Leases,
    Parked,
    Spot,
    State,
    Waiting,
    finish,
    held,
    parked_name,
    place_of,
    see,
)
from engine.errors import Rejected

BACKOFF_MS = 1000
BACKOFF_MS_MAX = 60_000
DelayMs = Annotated[int, Meta(ge=0, le=86_400_000)]


class Back(Struct, frozen=True, array_like=True, gc=False):
    """A record that is to be given out again, after `failures`, from `due_ms` on."""

    partition: int
    offset: int
    due_ms: int
    failures: int


class Ack(contract.Command, frozen=True):
    """The `member` has handled the records of these `leases`."""

    member: Ref
    leases: Leases


class Nack(contract.Command, frozen=True):
    """The `member` could not handle the records of these `leases`, for a `reason`: give them out again after
    `delay_ms` (without it: 1 s, then twice as long each time, 1 min at most). After 1 try and 3 retries they
    are parked.
    """

    member: Ref
    leases: Leases
    delay_ms: DelayMs | None = None
    reason: Note = ""


class Park(contract.Command, frozen=True):
    """The `member` says that the records of these `leases` cannot be handled at all, and the `reason`: put
    them aside for an operator.
    """

    member: Ref
    leases: Leases
    reason: Note = ""


class Handled(contract.Event, frozen=True):
    """A member has handled these."""

    member: str
    until_ms: int
    records: tuple[Spot, ...]


class PutBack(contract.Event, frozen=True):
    """A member could not handle these; they are given out again."""

    member: str
    until_ms: int
    records: tuple[Back, ...]
    reason: str = ""


class RecordsParked(contract.Event, frozen=True):
    """These are put aside; the group goes on without them."""

    records: tuple[Spot, ...]
    reason: str
    at_ms: int


Command = Ack | Nack | Park
Event = Handled | PutBack | RecordsParked


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Take the word on those records that the member still has; `[]` when it has none of them.

    Raises:
        Rejected: `lease_invalid`, `too_many_parked`.
    """
    has = held(state, command.member, command.leases)
    if not has:
        return []
    member = state.members.get(command.member)
    until_ms = context.now_ms + (member.lease_ms if member is not None else 0)
    match command:
        case Ack(member=name):
            return [Handled(name, until_ms, tuple(one.spot for one in has))]
        case Park(reason=reason):
            if len(state.parked) + len(has) > PARKED_MAX:
                raise Rejected("too_many_parked", "Replay or drop parked records before there are more")
            return [RecordsParked(tuple(one.spot for one in has), reason, context.now_ms)]
        case Nack():
            return _put_back(state, command, has, until_ms, context.now_ms)
        case _:
            assert_never(command)


def _put_back(
    state: State, command: Nack, has: list[Held], until_ms: int, now_ms: int
) -> list[contract.Event]:
    """Once its tries are used up a record is parked, while there is room; else it goes on being tried."""
    room = PARKED_MAX - len(state.parked)
    ends = [one.spot for one in has if one.lease.failures + 1 >= TRIES][: max(0, room)]
    back = []
    for spot, lease in has:
        if spot not in ends:
            delay_ms = command.delay_ms
            if delay_ms is None:
                delay_ms = min(BACKOFF_MS << min(lease.failures, 16), BACKOFF_MS_MAX)
            back.append(Back(spot.partition, spot.offset, now_ms + delay_ms, lease.failures + 1))
    events: list[contract.Event] = []
    if back:
        events.append(PutBack(command.member, until_ms, tuple(back), command.reason))
    if ends:
        events.append(RecordsParked(tuple(ends), command.reason, now_ms))
    return events


def evolve(state: State, event: Event) -> None:
    """Note the word."""
    match event:
        case Handled(records=records):
            for spot in records:
                finish(place_of(state, spot.partition), spot.offset)
                state.parked.pop(parked_name(spot), None)
            see(state, event.member, event.until_ms)
        case PutBack(records=backs):
            for back in backs:
                place = place_of(state, back.partition)
                lease = place.under_way.pop(back.offset, None)
                if lease is not None:
                    waiting = Waiting(back.due_ms, lease.attempt, lease.key, back.failures)
                    place.waiting[back.offset] = waiting
            see(state, event.member, event.until_ms)
        case RecordsParked(records=records):
            for spot in records:
                place = place_of(state, spot.partition)
                lease = place.under_way.get(spot.offset)
                key, attempts = (lease.key, lease.attempt) if lease is not None else (None, 0)
                finish(place, spot.offset)
                state.parked[parked_name(spot)] = Parked(
                    spot.partition, spot.offset, attempts, event.reason, event.at_ms, key
                )
        case _:
            assert_never(event)


def answer(command: Command, events: list[contract.Event]) -> dict[str, object]:
    """Return how many records the word counted for, and the leases that were lost before it came."""
    spots = {(one.partition, one.offset) for event in events for one in getattr(event, "records", ())}
    late = [text for text in command.leases if tuple(map(int, text.split("-")[:2])) not in spots]
    return {"counted": len(spots), "late": late}
