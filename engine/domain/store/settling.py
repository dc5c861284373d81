"""The till: a table's bill or an order is paid in the shop itself, at once or bit by bit.

All of it, an amount (the oldest order first), or some lines; with one method or a mix. Each method makes a
payment of its own, which says how much of it is for which order. What the lines of an order cost after its
discount adds up to the order's total, so paying line by line ends at zero.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from msgspec import Meta, Struct

from engine.domain import contract
from engine.domain.contract import STAFF, Context
from engine.domain.fields import Amount, Ref
from engine.domain.order import CANCELLED, UNPAID, Order, OrderLine
from engine.domain.payment import PAID, TILL, Payment, Share, TillMethod
from engine.domain.store.approvals import OrderPaid
from engine.domain.store.closing import due, known_order, note_payment
from engine.domain.store.splits import rest_of, share_of, taxed
from engine.domain.store.state import State
from engine.domain.tax import Taxed, portion, total
from engine.errors import Rejected

PARTS_MAX = 20
LINES_MAX = 2_000

Lines = Annotated[tuple[Ref, ...], Meta(max_length=LINES_MAX)]


class TillPart(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What is paid with one method."""

    method: TillMethod
    amount: Amount


Parts = Annotated[tuple[TillPart, ...], Meta(max_length=PARTS_MAX)]
Method = Literal["cash", "card", "transfer", "other", "mixed"]


class SettleTable(contract.Command, frozen=True):
    """The party at the `table` pays with a `method`: its whole bill, an `amount` of it, or some `lines`.
    `mixed` says in `parts` how much with which method.
    """

    allowed: ClassVar = STAFF
    table: Ref
    method: Method
    parts: Parts = ()
    amount: Amount | None = None
    lines: Lines = ()


class SettleOrder(contract.Command, frozen=True):
    """The `order` is paid with a `method`: all of it, an `amount`, or some `lines`. `mixed` says in `parts`
    how much with which method.
    """

    allowed: ClassVar = STAFF
    order: Ref
    method: Method
    parts: Parts = ()
    amount: Amount | None = None
    lines: Lines = ()


class BillSettled(contract.Event, frozen=True, kw_only=True):
    """The till took `amount` won, for the orders in `shares`; they belong to a `table`'s bill, or to one
    `order`.
    """

    payment: str
    at: str
    method: str
    amount: int
    taxable: int
    tax_free: int
    vat: int
    payer: str
    by: str
    shares: tuple[Share, ...]
    order: str | None = None
    table: str | None = None
    user: str | None = None


Command = SettleTable | SettleOrder
Event = BillSettled


class _Item(NamedTuple):
    """What is paid for one order, and for which of its lines if it is split so."""

    order: Order
    parts: Taxed
    lines: tuple[str, ...] = ()


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return the payments.

    Raises:
        Rejected: `unknown_order`, `not_payable`, `unknown_line`, `duplicate_line`, `line_paid`,
            `wrong_status`, `nothing_due`, `amount_mismatch`, `parts_invalid`.
    """
    bill = _bill(state, command)
    if isinstance(command, SettleOrder) and bill[0].status in UNPAID:
        raise Rejected("not_payable", f"Order {command.order} waits for a payment by its guest")
    chosen = _chosen(bill, command.lines)
    owed = sum(due(order) for order in bill)
    if not owed:
        raise Rejected("nothing_due", "All of this is paid already, or costs nothing")
    if command.amount is not None and command.amount > owed:
        raise Rejected("amount_mismatch", f"{owed} won are due, not {command.amount}")
    if command.lines:
        items = _by_line(state, bill, chosen)
    else:
        items = _by_amount(state, bill, owed if command.amount is None else command.amount)
    amount = sum(item.parts.amount for item in items)
    if not amount:
        raise Rejected("nothing_due", "Nothing is left to pay of these lines' orders")
    if command.amount not in (None, amount):
        raise Rejected("amount_mismatch", f"These lines cost {amount} won, not {command.amount}")
    return _payments(command, items, _methods(command, amount), context)


def evolve(state: State, event: Event) -> None:
    """Keep the payment; what the orders have of it follows as `OrderPaid`."""
    state.payments[event.payment] = Payment(
        event.payment,
        PAID,
        event.amount,
        event.taxable,
        event.tax_free,
        event.vat,
        event.method,
        TILL,
        event.payer,
        event.by,
        event.at,
        event.order,
        event.table,
        event.user,
        event.shares,
        paid_at=event.at,
    )
    for share in event.shares:
        note_payment(state, share.order, event.payment)


def touched(event: Event) -> list[tuple[str, str]]:
    """The payment."""
    return [("payments", event.payment)]


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return which payments were made, what they come to, and what is left to pay."""
    made = [event for event in events if isinstance(event, BillSettled)]
    return {
        "payments": [event.payment for event in made],
        "paid": sum(event.amount for event in made),
        "remaining": sum(due(order) for order in _bill(state, command)),
    }


def _bill(state: State, command: Command) -> list[Order]:
    """Return the orders on the bill, oldest first: those of the party that sits at the table, or that sat
    there last.
    """
    if isinstance(command, SettleOrder):
        return [known_order(state, command.order)]
    party = state.sittings.get(command.table)
    bill = state.bills.get(command.table, {})
    names = [name for name, of in bill.items() if party is None or of in (0, party)]
    orders = [state.orders[name] for name in names if name in state.orders]
    return sorted((order for order in orders if order.status not in UNPAID), key=lambda order: order.number)


def _chosen(bill: list[Order], wanted: tuple[str, ...]) -> dict[str, list[OrderLine]]:
    """Return the lines to pay, by order."""
    chosen: dict[str, list[OrderLine]] = {}
    if len(set(wanted)) != len(wanted):
        raise Rejected("duplicate_line", "Each line can be paid once")
    for name in wanted:
        found = [(order, line) for order in bill for line in order.lines if line.line == name]
        if not found:
            raise Rejected("unknown_line", f"There is no line {name} on this bill")
        if len(found) > 1:
            raise Rejected("duplicate_line", f"There are several lines {name}: settle order by order")
        order, line = found[0]
        if line.status == CANCELLED:
            raise Rejected("wrong_status", f"{line.name} was cancelled: it costs nothing")
        if name in order.paid_lines:
            raise Rejected("line_paid", f"{line.name} is paid already")
        chosen.setdefault(order.order, []).append(line)
    return chosen


def _by_line(state: State, bill: list[Order], chosen: dict[str, list[OrderLine]]) -> list[_Item]:
    items = []
    for order in bill:
        lines = chosen.get(order.order)
        if lines is None or not due(order):
            continue
        prices = net_prices(order)
        amount = min(sum(prices[line.line] for line in lines), due(order))
        tax_free = sum(prices[line.line] for line in lines if line.tax_free)
        parts = portion(_owed(state, order), amount, tax_free)
        items.append(_Item(order, parts, tuple(line.line for line in lines)))
    return items


def _by_amount(state: State, bill: list[Order], amount: int) -> list[_Item]:
    items = []
    for order in bill:
        part = min(amount, due(order))
        if part:
            items.append(_Item(order, portion(_owed(state, order), part)))
            amount -= part
    return items


def net_prices(order: Order) -> dict[str, int]:
    """Return what each line that is not cancelled costs after the order's discount; together its total."""
    prices = {}
    for tax_free, net in ((True, order.tax_free), (False, order.total - order.tax_free)):
        lines = [line for line in order.lines if line.status != CANCELLED and line.tax_free == tax_free]
        whole = sum(line.price * line.quantity for line in lines)
        before = after = 0
        for line in lines:
            before, last = before + line.price * line.quantity, after
            after = before * net // whole if whole else 0
            prices[line.line] = after - last
    return prices


def _owed(state: State, order: Order) -> Taxed:
    """Return what is due of an order, by tax: what it costs less what the shop has of it."""
    names = state.payments_of.get(order.order, ())
    known = (state.payments.get(name) for name in names)
    has = total(rest_of(payment, order.order) for payment in known if payment and payment.status == PAID)
    owed = due(order)
    tax_free = min(max(order.tax_free - has.tax_free, 0), owed)
    vat = min(max(order.vat - has.vat, 0), owed - tax_free)
    return Taxed(owed - tax_free, tax_free, vat)


def _methods(command: Command, amount: int) -> list[TillPart]:
    if (command.method == "mixed") != bool(command.parts):
        raise Rejected("parts_invalid", "A mixed payment says in parts how much with which method, no other")
    if command.method == "mixed":
        paid = sum(part.amount for part in command.parts)
        if paid != amount:
            raise Rejected("amount_mismatch", f"The parts come to {paid} won, but {amount} are paid")
        return list(command.parts)
    return [TillPart(command.method, amount)]


def _payments(
    command: Command, items: list[_Item], parts: list[TillPart], context: Context
) -> list[contract.Event]:
    """Return a payment for each method, filled with the orders in their order."""
    events: list[contract.Event] = []
    waiting = items[::-1]
    for part in parts:
        payment, left = context.new_id, part.amount
        taken: list[tuple[Order, Share]] = []
        while left:
            order, rest, lines = waiting.pop()
            amount = min(left, rest.amount)
            mine = portion(rest, amount)
            left -= amount
            if amount < rest.amount:
                waiting.append(_Item(order, rest - mine, lines))
                lines = ()  # they are paid with the last part
            taken.append((order, share_of(order.order, mine, lines, order.user)))
        events.append(_settled(command, payment, part, tuple(share for _, share in taken), items, context))
        for order, share in taken:
            facts = (order.order, context.now, order.table, order.user)
            events.append(OrderPaid(*facts, payment=payment, amount=share.amount, lines=share.lines))
    return events


def _settled(
    command: Command,
    payment: str,
    part: TillPart,
    shares: tuple[Share, ...],
    items: list[_Item],
    context: Context,
) -> BillSettled:
    parts = total(taxed(share) for share in shares)
    order = items[0].order
    alone = isinstance(command, SettleOrder)
    return BillSettled(
        payment=payment,
        at=context.now,
        method=part.method,
        amount=parts.amount,
        taxable=parts.taxable,
        tax_free=parts.tax_free,
        vat=parts.vat,
        payer=(order.user if alone else None) or order.table or order.by.partition(":")[2],
        by=context.by,
        shares=shares,
        order=order.order if alone else None,
        table=order.table,
        user=order.user if alone else None,
    )
