"""Orders that are taken back while guests pay first, or when they have paid: hold, payment, coupon, money."""

import pytest

from engine.domain.store import repaying
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.store.gateway import SettleRefund
from engine.domain.store.holds import ConfirmStock
from engine.domain.store.kitchen import AcceptOrder, StartCooking
from engine.domain.store.orders import Wish
from engine.domain.store.refunds import RefundPayment
from engine.domain.store.repaying import ResolveRefund
from engine.domain.store.settling import SettleTable
from tests.domain.pay_given import GUEST, OTHER, TABLE, Cafe

OWNER, INSIDE = "owner:kim", "store:s1"
CAKE, COFFEE, MILK = Wish("cake", 1), Wish("coffee", 1), Wish("milk", 1)


def with_coupon(**fields):
    cafe = Cafe(**fields)
    cafe.ask(CreateCoupon("off", "할인", 1000, 5), OWNER)
    cafe.ask(IssueCoupon("off", user="u1"), OWNER)
    return cafe


@pytest.mark.parametrize("command", [CancelOrder, RejectOrder])
@pytest.mark.parametrize("prepared", [False, True])
def test_an_unpaid_order_leaves_nothing_behind(command, prepared):
    """Its stock and coupon are back, and nobody can pay it any more."""
    cafe = with_coupon()
    order = cafe.order(CAKE, COFFEE, coupon="off")
    payment = cafe.prepare(order) if prepared else None
    end = "OrderCancelled" if command is CancelOrder else "OrderRejected"
    assert cafe.types(command(order, "x"), OWNER) == [end, "CouponReturned"]
    assert cafe.cakes() == (3, 0, 0)
    assert cafe.state.coupons["off"].redeemed == 0
    assert not cafe.state.holds
    if prepared:
        assert cafe.state.payments[payment].status == "DROPPED"
        assert cafe.state.orders[order].payment.status == "DROPPED"
    assert cafe.ask(command(order, "x"), OWNER) == []
    cafe.order(coupon="off")
    cafe.replay()


@pytest.mark.parametrize("by", [GUEST, OWNER])
@pytest.mark.parametrize("command", [CancelOrder, RejectOrder])
def test_not_while_a_payment_is_under_way(command, by):
    """Not as long as nobody knows, either."""
    cafe = Cafe()
    order, payment = cafe.requested()
    assert cafe.refused(command(order, "x"), by) == "payment_in_progress"
    cafe.settle(payment, "UNKNOWN")
    assert cafe.refused(command(order, "x"), by) == "payment_in_progress"
    cafe.settle(payment, "DECLINED")
    cafe.ask(command(order, "x"), by)
    assert cafe.cakes() == (3, 0, 0)


def test_guests_take_back_only_their_own():
    """And until the kitchen has it."""
    cafe = Cafe()
    order = cafe.order()
    assert cafe.refused(CancelOrder(order, "x"), OTHER) == "forbidden"
    assert cafe.refused(CancelOrder(order, "x"), TABLE) == "forbidden"
    order, _ = cafe.paid()
    cafe.ask(AcceptOrder(order), OWNER)
    assert cafe.refused(CancelOrder(order, "x"), GUEST) == "too_late"
    assert cafe.refused(RejectOrder(order, "x"), OWNER) == "wrong_status"


def test_what_expired_is_over():
    """There is nothing to cancel."""
    cafe = Cafe()
    order = cafe.order()
    cafe.wait(10)
    for command in (CancelOrder(order, "x"), RejectOrder(order, "x"), CancelLine(order, "o1-1", "x")):
        assert cafe.refused(command, OWNER) == "wrong_status"


def test_a_line_of_an_unpaid_order_stays():
    """Its price is what the guest is about to pay."""
    cafe = Cafe()
    order = cafe.order(CAKE, COFFEE)
    assert cafe.refused(CancelLine(order, "o1-1", "x"), OWNER) == "wrong_status"


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize(("command", "by"), [(CancelOrder, GUEST), (RejectOrder, OWNER)])
def test_a_paid_order_is_given_back_in_the_same_commit(confirmed, command, by):
    """All of it, to who has paid; whether its stock was confirmed already or not."""
    cafe = with_coupon()
    order, payment = cafe.paid(CAKE, MILK, coupon="off", confirmed=confirmed)
    events = cafe.ask(command(order, "x"), by)
    assert [type(event).__name__ for event in events][1:] == [
        "CouponReturned",
        "RefundRequested",
        "RefundSent",
    ]
    asked, sent = events[-2:]
    known = cafe.state.payments[payment]
    assert (asked.amount, asked.taxable, asked.tax_free, asked.vat) == (
        known.amount,
        known.taxable,
        known.tax_free,
        known.vat,
    )
    assert (asked.by, sent.by_shop) == (by, by == OWNER)
    assert cafe.cakes() == (3, 0, 0)
    cafe.ask(ConfirmStock(order), INSIDE)
    assert cafe.cakes() == (3, 0, 0)
    cafe.ask(SettleRefund(payment, asked.refund, "APPROVED"), INSIDE)
    gone = cafe.state.orders[order]
    assert gone.refunded == gone.paid == 10000
    cafe.replay()


def test_cooked_cake_does_not_come_back():
    """Its money does."""
    cafe = Cafe()
    order, payment = cafe.paid()
    cafe.ask(StartCooking(order), OWNER)
    cafe.ask(CancelOrder(order, "x"), OWNER)
    assert cafe.cakes() == (2, 0, 0)
    assert cafe.state.payments[payment].refunded == 9000


def test_lines_go_back_one_by_one():
    """Each with its own tax, whatever was given back before; the last takes the rest and the order."""
    cafe = Cafe()
    order, payment = cafe.paid(CAKE, MILK, COFFEE)
    cafe.ask(RefundPayment(payment, 500, "sorry"), OWNER)
    _, asked = cafe.ask(CancelLine(order, "o1-2", "x"), OWNER)
    assert (asked.amount, asked.tax_free) == (1500, 1500), "500 of it went back already"
    cafe.ask(CancelLine(order, "o1-1", "x"), OWNER)
    types = cafe.types(CancelLine(order, "o1-3", "x"), OWNER)
    assert types == ["LineCancelled", "OrderCancelled", "RefundRequested"]
    known = cafe.state.payments[payment]
    assert [each.amount for each in known.refunds] == [500, 1500, 9000, 4500]
    assert [each.status for each in known.refunds] == ["REQUESTED", "QUEUED", "QUEUED", "QUEUED"]
    for field in ("taxable", "tax_free", "vat"):
        assert sum(getattr(each, field) for each in known.refunds) == getattr(known, field)


def test_a_bill_that_was_paid_in_part():
    """Only what the shop has beyond what is left goes back, at the till and at once."""
    cafe = Cafe(mode="postpay")
    order = cafe.order(CAKE, COFFEE, by=TABLE)
    cafe.ask(SettleTable("3", "cash", amount=6000), OWNER)
    assert cafe.types(CancelLine(order, "o1-2", "x"), OWNER) == ["LineCancelled"]
    types = cafe.types(CancelOrder(order, "x"), OWNER)
    assert types == ["OrderCancelled", "RefundRequested", "RefundCompleted", "OrderRefunded"]
    assert (cafe.state.orders[order].paid, cafe.state.orders[order].refunded) == (6000, 6000)


def test_guests_do_not_open_the_till():
    """What was paid there goes back there: staff take the order back."""
    cafe = Cafe(mode="postpay")
    order = cafe.order(CAKE, by=TABLE)
    cafe.ask(SettleTable("3", "cash"), OWNER)
    assert cafe.refused(CancelOrder(order, "x"), TABLE) == "too_late"
    cafe.ask(CancelOrder(order, "x"), OWNER)
    assert cafe.state.orders[order].refunded == cafe.state.orders[order].paid > 0


def test_a_free_order_gives_nothing_back():
    """Nobody has paid."""
    cafe = Cafe()
    cafe.ask(CreateCoupon("all", "공짜", 9000, 5), OWNER)
    cafe.ask(IssueCoupon("all", user="u1"), OWNER)
    order = cafe.order(CAKE, coupon="all")
    assert cafe.types(CancelOrder(order, "x")) == ["OrderCancelled", "CouponReturned"]
    assert cafe.cakes() == (3, 0, 0)


@pytest.mark.parametrize("done", [True, False])
def test_a_paid_order_with_a_refund_in_review_is_cancelled(monkeypatch, done):
    """The rest waits until a person has decided, as the gateway's books are in doubt, and then it goes; what
    did not go back can be asked for again.
    """
    monkeypatch.setattr(repaying, "TRIES_MAX", 1)
    cafe = Cafe()
    order, payment = cafe.paid()
    first = cafe.result(RefundPayment(payment, 3000, "sorry"), OWNER)["refund"]
    cafe.ask(SettleRefund(payment, first, "UNKNOWN"), INSIDE)
    assert cafe.types(CancelOrder(order, "x"), GUEST) == ["OrderCancelled", "RefundRequested"]
    assert [each.status for each in cafe.state.payments[payment].refunds] == ["MANUAL_REVIEW", "QUEUED"]
    assert cafe.wait(600) == [], "it stays, and so does its order"
    assert cafe.status(order) == "CANCELLED"
    sent = cafe.ask(ResolveRefund(payment, first, done, "seen"), OWNER)[-1]
    assert (sent.amount, sent.remaining) == (6000, 6000 if done else 9000)
    cafe.ask(SettleRefund(payment, sent.refund, "APPROVED"), INSIDE)
    assert cafe.state.orders[order].refunded == (9000 if done else 6000)
    if not done:
        again = cafe.result(RefundPayment(payment, 3000, "again"), OWNER)
        assert (again["status"], again["remaining"]) == ("REQUESTED", 0)
    cafe.replay()
