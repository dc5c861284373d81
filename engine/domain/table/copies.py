"""What the shop tells the table: the menu, its orders, and each change of them.

An order belongs to the party that the shop saw at the table when it was made: a copy that comes late is not
shown to the next party, and changes of orders that the table does not hold are nothing to it.
"""

from __future__ import annotations

from itertools import islice
from typing import assert_never

from engine.domain import contract
from engine.domain.campaign import CampaignNote
from engine.domain.contract import Context
from engine.domain.order import CLOSED, Order, OrderChange, changed
from engine.domain.product import MenuItem, ShopSign
from engine.domain.table.sitting import opened
from engine.domain.table.state import SELF, State, is_open

ORDERS_MAX = 200
"""Orders that a table shows of one sitting: beyond that the oldest that are over make room."""

OLDEST = 32
"""Among so many of the oldest orders one that is over is looked for."""


class ShowMenu(contract.Command, frozen=True):
    """The shop's `products`, its sign, the `shop`, or all its `campaigns` that are not over, are like this
    now.
    """

    products: tuple[MenuItem, ...] = ()
    shop: ShopSign | None = None
    campaigns: tuple[CampaignNote, ...] | None = None


class RecordOrder(contract.Command, frozen=True):
    """The shop has a new `order` for the party `sitting`; 0 when it saw nobody: the order opens the table."""

    order: Order
    sitting: int = 0


class RecordChange(contract.Command, frozen=True):
    """The shop made this `change` to one of its orders."""

    change: OrderChange


class MenuShown(contract.Event, frozen=True):
    """The table knows these products, the shop, and campaigns as they are now; those in `over` are not shown
    any more.
    """

    products: tuple[MenuItem, ...] = ()
    shop: ShopSign | None = None
    campaigns: tuple[CampaignNote, ...] = ()
    over: tuple[str, ...] = ()


class OrderReceived(contract.Event, frozen=True):
    """The shop has the order: `copy`. Those in `dropped` are shown no longer."""

    order: str
    copy: Order
    dropped: tuple[str, ...] = ()


class OrderChanged(contract.Event, frozen=True):
    """An order went on."""

    order: str
    change: OrderChange


Command = ShowMenu | RecordOrder | RecordChange
Event = MenuShown | OrderReceived | OrderChanged


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Take over what is news here; `[]` for the rest."""
    match command:
        case ShowMenu(products=products, shop=shop):
            news = tuple(item for item in products if state.menu.get(item.product) != item)
            sign = None if state.shop.get(SELF) == shop else shop
            campaigns, over = _campaign_news(state, command.campaigns)
            if not (news or sign or campaigns or over):
                return []
            return [MenuShown(news, sign, campaigns, over)]
        case RecordOrder(order=order, sitting=sitting):
            return _received(state, order, sitting, context)
        case RecordChange(change=change):
            return [OrderChanged(change.order, change)] if change.order in state.orders else []
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Update the copies."""
    match event:
        case MenuShown(products=products, shop=shop):
            for item in products:
                state.menu[item.product] = item
            if shop is not None:
                state.shop[SELF] = shop
            for note in event.campaigns:
                state.campaigns[note.campaign] = note
            for gone in event.over:
                state.campaigns.pop(gone, None)
        case OrderReceived(order=name, copy=order):
            state.sending.pop(name, None)
            for old in event.dropped:
                state.orders.pop(old, None)
            state.orders[name] = order
        case OrderChanged(order=name, change=change):
            known = state.orders.get(name)
            if known is not None:
                state.orders[name] = changed(known, change)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Products, campaigns and the shop, or orders and the submission that became one."""
    match event:
        case MenuShown(products=products, shop=shop):
            names = [("menu", item.product) for item in products]
            names += [("campaigns", note.campaign) for note in event.campaigns]
            names += [("campaigns", gone) for gone in event.over]
            return names if shop is None else [("shop", SELF), *names]
        case OrderReceived(order=name):
            return [("orders", name), ("sending", name), *(("orders", old) for old in event.dropped)]
        case OrderChanged(order=name):
            return [("orders", name)]
        case _:
            assert_never(event)


def _campaign_news(
    state: State, told: tuple[CampaignNote, ...] | None
) -> tuple[tuple[CampaignNote, ...], tuple[str, ...]]:
    """Return what is new of all campaigns that the shop has, and which are over."""
    if told is None:
        return (), ()
    there = {note.campaign for note in told}
    news = tuple(note for note in told if state.campaigns.get(note.campaign) != note)
    return news, tuple(name for name in state.campaigns if name not in there)


def _received(state: State, order: Order, sitting: int, context: Context) -> list[contract.Event]:
    events: list[contract.Event] = []
    if sitting and not (is_open(state) and state.table[SELF].sitting == sitting):
        return events  # that party has left
    if order.order in state.orders:
        return events
    if not is_open(state):
        events.append(opened(state, None, context, order.placed_at))
    dropped: tuple[str, ...] = ()
    if len(state.orders) >= ORDERS_MAX:
        oldest = islice(state.orders.values(), OLDEST)  # not all of them, at each new order
        over = (old.order for old in oldest if old.status in CLOSED)
        dropped = tuple(name for name in (next(over, None),) if name is not None)
    return [*events, OrderReceived(order.order, order, dropped)]
