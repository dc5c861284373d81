"""The shop: one concept per file, put together here by the type of command or event.

A new concept is one file with `Command`, `Event`, `decide`, `evolve` and `touched`, and its name in
`_CONCEPTS`.
"""

from __future__ import annotations

from typing import Any

from engine.domain import contract
from engine.domain.contract import Context, by_type
from engine.domain.store import (
    approvals,
    campaigns,
    cancelling,
    closing,
    coupons,
    following,
    holds,
    kitchen,
    menu,
    orders,
    payments,
    reconciling,
    refunds,
    repaying,
    settling,
    shop,
    tables,
    visits,
)
from engine.domain.store.state import COLLECTIONS, State
from engine.errors import Rejected

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

Command = (
    shop.Command
    | menu.Command
    | orders.Command
    | kitchen.Command
    | cancelling.Command
    | closing.Command
    | tables.Command
    | coupons.Command
    | campaigns.Command
    | following.Command
    | holds.Command
    | payments.Command
    | approvals.Command
    | reconciling.Command
    | refunds.Command
    | repaying.Command
    | settling.Command
    | visits.Command
)
Event = (
    shop.Event
    | menu.Event
    | orders.Event
    | kitchen.Event
    | cancelling.Event
    | closing.Event
    | tables.Event
    | coupons.Event
    | campaigns.Event
    | following.Event
    | holds.Event
    | payments.Event
    | approvals.Event
    | reconciling.Event
    | refunds.Event
    | repaying.Event
    | settling.Event
    | visits.Event
)

_CONCEPTS = (
    *(shop, menu, orders, kitchen, cancelling, closing, tables, coupons, campaigns, following),
    *(holds, payments, approvals, reconciling, refunds, repaying, settling, visits),
)
_DECIDE = by_type(_CONCEPTS, "Command", "decide")
_EVOLVE = by_type(_CONCEPTS, "Event", "evolve")
_TOUCHED = by_type(_CONCEPTS, "Event", "touched")
_DEADLINES = (
    *(closing.deadline, coupons.deadline, campaigns.deadline),
    *(holds.deadline, reconciling.deadline, repaying.deadline),
)
"""Each says when its part of the state next wants to be woken, and with which command."""


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return the events that the command causes; `[]` when there is nothing to do.

    Raises:
        Rejected: `unknown_store` before the store is configured, and what the command's own file says.
    """
    if not state.shop and type(command) is not shop.ConfigureStore:
        raise Rejected("unknown_store", "Nobody has configured this store yet")
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
    if type(command) is orders.CreateOrder:
        created = events[0]
        assert isinstance(created, orders.OrderCreated)
        return {
            "order": created.order,
            "total": created.total,
            "status": created.status,
            "hold_expires_at": created.hold_expires_at,
        }
    if isinstance(command, payments.Command):
        return payments.answer(state, command)
    if isinstance(command, reconciling.Command):
        return reconciling.answer(state, command)
    if isinstance(command, refunds.Command):
        return refunds.answer(state, command, events)
    if isinstance(command, repaying.Command):
        return repaying.answer(state, command)
    if isinstance(command, settling.Command):
        return settling.answer(state, command, events)
    if isinstance(command, coupons.Command):
        return coupons.answer(state, command, events)
    if isinstance(command, campaigns.Command):
        return campaigns.answer(state, command)
    if isinstance(command, visits.Command):
        return visits.answer(command, events)
    if isinstance(command, following.Command):
        return following.answer(state, command, events)
    if isinstance(command, menu.AdjustStock):
        return {"product": command.product, "stock": state.products[command.product].stock}
    if isinstance(command, kitchen.Command | cancelling.Command):
        order = state.orders[command.order]
        return {"order": order.order, "status": order.status, "total": order.total}
    return {}


def deadline(state: State) -> tuple[int, Any] | None:
    """Return when the shop next wants to be woken, and the command that it then gets."""
    soonest = None
    for part in _DEADLINES:
        due = part(state)
        if due is not None and (soonest is None or due[0] < soonest[0]):
            soonest = due
    return soonest


def fences(event: Event) -> bool:
    """No record of a shop is hidden from those who may read it."""
    return False
