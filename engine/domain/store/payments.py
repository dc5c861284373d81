"""What guests do to pay: prepare a payment, go to the gateway's page, approve.

Here are the steps up to the call of the gateway; what it answers is in `approvals`. An order has at most one
open attempt, and a payment at most one attempt ever.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, assert_never

from msgspec import Meta
from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context, Outcome
from engine.domain.fields import Amount, Ref
from engine.domain.order import EXPIRED, UNPAID, Order, OrderChange, OrderEvent
from engine.domain.payment import (
    DECLINED,
    DROPPED,
    MANUAL_REVIEW,
    OPEN,
    PAID,
    PENDING,
    REQUESTED,
    UNKNOWN,
    Attempt,
    Checkout,
    Method,
    OrderPayment,
    Payment,
)
from engine.domain.store import holds, stock
from engine.domain.store.closing import known_order, note_payment, settle
from engine.domain.store.gateway import ApprovalRequested, NoteCheckout, PaymentPrepared
from engine.domain.store.reviving import pinned_at_once, revive
from engine.domain.store.state import State
from engine.domain.store.stock import StockChange
from engine.domain.times import to_ms
from engine.errors import Rejected

MARGIN_MS = 60_000
"""A guest needs this long at the gateway's page at least."""
PAYMENTS_MAX = 50
"""Payments that can be prepared for one order: each is kept as long as the order, and opens a page."""
ORPHANED_MS = 15 * 60_000
"""After this an attempt without an answer is asked after: longer than any gateway's own window."""

_GUESTS = frozenset({"table", "user", "staff", "owner"})


class PreparePayment(contract.Command, frozen=True):
    """Begin to pay the `order`: its whole `amount`, by the `payer` who ordered it, with a `method`. Again
    with the same method it is the same payment; with another one, or after a refusal, a new one; also
    `instead_of` the payment whose page the guest has left without paying, which takes nobody any more.
    """

    allowed: ClassVar = _GUESTS
    order: Ref
    amount: Amount
    payer: Annotated[str, Meta(min_length=1, max_length=200)]
    method: Method
    instead_of: Ref | None = None


class ApprovePayment(contract.Command, frozen=True):
    """Charge the guest for the `order`: the `payment` was prepared, and the gateway's page gave the guest a
    `provider_ref`. The answer may be that nobody knows yet: do not pay again then.
    """

    allowed: ClassVar = _GUESTS
    outcome: ClassVar = Outcome(
        done="PaymentApproved",
        refused="",
        key="payment",
        statuses={"PaymentApproved": PAID, "PaymentDeclined": DECLINED, "PaymentUnknown": UNKNOWN},
        pending=UNKNOWN,
        collection="payments",
    )
    order: Ref
    payment: Ref
    provider_ref: Annotated[str, Meta(min_length=1, max_length=300)]


class CheckoutOpened(OrderEvent, frozen=True, kw_only=True):
    """The guest can pay at the gateway's page: `url`, which the gateway calls `ref`."""

    payment: str
    method: str
    amount: int
    url: str
    ref: str = ""

    def change(self) -> OrderChange:
        payment = OrderPayment(self.payment, self.method, PENDING, self.amount, self.url)
        return OrderChange(self.order, self.at, payment=payment)


Command = PreparePayment | ApprovePayment | NoteCheckout
Event = PaymentPrepared | CheckoutOpened | ApprovalRequested


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return the step; `[]` when it is done already.

    Raises:
        Rejected: `unknown_order`, `unknown_payment`, `forbidden`, `already_paid`, `not_payable`,
            `hold_expired`, `hold_expiring`, `payer_mismatch`, `amount_mismatch`, `payment_in_progress`,
            `payment_in_review`, `payment_replaced`, `too_many_payments`.
    """
    match command:
        case PreparePayment():
            return _prepared(state, command, context)
        case ApprovePayment():
            return _approval(state, command, context)
        case NoteCheckout():
            return _checkout(state, command, context)
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Take the step."""
    payment = state.payments.get(event.payment)
    match event:
        case PaymentPrepared():
            holds.drop_payment(state, event.replaces)
            state.payments[event.payment] = _payment(event)
            note_payment(state, event.order, event.payment)
        case CheckoutOpened(url=url, ref=ref):
            if payment is not None:
                state.payments[event.payment] = replace(payment, checkout=Checkout(url, ref))
        case ApprovalRequested(attempt=attempt, at=at):
            stock.apply(state, event.stock)
            holds.pin(state, event.order, attempt)
            if payment is not None:
                begun = Attempt(attempt, REQUESTED, event.ref, at)
                state.payments[event.payment] = replace(payment, status=REQUESTED, attempt=begun)
                state.queries.set(event.payment, to_ms(at) + ORPHANED_MS)
        case _:
            assert_never(event)
    settle(state, event, event.change())


def touched(event: Event) -> list[tuple[str, str]]:
    """The order and its payment, and the products whose counts it changed."""
    entities = [("orders", event.order), ("payments", event.payment)]
    match event:
        case PaymentPrepared(replaces=replaces):
            return entities if replaces is None else [*entities, ("payments", replaces)]
        case ApprovalRequested():
            return entities + [("products", change.product) for change in event.stock]
        case CheckoutOpened():
            return entities
        case _:
            assert_never(event)


def answer(state: State, command: Command) -> dict[str, Any]:
    """Return the result: what to show at the gateway's page, or how the payment stands.

    While the gateway has not answered yet nobody knows whether the guest was charged.
    """
    if isinstance(command, PreparePayment):
        order = state.orders[command.order]
        newest = order.payment
        assert newest is not None
        return {
            "payment": newest.payment,
            "order": order.order,
            "status": newest.status,
            "amount": newest.amount,
            "method": newest.method,
            "hold_expires_at": order.hold_expires_at,
        }
    if isinstance(command, NoteCheckout):
        return {}
    payment = find(state, command.payment)
    assert payment is not None
    status = payment.status if payment.status in (PAID, DECLINED) else UNKNOWN
    result = {"payment": payment.payment, "order": payment.order, "status": status}
    attempt = payment.attempt
    if attempt is not None and payment.status != REQUESTED:
        result |= {name: text for name in ("code", "message") if (text := getattr(attempt, name))}
    return result


def _prepared(state: State, command: PreparePayment, context: Context) -> list[contract.Event]:
    order = known_order(state, command.order)
    _check_own(order.table, order.user, context)
    _check_payable(order)
    hold = state.holds.get(order.order)
    left_ms = hold.deadline_ms - context.now_ms if hold is not None else 0
    payer = _orderer(order)
    if command.payer not in (payer, order.by):
        raise Rejected("payer_mismatch", f"Order {order.order} is paid by who ordered it")
    if command.amount != order.total:
        raise Rejected("amount_mismatch", f"Order {order.order} costs {order.total}, not {command.amount}")
    newest = state.payments.get(order.payment.payment) if order.payment is not None else None
    if newest is not None and newest.status in OPEN:
        raise Rejected("payment_in_progress", "A payment of this order is under way: do not pay again")
    if left_ms <= 0:
        raise Rejected("hold_expired", "The time to pay is over: order again")
    if left_ms < MARGIN_MS:
        raise Rejected("hold_expiring", "There is too little time left to pay: order again")
    pending = newest if newest is not None and newest.status == PENDING else None
    same = pending is not None and pending.method == command.method
    if pending is not None and same and pending.payment != command.instead_of:
        return []
    if len(state.payments_of.get(order.order, ())) >= PAYMENTS_MAX:
        raise Rejected("too_many_payments", "This order was begun to be paid too often: order again")
    return [
        PaymentPrepared(
            *(order.order, context.now, order.table, order.user),
            payment=context.new_id,
            method=command.method,
            amount=order.total,
            taxable=order.total - order.tax_free,
            tax_free=order.tax_free,
            vat=order.vat,
            payer=payer,
            by=context.by,
            name=_name(order),
            replaces=None if pending is None else pending.payment,
        )
    ]


def _approval(state: State, command: ApprovePayment, context: Context) -> list[contract.Event]:
    payment = find(state, command.payment)
    if payment is None or payment.order != command.order:
        known_order(state, command.order)
        raise Rejected("unknown_payment", f"Order {command.order} has no payment {command.payment}")
    _check_own(payment.table, payment.user, context)
    if payment.status in (PAID, DECLINED):
        return []
    if payment.status == MANUAL_REVIEW:
        raise Rejected("payment_in_review", "The shop looks into this payment: do not pay again")
    if payment.attempt is not None:
        if payment.attempt.ref == command.provider_ref:
            return []
        raise Rejected("payment_in_progress", "This payment is under way already: do not pay again")
    order = known_order(state, command.order)
    if payment.status == DROPPED:
        return _late_approval(state, order, payment, command, context)
    _check_payable(order)
    return [_request(order, payment, command, holds.pinned(state, order.order), context)]


def _late_approval(
    state: State, order: Order, payment: Payment, command: ApprovePayment, context: Context
) -> list[contract.Event]:
    """Return how an order that has expired comes back with its newest payment and is charged."""
    if order.status != EXPIRED:
        raise Rejected("payment_replaced", "This payment was given up: use the order's newest one")
    if order.payment is None or order.payment.payment != payment.payment:
        raise Rejected("hold_expired", "The time to pay is over: order again")
    events, taken = revive(state, order, context)
    request = _request(order, payment, command, pinned_at_once(taken), context)
    return [*events, request, *stock.announce_crossing(state, taken)]


def _request(
    order: Order,
    payment: Payment,
    command: ApprovePayment,
    changes: tuple[StockChange, ...],
    context: Context,
) -> ApprovalRequested:
    if payment.amount != order.total:
        raise Rejected("amount_mismatch", f"Order {order.order} costs {order.total}, not {payment.amount}")
    return ApprovalRequested(
        *(order.order, context.now, order.table, order.user),
        payment=payment.payment,
        attempt=context.new_id,
        method=payment.method,
        amount=payment.amount,
        taxable=payment.taxable,
        tax_free=payment.tax_free,
        vat=payment.vat,
        payer=payment.payer,
        name=_name(order),
        ref=command.provider_ref,
        checkout=payment.checkout.ref if payment.checkout is not None else "",
        stock=changes,
    )


def _checkout(state: State, command: NoteCheckout, context: Context) -> list[contract.Event]:
    payment = state.payments.get(command.payment)
    if payment is None or payment.order is None or payment.status != PENDING or payment.checkout is not None:
        return []
    return [
        CheckoutOpened(
            *(payment.order, context.now, payment.table, payment.user),
            payment=payment.payment,
            method=payment.method,
            amount=payment.amount,
            url=command.url,
            ref=command.ref,
        )
    ]


def find(state: State, name: str) -> Payment | None:
    """Return a payment, also one whose order has left already."""
    return state.payments.get(name) or state.kept.get(name)


def put(state: State, payment: Payment) -> None:
    """Keep a payment where it is: with its order, or among those whose order has left. Part of `evolve`."""
    place = state.payments if payment.payment in state.payments else state.kept
    place[payment.payment] = payment


def _check_own(table: str | None, user: str | None, context: Context) -> None:
    """Refuse guests who did not order this."""
    role, _, name = context.by.partition(":")
    if role == "user" and name != user:
        raise Rejected("forbidden", "Only an order of one's own can be paid")
    if role != "table":
        return
    if table is None or user is not None or name != f"{context.stream[6:]}/{table}":
        raise Rejected("forbidden", "A table pays only what it has ordered itself")


def _check_payable(order: Order) -> None:
    if order.status in UNPAID:
        return
    if order.status == EXPIRED:
        raise Rejected("hold_expired", "The time to pay is over: order again")
    if order.paid:
        raise Rejected("already_paid", f"Order {order.order} is paid already")
    raise Rejected("not_payable", f"Order {order.order} is {order.status}: there is nothing to pay here")


def _orderer(order: Order) -> str:
    return order.user or order.table or order.by.partition(":")[2]


def _name(order: Order) -> str:
    """Return what a gateway calls the order: its first line, and how many more there are."""
    first, more = order.lines[0].name, len(order.lines) - 1
    return f"{first} 외 {more}건" if more else first


def _payment(event: PaymentPrepared) -> Payment:
    return Payment(
        event.payment,
        PENDING,
        event.amount,
        event.taxable,
        event.tax_free,
        event.vat,
        event.method,
        event.method,
        event.payer,
        event.by,
        event.at,
        event.order,
        event.table,
        event.user,
    )
