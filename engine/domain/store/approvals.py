"""What comes back about payments: the gateway's verdict on an attempt, and what follows for its order.

Only an approval of the very amount makes a payment PAID, and only a payment that is open. Any other charge
is recorded and cancelled. Everything may come twice, late, and in any order.
"""

from __future__ import annotations

from typing import ClassVar, assert_never

from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.order import UNPAID, Order, OrderChange, OrderEvent
from engine.domain.payment import (
    DECLINED,
    FAILED,
    OPEN,
    PAID,
    REQUESTED,
    SUCCEEDED,
    UNKNOWN,
    Attempt,
    OrderPayment,
    Payment,
)
from engine.domain.store import holds, refunds, stock
from engine.domain.store.closing import left_behind, settle
from engine.domain.store.gateway import SettleApproval
from engine.domain.store.orders import OrderPlaced
from engine.domain.store.payments import find, put
from engine.domain.store.state import State
from engine.domain.store.stock import StockChange, further
from engine.domain.times import to_ms, to_text

QUERY_MS = 60_000
"""The first question comes after this, each further one after twice the time, up to the longest."""
QUERY_LONGEST_MS = 30 * 60_000


class PaymentEvent(OrderEvent, frozen=True, kw_only=True):
    """What all of these have in common: whoever holds the order learns of the payment's new status."""

    status: ClassVar[str]
    payment: str
    attempt: str
    method: str
    amount: int
    code: str = ""
    message: str = ""

    def change(self) -> OrderChange:
        payment = OrderPayment(
            self.payment, self.method, self.status, self.amount, code=self.code, message=self.message
        )
        return OrderChange(self.order, self.at, payment=payment)


class PaymentApproved(PaymentEvent, frozen=True, kw_only=True):
    """The money is there: the gateway said so, or a person (`by`, with a `reason`). `charge` is the
    gateway's name of it.
    """

    status: ClassVar[str] = PAID
    charge: str = ""
    by: str | None = None
    reason: str | None = None


class PaymentDeclined(PaymentEvent, frozen=True, kw_only=True):
    """No money for this order: the gateway said so for certain, or a person (`by`). `stock` is held again.
    `charged` won (under the name `charge`) were taken wrongly and go back.
    """

    status: ClassVar[str] = DECLINED
    stock: tuple[StockChange, ...] = ()
    charge: str = ""
    charged: int = 0
    by: str | None = None


class PaymentUnknown(PaymentEvent, frozen=True, kw_only=True):
    """Nobody knows whether the guest was charged. The gateway is asked at `next_query_at`."""

    status: ClassVar[str] = UNKNOWN
    next_query_at: str


class QueryAnswered(contract.Event, frozen=True, kw_only=True):
    """The gateway's answer to a question changed nothing."""

    payment: str
    at: str
    code: str = ""
    message: str = ""


class LateApproval(contract.Event, frozen=True, kw_only=True):
    """A charge turned up for a payment that had been declined: it goes back."""

    payment: str
    order: str
    at: str
    attempt: str
    amount: int
    charge: str = ""


class OrderPaid(OrderEvent, frozen=True, kw_only=True):
    """The shop has `amount` won for the order by a `payment`; `lines`: for these."""

    payment: str
    amount: int
    lines: tuple[str, ...] = ()

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, paid=self.amount, paid_lines=self.lines)


Command = SettleApproval
Event = PaymentApproved | PaymentDeclined | PaymentUnknown | QueryAnswered | LateApproval | OrderPaid


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what follows from the gateway's answer; `[]` for what is known."""
    payment = find(state, command.payment)
    attempt = payment.attempt if payment is not None else None
    if payment is None or attempt is None or attempt.attempt != command.attempt:
        return []
    if payment.status in OPEN:
        return _answered(state, payment, attempt, command, context)
    if payment.status == DECLINED and command.verdict == "APPROVED":
        return _late(state, payment, attempt, command, context)
    return _nothing_new(attempt, command, context)


def evolve(state: State, event: Event) -> None:
    """Change the payment, and with it order and stock."""
    payment = find(state, event.payment)
    if payment is not None and payment.attempt is not None:
        put(state, _after(payment, payment.attempt, event))
        _schedule(state, payment, event)
    if isinstance(event, PaymentDeclined):
        stock.apply(state, event.stock)
        holds.unpin(state, event.order)
    if isinstance(event, OrderEvent):
        settle(state, event, event.change())


def touched(event: Event) -> list[tuple[str, str]]:
    """The payment, its order, and the products whose counts it changed."""
    entities = [("payments", event.payment)]
    if isinstance(event, OrderEvent):
        entities.append(("orders", event.order))
    if isinstance(event, PaymentDeclined):
        entities += [("products", change.product) for change in event.stock]
    return entities


def _answered(
    state: State, payment: Payment, attempt: Attempt, command: SettleApproval, context: Context
) -> list[contract.Event]:
    if command.verdict == "APPROVED":
        return _charged(state, payment, attempt, command, context)
    if command.verdict == "DECLINED":
        return declined(state, payment, attempt, context, command.code, command.message)
    if payment.status == REQUESTED:
        return [unknown(payment, attempt, context, command.code, command.message)]
    return _nothing_new(attempt, command, context)


def _late(
    state: State, payment: Payment, attempt: Attempt, command: SettleApproval, context: Context
) -> list[contract.Event]:
    """Return what an approval means that comes when the payment was declined already."""
    if attempt.status == SUCCEEDED:
        return []  # it is on its way back already
    amount = command.amount or payment.amount
    late = LateApproval(
        payment=payment.payment,
        order=payment.order or "",
        at=context.now,
        attempt=attempt.attempt,
        amount=amount,
        charge=command.charge,
    )
    return [late, *refunds.void(state, payment, amount, command.charge, "late_approval", context)]


def _nothing_new(attempt: Attempt, command: SettleApproval, context: Context) -> list[contract.Event]:
    if not attempt.querying:
        return []
    facts = {"payment": command.payment, "at": context.now}
    return [QueryAnswered(**facts, code=command.code, message=command.message)]


def _charged(
    state: State, payment: Payment, attempt: Attempt, command: SettleApproval, context: Context
) -> list[contract.Event]:
    """Return what an approval means for an open payment."""
    order = state.orders.get(payment.order or "")
    if command.amount == payment.amount and order is not None and order.status in UNPAID:
        return approved(order, payment, attempt, context, command.charge)
    code, charge = "order_gone", command.charge
    message = "There is no order any more that could be paid"
    if command.amount != payment.amount:
        code, message = "amount_mismatch", f"{command.amount} were charged instead of {payment.amount}"
    charged = command.amount or payment.amount
    end = declined(state, payment, attempt, context, code, message, charge=charge, charged=charged)
    return [*end, *refunds.void(state, payment, charged, charge, code, context)]


def approved(
    order: Order,
    payment: Payment,
    attempt: Attempt,
    context: Context,
    charge: str,
    *,
    by: str | None = None,
    reason: str | None = None,
) -> list[contract.Event]:
    """Return the whole of a success, in one commit: payment and order are paid, the kitchen may start."""
    facts = (order.order, context.now, order.table, order.user)
    success = PaymentApproved(
        *facts,
        payment=payment.payment,
        attempt=attempt.attempt,
        method=payment.method,
        amount=payment.amount,
        charge=charge,
        by=by,
        reason=reason,
    )
    paid = OrderPaid(*facts, payment=payment.payment, amount=payment.amount)
    return [success, paid, OrderPlaced(order.order, order.number, context.now, order.table, order.user)]


def declined(
    state: State,
    payment: Payment,
    attempt: Attempt,
    context: Context,
    code: str,
    message: str,
    *,
    charge: str = "",
    charged: int = 0,
    by: str | None = None,
) -> list[contract.Event]:
    """Return the end of an attempt; its stock is held again, or goes back when the time to pay is over."""
    name = payment.order or ""
    changes = holds.unpinned(state, name)
    end = PaymentDeclined(
        *(name, context.now, payment.table, payment.user),
        payment=payment.payment,
        attempt=attempt.attempt,
        method=payment.method,
        amount=payment.amount,
        code=code,
        message=message,
        stock=changes,
        charge=charge,
        charged=charged,
        by=by,
    )
    hold, order = state.holds.get(name), state.orders.get(name)
    if hold is None or order is None or order.status not in UNPAID or hold.deadline_ms > context.now_ms:
        return [end]
    back = tuple(
        further(change, available=freed, held=-freed)
        for change in changes
        for freed in (change.held_after - change.held_before,)
    )
    over = holds.expired(state, order, back, context)
    return [end, *over, *stock.announce_crossing(state, back), *left_behind(state)]


def unknown(payment: Payment, attempt: Attempt, context: Context, code: str, message: str) -> PaymentUnknown:
    """Return the doubt, and when the gateway is asked."""
    return PaymentUnknown(
        *(payment.order or "", context.now, payment.table, payment.user),
        payment=payment.payment,
        attempt=attempt.attempt,
        method=payment.method,
        amount=payment.amount,
        code=code,
        message=message,
        next_query_at=to_text(context.now_ms + wait_ms(attempt.queries)),
    )


def wait_ms(asked: int) -> int:
    """Return how long to wait for an answer after `asked` questions."""
    return min(QUERY_MS << min(asked, 10), QUERY_LONGEST_MS)


def _after(payment: Payment, attempt: Attempt, event: Event) -> Payment:
    """Return the payment after the event."""
    match event:
        case PaymentApproved(at=at):
            charge = event.charge or attempt.charge
            return _over(payment, attempt, event, SUCCEEDED, charge, paid_at=at)
        case PaymentDeclined():
            status = SUCCEEDED if event.charged else FAILED
            return _over(payment, attempt, event, status, event.charge or attempt.charge)
        case PaymentUnknown(next_query_at=at):
            attempt = replace(attempt, status=UNKNOWN, code=event.code, message=event.message)
            return replace(payment, status=UNKNOWN, attempt=replace(attempt, next_query_at=at))
        case QueryAnswered():
            attempt = replace(attempt, querying=False)
            return replace(payment, attempt=attempt)
        case LateApproval():
            attempt = replace(attempt, status=SUCCEEDED, charge=event.charge, querying=False)
            return replace(payment, attempt=attempt)
        case OrderPaid():
            return payment
        case _:
            assert_never(event)


def _over(
    payment: Payment,
    attempt: Attempt,
    event: PaymentApproved | PaymentDeclined,
    status: str,
    charge: str,
    paid_at: str | None = None,
) -> Payment:
    attempt = replace(
        attempt,
        status=status,
        charge=charge,
        settled_at=event.at,
        code=event.code,
        message=event.message,
        querying=False,
        next_query_at=None,
    )
    return replace(payment, status=event.status, attempt=attempt, paid_at=paid_at)


def _schedule(state: State, payment: Payment, event: Event) -> None:
    """Keep in step when the gateway is asked next."""
    match event:
        case PaymentUnknown(next_query_at=at):
            state.queries.set(event.payment, to_ms(at))
        case PaymentApproved() | PaymentDeclined():
            state.queries.drop(event.payment)
        case _:
            pass  # the time of the next question stays as it is
