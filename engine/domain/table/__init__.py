"""A table in a shop: one concept per file, put together here by the type of command or event."""

from __future__ import annotations

from typing import Any

from engine.domain import contract
from engine.domain.contract import Context, by_type
from engine.domain.table import calls, cart, copies, coupons, sitting
from engine.domain.table.state import COLLECTIONS, SELF, State

__all__ = [
    "COLLECTIONS",
    "Command",
    "Event",
    "State",
    "answer",
    "deadline",
    "decide",
    "evolve",
    "fences",
    "touched",
]

Command = sitting.Command | cart.Command | calls.Command | copies.Command | coupons.Command
Event = sitting.Event | cart.Event | calls.Event | copies.Event | coupons.Event

_CONCEPTS = (sitting, cart, calls, copies, coupons)
_DECIDE = by_type(_CONCEPTS, "Command", "decide")
_EVOLVE = by_type(_CONCEPTS, "Event", "evolve")
_TOUCHED = by_type(_CONCEPTS, "Event", "touched")


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return the events that the command causes; `[]` when there is nothing to do.

    Raises:
        Rejected: what the command's own file says.
    """
    events: list[contract.Event] = _DECIDE[type(command)](state, command, context)
    return events


def evolve(state: State, event: Event) -> None:
    """Change `state` by one fact. Total: facts are never refused."""
    _EVOLVE[type(event)](state, event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Name the entities (collection, id) that the event changed."""
    entities: list[tuple[str, str]] = _TOUCHED[type(event)](event)
    return entities


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return the command's `result`, after `evolve`."""
    if isinstance(command, sitting.OpenTable):
        return {"sitting": state.table[SELF].sitting}
    if isinstance(command, calls.CallStaff):
        return {"call": calls.ringing(state, command.kind)}
    match events:
        case [cart.ItemAdded(line=line)]:
            return {"line": line}
        case [cart.CartSubmitted(order=order)]:
            return {"order": order}
        case _:
            return {}


def deadline(state: State) -> None:
    """A table waits for nothing."""


def fences(event: Event) -> bool:
    """What a party did is not for the eyes of the next one."""
    return isinstance(event, sitting.TableClosed)
