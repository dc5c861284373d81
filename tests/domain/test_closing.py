"""Closed orders and their payments: how long they stay, for what, and where they go."""

import pytest

from engine.domain import store
from engine.domain.store import closing
from engine.domain.store.cancelling import CancelOrder
from engine.domain.store.closing import ArchiveOrders, OrdersArchived
from engine.domain.store.gateway import SettleRefund
from engine.domain.store.holds import ConfirmStock
from engine.domain.store.kitchen import MarkReady, MarkServed, RecallOrder
from engine.domain.store.orders import Wish
from engine.domain.store.refunds import RefundPayment
from engine.domain.store.settling import SettleOrder, SettleTable
from engine.domain.store.tables import NoteTable
from tests.domain.pay_given import TABLE, Cafe

OWNER, INSIDE = "owner:kim", "store:s1"


def serve(cafe, *orders):
    for order in orders:
        cafe.ask(MarkReady(order), OWNER)
        cafe.ask(MarkServed(order), OWNER)


def at_table():
    """A café with an order of a cake at table 3, served and not paid."""
    cafe = Cafe(mode="postpay")
    order = cafe.order(by=TABLE)
    serve(cafe, order)
    return cafe, order


@pytest.mark.parametrize(
    ("command", "by"),
    [(SettleTable("3", "cash"), OWNER), (NoteTable("3", 4, False), TABLE), (NoteTable("3", 5, True), TABLE)],
)
def test_an_unpaid_order_stays_as_long_as_its_party(command, by):
    """Then its time for recall counts from when it was served."""
    cafe, order = at_table()
    assert store.deadline(cafe.state) is None
    cafe.wait(29)
    cafe.ask(command, by)
    assert cafe.wait(0.9) == []
    assert cafe.wait(0.1) == ["OrdersArchived"]
    assert order not in cafe.state.orders
    cafe.replay()


def test_one_that_waited_for_long_leaves_at_once():
    """There is nothing to recall after hours."""
    cafe, _ = at_table()
    assert cafe.wait(300) == []
    cafe.ask(SettleTable("3", "cash", amount=8999), OWNER)
    assert cafe.wait(0) == []
    cafe.ask(SettleTable("3", "cash"), OWNER)
    assert cafe.wait(0) == ["OrdersArchived"]
    assert not cafe.state.payments
    assert len(cafe.state.kept) == 2


def test_older_ones_leave_first():
    """Though they were paid later."""
    cafe = Cafe(mode="postpay")
    first, second = cafe.order(by=TABLE), cafe.order(by=TABLE)
    serve(cafe, first)
    cafe.wait(5)
    serve(cafe, second)
    cafe.ask(SettleOrder(second, "cash"), OWNER)
    cafe.ask(SettleOrder(first, "cash"), OWNER)
    assert list(cafe.state.closed) == [first, second]
    cafe.wait(25)
    assert list(cafe.state.orders) == [second]


def test_recalled_is_not_closed():
    """An unpaid one too."""
    cafe, order = at_table()
    cafe.ask(RecallOrder(order), OWNER)
    assert not cafe.state.staying
    assert not cafe.state.closed
    cafe.ask(SettleTable("3", "cash"), OWNER)
    assert cafe.wait(60) == []


def test_an_order_stays_while_its_money_is_on_its_way_back():
    """Its guest sees how that ends."""
    cafe = Cafe()
    order, payment = cafe.paid()
    cafe.ask(CancelOrder(order, "x"))
    refund = cafe.state.payments[payment].refunds[0].refund
    cafe.wait(60)
    assert order in cafe.state.orders
    types = cafe.types(SettleRefund(payment, refund, "APPROVED"), INSIDE)
    assert types == ["RefundCompleted", "OrderRefunded"]
    assert cafe.wait(0) == ["OrdersArchived"]
    assert not cafe.state.orders
    assert not cafe.state.payments


def test_a_payment_leaves_with_its_last_order():
    """The event names it, so that readers see it go."""
    cafe = Cafe(mode="postpay")
    first, second = cafe.order(by=TABLE), cafe.order(Wish("coffee", 1), by=TABLE)
    (payment,) = cafe.result(SettleTable("3", "cash"), OWNER)["payments"]
    serve(cafe, first)
    cafe.wait(10)
    serve(cafe, second)
    cafe.now_ms += 20 * 60_000
    assert cafe.ask(ArchiveOrders(), INSIDE) == [OrdersArchived((first,))]
    assert payment in cafe.state.payments
    cafe.now_ms += 10 * 60_000
    assert cafe.ask(ArchiveOrders(), INSIDE) == [OrdersArchived((second,), (payment,))]
    assert not cafe.stream.view["payments"]
    assert not cafe.state.bills
    assert not cafe.state.payments_of


def test_what_was_never_tried_is_not_kept():
    """Nobody can want anything of it."""
    cafe = Cafe()
    order = cafe.order()
    cafe.prepare(order)
    cafe.wait(10)
    cafe.wait(30)
    assert not cafe.state.payments
    assert not cafe.state.kept


def test_only_so_many_payments_are_kept(monkeypatch):
    """The oldest are forgotten."""
    monkeypatch.setattr(closing, "KEPT_MAX", 2)
    cafe = Cafe(cakes=None)
    payments = []
    for _ in range(3):
        order, payment = cafe.paid()
        serve(cafe, order)
        payments.append(payment)
        cafe.wait(30)
    assert list(cafe.state.kept) == payments[1:]
    assert set(cafe.state.kept_until.due) == set(payments[1:])
    assert cafe.refused(RefundPayment(payments[0], 1, "x"), OWNER) == "unknown_payment"


def test_declined_payments_do_not_push_out_paid_ones(monkeypatch):
    """A guest can make any number of them; what was paid may have to go back."""
    monkeypatch.setattr(closing, "KEPT_MAX", 4)
    cafe = Cafe(cakes=None)
    order, paid = cafe.paid()
    serve(cafe, order)
    cafe.wait(30)
    for _ in range(5):
        _, declined = cafe.requested()
        cafe.settle(declined, "DECLINED")
        cafe.wait(10)
        cafe.wait(30)
    assert paid in cafe.state.kept
    assert len(cafe.state.kept) == 2
    assert cafe.result(RefundPayment(paid, 1, "x"), OWNER)["status"] == "REQUESTED"
    cafe.replay()


def test_only_so_many_orders_stay(monkeypatch):
    """A table that nobody ever closes does not fill the memory."""
    monkeypatch.setattr(closing, "STAYING_MAX", 2)
    cafe = Cafe(cakes=None, mode="postpay")
    orders = [cafe.order(by=TABLE) for _ in range(3)]
    serve(cafe, *orders)
    assert list(cafe.state.orders) == orders[1:]
    cafe.replay()


def test_a_refund_in_doubt_outlives_its_order(monkeypatch):
    """When an order has to leave, its payment stays until its refund has ended, and a while longer."""
    monkeypatch.setattr(closing, "STAYING_MAX", 0)
    cafe = Cafe()
    order, payment = cafe.paid()
    cafe.ask(CancelOrder(order, "x"))
    other = cafe.order()
    cafe.ask(CancelOrder(other, "x"))
    assert list(cafe.state.orders) == [other]
    cafe.wait(60)
    refund = cafe.state.payments[payment].refunds[0].refund
    cafe.ask(SettleRefund(payment, refund, "APPROVED"), INSIDE)
    assert cafe.wait(29) == []
    assert cafe.wait(1) == ["OrdersArchived"]
    assert payment in cafe.state.kept
    cafe.replay()


def test_an_order_whose_stock_is_pinned_never_leaves(monkeypatch):
    """Nobody could confirm or give back its stock any more, so it would be pinned for ever."""
    monkeypatch.setattr(closing, "STAYING_MAX", 1)
    cafe = Cafe()
    orders = []
    for _ in range(3):
        order, _ = cafe.paid(confirmed=False)
        serve(cafe, order)
        orders.append(order)
    assert list(cafe.state.staying) == orders
    assert cafe.cakes() == (0, 0, 3)
    for order in orders:
        cafe.ask(ConfirmStock(order), INSIDE)
    assert cafe.cakes() == (0, 0, 0)
    assert not cafe.state.holds
    cafe.replay()
