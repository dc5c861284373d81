"""Members: who takes part, for how long, and who works on which partition.

A member that is not heard of until its lease ends is out, and what it had under way goes to others at once.
Whoever joins under a known name is a new start of it, and has nothing in hand.
"""

from __future__ import annotations

from typing import Annotated, assert_never

from msgspec import Meta
from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Id, Ref
from engine.domain.group.state import (
    DELIVERIES_MAX,
    LEASES_MAX,
    MEMBERS_MAX,
    PARKED_MAX,
    Lease,
    LeaseMs,
    Member,
    Place,
    Spot,
    State,
    Waiting,
    held,
    place_of,
)
from engine.domain.group.words import RecordsParked
from engine.domain.topic import PARTITIONS_MAX
from engine.errors import Rejected

LEASE_MS = 30_000


class Join(contract.Command, frozen=True):
    """Take part as `member`, out after `lease_ms` without a word. `starts`: for each partition of the topic,
    after which offset a new group begins.
    """

    member: Id
    starts: Annotated[tuple[int, ...], Meta(min_length=1, max_length=PARTITIONS_MAX)]
    lease_ms: LeaseMs = LEASE_MS


class Renew(contract.Command, frozen=True):
    """The `member` is alive and works on the records of these `leases`."""

    member: Ref
    leases: Annotated[tuple[Lease, ...], Meta(max_length=LEASES_MAX)] = ()


class Leave(contract.Command, frozen=True):
    """The `member` goes, and hands over what it has."""

    member: Ref


class EndLeases(contract.Command, frozen=True):
    """Take back what is over."""


class GroupMade(contract.Event, frozen=True):
    """The group begins after these offsets."""

    starts: tuple[int, ...]


class MemberJoined(contract.Event, frozen=True):
    """A member takes part."""

    member: str
    lease_ms: int
    until_ms: int


class MemberRenewed(contract.Event, frozen=True):
    """A member was heard of; these `records` of it are leased anew."""

    member: str
    until_ms: int
    records: tuple[Spot, ...] = ()


class MemberLeft(contract.Event, frozen=True):
    """A member is out: it `left`, or its lease `ended`."""

    member: str
    reason: str


class PartitionsAssigned(contract.Event, frozen=True):
    """Who works on what from now on."""

    generation: int
    members: dict[str, tuple[int, ...]]


class LeasesEnded(contract.Event, frozen=True):
    """Members had these records for too long, or are gone: others get them."""

    records: tuple[Spot, ...]
    at_ms: int


Command = Join | Renew | Leave | EndLeases
Event = GroupMade | MemberJoined | MemberRenewed | MemberLeft | PartitionsAssigned | LeasesEnded


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Let members come and go.

    Raises:
        Rejected: `unknown_member`, `too_many_members`.
    """
    now_ms = context.now_ms
    match command:
        case Join():
            return _join(state, command, now_ms)
        case Renew(member=name, leases=leases):
            member = known(state, name)
            has = tuple(one.spot for one in held(state, name, leases))
            return [MemberRenewed(name, now_ms + member.lease_ms, has)]
        case Leave(member=name):
            if name not in state.members:
                return []
            return _go(state, {name: "left"}, _had_by(state, {name}), now_ms)
        case EndLeases():
            gone = {name: "ended" for name, one in state.members.items() if one.until_ms <= now_ms}
            over = [
                Spot(number, offset)
                for number, place in enumerate(state.places)
                for offset, lease in place.under_way.items()
                if lease.until_ms <= now_ms or lease.member in gone
            ]
            return _go(state, gone, over, now_ms)
        case _:
            assert_never(command)


def known(state: State, name: str) -> Member:
    """Return a member.

    Raises:
        Rejected: `unknown_member`.
    """
    member = state.members.get(name)
    if member is None:
        raise Rejected("unknown_member", "This member is not in the group (any more): join first")
    return member


def after_a_step_back(state: State, now_ms: int) -> list[contract.Event]:
    """Return leases anew where they last longer than leases do, as the clock was set back: a member that is
    gone would hold its records for as long as that.
    """
    latest = {name: now_ms + member.lease_ms for name, member in state.members.items()}
    long: dict[str, list[Spot]] = {
        name: [] for name, member in state.members.items() if member.until_ms > latest[name]
    }
    for number, place in enumerate(state.places):
        for offset, lease in place.under_way.items():
            if lease.until_ms > latest.get(lease.member, lease.until_ms):
                long.setdefault(lease.member, []).append(Spot(number, offset))
    return [MemberRenewed(name, latest[name], tuple(spots)) for name, spots in long.items()]


def _join(state: State, command: Join, now_ms: int) -> list[contract.Event]:
    name = command.member
    events: list[contract.Event] = []
    if not state.places:
        events.append(GroupMade(command.starts))
    if name not in state.members and len(state.members) >= MEMBERS_MAX:
        raise Rejected("too_many_members", f"A group has {MEMBERS_MAX} members at most")
    if had := _had_by(state, {name}):
        events += _end(state, had, now_ms)
    events.append(MemberJoined(name, command.lease_ms, now_ms + command.lease_ms))
    have = {one: member.partitions for one, member in state.members.items()}
    count = len(state.places) or len(command.starts)
    return events + _share_out(state, {**have, name: have.get(name, ())}, count)


def _go(state: State, gone: dict[str, str], over: list[Spot], now_ms: int) -> list[contract.Event]:
    events = _end(state, over, now_ms) if over else []
    if gone:
        events += [MemberLeft(name, reason) for name, reason in gone.items()]
        have = {one: member.partitions for one, member in state.members.items() if one not in gone}
        events += _share_out(state, have, len(state.places))
    return events


def _had_by(state: State, names: set[str]) -> list[Spot]:
    return [
        Spot(number, offset)
        for number, place in enumerate(state.places)
        for offset, lease in place.under_way.items()
        if lease.member in names
    ]


def _end(state: State, spots: list[Spot], now_ms: int) -> list[contract.Event]:
    """End leases; what was given out again and again without a word is parked while there is room."""
    room = PARKED_MAX - len(state.parked)
    often = [
        spot
        for spot in spots
        if state.places[spot.partition].under_way[spot.offset].attempt >= DELIVERIES_MAX
    ][: max(0, room)]
    rest = tuple(spot for spot in spots if spot not in often)
    events: list[contract.Event] = [LeasesEnded(rest, now_ms)] if rest else []
    if often:
        events.append(RecordsParked(tuple(often), "its members ended without a word on it", now_ms))
    return events


def _share_out(state: State, have: dict[str, tuple[int, ...]], count: int) -> list[contract.Event]:
    """Give every partition to one member, evenly, moving as few as possible."""
    if not have:
        return []
    low, more = divmod(count, len(have))
    order = sorted(have, key=lambda name: -len(have[name]))
    quota = {name: low + (number < more) for number, name in enumerate(order)}
    shares = {name: list(have[name][: quota[name]]) for name in have}
    taken = {partition for share in shares.values() for partition in share}
    free = iter([partition for partition in range(count) if partition not in taken])
    for name, share in shares.items():
        while len(share) < quota[name]:
            share.append(next(free))
    assigned = {name: tuple(sorted(share)) for name, share in shares.items()}
    return [PartitionsAssigned(state.generation + 1, assigned)]


def evolve(state: State, event: Event) -> None:
    """Note who takes part."""
    match event:
        case GroupMade(starts=starts):
            state.places = [Place(committed=start) for start in starts]
        case MemberJoined(member=name):
            before = state.members.get(name)
            partitions = before.partitions if before is not None else ()
            state.members[name] = Member(event.lease_ms, event.until_ms, partitions)
        case MemberRenewed(member=name, until_ms=until_ms):
            member = state.members.get(name)
            if member is not None:
                state.members[name] = replace(member, until_ms=until_ms)
            for spot in event.records:
                under_way = place_of(state, spot.partition).under_way
                if spot.offset in under_way:
                    under_way[spot.offset] = replace(under_way[spot.offset], until_ms=until_ms)
        case MemberLeft(member=name):
            state.members.pop(name, None)
        case PartitionsAssigned(members=members):
            state.generation = event.generation
            for name, member in state.members.items():
                state.members[name] = replace(member, partitions=members.get(name, ()))
        case LeasesEnded(records=records, at_ms=at_ms):
            for spot in records:
                place = place_of(state, spot.partition)
                ended = place.under_way.pop(spot.offset, None)
                if ended is not None:
                    waiting = Waiting(at_ms, ended.attempt, ended.key, ended.failures)
                    place.waiting[spot.offset] = waiting
        case _:
            assert_never(event)


def deadline(state: State) -> tuple[int, Command] | None:
    """Return when the next lease ends."""
    ends = [member.until_ms for member in state.members.values()]
    ends += [lease.until_ms for place in state.places for lease in place.under_way.values()]
    return (min(ends), EndLeases()) if ends else None


def answer(command: Command, events: list[contract.Event]) -> dict[str, object]:
    """Return, for `renew`, the leases that were lost before."""
    if not isinstance(command, Renew):
        return {}
    spots = {(one.partition, one.offset) for event in events for one in getattr(event, "records", ())}
    late = [text for text in command.leases if tuple(map(int, text.split("-")[:2])) not in spots]
    return {"late": late}
