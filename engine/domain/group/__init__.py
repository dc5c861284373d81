"""A group: members who share the records of a topic, each record handled at least once.

One concept per file, put together here by the type of command or event. Pure, as all domains; the records
themselves are read beside it (`engine.topics`).
"""

from __future__ import annotations

from typing import Any

from engine.domain import contract
from engine.domain.contract import Context, by_type
from engine.domain.group import delivery, members, moving, words
from engine.domain.group.members import deadline
from engine.domain.group.state import State

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

COLLECTIONS: tuple[str, ...] = ()

Command = members.Command | delivery.Command | words.Command | moving.Command
Event = members.Event | delivery.Event | words.Event | moving.Event

_CONCEPTS = (members, delivery, words, moving)
_DECIDE = by_type(_CONCEPTS, "Command", "decide")
_EVOLVE = by_type(_CONCEPTS, "Event", "evolve")


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
    """Nobody follows a group by its state."""
    return []


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return the command's `result`, after `evolve`."""
    match command:
        case members.Join(member=name) | members.Renew(member=name):
            member = state.members[name]
            return {
                "member": name,
                "partitions": member.partitions,
                "generation": state.generation,
                "lease_ms": member.lease_ms,
                **members.answer(command, events),
            }
        case delivery.Pull():
            return delivery.answer(events)
        case words.Ack() | words.Nack() | words.Park():
            return words.answer(command, events)
        case moving.Replay():
            return {"records": [name for event in events for name in getattr(event, "records", ())]}
        case _:
            return {}


def fences(event: Event) -> bool:
    """Nothing is hidden."""
    return False
