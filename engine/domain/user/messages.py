"""Events of any type for the user, made by other programs or by plugins: passed on, not kept in the state.

They live in the user's stream alone. Who follows the user gets them as they come, and who was away gets them
out of the stream by cursor, as far back as feed, log and history go.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Label
from engine.domain.nesting import DEPTH_MAX, is_too_deep
from engine.domain.user.state import State
from engine.errors import Rejected

DATA_BYTES_MAX = 1_000_000
"""Size of an event's data as JSON: an event must fit into a message of 1 MB on its way to other nodes."""

EventType = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,100}(?!\n)$")]


class SendEvent(contract.Command, frozen=True):
    """Send the user an event of an `event_type` of your own (`snapshots.generated`), with `data` of up to
    1 MB.
    """

    allowed: ClassVar = frozenset({"service"})
    event_type: EventType
    data: dict[str, Any] = {}


class ReceiveEvent(contract.Command, frozen=True):
    """An event of `event_type` with its `data` for this user was made somewhere else, at `origin`."""

    event_type: EventType
    data: dict[str, Any]
    origin: Label


class EventSent(contract.Event, frozen=True):
    """The user was sent an event. `origin` names where it was made, empty: here."""

    event_type: str
    data: dict[str, Any]
    at: str
    origin: str = ""


Command = SendEvent | ReceiveEvent
Event = EventSent


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Write the event down.

    Raises:
        Rejected: `event_too_large`.
    """
    if is_too_deep(command.data):
        raise Rejected("event_too_large", f"The data is nested deeper than {DEPTH_MAX} levels")
    size = len(msgspec.json.encode(command.data))
    if size > DATA_BYTES_MAX:
        raise Rejected("event_too_large", f"The data has {size} bytes; {DATA_BYTES_MAX} are the limit")
    origin = command.origin if isinstance(command, ReceiveEvent) else ""
    return [EventSent(command.event_type, command.data, context.now, origin)]


def shown_data(event: EventSent, server: str) -> dict[str, Any]:
    """Return the data as the world outside gets it: when and on which server it was made stand in it.

    `server` is ours; for an event from elsewhere that does not say it is `unknown`.
    """
    server = "unknown" if event.origin else server
    return event.data | {
        name: value
        for name, value in (("timestamp", event.at), ("serverId", server))
        if name not in event.data
    }


def evolve(state: State, event: Event) -> None:
    """Nothing is kept."""


def touched(event: Event) -> list[tuple[str, str]]:
    """No entity changes."""
    return []
