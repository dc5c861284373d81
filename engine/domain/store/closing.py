"""Orders that end: how each change settles in the state, and how closed orders leave it.

A closed order stays for a while, so that a tap by mistake can be undone, and then is archived: history has
it. It stays for longer while its party sits at the table and has not paid, while money is on its way back, or
while its stock is still pinned.
Payments leave with the last of their orders: they are kept out of sight for 30 days, and come back into view
when somebody wants a refund.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.order import (
    ACCEPTED,
    CLOSED,
    DEAD,
    PLACED,
    SERVED,
    UNPAID,
    Order,
    OrderChange,
    OrderEvent,
    changed,
)
from engine.domain.payment import DECLINED, DROPPED, GIVING_BACK, PENDING, Payment
from engine.domain.store import stock
from engine.domain.store.state import State
from engine.domain.times import to_ms
from engine.errors import Rejected

RECALL_MS = 30 * 60_000
"""How long a closed order can still be recalled, and a payment that came back is in view."""
CLOSED_MAX = 200
STAYING_MAX = 1_000
"""Closed orders that stay for the sake of money; beyond that the oldest leave all the same, but those whose
stock is still pinned: nobody else would confirm it."""
ARCHIVED_MAX = 2_000
"""Ids of archived orders that are remembered, so that they are not used again."""
KEPT_MS = 30 * 24 * 3_600_000
"""How long after its payment a payment can still be refunded."""
KEPT_MAX = 5_000
"""Payments that are kept out of sight. Those that were declined get half of the room at most: guests can make
as many as they like, and must not push out what was paid and may have to go back."""
AT_ONCE = 100
"""Payments that move on in one commit; more are due again at once."""


class ArchiveOrders(contract.Command, frozen=True):
    """Let closed orders go whose time for recall is over, and payments whose time is."""


class OrdersArchived(contract.Event, frozen=True):
    """Closed orders left the state; `payments` left with them, and those in `forgotten` for good."""

    orders: tuple[str, ...]
    payments: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()


Command = ArchiveOrders
Event = OrdersArchived

_ARCHIVE = ArchiveOrders()


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what is due."""
    due = tuple(order for order, closed_ms in state.closed.items() if closed_ms + RECALL_MS <= context.now_ms)
    over = state.kept_until.over(context.now_ms, AT_ONCE)
    seen = tuple(name for name in over if name in state.payments)
    forgotten = tuple(name for name in over if name not in state.payments)
    if not (due or over):
        return []
    return [OrdersArchived(due, _leaving_with(state, due) + seen, forgotten)]


def evolve(state: State, event: Event) -> None:
    """Drop the orders, and remember their ids for a while; keep their payments."""
    for name in event.orders:
        order = state.orders.pop(name, None)
        for place in (state.closed, state.staying, state.taken, state.payments_of):
            place.pop(name, None)
        if order is not None and order.table in state.bills:
            _off_the_bill(state, order.table, (name,))
        state.archived[name] = True
    for name in list(islice(state.archived, max(0, len(state.archived) - ARCHIVED_MAX))):
        del state.archived[name]
    for name in event.payments:
        payment = state.payments.pop(name, None)
        state.kept_until.drop(name)
        if payment is not None and _is_kept(state, payment):
            state.kept[name] = payment
            state.kept_until.set(name, to_ms(payment.paid_at or payment.created_at) + KEPT_MS)
    for name in (*event.forgotten, *islice(state.kept, max(0, len(state.kept) - KEPT_MAX))):
        state.kept.pop(name, None)
        state.kept_until.drop(name)


def touched(event: Event) -> list[tuple[str, str]]:
    """They are gone."""
    return [
        *(("orders", order) for order in event.orders),
        *(("payments", payment) for payment in event.payments),
    ]


def deadline(state: State) -> tuple[int, Command] | None:
    """Return when the oldest closed order or payment leaves."""
    due_ms = state.kept_until.first()
    for closed_ms in state.closed.values():
        leaves_ms = closed_ms + RECALL_MS
        due_ms = leaves_ms if due_ms is None else min(due_ms, leaves_ms)
        break
    return None if due_ms is None else (due_ms, _ARCHIVE)


def left_behind(state: State, count: int = 1) -> list[contract.Event]:
    """Return the archiving that has to go along when `count` more orders close."""
    over = len(state.closed) + count - CLOSED_MAX
    stayed = len(state.staying) + count - STAYING_MAX
    if over <= 0 and stayed <= 0:
        return []
    free = (name for name in state.staying if name not in state.holds)
    gone = (*islice(state.closed, max(0, over)), *islice(free, max(0, stayed)))
    return [OrdersArchived(gone, _leaving_with(state, gone))] if gone else []


def known_order(state: State, name: str) -> Order:
    """Return the order.

    Raises:
        Rejected: `unknown_order`.
    """
    order = state.orders.get(name)
    if order is None:
        raise Rejected("unknown_order", f"There is no order {name} (any more)")
    return order


def due(order: Order) -> int:
    """Return what has still to be paid at the till; what was given back is a gift unless it is owed."""
    if order.status in DEAD or order.status in UNPAID:
        return 0
    return max(0, order.total - order.paid + order.owed)


def settle(state: State, event: OrderEvent, change: OrderChange) -> None:
    """Apply a change to its order, and keep stock and the lists of closed orders in step."""
    order = state.orders.get(event.order)
    if order is None:
        return
    order = state.orders[event.order] = changed(order, change)
    if order.status not in (PLACED, ACCEPTED):
        stock.used_up(state, order.order)
    if change.status is None:
        if change.paid or change.refunded:
            look_again(state, order.order)
        return
    state.closed.pop(order.order, None)
    state.staying.pop(order.order, None)
    if order.status in CLOSED:
        place = state.staying if _stays(state, order) else state.closed
        place[order.order] = to_ms(event.at)


def look_again(state: State, name: str) -> None:
    """Something changed for which a closed order stays, or no longer does. Part of `evolve`."""
    order = state.orders.get(name)
    closed_ms = state.closed.get(name, state.staying.get(name))
    if order is None or closed_ms is None:
        return
    if _stays(state, order):
        if state.closed.pop(name, None) is not None:
            state.staying[name] = closed_ms
    elif state.staying.pop(name, None) is not None:
        newest_ms = next(reversed(state.closed.values()), closed_ms)
        state.closed[name] = closed_ms
        if closed_ms < newest_ms:
            state.closed = dict(sorted(state.closed.items(), key=lambda item: item[1]))


def seat(state: State, table: str, order: str, sitting: int) -> None:
    """An order was made at a table, for this party (0: nobody was seen there). Part of `evolve`."""
    state.bills.setdefault(table, {})[order] = sitting


def change_party(state: State, table: str, sitting: int | None) -> None:
    """A party (None: nobody) sits at the table from now on. What was ordered before anybody was seen there is
    theirs; what an earlier party has not paid is on no bill any more. Part of `evolve`.
    """
    bill = state.bills.get(table, {})
    if sitting is not None and bill:
        _off_the_bill(state, table, [order for order, party in bill.items() if party not in (0, sitting)])
        for order in state.bills.get(table, ()):
            state.bills[table][order] = sitting
    for order in bill:
        look_again(state, order)


def note_payment(state: State, order: str, payment: str) -> None:
    """The payment is one of the order's. Part of `evolve`."""
    if order in state.orders:
        state.payments_of[order] = (*state.payments_of.get(order, ()), payment)


def note_refund(state: State, payment: Payment, at: str) -> None:
    """A refund of the payment began, went on or ended. Part of `evolve`, when the payment has it already."""
    orders = orders_of(payment)
    for order in orders:
        look_again(state, order)
    if payment.payment in state.payments:
        state.kept_until.drop(payment.payment)
        if not is_giving_back(payment) and not any(is_of(state, payment, order) for order in orders):
            state.kept_until.set(payment.payment, to_ms(at) + RECALL_MS)


def is_of(state: State, payment: Payment, order: str) -> bool:
    """Whether the payment is for the order that has this id now: others may take an id again that a guest
    chose, once it is forgotten.
    """
    return payment.payment in state.payments_of.get(order, ())


def orders_of(payment: Payment) -> tuple[str, ...]:
    """Return the orders that a payment is for."""
    if payment.shares:
        return tuple(share.order for share in payment.shares)
    return () if payment.order is None else (payment.order,)


def is_giving_back(payment: Payment) -> bool:
    """Whether money of it is on its way back, or a person has to look into that."""
    return any(refund.status in GIVING_BACK for refund in payment.refunds)


def _stays(state: State, order: Order) -> bool:
    if order.order in state.holds:
        return True  # it is paid, and its stock has yet to be confirmed
    if order.status == SERVED and order.table is not None and due(order):
        party = state.bills.get(order.table, {}).get(order.order)
        if party is not None and state.sittings.get(order.table) == party:
            return True
    names = state.payments_of.get(order.order)
    if not names:
        return False
    payments = (state.payments.get(name) for name in names)
    return any(is_giving_back(payment) for payment in payments if payment is not None)


def _leaving_with(state: State, orders: tuple[str, ...]) -> tuple[str, ...]:
    """Return the payments that leave with these orders: those that are for no other and have come to an
    end.
    """
    gone = set(orders)
    found = []
    for name in dict.fromkeys(name for order in orders for name in state.payments_of.get(order, ())):
        payment = state.payments.get(name)
        if payment is None or is_giving_back(payment):
            continue
        if all(order in gone or order not in state.orders for order in orders_of(payment)):
            found.append(name)
    return tuple(found)


def _is_kept(state: State, payment: Payment) -> bool:
    """Whether somebody may want something of a payment that leaves the view."""
    if payment.status == DECLINED and not payment.refunds:
        return len(state.kept) < KEPT_MAX // 2
    return payment.status not in (PENDING, DROPPED)


def _off_the_bill(state: State, table: str, orders: Iterable[str]) -> None:
    bill = {order: party for order, party in state.bills[table].items() if order not in orders}
    if bill:
        state.bills[table] = bill
    else:
        del state.bills[table]
