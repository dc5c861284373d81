"""Orders that end: how each change settles in the state, and how closed orders leave it.

A closed order stays for a while, so that a tap by mistake can be undone, and then is archived: history has
it.
"""

from __future__ import annotations

from itertools import islice

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.order import ACCEPTED, CLOSED, PLACED, Order, OrderChange, OrderEvent, changed
from engine.domain.store import stock
from engine.domain.store.state import State
from engine.domain.times import to_ms
from engine.errors import Rejected

RECALL_MS = 30 * 60_000
"""How long a closed order can still be recalled."""
CLOSED_MAX = 200
ARCHIVED_MAX = 2_000
"""Ids of archived orders that are remembered, so that they are not used again."""


class ArchiveOrders(contract.Command, frozen=True):
    """Let closed orders go whose time for recall is over."""


class OrdersArchived(contract.Event, frozen=True):
    """Closed orders left the state."""

    orders: tuple[str, ...]


Command = ArchiveOrders
Event = OrdersArchived

_ARCHIVE = ArchiveOrders()


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what is due."""
    due = tuple(order for order, closed_ms in state.closed.items() if closed_ms + RECALL_MS <= context.now_ms)
    return [OrdersArchived(due)] if due else []


def evolve(state: State, event: Event) -> None:
    """Drop the orders, and remember their ids for a while."""
    for order in event.orders:
        state.orders.pop(order, None)
        state.closed.pop(order, None)
        state.taken.pop(order, None)
        state.archived[order] = True
    for order in list(islice(state.archived, max(0, len(state.archived) - ARCHIVED_MAX))):
        del state.archived[order]


def touched(event: Event) -> list[tuple[str, str]]:
    """They are gone."""
    return [("orders", order) for order in event.orders]


def deadline(state: State) -> tuple[int, Command] | None:
    """Return when the oldest closed order leaves."""
    for closed_ms in state.closed.values():
        return closed_ms + RECALL_MS, _ARCHIVE
    return None


def left_behind(state: State, count: int = 1) -> list[contract.Event]:
    """Return the archiving that has to go along when `count` more orders close."""
    over = len(state.closed) + count - CLOSED_MAX
    return [OrdersArchived(tuple(islice(state.closed, over)))] if over > 0 else []


def known_order(state: State, name: str) -> Order:
    """Return the order.

    Raises:
        Rejected: `unknown_order`.
    """
    order = state.orders.get(name)
    if order is None:
        raise Rejected("unknown_order", f"There is no order {name} (any more)")
    return order


def settle(state: State, event: OrderEvent, change: OrderChange) -> None:
    """Apply a change to its order, and keep stock and the list of closed orders in step."""
    order = state.orders.get(event.order)
    if order is None:
        return
    order = state.orders[event.order] = changed(order, change)
    if order.status not in (PLACED, ACCEPTED):
        stock.used_up(state, order.order)
    if change.status is None:
        return
    if order.status in CLOSED:
        state.closed[order.order] = to_ms(event.at)
    else:
        state.closed.pop(order.order, None)
