"""Orders that somebody asked for in a few words, to be carried out as a task whose steps the user watches."""

from __future__ import annotations

from typing import Any

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Id, Name, Quantity, Ref
from engine.domain.user.state import State


class RequestOrder(contract.Command, frozen=True):
    """Order this `quantity` of the product called `product_name` in a `store`, as a `task` (one is made if it
    is left out).
    """

    store: Ref
    product_name: Name
    quantity: Quantity
    task: Id | None = None


class OrderRequested(contract.Event, frozen=True):
    """Somebody wants an order; what becomes of it the task tells."""

    task: str
    store: str
    product_name: str
    quantity: int
    at: str


Command = RequestOrder
Event = OrderRequested


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Write the wish down; `[]` when its task is there already."""
    if command.task is not None and command.task in state.tasks:
        return []
    task = command.task if command.task is not None else context.new_id
    return [OrderRequested(task, command.store, command.product_name, command.quantity, context.now)]


def evolve(state: State, event: Event) -> None:
    """The wish itself changes nothing: what follows from it does."""


def touched(event: Event) -> list[tuple[str, str]]:
    """Nobody sees a wish."""
    return []


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return the task."""
    match events:
        case [OrderRequested(task=task)]:
            return {"task": task}
        case _:
            return {"task": command.task}
