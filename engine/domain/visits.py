"""How often customers were recognized: by place and hour. Pure; one stream for a topic, `visits:<topic>`.

Whoever counts sends each sighting under an id made of its own, so that it counts once.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from engine.domain import contract
from engine.domain.contract import Context

HOURS_MAX = 24 * 400
PLACES_MAX = 1000
OTHER = "…"
"""Where visits of more places than that are counted."""

Hour = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d$")]
Place = Annotated[str, Meta(min_length=1, max_length=100)]


class State(Struct):
    """Visits by hour (UTC, `2026-11-20T18`) and place."""

    hours: dict[str, dict[str, int]] = {}


COLLECTIONS: tuple[str, ...] = ()


class CountVisit(contract.Command, frozen=True):
    """Somebody was at a `place` in an `hour`."""

    place: Place
    hour: Hour


class VisitCounted(contract.Event, frozen=True):
    """Somebody was at a place in an hour. Those hours in `dropped` are counted no longer."""

    place: str
    hour: str
    dropped: tuple[str, ...] = ()


Command = CountVisit
Event = VisitCounted


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Count."""
    places = state.hours.get(command.hour, {})
    place = command.place if command.place in places or len(places) < PLACES_MAX else OTHER
    dropped: tuple[str, ...] = ()
    if command.hour not in state.hours and len(state.hours) >= HOURS_MAX:
        dropped = (min(state.hours),)
    return [VisitCounted(place, command.hour, dropped)]


def evolve(state: State, event: Event) -> None:
    """Change `state` by one fact. Total: facts are never refused."""
    for old in event.dropped:
        state.hours.pop(old, None)
    places = state.hours.setdefault(event.hour, {})
    places[event.place] = places.get(event.place, 0) + 1


def touched(event: Event) -> list[tuple[str, str]]:
    """Nobody follows counts."""
    return []


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return nothing but that it is done."""
    return {}


def deadline(state: State) -> None:
    """Counts wait for nothing."""


def fences(event: Event) -> bool:
    """Nothing is hidden."""
    return False
