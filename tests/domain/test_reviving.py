"""Orders that had expired when their guest came back with a payment; coupons of orders that live and die."""

import pytest

from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.store.gateway import ApprovalRequested
from engine.domain.store.menu import PutProduct, SetSoldOut
from engine.domain.store.orders import CreateOrder, TakeCart, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.shop import CloseStore, PauseOrders
from engine.domain.store.stock import StockChange
from engine.domain.store.tables import NoteTable
from engine.domain.times import to_text
from tests.domain.pay_given import GUEST, MINUTE, OTHER, TABLE, Cafe
from tests.harness_domain import NOW_MS

DEADLINE = to_text(NOW_MS + 10 * MINUTE)


def expired(**fields):
    """Return a café whose order has expired after its payment was prepared."""
    cafe = Cafe(**fields)
    payment = cafe.prepare(cafe.order(Wish("cake", 2)))
    cafe.wait(10)
    return cafe, payment


def test_an_expired_order_comes_back_with_its_payment():
    """Its stock is taken again and pinned in the same commit, under the deadline that it had."""
    cafe, payment = expired()
    events = cafe.ask(ApprovePayment("o1", payment, "token"))
    assert [type(event).__name__ for event in events] == ["OrderRevived", "ApprovalRequested"]
    assert [event.stock for event in events] == [
        (StockChange("cake", 3, 1, 0, 2),),
        (StockChange("cake", 1, 1, 2, 0, 0, 2),),
    ]
    assert events[0].hold_expires_at == DEADLINE
    assert (cafe.status("o1"), cafe.state.closed, cafe.cakes()) == ("PENDING_PAYMENT", {}, (1, 0, 2))
    assert cafe.state.orders["o1"].closed_at is None
    cafe.settle(payment, "APPROVED", amount=18000)
    assert cafe.status("o1") == "PLACED"
    cafe.replay()


def test_an_order_that_came_back_and_is_declined_expires_at_once():
    """It never had more time than at first."""
    cafe, payment = expired()
    cafe.ask(ApprovePayment("o1", payment, "token"))
    assert cafe.settle(payment, "DECLINED") == ["PaymentDeclined", "OrderExpired"]
    assert (cafe.status("o1"), cafe.cakes()) == ("EXPIRED", (3, 0, 0))
    assert cafe.state.payments[payment].status == "DECLINED"


def test_the_menu_hears_of_the_last_piece_that_came_back():
    """As with any order."""
    cafe, payment = expired(cakes=2)
    assert cafe.types(ApprovePayment("o1", payment, "token"))[-1] == "MenuAnnounced"


@pytest.mark.parametrize("stops", [CloseStore(), PauseOrders("바빠요")])
def test_an_expired_order_of_a_shop_that_takes_no_orders(stops):
    """It would be a new one; those that still have their time are paid all the same."""
    cafe, payment = expired()
    order = cafe.order(by=OTHER)
    later = cafe.prepare(order, by=OTHER)
    cafe.ask(stops, "owner:kim")
    assert cafe.refused(ApprovePayment("o1", payment, "token")) == "hold_expired"
    assert cafe.approve(order, later, by=OTHER)


def test_an_expired_order_whose_stock_is_gone():
    """It is refused, and the gateway is not asked: no event."""
    cafe, payment = expired()
    cafe.order(Wish("cake", 2), by=OTHER)
    assert cafe.refused(ApprovePayment("o1", payment, "token")) == "hold_expired"
    assert cafe.cakes() == (1, 2, 0)


def test_an_expired_order_of_something_switched_off():
    """The shop has said that there is none."""
    cafe, payment = expired()
    cafe.ask(SetSoldOut("cake", True), "staff:lee")
    assert cafe.refused(ApprovePayment("o1", payment, "token")) == "hold_expired"


def test_an_expired_order_of_what_is_counted_no_more():
    """There is enough of it."""
    cafe, payment = expired()
    cafe.ask(PutProduct("cake", "케이크", 9000, stock=None), "owner:kim")
    cafe.ask(ApprovePayment("o1", payment, "token"))
    assert cafe.state.holds["o1"].pieces == {}


def test_only_the_newest_payment_brings_an_order_back():
    """An earlier one was given up before."""
    cafe = Cafe()
    order = cafe.order()
    first = cafe.prepare(order)
    cafe.prepare(order, "toss")
    cafe.wait(10)
    assert cafe.refused(ApprovePayment(order, first, "token")) == "hold_expired"


def test_an_expired_order_does_not_come_back_for_the_next_party():
    """Its guests have left; nobody is charged for a meal that would come to strangers."""
    cafe = Cafe()
    cafe.ask(TakeCart("3-1", "3", 4, (Wish("cake", 1, line="t3-1"),)), TABLE)
    payment = cafe.prepare("3-1", by=TABLE)
    cafe.wait(10)
    approve = ApprovePayment("3-1", payment, "token")
    assert [type(event) for event in cafe.stream.decide(approve, TABLE, cafe.now_ms)][-1] is ApprovalRequested
    cafe.ask(NoteTable("3", 4, False), TABLE)
    assert cafe.refused(approve, TABLE) == "hold_expired"
    cafe.ask(NoteTable("3", 5, True, 2), TABLE)
    assert cafe.refused(approve, TABLE) == "hold_expired"


def coupon_cafe(discount=1000):
    """A café whose guest has two coupons."""
    cafe = Cafe()
    for name in ("one", "two"):
        cafe.ask(CreateCoupon(name, name, discount, 10), "owner:kim")
        cafe.ask(IssueCoupon(name), GUEST)
    return cafe


def test_a_coupon_makes_it_cheaper_until_the_order_dies():
    """Used with the order, returned when it expires, used again when it comes back."""
    cafe = coupon_cafe()
    assert cafe.types(CreateOrder((Wish("cake", 1), Wish("milk", 1)), coupon="one")) == [
        "OrderCreated",
        "CouponRedeemed",
    ]
    order = cafe.state.orders["o1"]
    assert (order.total, order.discount, order.coupon, order.tax_free, order.vat) == (
        10000,
        1000,
        "one",
        1818,
        744,
    )
    payment = cafe.prepare("o1")
    assert cafe.refused(CreateOrder((Wish("cake", 1),), coupon="one")) == "coupon_used"
    assert cafe.wait(10) == ["OrderExpired", "CouponReturned"]
    revived = cafe.types(ApprovePayment("o1", payment, "token"))
    assert revived == ["OrderRevived", "CouponRedeemed", "ApprovalRequested"]
    assert cafe.refused(CreateOrder((Wish("cake", 1),), coupon="one")) == "coupon_used"
    assert cafe.settle(payment, "DECLINED") == ["PaymentDeclined", "OrderExpired", "CouponReturned"]


def test_an_order_whose_coupon_was_used_elsewhere_does_not_come_back():
    """A coupon is for one order."""
    cafe = coupon_cafe()
    cafe.order(coupon="one")
    payment = cafe.prepare("o1")
    cafe.wait(10)
    cafe.order(coupon="one")
    assert cafe.refused(ApprovePayment("o1", payment, "token")) == "hold_expired"


def test_what_a_coupon_pays_wholly_is_placed_at_once():
    """Nothing is held, and there is nothing to pay."""
    cafe = coupon_cafe(discount=9000)
    types = cafe.types(CreateOrder((Wish("cake", 1),), coupon="one"))
    assert types == ["OrderCreated", "CouponRedeemed", "OrderPlaced"]
    assert (cafe.status("o1"), cafe.state.holds, cafe.cakes()) == ("PLACED", {}, (2, 0, 0))
    assert cafe.refused(PreparePayment("o1", 1, "u1", "sandbox")) == "not_payable"


def test_a_cart_without_its_party_has_no_coupon():
    """It is the party's; where nobody sits the cart goes back."""
    cafe = coupon_cafe()
    refused = cafe.ask(TakeCart("3-1", "3", 0, (Wish("cake", 1, line="t3-1"),), "one"), TABLE)
    assert refused[0].code == "coupon_not_issued"
