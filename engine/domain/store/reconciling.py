"""Payments whose answer is overdue: the gateway is asked again and again, and in the end a person decides.

Questions change nothing by themselves; what the gateway answers is settled like any other verdict.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, assert_never

from msgspec import Meta
from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import STAFF, Context
from engine.domain.fields import Reason, Ref
from engine.domain.order import UNPAID
from engine.domain.payment import (
    DECLINED,
    MANUAL_REVIEW,
    PAID,
    REQUESTED,
    SUCCEEDED,
    UNKNOWN,
    Attempt,
    Payment,
)
from engine.domain.store.approvals import PaymentEvent, approved, declined, unknown, wait_ms
from engine.domain.store.closing import settle
from engine.domain.store.gateway import QueryRequested
from engine.domain.store.payments import find, put
from engine.domain.store.state import State
from engine.domain.times import to_ms, to_text
from engine.errors import Rejected

QUERIES_MAX = 10
"""After so many questions without an answer a person has to look."""
AT_ONCE = 50


class QueryPayment(contract.Command, frozen=True):
    """Ask the gateway what became of the `payment`: a hint that there may be news."""

    allowed: ClassVar = STAFF
    payment: Ref


class ResolvePayment(contract.Command, frozen=True):
    """Decide on a `payment` that nobody else can tell about: whether it is `paid`, the `reason`, and if it
    is the gateway's name of the `charge`.
    """

    allowed: ClassVar = frozenset({"owner"})
    payment: Ref
    paid: bool
    reason: Reason
    charge: Annotated[str, Meta(max_length=200)] = ""


class ReconcilePayments(contract.Command, frozen=True):
    """Ask after payments whose answer is overdue, and hand those over to a person that stay open."""


class PaymentSentToReview(PaymentEvent, frozen=True, kw_only=True):
    """The gateway was asked often enough: a person has to look."""

    status: ClassVar[str] = MANUAL_REVIEW


Command = QueryPayment | ResolvePayment | ReconcilePayments
Event = QueryRequested | PaymentSentToReview

_RECONCILE = ReconcilePayments()


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return the questions or the decision; `[]` when there is nothing to find out.

    Raises:
        Rejected: `unknown_payment`, `wrong_status`, `payment_in_progress`.
    """
    match command:
        case QueryPayment(payment=name):
            return _asked(_known(state, name), context)
        case ResolvePayment():
            return _resolved(state, command, context)
        case ReconcilePayments():
            return _reconciled(state, context)
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Note when the next question is due, or that none is."""
    payment = find(state, event.payment)
    attempt = payment.attempt if payment is not None else None
    match event:
        case QueryRequested(number=number, again_at=at):
            if payment is not None and attempt is not None:
                attempt = replace(attempt, queries=number, querying=True, next_query_at=at)
                put(state, replace(payment, attempt=attempt))
                if at is not None and payment.status in (REQUESTED, UNKNOWN):
                    state.queries.set(event.payment, to_ms(at))
        case PaymentSentToReview():
            state.queries.drop(event.payment)
            if payment is not None and attempt is not None:
                attempt = replace(attempt, status=MANUAL_REVIEW, querying=False, next_query_at=None)
                put(state, replace(payment, status=MANUAL_REVIEW, attempt=attempt))
            settle(state, event, event.change())
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The payment, and the order that has to show it."""
    if isinstance(event, PaymentSentToReview):
        return [("payments", event.payment), ("orders", event.order)]
    return [("payments", event.payment)]


def answer(state: State, command: Command) -> dict[str, Any]:
    """Return how the payment stands; nothing for the engine's own command."""
    if isinstance(command, ReconcilePayments):
        return {}
    payment = _known(state, command.payment)
    return {"payment": payment.payment, "order": payment.order, "status": payment.status}


def deadline(state: State) -> tuple[int, Command] | None:
    """Return when the next answer is overdue."""
    due_ms = state.queries.first()
    return None if due_ms is None else (due_ms, _RECONCILE)


def _asked(payment: Payment, context: Context) -> list[contract.Event]:
    """Return the question, unless one is under way or there is nothing to find out. Anybody can hint: such a
    question does not count, or hints would hand the payment over to a person, and puts off none that does.
    """
    attempt = payment.attempt
    if attempt is None or payment.status == PAID:
        return []
    if payment.status == DECLINED and attempt.status == SUCCEEDED:
        return []
    again_ms = to_ms(attempt.next_query_at) if attempt.next_query_at is not None else 0
    if again_ms <= context.now_ms:
        again_ms = context.now_ms + wait_ms(max(attempt.queries, 1))
    elif attempt.querying:
        return []
    return [_query(payment, attempt, context, attempt.queries, again_ms)]


def _query(
    payment: Payment, attempt: Attempt, context: Context, number: int, again_ms: int
) -> QueryRequested:
    return QueryRequested(
        order=payment.order or "",
        at=context.now,
        payment=payment.payment,
        attempt=attempt.attempt,
        method=payment.method,
        amount=payment.amount,
        payer=payment.payer,
        ref=attempt.ref,
        checkout=payment.checkout.ref if payment.checkout is not None else "",
        charge=attempt.charge,
        tax_free=payment.tax_free,
        number=number,
        again_at=to_text(again_ms),
    )


def _resolved(state: State, command: ResolvePayment, context: Context) -> list[contract.Event]:
    payment = _known(state, command.payment)
    attempt = payment.attempt
    if payment.status == (PAID if command.paid else DECLINED):
        return []
    if payment.status == REQUESTED:
        raise Rejected("payment_in_progress", "The gateway has not answered yet: ask it first")
    if attempt is None or payment.status not in (UNKNOWN, MANUAL_REVIEW):
        raise Rejected("wrong_status", f"Payment {payment.payment} is {payment.status}: that is final")
    order = state.orders.get(payment.order or "")
    if not command.paid:
        return declined(state, payment, attempt, context, "resolved", command.reason, by=context.by)
    if order is None or order.status not in UNPAID:
        raise Rejected("wrong_status", "Its order is gone: say that it is not paid, and refund by hand")
    charge = command.charge or attempt.charge
    return approved(order, payment, attempt, context, charge, by=context.by, reason=command.reason)


def _reconciled(state: State, context: Context) -> list[contract.Event]:
    events: list[contract.Event] = []
    for name in state.queries.over(context.now_ms, AT_ONCE):
        payment = state.payments.get(name)
        attempt = payment.attempt if payment is not None else None
        if payment is None or attempt is None:
            continue
        if payment.status == REQUESTED:
            events.append(unknown(payment, attempt, context, "no_answer", "No answer came in time"))
        if attempt.queries < QUERIES_MAX:
            number = attempt.queries + 1
            again_ms = context.now_ms + wait_ms(number)
            events.append(_query(payment, attempt, context, number, again_ms))
            continue
        events.append(
            PaymentSentToReview(
                *(payment.order or "", context.now, payment.table, payment.user),
                payment=payment.payment,
                attempt=attempt.attempt,
                method=payment.method,
                amount=payment.amount,
                code=attempt.code,
                message=attempt.message,
            )
        )
    return events


def _known(state: State, name: str) -> Payment:
    payment = find(state, name)
    if payment is None:
        raise Rejected("unknown_payment", f"There is no payment {name}")
    return payment
