"""Copies of the orders that the user placed, in any store."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import astuple

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.order import Order, OrderChange, changed
from engine.domain.user.state import State, UserOrder, oldest

ORDERS_MAX = 50


class RecordOrder(contract.Command, frozen=True):
    """The `store` has a new `order` of this user."""

    store: str
    order: Order


class RecordChange(contract.Command, frozen=True):
    """The `store` made this `change` to one of its orders."""

    store: str
    change: OrderChange


class OrderReceived(contract.Event, frozen=True):
    """A store has an order of the user: `copy`. Those in `dropped` are shown no longer."""

    order: str
    store: str
    copy: Order
    dropped: tuple[str, ...] = ()


class OrderChanged(contract.Event, frozen=True):
    """An order went on."""

    order: str
    store: str
    change: OrderChange


Command = RecordOrder | RecordChange
Event = OrderReceived | OrderChanged


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Take it over; `[]` when it is known, or nothing to this user."""
    match command:
        case RecordOrder(store=store, order=order):
            if f"{store}/{order.order}" in state.orders:
                return []
            return [OrderReceived(order.order, store, order, oldest(state.orders, ORDERS_MAX))]
        case RecordChange(store=store, change=change):
            if f"{store}/{change.order}" not in state.orders:
                return []
            return [OrderChanged(change.order, store, change)]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Keep the copy, or change it as the store did."""
    match event:
        case OrderReceived(store=store, order=name, copy=order):
            for old in event.dropped:
                state.orders.pop(old, None)
            state.orders[f"{store}/{name}"] = UserOrder(*astuple(order), store=store)
        case OrderChanged(store=store, order=name, change=change):
            known = state.orders.get(f"{store}/{name}")
            if known is not None:
                state.orders[f"{store}/{name}"] = changed(known, change)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Name the copies that came, changed and went."""
    key = ("orders", f"{event.store}/{event.order}")
    if isinstance(event, OrderReceived):
        return [key, *(("orders", old) for old in event.dropped)]
    return [key]
