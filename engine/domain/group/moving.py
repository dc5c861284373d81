"""Moving a group by hand: to another offset, back to what it parked, or past what is gone."""

from __future__ import annotations

from typing import Annotated, assert_never

from msgspec import Meta

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.group.state import PARKED_MAX, Place, State, Waiting, place_of
from engine.errors import Rejected

Offset = Annotated[int, Meta(ge=0, le=1 << 60)]


class Seek(contract.Command, frozen=True):
    """Go on `after` these offsets, by partition: back, to have records again, or ahead, to leave some out."""

    after: dict[int, Offset]


class Replay(contract.Command, frozen=True):
    """Give out parked `records` (`<partition>-<offset>`; all when left out) again, or `drop` them."""

    records: Annotated[tuple[str, ...], Meta(max_length=PARKED_MAX)] | None = None
    drop: bool = False


class MissRecords(contract.Command, frozen=True):
    """The records of a `partition` up to `upto` are kept nowhere any more."""

    partition: int
    upto: Offset


class Sought(contract.Event, frozen=True):
    """The group goes on after these offsets."""

    after: dict[int, int]


class ParkedReplayed(contract.Event, frozen=True):
    """These are given out again."""

    records: tuple[str, ...]
    at_ms: int


class ParkedDropped(contract.Event, frozen=True):
    """Nobody wants these any more."""

    records: tuple[str, ...]


class RecordsMissed(contract.Event, frozen=True):
    """The group never saw `count` records up to `upto`: they were gone before."""

    partition: int
    upto: int
    count: int


Command = Seek | Replay | MissRecords
Event = Sought | ParkedReplayed | ParkedDropped | RecordsMissed


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Move.

    Raises:
        Rejected: `unknown_group`, `unknown_partition`, `unknown_record`.
    """
    if not state.places:
        raise Rejected("unknown_group", "Nobody has joined this group yet")
    match command:
        case Seek(after=after):
            _check(state, *after)
            return [Sought(after)] if after else []
        case Replay(records=names, drop=drop):
            chosen = tuple(state.parked) if names is None else tuple(dict.fromkeys(names))
            if not set(chosen) <= state.parked.keys():
                raise Rejected("unknown_record", "One of these is not parked (any more)")
            if not chosen:
                return []
            return [ParkedDropped(chosen) if drop else ParkedReplayed(chosen, context.now_ms)]
        case MissRecords(partition=partition, upto=upto):
            _check(state, partition)
            place = state.places[partition]
            count = upto - place.committed - sum(offset <= upto for offset in place.done)
            count -= sum(place.committed < offset <= upto for offset in place.under_way)
            count += sum(offset <= place.committed for offset in place.waiting)
            return [RecordsMissed(partition, upto, count)] if count > 0 else []
        case _:
            assert_never(command)


def _check(state: State, *partitions: int) -> None:
    if not all(0 <= partition < len(state.places) for partition in partitions):
        raise Rejected("unknown_partition", f"The topic has {len(state.places)} partitions, from 0 on")


def evolve(state: State, event: Event) -> None:
    """Note where the group goes on. A lease from before a move counts no longer."""
    match event:
        case Sought(after=after):
            for partition, offset in after.items():
                place = place_of(state, partition)
                place.committed = offset
                place.done, place.under_way, place.waiting = {}, {}, {}
        case ParkedReplayed(records=names):
            for name in names:
                parked = state.parked.pop(name, None)
                if parked is not None:
                    waiting = Waiting(event.at_ms, parked.attempts, parked.key)
                    place = place_of(state, parked.partition)
                    place.done.pop(parked.offset, None)
                    place.waiting[parked.offset] = waiting
        case ParkedDropped(records=names):
            for name in names:
                state.parked.pop(name, None)
        case RecordsMissed(partition=partition, upto=upto):
            _pass_over(place_of(state, partition), upto)
            state.missed += event.count
        case _:
            assert_never(event)


def _pass_over(place: Place, upto: int) -> None:
    """Leave out what is gone; what members have already they may still finish."""
    place.waiting = {offset: one for offset, one in place.waiting.items() if offset > upto}
    place.done = {offset: True for offset in place.done if offset > upto}
    place.committed = max(place.committed, upto)
    while place.done.pop(place.committed + 1, False):
        place.committed += 1
