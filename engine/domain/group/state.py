"""What a group remembers: its members, and for each partition how far it is and who works on what.

A record beyond `committed` is in `done`, `under_way` or `waiting`, or was not given out yet. Everything up to
`committed` is handled or parked. Nothing is given out more than `WINDOW` beyond it, which bounds all this.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from engine.domain.topic import PARTITIONS_MAX
from engine.errors import Rejected

WINDOW = 1000
"""How far beyond the oldest unhandled record of a partition records are given out."""
MEMBERS_MAX = 64
LEASES_MAX = 1000
"""Records that one member has under way, and leases in one command."""
PARKED_MAX = 1000
TRIES = 4
"""1 try and 3 retries: a record that its members gave back so often is parked."""
DELIVERIES_MAX = 16
"""Deliveries without any word (the members died) after which a record is parked."""

LeaseMs = Annotated[int, Meta(ge=500, le=600_000)]
Lease = Annotated[str, Meta(max_length=64)]
Leases = Annotated[tuple[Lease, ...], Meta(min_length=1, max_length=LEASES_MAX)]

_LEASE = re.compile(r"(\d{1,3})-(\d{1,18})-(\d{1,18})\Z")


class Spot(Struct, frozen=True, array_like=True, gc=False):
    """One record of the topic."""

    partition: int
    offset: int


class Member(Struct, frozen=True, gc=False):
    """Who takes part, and until when unless it is heard of; the partitions it works on."""

    lease_ms: int
    until_ms: int
    partitions: tuple[int, ...] = ()


class UnderWay(Struct, frozen=True, gc=False):
    """A record that a member has, until its lease ends. `failures` of `attempt` were given back."""

    member: str
    delivery: int
    until_ms: int
    attempt: int
    key: str | None = None
    failures: int = 0


class Waiting(Struct, frozen=True, gc=False):
    """A record that is to be given out again."""

    due_ms: int
    attempt: int
    key: str | None = None
    failures: int = 0


class Parked(Struct, frozen=True, gc=False):
    """A record that the group gave up on; an operator has it replayed or dropped."""

    partition: int
    offset: int
    attempts: int
    reason: str
    at_ms: int
    key: str | None = None


class Place(Struct):
    """How far the group is in one partition."""

    committed: int = 0
    done: dict[int, bool] = {}
    under_way: dict[int, UnderWay] = {}
    waiting: dict[int, Waiting] = {}


class State(Struct):
    """A group. `places` are by the number of the partition; none before the first member."""

    places: list[Place] = []
    members: dict[str, Member] = {}
    parked: dict[str, Parked] = {}
    generation: int = 0
    deliveries: int = 0
    missed: int = 0


class Held(NamedTuple):
    """A lease that is good: the record, and what the state knows of it."""

    spot: Spot
    lease: UnderWay


def lease_text(spot: Spot, delivery: int) -> str:
    """Return what a member shows to say a word on a record."""
    return f"{spot.partition}-{spot.offset}-{delivery}"


def parked_name(spot: Spot) -> str:
    """Return what a parked record is called."""
    return f"{spot.partition}-{spot.offset}"


def held(state: State, member: str, leases: tuple[str, ...]) -> list[Held]:
    """Return the records among `leases` that the member still has; others it lost meanwhile.

    Raises:
        Rejected: `lease_invalid`.
    """
    found: dict[Spot, Held] = {}
    for text in leases:
        match = _LEASE.match(text)
        if match is None:
            raise Rejected("lease_invalid", "Show the `lease` that came with the record")
        spot, delivery = Spot(int(match[1]), int(match[2])), int(match[3])
        if spot.partition < len(state.places):
            lease = state.places[spot.partition].under_way.get(spot.offset)
            if lease is not None and lease.member == member and lease.delivery == delivery:
                found[spot] = Held(spot, lease)
    return list(found.values())


def place_of(state: State, partition: int) -> Place:
    """Return a partition's place; one that nobody has told of is made, if there can be such."""
    if not 0 <= partition < PARTITIONS_MAX:
        return Place()
    while len(state.places) <= partition:
        state.places.append(Place())
    return state.places[partition]


def finish(place: Place, offset: int) -> None:
    """Take note that nothing is left to do with a record."""
    place.under_way.pop(offset, None)
    place.waiting.pop(offset, None)
    if offset > place.committed:
        place.done[offset] = True
        while place.done.pop(place.committed + 1, False):
            place.committed += 1


def handled(place: Place) -> int:
    """Return how many records of a partition are handled, parked or passed over. One that was parked and is
    to come again is none of them, although `committed` is beyond it.
    """
    again = sum(offset <= place.committed for offset in {*place.waiting, *place.under_way})
    return place.committed + len(place.done) - again


def see(state: State, member: str, now_until_ms: int) -> None:
    """Take note that a member was heard of."""
    known = state.members.get(member)
    if known is not None and now_until_ms > known.until_ms:
        state.members[member] = Member(known.lease_ms, now_until_ms, known.partitions)
