"""An order as the shop, its table and its user all hold it, and the one way in which it changes.

The shop decides; tables and users keep copies. Both sides apply the same `OrderChange` with the same
function, so a copy cannot come to differ from the original. Orders and lines are immutable: a change makes
a new one, and an event may share them with the state.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.contract import Event
from engine.domain.payment import DROPPED, PENDING, OrderPayment
from engine.domain.tax import Split, discounted, vat_in

CREATED, PENDING_PAYMENT = "CREATED", "PENDING_PAYMENT"
"""Before it is placed, where guests pay first: its stock is held until `hold_expires_at`."""
PLACED, ACCEPTED, COOKING, READY, SERVED = "PLACED", "ACCEPTED", "COOKING", "READY", "SERVED"
REJECTED, CANCELLED, EXPIRED = "REJECTED", "CANCELLED", "EXPIRED"
STAGES = {CREATED: 0, PENDING_PAYMENT: 0, PLACED: 1, ACCEPTED: 2, COOKING: 3, READY: 4, SERVED: 5}
"""How far an order has come; REJECTED, CANCELLED and EXPIRED are no stages."""
UNPAID = frozenset({CREATED, PENDING_PAYMENT})
DEAD = frozenset({REJECTED, CANCELLED, EXPIRED})
CLOSED = DEAD | {SERVED}

WAITING = "WAITING"
"""Status of a line that is not ready yet; the others are READY and CANCELLED, as for orders."""


class OrderLine(Struct, frozen=True, gc=False):
    """One position of an order. `price` is per piece with its options; `by` is who at the table wanted it."""

    line: str
    product: str
    name: str
    quantity: int
    price: int
    options: tuple[str, ...]
    note: str
    by: str
    status: str = WAITING
    tax_free: bool = False


class Shipping(Struct, frozen=True, gc=False):
    """Where an order goes."""

    name: str
    phone: str
    address: str


class Order(Struct, frozen=True, gc=False):
    """An order. A stage that was skipped has the time of the stage that followed.

    `total` is what it costs after the `discount` (of its `coupon`): `total - tax_free` contains `vat`.
    `paid` and `refunded` are what was received for it and what went back, `owed` how much of that has to be
    paid anew; `payment` is its newest payment at a gateway.
    """

    order: str
    number: int
    table: str | None
    user: str | None
    status: str
    lines: tuple[OrderLine, ...]
    total: int
    by: str
    placed_at: str | None = None
    accepted_at: str | None = None
    cooking_at: str | None = None
    ready_at: str | None = None
    served_at: str | None = None
    closed_at: str | None = None
    reason: str | None = None
    shipping: Shipping | None = None
    tax_free: int = 0
    vat: int = 0
    discount: int = 0
    coupon: str | None = None
    paid: int = 0
    paid_lines: tuple[str, ...] = ()
    refunded: int = 0
    hold_expires_at: str | None = None
    payment: OrderPayment | None = None
    owed: int = 0


class OrderChange(Struct, frozen=True, omit_defaults=True, gc=False):
    """What became different in an order: a new `status`, one `line` with its `line_status`, its newest
    `payment`, `paid` more for it (`paid_lines`: for these), or `refunded` more of it. `hold_expires_at`
    goes with a status before PLACED.
    """

    order: str
    at: str
    status: str | None = None
    reason: str | None = None
    line: str | None = None
    line_status: str = WAITING
    payment: OrderPayment | None = None
    paid: int = 0
    paid_lines: tuple[str, ...] = ()
    refunded: int = 0
    hold_expires_at: str | None = None
    owed: int = 0


Copy = TypeVar("Copy", bound=Order)


class OrderEvent(Event, frozen=True):
    """A change of one order. `table` and `user` are those who keep a copy and have to hear of it."""

    order: str
    at: str
    table: str | None = None
    user: str | None = None

    def change(self) -> OrderChange:
        """Return what this event does to the order."""
        raise NotImplementedError


def changed(order: Copy, change: OrderChange) -> Copy:
    """Return the order after the change. Total: a line that is not there changes nothing."""
    if change.line is not None:
        return _with_line(order, change.line, change.line_status)
    if change.payment is not None:
        order = replace(order, payment=change.payment)
    if change.paid or change.refunded:
        order = replace(
            order,
            paid=order.paid + change.paid,
            paid_lines=order.paid_lines + change.paid_lines,
            refunded=order.refunded + change.refunded,
            owed=order.owed + change.owed,
        )
    return _with_status(order, change) if change.status is not None else order


def _with_status(order: Copy, change: OrderChange) -> Copy:
    at = change.at
    match change.status:
        case "CREATED" | "PENDING_PAYMENT" as status:
            expires_at = change.hold_expires_at or order.hold_expires_at
            return replace(order, status=status, closed_at=None, hold_expires_at=expires_at)
        case "PLACED":
            return replace(order, status=PLACED, placed_at=order.placed_at or at, hold_expires_at=None)
        case "ACCEPTED":
            return replace(order, status=ACCEPTED, accepted_at=at)
        case "COOKING":
            return replace(
                order,
                status=COOKING,
                lines=_lines_turned(order.lines, READY, WAITING),
                accepted_at=order.accepted_at or at,
                cooking_at=order.cooking_at or at,
                ready_at=None,
            )
        case "READY":
            return replace(
                order,
                status=READY,
                lines=_lines_turned(order.lines, WAITING, READY),
                accepted_at=order.accepted_at or at,
                cooking_at=order.cooking_at or at,
                ready_at=order.ready_at or at,
                served_at=None,
                closed_at=None,
            )
        case "SERVED":
            return replace(order, status=SERVED, served_at=at, closed_at=at)
        case "REJECTED" | "CANCELLED" | "EXPIRED" as status:
            payment = order.payment
            if payment is not None and payment.status == PENDING:
                payment = replace(payment, status=DROPPED)  # nobody can approve it any more
            return replace(order, status=status, closed_at=at, reason=change.reason, payment=payment)
        case _:
            return order


def _lines_turned(lines: tuple[OrderLine, ...], old: str, new: str) -> tuple[OrderLine, ...]:
    return tuple([replace(line, status=new) if line.status == old else line for line in lines])


def _with_line(order: Copy, line_id: str, status: str) -> Copy:
    lines = tuple([replace(line, status=status) if line.line == line_id else line for line in order.lines])
    left = priced(lines, order.discount)
    return replace(order, lines=lines, total=left.amount, tax_free=left.tax_free, vat=vat_in(left.taxable))


def priced(lines: tuple[OrderLine, ...], discount: int) -> Split:
    """Return what the lines that are not cancelled cost by tax, after a discount of at most all of it."""
    taxable = tax_free = 0
    for line in lines:
        if line.status == CANCELLED:
            continue
        if line.tax_free:
            tax_free += line.price * line.quantity
        else:
            taxable += line.price * line.quantity
    whole = Split(taxable, tax_free)
    return discounted(whole, discount) if discount else whole
