"""Stock that is kept for orders which are not paid yet, from the order to its sale or its return.

    held ──approve──> pinned ──approved──> sold (confirmed)
     ^  └─deadline─> available  │
     └────────declined──────────┘

An unpaid order always has a hold, also without counted products: its deadline is the order's time to pay.
While it is pinned no clock ends it. A hold ends once: released or confirmed.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.order import ACCEPTED, PLACED, UNPAID, Order, OrderChange, OrderEvent
from engine.domain.payment import DROPPED, PENDING
from engine.domain.store import coupons, stock
from engine.domain.store.closing import left_behind, look_again, settle
from engine.domain.store.state import Hold, State
from engine.domain.store.stock import StockChange, further, moved
from engine.domain.times import to_ms

EXPIRED_AT_ONCE = 100
"""Orders that expire in one commit; more are due again at once."""


class ExpireHolds(contract.Command, frozen=True):
    """Let unpaid orders go whose time to pay is over."""


class ConfirmStock(contract.Command, frozen=True):
    """The `order` is paid and placed: its pinned pieces are sold."""

    order: str


class OrderExpired(OrderEvent, frozen=True, kw_only=True):
    """Nobody paid in time: `stock` is what came back, `payment` the one that nobody has approved."""

    payment: str | None = None
    stock: tuple[StockChange, ...] = ()

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, "EXPIRED")


class OrderRevived(OrderEvent, frozen=True, kw_only=True):
    """The guest came back with a payment when the order had expired, and its `stock` was still there. The
    time to pay stays what it was.
    """

    payment: str
    hold_expires_at: str
    stock: tuple[StockChange, ...] = ()

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, "PENDING_PAYMENT", hold_expires_at=self.hold_expires_at)


class StockConfirmed(contract.Event, frozen=True):
    """The pieces that were pinned for a paid order are sold: `stock`."""

    order: str
    at: str
    stock: tuple[StockChange, ...] = ()


Command = ExpireHolds | ConfirmStock
Event = OrderExpired | OrderRevived | StockConfirmed

_EXPIRE = ExpireHolds()


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what is due, or what is sold; `[]` when it is so already."""
    match command:
        case ExpireHolds():
            return _expired(state, context)
        case ConfirmStock(order=order):
            hold = state.holds.get(order)
            known = state.orders.get(order)
            if hold is None or hold.attempt is None or known is None or known.status in UNPAID:
                return []
            return [StockConfirmed(order, context.now, _moves(state, hold, pinned=-1))]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Move the pieces."""
    stock.apply(state, event.stock)
    match event:
        case OrderExpired(order=order):
            end(state, order)
            drop_payment(state, event.payment)
            settle(state, event, event.change())
        case OrderRevived(order=order):
            pieces = {change.product: change.before - change.after for change in event.stock}
            begin(state, order, to_ms(event.hold_expires_at), pieces)
            if (payment := state.payments.get(event.payment)) is not None:
                state.payments[event.payment] = replace(payment, status=PENDING)
            settle(state, event, event.change())
        case StockConfirmed(order=order):
            hold = state.holds.get(order)
            end(state, order)
            known = state.orders.get(order)
            if hold is not None and hold.pieces and known is not None and known.status in (PLACED, ACCEPTED):
                state.taken[order] = hold.pieces
            look_again(state, order)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The order with its payment, and the products whose counts it changed."""
    products = [("products", change.product) for change in event.stock]
    match event:
        case StockConfirmed():
            return products
        case OrderExpired(payment=payment) | OrderRevived(payment=payment):
            payments = [("payments", payment)] if payment is not None else []
            return [("orders", event.order), *payments, *products]
        case _:
            assert_never(event)


def deadline(state: State) -> tuple[int, Command] | None:
    """Return when the next order expires."""
    due_ms = state.expiries.first()
    return None if due_ms is None else (due_ms, _EXPIRE)


def begin(state: State, order: str, deadline_ms: int, pieces: dict[str, int]) -> None:
    """An order waits for its money from now on. Part of `evolve`."""
    state.holds[order] = Hold(deadline_ms, pieces)
    state.expiries.set(order, deadline_ms)


def end(state: State, order: str) -> None:
    """Nothing is kept for the order any more. Part of `evolve`."""
    state.holds.pop(order, None)
    state.expiries.drop(order)


def pin(state: State, order: str, attempt: str) -> None:
    """An attempt to pay began: no clock ends the hold. Part of `evolve`."""
    hold = state.holds.get(order)
    if hold is not None:
        hold.attempt = attempt
        state.expiries.drop(order)


def unpin(state: State, order: str) -> None:
    """The attempt failed: the hold ends at its first deadline again. Part of `evolve`."""
    hold = state.holds.get(order)
    if hold is not None:
        hold.attempt = None
        state.expiries.set(order, hold.deadline_ms)


def pinned(state: State, order: str) -> tuple[StockChange, ...]:
    """Return what pinning the hold of an order does to the stock."""
    hold = state.holds.get(order)
    return () if hold is None else _moves(state, hold, held=-1, pinned=1)


def unpinned(state: State, order: str) -> tuple[StockChange, ...]:
    """Return what happens to the stock when an attempt fails."""
    hold = state.holds.get(order)
    return () if hold is None else _moves(state, hold, held=1, pinned=-1)


def released(state: State, order: Order, pieces: dict[str, int] | None = None) -> tuple[StockChange, ...]:
    """Return what happens to the stock when an order that nobody has begun to cook gives back `pieces`, or
    all that it has: whether it is unpaid, paid, or to be paid afterwards.
    """
    hold = state.holds.get(order.order)
    if hold is None:
        return stock.give_back(state, order.order, pieces)
    if order.status not in _UNCOOKED:
        return ()
    return _moves(state, hold, 1, held=-(hold.attempt is None), pinned=-(hold.attempt is not None), of=pieces)


def let_go(state: State, order: str, pieces: dict[str, int] | None = None) -> None:
    """The order no longer has these pieces, or any. Part of `evolve`, before the order itself changes."""
    known = state.orders.get(order)
    hold = state.holds.get(order)
    if hold is None:
        for product, count in (state.taken.get(order, {}) if pieces is None else pieces).copy().items():
            stock.let_go(state, order, product, count)
    elif known is not None and known.status in _UNCOOKED:
        if pieces is None:
            end(state, order)
        else:
            hold.pieces = _without(hold.pieces, pieces)


def pending_payment(state: State, order: Order) -> str | None:
    """Return the payment of an unpaid order that nobody has approved, and that has to go along with it."""
    payment = state.payments.get(order.payment.payment) if order.payment is not None else None
    return payment.payment if payment is not None and payment.status == PENDING else None


def drop_payment(state: State, name: str | None) -> None:
    """Nobody can approve this payment any more. Part of `evolve`."""
    payment = state.payments.get(name) if name is not None else None
    if payment is not None and payment.status == PENDING:
        state.payments[payment.payment] = replace(payment, status=DROPPED)


_UNCOOKED = UNPAID | {PLACED, ACCEPTED}


def expired(
    state: State, order: Order, back: tuple[StockChange, ...], context: Context
) -> list[contract.Event]:
    """Return the end of one order that nobody paid in time; `back` is its stock."""
    payment = pending_payment(state, order)
    facts = (order.order, context.now, order.table, order.user)
    event = OrderExpired(*facts, payment=payment, stock=back)
    return [event, *coupons.returned_events(state, order, context)]


def _expired(state: State, context: Context) -> list[contract.Event]:
    events: list[contract.Event] = []
    first: dict[str, StockChange] = {}
    last: dict[str, StockChange] = {}
    count = 0
    for name in state.expiries.over(context.now_ms, EXPIRED_AT_ONCE):
        order, hold = state.orders.get(name), state.holds.get(name)
        if order is None or hold is None:
            continue
        back = []
        for change in _moves(state, hold, 1, held=-1):
            if (before := last.get(change.product)) is not None:
                change = further(before, change.after - change.before, change.held_after - change.held_before)
            first.setdefault(change.product, change)
            last[change.product] = change
            back.append(change)
        events += expired(state, order, tuple(back), context)
        count += 1
    over_all = tuple(StockChange(name, first[name].before, change.after) for name, change in last.items())
    if count:
        events += stock.announce_crossing(state, over_all) + left_behind(state, count)
    return events


def _moves(
    state: State,
    hold: Hold,
    available: int = 0,
    held: int = 0,
    pinned: int = 0,
    of: dict[str, int] | None = None,
) -> tuple[StockChange, ...]:
    """Return the change that adds these multiples of the hold's pieces (or `of` some) to the counts."""
    changes = []
    for name, count in (hold.pieces if of is None else of).items():
        count = min(count, hold.pieces.get(name, 0))
        product = state.products.get(name)
        if product is not None and product.stock is not None and count:
            changes.append(moved(product, available * count, held * count, pinned * count))
    return tuple(changes)


def _without(pieces: dict[str, int], gone: dict[str, int]) -> dict[str, int]:
    left = {name: count - gone.get(name, 0) for name, count in pieces.items()}
    return {name: count for name, count in left.items() if count > 0}
