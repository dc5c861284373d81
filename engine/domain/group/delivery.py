"""Giving out records: in order per key, each to one member at a time.

While a record of a key is under way, or waits to be given out again, no later record of that key is given
out. The bytes of records are elsewhere: who asks shows the keys of those that come next (`Window`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Ref
from engine.domain.group.members import MemberRenewed, after_a_step_back, known
from engine.domain.group.state import (
    LEASES_MAX,
    WINDOW,
    Place,
    Spot,
    State,
    UnderWay,
    lease_text,
    place_of,
    see,
)


class Window(Struct, frozen=True, gc=False):
    """The keys of a partition's records from the offset `first` on, without a hole."""

    partition: int
    first: int
    keys: tuple[str | None, ...]


class Handed(Struct, frozen=True, omit_defaults=True, gc=False):
    """A record that is given out: for the `attempt`th time, of which `failures` were given back."""

    partition: int
    offset: int
    attempt: int
    key: str | None = None
    failures: int = 0


class Pull(contract.Command, frozen=True):
    """Give the `member` up to `limit` records out of its partitions; `windows`: what comes next there."""

    member: Ref
    windows: tuple[Window, ...]
    limit: Annotated[int, Meta(ge=1, le=LEASES_MAX)] = 100


class Delivered(contract.Event, frozen=True):
    """A member has these records until their lease ends."""

    member: str
    delivery: int
    until_ms: int
    records: tuple[Handed, ...]


Command = Pull
Event = Delivered


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Give out what may be given out; else note that the member is alive, if it was long ago.

    Raises:
        Rejected: `unknown_member`.
    """
    member = known(state, command.member)
    has = sum(lease.member == command.member for place in state.places for lease in place.under_way.values())
    room = min(command.limit, LEASES_MAX - has)
    given: list[Handed] = []
    windows = [window for window in command.windows if window.partition in member.partitions]
    turn = state.deliveries % len(windows) if windows else 0
    for window in (*windows[turn:], *windows[:turn]):  # each partition is the first one now and then
        if len(given) < room:
            place = state.places[window.partition]
            given += _choose(place, window, room - len(given), context.now_ms)
    until_ms = context.now_ms + member.lease_ms
    anew = after_a_step_back(state, context.now_ms)
    if given:
        return [*anew, Delivered(command.member, state.deliveries + 1, until_ms, tuple(given))]
    if anew:
        return anew
    if member.until_ms - context.now_ms < member.lease_ms // 2:
        return [MemberRenewed(command.member, until_ms)]
    return []


def _choose(place: Place, window: Window, room: int, now_ms: int) -> list[Handed]:
    keys = dict(enumerate(window.keys, window.first))
    if window.first > place.committed + 1:
        keys = {}  # what lies before it is not shown, and may have the same keys
    fresh = [offset for offset in keys if place.committed < offset <= place.committed + WINDOW]
    busy = {lease.key for lease in place.under_way.values()}
    given: list[Handed] = []
    for offset in sorted({*place.waiting, *fresh}):
        if len(given) == room:
            break
        if offset in place.done or offset in place.under_way:
            continue
        again = place.waiting.get(offset)
        key = keys[offset] if again is None else again.key
        if key is not None and key in busy:
            continue
        if again is None:
            given.append(Handed(window.partition, offset, 1, key))
        elif again.due_ms <= now_ms:
            given.append(Handed(window.partition, offset, again.attempt + 1, key, again.failures))
        busy.add(key)
    return given


def evolve(state: State, event: Event) -> None:
    """Note who has what."""
    state.deliveries = event.delivery
    for record in event.records:
        place = place_of(state, record.partition)
        place.waiting.pop(record.offset, None)
        place.under_way[record.offset] = UnderWay(
            event.member, event.delivery, event.until_ms, record.attempt, record.key, record.failures
        )
    see(state, event.member, event.until_ms)


def answer(events: list[contract.Event]) -> dict[str, object]:
    """Return what was given out, each with its lease."""
    return {
        "records": [
            {
                "partition": one.partition,
                "offset": one.offset,
                "lease": lease_text(Spot(one.partition, one.offset), event.delivery),
                "attempt": one.attempt,
            }
            for event in events
            if isinstance(event, Delivered)
            for one in event.records
        ]
    }
