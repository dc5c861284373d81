"""A party at the table, from opening to closing, which clears everything for the next party."""

from __future__ import annotations

from typing import ClassVar, assert_never

from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import STAFF, Context
from engine.domain.fields import Guests
from engine.domain.order import CLOSED, UNPAID, Order
from engine.domain.payment import MANUAL_REVIEW, UNKNOWN
from engine.domain.table.state import SELF, Sitting, State, is_open, table_of
from engine.errors import Rejected

TABLE_ID_MAX = 48


class OpenTable(contract.Command, frozen=True):
    """Begin a sitting for a party of `guests`."""

    allowed: ClassVar = frozenset({"table", "staff", "owner"})
    guests: Guests | None = None


class CloseTable(contract.Command, frozen=True):
    """End the sitting: cart, orders and calls are cleared, and the next party sees nothing of them."""

    allowed: ClassVar = STAFF


class TableOpened(contract.Event, frozen=True):
    """A party sat down."""

    store: str
    table: str
    sitting: int
    guests: int | None
    at: str


class TableClosed(contract.Event, frozen=True):
    """The party has left; these lines, orders and calls went with it, and what it held of these
    coupons.
    """

    store: str
    table: str
    sitting: int
    at: str
    cart: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    coupons: tuple[str, ...] = ()


Command = OpenTable | CloseTable
Event = TableOpened | TableClosed


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Open or close; `[]` when it is so already.

    Raises:
        Rejected: `orders_open`, `table_id_too_long`.
    """
    match command:
        case OpenTable(guests=guests):
            return [] if is_open(state) else [opened(state, guests, context)]
        case CloseTable():
            if not is_open(state):
                return []
            if state.sending:
                raise Rejected("orders_open", "An order is on its way to the shop: wait for its answer")
            unfinished = [order.order for order in state.orders.values() if _holds_open(order)]
            if unfinished:
                raise Rejected("orders_open", f"Not served yet: {', '.join(unfinished)}")
            now = state.table[SELF]
            held = tuple(coupon.coupon for coupon in state.coupons.values() if coupon.held)
            left = tuple(state.cart), tuple(state.orders), tuple(state.calls), held
            return [TableClosed(now.store, now.table, now.sitting, context.now, *left)]
        case _:
            assert_never(command)


def opened(state: State, guests: int | None, context: Context, at: str | None = None) -> TableOpened:
    """Return the opening of the next sitting: now, or `at` the time of the order that opens the table, which
    is then not older than its party.

    Raises:
        Rejected: `table_id_too_long`.
    """
    store, table = table_of(context.stream)
    if len(table) > TABLE_ID_MAX:
        raise Rejected("table_id_too_long", f"A table's id has {TABLE_ID_MAX} characters at most")
    last = state.table[SELF].sitting if state.table else 0
    return TableOpened(store, table, last + 1, guests, at or context.now)


def _holds_open(order: Order) -> bool:
    """Whether the party waits for the order. Where nobody knows whether it was paid, that may take hours."""
    if order.status in UNPAID and order.payment is not None:
        return order.payment.status not in (UNKNOWN, MANUAL_REVIEW)
    return order.status not in CLOSED


def evolve(state: State, event: Event) -> None:
    """Sit down, or leave and clear."""
    match event:
        case TableOpened(store=store, table=table, sitting=sitting):
            state.table[SELF] = Sitting(store, table, True, sitting, event.guests, event.at)
        case TableClosed(store=store, table=table, sitting=sitting):
            state.table[SELF] = Sitting(store, table, False, sitting, None, None)
            for name in event.cart:
                state.cart.pop(name, None)
            for name in event.orders:
                state.orders.pop(name, None)
            for name in event.calls:
                state.calls.pop(name, None)
            for name in event.coupons:
                if (coupon := state.coupons.get(name)) is not None:
                    state.coupons[name] = replace(coupon, held=False, used=False)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The table, and all that left with the party."""
    match event:
        case TableOpened():
            return [("table", SELF)]
        case TableClosed():
            return [
                ("table", SELF),
                *(("cart", name) for name in event.cart),
                *(("orders", name) for name in event.orders),
                *(("calls", name) for name in event.calls),
                *(("coupons", name) for name in event.coupons),
            ]
        case _:
            assert_never(event)
