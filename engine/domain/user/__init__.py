"""A user, in any shop: one concept per file, put together here by the type of command or event.

Notices, copies of the orders they placed, the coupons they hold, the tasks that are done for them,
and events of any type from other programs.
"""

from __future__ import annotations

from typing import Any

from engine.domain import contract
from engine.domain.contract import Context, by_type
from engine.domain.user import coupons, messages, notices, orders, tasks
from engine.domain.user.state import COLLECTIONS, State

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

Command = notices.Command | orders.Command | coupons.Command | tasks.Command | messages.Command
Event = notices.Event | orders.Event | coupons.Event | tasks.Event | messages.Event

_CONCEPTS = (notices, orders, coupons, tasks, messages)
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
    if isinstance(command, tasks.Command):
        return tasks.answer(state, command, events)
    match events:
        case [notices.NoticeAdded(notice=name)]:
            return {"notice": name}
        case _:
            return {}


def deadline(state: State) -> tuple[int, Any] | None:
    """Return when a finished task is to be forgotten, and the command for it."""
    return tasks.deadline(state)


def fences(event: Event) -> bool:
    """A user may read all that is theirs."""
    return False
