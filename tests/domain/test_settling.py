"""The till: whole bills, amounts, lines, mixed methods; whose orders are on a bill, and what is refused."""

import pytest

from engine.domain.payment import PAID, Share
from engine.domain.store.approvals import OrderPaid
from engine.domain.store.cancelling import CancelLine, CancelOrder
from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.store.orders import Wish
from engine.domain.store.refunds import RefundPayment
from engine.domain.store.settling import BillSettled, SettleOrder, SettleTable, TillPart, net_prices
from engine.domain.store.tables import NoteTable
from engine.domain.tax import vat_in
from tests.domain.pay_given import TABLE, Cafe
from tests.harness_domain import NOW

STAFF, OWNER = "staff:lee", "owner:kim"


def table(*orders):
    """A café with these orders at table 3."""
    cafe = Cafe(mode="postpay")
    for wishes in orders:
        cafe.order(*wishes, by=TABLE)
    return cafe


def settle(cafe, method="cash", **fields):
    return cafe.result(SettleTable("3", method, **fields), STAFF)


def paid(cafe):
    """What each order has, and by which lines."""
    return [(order.paid, order.paid_lines) for order in cafe.state.orders.values()]


CAKE, COFFEE, MILK = Wish("cake", 1), Wish("coffee", 1), Wish("milk", 1)
TWO = ([CAKE, MILK], [COFFEE])
"""11000, of which 2000 are free of tax, and 4500."""


def test_a_whole_bill():
    """One payment, with a share and a note for each order."""
    cafe = table(*TWO)
    facts = {"payment": "id-1"}
    assert cafe.ask(SettleTable("3", "card"), STAFF) == [
        BillSettled(
            **facts,
            at=NOW,
            method="card",
            amount=15500,
            taxable=13500,
            tax_free=2000,
            vat=818 + 409,
            payer="3",
            by=STAFF,
            shares=(Share("o1", 11000, (), 2000, 818), Share("o2", 4500, (), 0, 409)),
            table="3",
        ),
        OrderPaid("o1", NOW, "3", None, **facts, amount=11000),
        OrderPaid("o2", NOW, "3", None, **facts, amount=4500),
    ]
    payment = cafe.state.payments["id-1"]
    assert (payment.status, payment.provider, payment.paid_at, payment.order) == (PAID, "till", NOW, None)
    assert cafe.refused(SettleTable("3", "card"), STAFF) == "nothing_due"
    cafe.replay()


def test_bit_by_bit():
    """The oldest order first; the parts come to the whole, by tax too."""
    cafe = table(*TWO)
    assert settle(cafe, amount=4000) == {"payments": ["id-1"], "paid": 4000, "remaining": 11500}
    assert paid(cafe) == [(4000, ()), (0, ())]
    assert settle(cafe, "card", amount=8000)["remaining"] == 3500
    assert paid(cafe) == [(11000, ()), (1000, ())]
    assert settle(cafe, "transfer")["paid"] == 3500
    payments = cafe.state.payments.values()
    assert sum(payment.tax_free for payment in payments) == 2000
    assert sum(payment.vat for payment in payments) == vat_in(9000) + vat_in(4500)


def test_line_by_line():
    """Each pays what they had; over both orders if need be."""
    cafe = table([CAKE, MILK, CAKE], [COFFEE])
    assert settle(cafe, lines=("o1-2", "o2-1")) == {"payments": ["id-1"], "paid": 6500, "remaining": 18000}
    assert paid(cafe) == [(2000, ("o1-2",)), (4500, ("o2-1",))]
    payment = cafe.state.payments["id-1"]
    assert (payment.taxable, payment.tax_free) == (4500, 2000)
    assert settle(cafe, lines=("o1-1",), amount=9000)["remaining"] == 9000
    assert settle(cafe)["paid"] == 9000


def test_lines_after_an_amount():
    """What was paid without lines is taken off the last ones."""
    cafe = table([CAKE, MILK])
    settle(cafe, amount=5000)
    assert settle(cafe, lines=("o1-1",))["paid"] == 6000
    assert cafe.refused(SettleTable("3", "cash", lines=("o1-2",)), STAFF) == "nothing_due"


def test_a_discount_is_shared_by_the_lines():
    """In proportion, and to the won."""
    cafe = Cafe(mode="postpay")
    cafe.ask(CreateCoupon("off", "할인", 1001, 5), OWNER)
    cafe.ask(IssueCoupon("off", table="3"), OWNER)
    order = cafe.state.orders[cafe.order(CAKE, COFFEE, MILK, MILK, by=TABLE, coupon="off")]
    prices = net_prices(order)
    assert sum(prices.values()) == order.total == 17500 - 1001
    assert prices["o1-3"] + prices["o1-4"] == order.tax_free
    assert [settle(cafe, lines=(line,))["paid"] for line in prices] == list(prices.values())
    payments = cafe.state.payments.values()
    assert sum(payment.tax_free for payment in payments) == order.tax_free
    assert sum(payment.vat for payment in payments) == order.vat


def test_mixed():
    """One payment for each method; lines count as paid with the last part of them."""
    cafe = table(*TWO)
    parts = (TillPart("cash", 10_000), TillPart("card", 5_500))
    assert settle(cafe, "mixed", parts=parts, lines=("o1-1", "o1-2", "o2-1")) == {
        "payments": ["id-1", "id-2"],
        "paid": 15500,
        "remaining": 0,
    }
    cash, card = cafe.state.payments.values()
    assert (cash.method, cash.amount, card.method, card.amount) == ("cash", 10_000, "card", 5_500)
    assert [(share.order, share.amount, share.lines) for share in (*cash.shares, *card.shares)] == [
        ("o1", 10_000, ()),
        ("o1", 1_000, ("o1-1", "o1-2")),
        ("o2", 4_500, ("o2-1",)),
    ]
    assert cash.tax_free + card.tax_free == 2000
    assert cash.vat + card.vat == 818 + 409


def test_one_order():
    """Also without a table, and by parts."""
    cafe = Cafe(mode="postpay")
    order = cafe.order(CAKE)
    command = SettleOrder(order, "cash", amount=4000)
    assert cafe.result(command, STAFF) == {"payments": ["id-1"], "paid": 4000, "remaining": 5000}
    assert cafe.result(SettleOrder(order, "other", lines=("o1-1",)), STAFF)["remaining"] == 0
    payment = cafe.state.payments["id-2"]
    assert (payment.order, payment.user, payment.payer) == (order, "u1", "u1")
    assert cafe.refused(SettleOrder(order, "cash"), STAFF) == "nothing_due"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"amount": 15501}, "amount_mismatch"),
        ({"lines": ("o1-1",), "amount": 8999}, "amount_mismatch"),
        ({"lines": ("o1-9",)}, "unknown_line"),
        ({"lines": ("o1-1", "o1-1")}, "duplicate_line"),
        ({"lines": ("o1-2",)}, "line_paid"),
        ({"lines": ("o1-3",)}, "wrong_status"),
        ({"method": "mixed"}, "parts_invalid"),
        ({"parts": (TillPart("cash", 13500),)}, "parts_invalid"),
        ({"method": "mixed", "parts": (TillPart("cash", 13499),)}, "amount_mismatch"),
        ({"table": "9"}, "nothing_due"),
    ],
)
def test_refused(fields, code):
    """Nothing is paid twice, and nobody pays more than is due."""
    cafe = table([CAKE, MILK, COFFEE], [COFFEE])
    cafe.ask(CancelLine("o1", "o1-3", "x"), STAFF)
    settle(cafe, lines=("o1-2",))
    assert cafe.refused(SettleTable(**({"table": "3", "method": "cash"} | fields)), STAFF) == code


def test_lines_of_one_name_are_paid_order_by_order():
    """Whoever names lines themselves may use a name twice."""
    cafe = table([Wish("cake", 1, line="a")], [Wish("milk", 1, line="a")])
    assert cafe.refused(SettleTable("3", "cash", lines=("a",)), STAFF) == "duplicate_line"
    assert cafe.result(SettleOrder("o2", "cash", lines=("a",)), STAFF)["paid"] == 2000


def test_orders_of_guests_who_pay_first_are_not_the_tills():
    """Nor those that are gone, or not there."""
    cafe = Cafe()
    order = cafe.order(by=TABLE)
    assert cafe.refused(SettleOrder(order, "cash"), STAFF) == "not_payable"
    assert cafe.refused(SettleTable("3", "cash"), STAFF) == "nothing_due"
    cafe.ask(CancelOrder(order, "x"), TABLE)
    assert cafe.refused(SettleOrder(order, "cash"), STAFF) == "nothing_due"
    assert cafe.refused(SettleOrder("none", "cash"), STAFF) == "unknown_order"


def test_whose_bill_it_is():
    """The party's that sits there, or that sat there last; an order that opens the table is its first."""
    cafe = table([CAKE])
    cafe.ask(NoteTable("3", 4, False), TABLE)
    cafe.order(COFFEE, by=STAFF, table="3")
    assert settle(cafe, amount=1)["remaining"] == 9000 + 4500 - 1
    cafe.ask(NoteTable("3", 5, True, 2), TABLE)
    cafe.order(MILK, by=TABLE)
    assert settle(cafe, amount=1)["remaining"] == 4500 + 2000 - 1, "the earlier party's cake is not on it"
    assert cafe.result(SettleOrder("o1", "cash"), STAFF)["paid"] == 8999
    cafe.replay()


def test_a_gift_is_not_asked_back():
    """An apology of the shop is not on the bill again."""
    cafe = table([CAKE])
    (payment,) = settle(cafe, "card")["payments"]
    cafe.ask(RefundPayment(payment, 2000, "cold soup"), OWNER)
    assert cafe.state.orders["o1"].refunded == 2000
    assert cafe.refused(SettleTable("3", "cash"), STAFF) == "nothing_due"


def test_what_went_back_is_paid_anew_when_it_is_owed():
    """The wrong card, say."""
    cafe = table([CAKE])
    (payment,) = settle(cafe, "card")["payments"]
    cafe.ask(RefundPayment(payment, 9000, "x", owed=True), OWNER)
    assert settle(cafe, "cash") == {"payments": ["id-3"], "paid": 9000, "remaining": 0}


def test_a_lines_own_payment_gives_it_back_first():
    """Cash that was paid for the milk, though the card came later."""
    cafe = table([CAKE, MILK])
    settle(cafe, "cash", lines=("o1-2",))
    settle(cafe, "card")
    cafe.ask(CancelLine("o1", "o1-2", "x"), STAFF)
    cash, card = cafe.state.payments.values()
    assert (cash.refunded, card.refunded) == (2000, 0)
    assert cash.refunds[0].tax_free == 2000
    cafe.ask(CancelOrder("o1", "x"), STAFF)
    cash, card = cafe.state.payments.values()
    assert (cash.refunded, card.refunded, cafe.state.orders["o1"].refunded) == (2000, 9000, 11000)
