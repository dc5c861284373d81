"""Orders and lines that will not be: rejected by the shop or cancelled, and their stock given back once.

What was paid for them goes back in the same commit. While a payment is under way nobody can take the order
back: its outcome comes first.
"""

from __future__ import annotations

from typing import ClassVar, assert_never

from engine.domain import contract
from engine.domain.contract import STAFF, Context
from engine.domain.fields import Reason, Ref
from engine.domain.order import (
    CANCELLED,
    COOKING,
    EXPIRED,
    PLACED,
    READY,
    REJECTED,
    SERVED,
    UNPAID,
    WAITING,
    Order,
    OrderChange,
    OrderEvent,
    priced,
)
from engine.domain.payment import OPEN, TILL
from engine.domain.store import coupons, holds, refunds, stock
from engine.domain.store.closing import known_order, left_behind, settle
from engine.domain.store.kitchen import OrderReady
from engine.domain.store.state import State
from engine.domain.store.stock import StockChange
from engine.domain.tax import Split
from engine.errors import Rejected


class RejectOrder(contract.Command, frozen=True):
    """Turn down the `order`, which nobody has accepted yet, and say the `reason`."""

    allowed: ClassVar = STAFF
    order: Ref
    reason: Reason


class CancelOrder(contract.Command, frozen=True):
    """Take back the `order` and say the `reason`: guests until it is accepted, staff until it is served. What
    was paid for it goes back.
    """

    allowed: ClassVar = frozenset({"table", "user", "staff", "owner"})
    order: Ref
    reason: Reason


class CancelLine(contract.Command, frozen=True):
    """Take one `line` out of the `order` and say the `reason`; with its last line the order goes too. What
    was paid for it goes back.
    """

    allowed: ClassVar = STAFF
    order: Ref
    line: Ref
    reason: Reason


class OrderRejected(OrderEvent, frozen=True, kw_only=True):
    """The shop turned the order down. `stock` is what came back, `payment` one that nobody can approve any
    more.
    """

    reason: str
    stock: tuple[StockChange, ...] = ()
    payment: str | None = None

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, REJECTED, self.reason)


class OrderCancelled(OrderEvent, frozen=True, kw_only=True):
    """The order was taken back. `stock` is what came back, `payment` one that nobody can approve any
    more.
    """

    reason: str
    stock: tuple[StockChange, ...] = ()
    payment: str | None = None

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, CANCELLED, self.reason)


class LineCancelled(OrderEvent, frozen=True, kw_only=True):
    """One line was taken out. `stock` is what came back."""

    line: str
    reason: str
    stock: tuple[StockChange, ...] = ()

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, line=self.line, line_status=CANCELLED)


Command = RejectOrder | CancelOrder | CancelLine
Event = OrderRejected | OrderCancelled | LineCancelled


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what is taken back; `[]` when it is already.

    Raises:
        Rejected: `unknown_order`, `unknown_line`, `wrong_status`, `too_late`, `forbidden`,
            `payment_in_progress`.
    """
    order = known_order(state, command.order)
    match command:
        case RejectOrder(reason=reason):
            if order.status == REJECTED:
                return []
            if order.status not in UNPAID | {PLACED}:
                raise Rejected("wrong_status", f"Order {order.order} is {order.status}: cancel it instead")
            return _ended(state, order, OrderRejected, reason, context)
        case CancelOrder(reason=reason):
            if not _may_cancel(state, order, context):
                return []
            return _ended(state, order, OrderCancelled, reason, context)
        case CancelLine():
            return _cancel_line(state, order, command, context)
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Close the order or its line."""
    stock.apply(state, event.stock)
    if not isinstance(event, LineCancelled):
        holds.let_go(state, event.order)
        holds.drop_payment(state, event.payment)
    elif (order := state.orders.get(event.order)) is not None:
        for line in order.lines:
            if line.line == event.line:
                holds.let_go(state, event.order, {line.product: line.quantity})
    settle(state, event, event.change())


def touched(event: Event) -> list[tuple[str, str]]:
    """The order, the payment that goes with it, and the products whose count it changed."""
    entities = [("orders", event.order), *(("products", change.product) for change in event.stock)]
    if not isinstance(event, LineCancelled) and event.payment is not None:
        entities.append(("payments", event.payment))
    return entities


def _facts(order: Order, context: Context) -> tuple[str, str, str | None, str | None]:
    return order.order, context.now, order.table, order.user


def _ended(
    state: State,
    order: Order,
    kind: type[OrderRejected | OrderCancelled],
    reason: str,
    context: Context,
) -> list[contract.Event]:
    """Return the end of a whole order: its stock, coupon and money go back."""
    newest = state.payments.get(order.payment.payment) if order.payment is not None else None
    if newest is not None and newest.status in OPEN:
        raise Rejected("payment_in_progress", "A payment of this order is under way: wait for its outcome")
    back = holds.released(state, order)
    pending = holds.pending_payment(state, order)
    return [
        kind(*_facts(order, context), reason=reason, stock=back, payment=pending),
        *stock.announce_crossing(state, back),
        *coupons.returned_events(state, order, context),
        *refunds.refunds_for(state, order, Split(0, 0), reason, context),
        *left_behind(state),
    ]


def _may_cancel(state: State, order: Order, context: Context) -> bool:
    """Whether there is something to cancel."""
    role, _, name = context.by.partition(":")
    table = None if order.table is None else f"{context.stream[6:]}/{order.table}"
    own = {"table": table, "user": order.user}
    if own.get(role, name) != name:
        raise Rejected("forbidden", "Only an order of one's own can be cancelled")
    if order.status == CANCELLED:
        return False
    if order.status in (REJECTED, EXPIRED):
        raise Rejected("wrong_status", f"Order {order.order} is {order.status} already")
    if role in ("table", "user") and order.status not in UNPAID | {PLACED}:
        raise Rejected("too_late", "The kitchen has this order already: please ask the staff")
    if role in ("table", "user") and _paid_at_till(state, order):
        raise Rejected("too_late", "This order was paid at the till: please ask the staff")
    if order.status == SERVED:
        raise Rejected("wrong_status", f"Order {order.order} is served: recall it first")
    return True


def _paid_at_till(state: State, order: Order) -> bool:
    """Whether somebody would have to open the till to give the money back."""
    payments = (state.payments.get(name) for name in state.payments_of.get(order.order, ()))
    return any(payment is not None and payment.provider == TILL for payment in payments)


def _cancel_line(state: State, order: Order, command: CancelLine, context: Context) -> list[contract.Event]:
    line = next((line for line in order.lines if line.line == command.line), None)
    if line is None:
        raise Rejected("unknown_line", f"Order {order.order} has no line {command.line}")
    if line.status == CANCELLED or order.status == CANCELLED:
        return []
    if order.status in (REJECTED, EXPIRED, SERVED):
        raise Rejected("wrong_status", f"Order {order.order} is {order.status}")
    if order.status in UNPAID:
        raise Rejected("wrong_status", f"Order {order.order} is about to be paid as it is: cancel all of it")
    facts = _facts(order, context)
    back = holds.released(state, order, {line.product: line.quantity})
    events: list[contract.Event] = [
        LineCancelled(*facts, line=line.line, reason=command.reason, stock=back),
        *stock.announce_crossing(state, back),
    ]
    others = tuple(other for other in order.lines if other is not line)
    rest = {other.status for other in others}
    left = priced(others, order.discount)
    paid_back = refunds.refunds_for(state, order, left, command.reason, context, line.line)
    if WAITING not in rest and READY not in rest:
        events.append(OrderCancelled(*facts, reason=command.reason))
        events += coupons.returned_events(state, order, context)
        return [*events, *paid_back, *left_behind(state)]
    if WAITING not in rest and order.status == COOKING:
        events.append(OrderReady(*facts))
    return [*events, *paid_back]
