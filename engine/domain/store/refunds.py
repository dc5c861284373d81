"""Money that goes back: asked for by the owner or by an order that costs less, and sent to the gateway.

At a gateway one refund of a payment goes after the other, each under an idempotency key of its own. What was
paid at the till is given back at the till, at once. What is on its way counts as given, so the sum never
exceeds the payment. How the gateway answers is in `repaying`.

    QUEUED ──send──> REQUESTED ──> DONE | FAILED | UNKNOWN
                        ^────────retry──────────────┘ └─> MANUAL_REVIEW ──person──> DONE | FAILED
"""

from __future__ import annotations

from typing import Any, ClassVar, assert_never

from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Amount, Reason, Ref
from engine.domain.order import Order, OrderChange, OrderEvent
from engine.domain.payment import (
    DONE,
    FAILED,
    OPEN,
    PAID,
    QUEUED,
    REQUESTED,
    TILL,
    UNKNOWN,
    Payment,
    Refund,
    Share,
)
from engine.domain.store.closing import is_of, note_refund, settle
from engine.domain.store.gateway import RefundSent
from engine.domain.store.payments import ORPHANED_MS, find
from engine.domain.store.splits import rest_of, share_of, spread, taxed
from engine.domain.store.state import State
from engine.domain.tax import Split, Taxed, portion, taken, total, vat_in
from engine.domain.times import to_ms
from engine.errors import Rejected

REFUNDS_MAX = 100
"""Refunds of one payment that an owner can ask for."""


class RefundPayment(contract.Command, frozen=True):
    """Give back an `amount` of a `payment`, and say the `reason`; `owed`: the guest has to pay it anew at the
    till, because it was paid in the wrong way.
    """

    allowed: ClassVar = frozenset({"owner"})
    payment: Ref
    amount: Amount
    reason: Reason
    owed: bool = False


class RefundRequested(contract.Event, frozen=True, kw_only=True):
    """`amount` won of a payment are to go back. `void`: a charge that no order stands behind is cancelled,
    which the gateway calls `charge`. `shares`: how much of it for which order of a bill.
    """

    payment: str
    refund: str
    at: str
    amount: int
    taxable: int
    tax_free: int
    vat: int
    reason: str
    by: str
    order: str | None = None
    void: bool = False
    charge: str = ""
    shares: tuple[Share, ...] = ()
    owed: bool = False


class RefundCompleted(contract.Event, frozen=True, kw_only=True):
    """The money went back: the gateway said so, the till gave it, or a person (`by`, with a `reason`)
    knows.
    """

    payment: str
    refund: str
    at: str
    amount: int
    order: str | None = None
    code: str = ""
    message: str = ""
    by: str | None = None
    reason: str | None = None


class OrderRefunded(OrderEvent, frozen=True, kw_only=True):
    """`amount` won that were paid for the order went back; `owed`: they have to be paid anew."""

    payment: str
    refund: str
    amount: int
    owed: bool = False

    def change(self) -> OrderChange:
        owed = self.amount if self.owed else 0
        return OrderChange(self.order, self.at, refunded=self.amount, owed=owed)


Command = RefundPayment
Event = RefundRequested | RefundSent | RefundCompleted | OrderRefunded


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what goes back.

    Raises:
        Rejected: `unknown_payment`, `not_paid`, `refund_too_much`, `too_many_refunds`.
    """
    payment = known(state, command.payment)
    if payment.status != PAID:
        raise Rejected("not_paid", f"Payment {payment.payment} is {payment.status}: nothing was paid")
    rest = payment.amount - payment.refunded
    if command.amount > rest:
        raise Rejected("refund_too_much", f"Of this payment {rest} won can be refunded at most")
    if len(payment.refunds) >= REFUNDS_MAX:
        raise Rejected("too_many_refunds", "This payment was refunded often enough: settle the rest in cash")
    shares = tuple(spread(payment, command.amount))
    parts = total(taxed(share) for share in shares)
    shares = shares if payment.shares else ()
    return _begun(state, payment, parts, shares, command.reason, context, owed=command.owed)


def evolve(state: State, event: Event) -> None:
    """Note the refund with its payment, which comes back into view for it; tell the order."""
    match event:
        case OrderRefunded():
            payment = find(state, event.payment)
            if payment is not None and is_of(state, payment, event.order):
                settle(state, event, event.change())
        case RefundRequested():
            payment = find(state, event.payment)
            if payment is not None:
                refunded = payment.refunded + (0 if event.void else event.amount)
                refunds = (*payment.refunds, _refund_of(event))
                payment = replace(payment, refunded=refunded, refunds=refunds)
                state.kept.pop(payment.payment, None)
                state.payments[payment.payment] = payment
                note_refund(state, payment, event.at)
        case RefundSent(number=number, at=at):
            if change(state, event.payment, event.refund, at, REQUESTED, tries=number, next_try_at=None):
                state.retries.set(event.payment, to_ms(at) + ORPHANED_MS)
        case RefundCompleted(at=at):
            said = {"code": event.code, "message": event.message, "settled_at": at, "next_try_at": None}
            change(state, event.payment, event.refund, at, DONE, **said)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The payment, or the order."""
    if isinstance(event, OrderRefunded):
        return [("orders", event.order)]
    return [("payments", event.payment)]


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return how the refund stands."""
    asked = events[0]
    assert isinstance(asked, RefundRequested)
    return shown(state, asked.payment, asked.refund)


def shown(state: State, name: str, refund: str) -> dict[str, Any]:
    """Return a refund and what it leaves of its payment, as a result."""
    payment = known(state, name)
    found = find_refund(payment, refund)
    assert found is not None
    return {
        "payment": name,
        "refund": refund,
        "amount": found.amount,
        "status": found.status,
        "refunded": payment.refunded,
        "remaining": payment.amount - payment.refunded,
    }


def change(state: State, name: str, refund: str, at: str, status: str, **fields: Any) -> bool:
    """Give a refund another status and these fields; say whether there is such a refund. Part of `evolve`."""
    payment = find(state, name)
    old = find_refund(payment, refund) if payment is not None else None
    if payment is None or old is None:
        return False
    new = replace(old, status=status, **fields)
    counted = 0 if old.void else old.amount * ((status != FAILED) - (old.status != FAILED))
    refunds = tuple(new if each is old else each for each in payment.refunds)
    payment = replace(payment, refunded=payment.refunded + counted, refunds=refunds)
    place = state.payments if name in state.payments else state.kept
    place[name] = payment
    if not any(each.status in (REQUESTED, UNKNOWN) for each in refunds):
        state.retries.drop(name)
    note_refund(state, payment, at)
    return True


def void(
    state: State, payment: Payment, amount: int, charge: str, reason: str, context: Context
) -> list[contract.Event]:
    """Return the cancelling of a charge of `amount` that no order stands behind."""
    if any(refund.void for refund in payment.refunds):
        return []
    split = taken(Split(payment.taxable, payment.tax_free), amount)
    parts = Taxed(split.taxable, split.tax_free, vat_in(split.taxable))
    asked = _request(payment, parts, reason, context, void=True, charge=charge)
    return [asked, sent(payment, _refund_of(asked), 1, context)]


def refunds_for(
    state: State, order: Order, left: Split, reason: str, context: Context, line: str | None = None
) -> list[contract.Event]:
    """Return what goes back when an order costs only `left` from now on: all that the shop has beyond that.

    The payment that was for the cancelled `line` gives first, then the newest. What is free of tax in the
    refunds is what the order has less of that.
    """
    found = []
    for name in state.payments_of.get(order.order, ()):
        payment = state.payments.get(name)
        if payment is not None and payment.status == PAID:
            found.append((payment, rest_of(payment, order.order)))
    whole = total(rest for _, rest in found)
    back, tax_free = whole.amount - left.amount, whole.tax_free - left.tax_free
    found.reverse()
    found.sort(key=lambda each: not any(line in share.lines for share in each[0].shares))
    events: list[contract.Event] = []
    for payment, rest in found:
        amount = min(back, rest.amount)
        if amount <= 0:
            continue
        part = portion(rest, amount, tax_free)
        back, tax_free = back - amount, tax_free - part.tax_free
        shares = (share_of(order.order, part),) if payment.shares else ()
        events += _begun(state, payment, part, shares, reason, context)
    return events


def completed(
    state: State, payment: Payment, refund: Refund, context: Context, **said: Any
) -> list[contract.Event]:
    """Return the end of a refund, what its orders hear of it, and the next one."""
    facts = {"payment": payment.payment, "refund": refund.refund}
    ended = RefundCompleted(**facts, at=context.now, amount=refund.amount, order=payment.order, **said)
    events: list[contract.Event] = [ended]
    if refund.void:
        return events
    alone = (Share(payment.order, refund.amount),) if payment.order is not None else ()
    users = {share.order: share.user for share in payment.shares}
    for share in refund.shares or alone:
        order = state.orders.get(share.order)
        people = payment.table, users.get(share.order) or payment.user
        if order is not None:  # if another one has its id by now, nobody's copy is of the one that was paid
            people = (order.table, order.user) if is_of(state, payment, share.order) else (None, None)
        back = OrderRefunded(
            share.order, context.now, *people, **facts, amount=share.amount, owed=refund.owed
        )
        events.append(back)
    return [*events, *following(payment, refund, context, done=refund.amount)]


def following(payment: Payment, ended: Refund, context: Context, done: int = 0) -> list[contract.Event]:
    """Return the call for the refund that waited for the one which has ended."""
    others = [refund for refund in payment.refunds if refund.refund != ended.refund]
    if any(refund.status in OPEN for refund in others):
        return []
    queued = next((refund for refund in others if refund.status == QUEUED), None)
    return [] if queued is None else [sent(payment, queued, 1, context, done)]


def sent(payment: Payment, refund: Refund, number: int, context: Context, done: int = 0) -> RefundSent:
    """Return the call; `done` won went back in the same commit before it."""
    attempt = payment.attempt
    captured = refund.amount if refund.void else payment.amount
    for other in payment.refunds:
        done += other.amount if other.status == DONE and not other.void else 0
    return RefundSent(
        at=context.now,
        payment=payment.payment,
        refund=refund.refund,
        attempt=attempt.attempt if attempt is not None else "",
        method=payment.method,
        amount=refund.amount,
        taxable=refund.taxable,
        tax_free=refund.tax_free,
        vat=refund.vat,
        reason=refund.reason,
        payer=payment.payer,
        charge=refund.charge or (attempt.charge if attempt is not None else ""),
        remaining=captured - (0 if refund.void else done),
        captured=captured,
        by_shop=refund.by.partition(":")[0] not in ("table", "user"),
        checkout=payment.checkout.ref if payment.checkout is not None else "",
        number=number,
    )


def known(state: State, name: str) -> Payment:
    """Return the payment.

    Raises:
        Rejected: `unknown_payment`.
    """
    payment = find(state, name)
    if payment is None:
        raise Rejected("unknown_payment", f"There is no payment {name} (any more)")
    return payment


def find_refund(payment: Payment, name: str) -> Refund | None:
    return next((refund for refund in payment.refunds if refund.refund == name), None)


def _begun(
    state: State,
    payment: Payment,
    parts: Taxed,
    shares: tuple[Share, ...],
    reason: str,
    context: Context,
    *,
    owed: bool = False,
) -> list[contract.Event]:
    """Return a refund and its first step: the till gives at once, a gateway when nothing else is under way
    there.
    """
    asked = _request(payment, parts, reason, context, shares=shares, owed=owed)
    if payment.provider == TILL:
        refund = _refund_of(asked)
        return [asked, *completed(state, payment, refund, context)]
    busy = any(refund.status in OPEN for refund in payment.refunds)
    return [asked] if busy else [asked, sent(payment, _refund_of(asked), 1, context)]


def _request(
    payment: Payment,
    parts: Taxed,
    reason: str,
    context: Context,
    *,
    shares: tuple[Share, ...] = (),
    void: bool = False,
    charge: str = "",
    owed: bool = False,
) -> RefundRequested:
    return RefundRequested(
        payment=payment.payment,
        refund=context.new_id,
        at=context.now,
        amount=parts.amount,
        taxable=parts.taxable,
        tax_free=parts.tax_free,
        vat=parts.vat,
        reason=reason,
        by=context.by,
        order=payment.order,
        void=void,
        charge=charge,
        shares=shares,
        owed=owed,
    )


def _refund_of(event: RefundRequested) -> Refund:
    return Refund(
        event.refund,
        event.amount,
        event.taxable,
        event.tax_free,
        event.vat,
        event.reason,
        event.by,
        QUEUED,
        event.at,
        event.void,
        event.charge,
        shares=event.shares,
        owed=event.owed,
    )
