"""Who comes in: customers that a beacon or a code at the shop recognized.

The shop's screens see the last `SHOWN_MAX`. A sighting counts once: its `event_id` is remembered for a day,
of the last `IDS_MAX`.
"""

from __future__ import annotations

from itertools import islice
from typing import ClassVar, assert_never

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.customer import Beacon, Text, read_event_id, read_sighting
from engine.domain.fields import Id
from engine.domain.store.state import State, Visit
from engine.domain.times import to_ms

SHOWN_MAX = 20
IDS_MAX = 10_000
ONCE_MS = 86_400_000


class IdentifyCustomer(contract.Command, frozen=True):
    """A customer, `customer_id`, was recognized: `location` ("Entrance"), `confidence` 0 to 1, and the
    `beacon` (none for a code). `detected_at` is now when left out. The same `event_id` (a UUID) counts once
    within 24 h.
    """

    allowed: ClassVar = frozenset({"staff", "owner"})
    customer_id: Text
    location: Text
    confidence: float
    beacon: Beacon | None = None
    detected_at: Text | None = None
    event_id: Text | None = None


class NoteVisit(contract.Command, frozen=True):
    """A topic tells that a customer, `customer_id`, was recognized `at` a time at a `location`; `event_id`
    names it.
    """

    event_id: Id
    customer_id: Id
    location: Text
    at: str


class CustomerIdentified(contract.Event, frozen=True):
    """A customer was recognized. Those in `dropped` are shown no longer."""

    event_id: str
    customer_id: str
    location: str
    confidence: float
    detected_at: str
    at: str
    beacon: Beacon | None = None
    dropped: tuple[str, ...] = ()


class VisitNoted(contract.Event, frozen=True):
    """The shop heard of a customer who was recognized. Those in `dropped` are shown no longer."""

    event_id: str
    customer_id: str
    location: str
    at: str
    dropped: tuple[str, ...] = ()


Command = IdentifyCustomer | NoteVisit
Event = CustomerIdentified | VisitNoted


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Take note of a customer; `[]` when it is known.

    Raises:
        Rejected: `event_id_invalid`, and as `read_sighting`.
    """
    match command:
        case IdentifyCustomer():
            at = command.detected_at or context.now
            seen = read_sighting(
                command.customer_id, command.location, command.confidence, at, command.beacon
            )
            name = context.new_id if command.event_id is None else read_event_id(command.event_id)
            if _is_known(state, name, context):
                return []
            told = (seen.customer_id, seen.location, seen.confidence, seen.detected_at)
            return [CustomerIdentified(name, *told, context.now, seen.beacon, _oldest(state))]
        case NoteVisit(event_id=name):
            if _is_known(state, name, context):
                return []
            return [VisitNoted(name, command.customer_id, command.location, command.at, _oldest(state))]
        case _:
            assert_never(command)


def _is_known(state: State, name: str, context: Context) -> bool:
    at_ms = state.identified.get(name)
    return at_ms is not None and at_ms > context.now_ms - ONCE_MS


def _oldest(state: State) -> tuple[str, ...]:
    return tuple(islice(state.visits, max(0, len(state.visits) + 1 - SHOWN_MAX)))


def evolve(state: State, event: Event) -> None:
    """Note who came."""
    for old in event.dropped:
        state.visits.pop(old, None)
    state.identified.pop(event.event_id, None)
    state.identified[event.event_id] = to_ms(event.at)
    if len(state.identified) > IDS_MAX + IDS_MAX // 8:
        for old in list(islice(state.identified, IDS_MAX // 8)):
            del state.identified[old]
    state.visits[event.event_id] = Visit(event.event_id, event.customer_id, event.location, event.at)


def touched(event: Event) -> list[tuple[str, str]]:
    """Name the entities (collection, id) that the event changed."""
    return [("visits", event.event_id), *(("visits", old) for old in event.dropped)]


def answer(command: Command, events: list[contract.Event]) -> dict[str, object]:
    """Return the sighting's id, and whether it was known."""
    if events:
        event = events[0]
        assert isinstance(event, CustomerIdentified | VisitNoted)
        return {"event_id": event.event_id, "duplicate": False}
    return {"event_id": (command.event_id or "").lower(), "duplicate": True}
