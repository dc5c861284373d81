"""What guests do to pay: prepare, go to the gateway's page, approve; and everything that is refused."""

import pytest

from engine.domain.payment import Checkout, OrderPayment
from engine.domain.store import payments
from engine.domain.store.cancelling import CancelOrder
from engine.domain.store.gateway import ApprovalRequested, NoteCheckout, PaymentPrepared
from engine.domain.store.orders import CreateOrder, TakeCart, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.shop import ConfigureStore
from engine.domain.store.stock import StockChange
from engine.domain.times import to_text
from tests.domain.pay_given import GUEST, MINUTE, OTHER, TABLE, Cafe
from tests.harness_domain import NOW, NOW_MS

DEADLINE = to_text(NOW_MS + 10 * MINUTE)
INSIDE = "store:s1"
PAGE = "https://pay.example/1"


def prepare(order="o1", amount=9000, payer="u1", method="sandbox", instead_of=None):
    return PreparePayment(order, amount, payer, method, instead_of)


def test_a_payment_is_prepared():
    """With all that the gateway's page has to know, by tax; the order waits for it."""
    cafe = Cafe()
    order = cafe.order(Wish("cake", 1), Wish("milk", 1), Wish("coffee", 1))
    prepared = PaymentPrepared(
        *(order, NOW, None, "u1"),
        payment="id-1",
        method="naverpay",
        amount=15500,
        taxable=13500,
        tax_free=2000,
        vat=1227,
        payer="u1",
        by=GUEST,
        name="케이크 외 2건",
    )
    assert cafe.ask(prepare(amount=15500, method="naverpay")) == [prepared]
    assert cafe.status(order) == "PENDING_PAYMENT"
    assert cafe.state.orders[order].payment == OrderPayment("id-1", "naverpay", "PENDING", 15500)
    payment = cafe.state.payments["id-1"]
    assert (payment.status, payment.order, payment.user) == ("PENDING", order, "u1")
    assert (payment.amount, payment.taxable, payment.tax_free, payment.vat) == (15500, 13500, 2000, 1227)
    assert (payment.method, payment.provider) == ("naverpay", "naverpay")
    assert (payment.payer, payment.by) == ("u1", GUEST)


def test_the_answer_of_prepare():
    """What the page shows, and how long there is."""
    cafe = Cafe()
    cafe.order()
    answer = {
        "payment": "id-1",
        "order": "o1",
        "status": "PENDING",
        "amount": 9000,
        "method": "sandbox",
        "hold_expires_at": DEADLINE,
    }
    assert cafe.result(prepare()) == answer
    assert cafe.result(prepare()) == answer


def test_preparing_again_is_the_same_payment_and_moves_no_deadline():
    """However often."""
    cafe = Cafe()
    order = cafe.order()
    payment = cafe.prepare(order)
    for _ in range(3):
        cafe.now_ms += 2 * MINUTE
        assert cafe.ask(prepare()) == []
    assert list(cafe.state.payments) == [payment]
    assert cafe.state.orders[order].hold_expires_at == DEADLINE
    assert cafe.wait(4) == ["OrderExpired"]


def test_another_method_replaces_the_payment():
    """The first one cannot be approved any more."""
    cafe = Cafe()
    order = cafe.order()
    first = cafe.prepare(order)
    event = cafe.ask(prepare(method="toss"))[0]
    assert (event.payment, event.replaces) == ("id-2", first)
    assert {name: payment.status for name, payment in cafe.state.payments.items()} == {
        first: "DROPPED",
        "id-2": "PENDING",
    }
    assert cafe.refused(ApprovePayment(order, first, "token")) == "payment_replaced"
    assert cafe.types(ApprovePayment(order, "id-2", "token")) == ["ApprovalRequested"]


def test_a_guest_who_left_the_page_gets_another_payment():
    """Only instead of the newest one: a late repeat changes nothing."""
    cafe = Cafe()
    order = cafe.order()
    first = cafe.prepare(order)
    event = cafe.ask(prepare(instead_of=first))[0]
    assert event.replaces == first
    assert cafe.ask(prepare(instead_of=first)) == []
    assert cafe.refused(ApprovePayment(order, first, "token")) == "payment_replaced"


def test_after_a_refusal_there_is_another_payment():
    """With the same method too; the declined one stays as it is."""
    cafe = Cafe()
    _, first = cafe.requested()
    cafe.settle(first, "DECLINED")
    event = cafe.ask(prepare())[0]
    assert event.replaces is None
    assert cafe.state.payments[first].status == "DECLINED"
    assert cafe.state.payments[event.payment].status == "PENDING"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (prepare(order="o9"), "unknown_order"),
        (prepare(amount=8999), "amount_mismatch"),
        (prepare(amount=9001), "amount_mismatch"),
        (prepare(payer="u2"), "payer_mismatch"),
        (prepare(payer="owner:kim"), "payer_mismatch"),
    ],
)
def test_what_cannot_be_prepared(command, code):
    """The price and the payer are the order's."""
    cafe = Cafe()
    cafe.order()
    assert cafe.refused(command) == code


@pytest.mark.parametrize(
    ("by", "fields", "payers"),
    [
        (GUEST, {}, ["u1", GUEST]),
        (TABLE, {}, ["3", TABLE]),
        ("staff:lee", {"table": "3"}, ["3", "staff:lee"]),
        ("staff:lee", {"table": "3", "user": "u1"}, ["u1", "staff:lee"]),
        ("staff:lee", {}, ["lee", "staff:lee"]),
    ],
)
def test_who_pays(by, fields, payers):
    """The user, else the table, else who made the order; all of them also by their full name."""
    for payer in payers:
        cafe = Cafe()
        cafe.order(by=by, **fields)
        assert cafe.ask(prepare(payer=payer), by)[0].payer == payers[0]


@pytest.mark.parametrize(
    ("fields", "by"),
    [
        ({"user": "u1"}, OTHER),
        ({"table": "3"}, OTHER),
        ({}, GUEST),
        ({"table": "3"}, "table:s1/4"),
        ({"table": "3"}, "table:s2/3"),
        ({"user": "u1", "table": "3"}, TABLE),
        ({"user": "u1"}, TABLE),
    ],
)
def test_guests_pay_only_what_they_ordered(fields, by):
    """Neither prepare nor approve anything else."""
    cafe = Cafe()
    order = cafe.order(by="staff:lee", **fields)
    known = cafe.state.orders[order]
    payer = known.user or known.table or "lee"
    assert cafe.refused(prepare(payer=payer), by) == "forbidden"
    payment = cafe.prepare(order, by="staff:lee", payer=payer)
    assert cafe.refused(ApprovePayment(order, payment, "token"), by) == "forbidden"


def test_an_order_of_no_table_is_not_that_of_a_table_named_so():
    """Whatever a shop calls its tables."""
    cafe = Cafe()
    order = cafe.order(by="staff:lee")
    payment = cafe.prepare(order, by="staff:lee", payer="lee")
    named = "table:s1/None"
    assert cafe.refused(prepare(payer="lee"), named) == "forbidden"
    assert cafe.refused(ApprovePayment(order, payment, "token"), named) == "forbidden"
    assert cafe.refused(CancelOrder(order, "x"), named) == "forbidden"


@pytest.mark.parametrize("verdict", [None, "UNKNOWN"])
def test_one_attempt_at_a_time(verdict):
    """While nobody knows how it ended there is no other payment."""
    cafe = Cafe()
    order, payment = cafe.requested()
    if verdict:
        cafe.settle(payment, verdict)
    assert cafe.refused(prepare(method="toss")) == "payment_in_progress"
    assert cafe.refused(ApprovePayment(order, payment, "another")) == "payment_in_progress"


@pytest.mark.parametrize(
    ("left_ms", "code"),
    [(60_000, None), (59_999, "hold_expiring"), (0, "hold_expired"), (-1, "hold_expired")],
)
def test_too_little_time_left(left_ms, code):
    """A guest needs a minute at the gateway's page."""
    cafe = Cafe()
    cafe.order()
    cafe.now_ms += 10 * MINUTE - left_ms
    if code is None:
        assert len(cafe.ask(prepare())) == 1
    else:
        assert cafe.refused(prepare()) == code


def test_a_shop_that_holds_for_less_than_a_minute_cannot_be_paid():
    """The minute is the guest's, whatever the shop has set."""
    cafe = Cafe(hold_seconds=59)
    cafe.order()
    assert cafe.refused(prepare()) == "hold_expiring"


def test_an_expired_order_is_not_prepared():
    """Order again."""
    cafe = Cafe()
    cafe.order()
    cafe.wait(10)
    assert cafe.refused(prepare()) == "hold_expired"


def test_a_paid_order_is_not_paid_again():
    """Whatever the method."""
    cafe = Cafe()
    cafe.paid()
    assert cafe.refused(prepare(method="toss")) == "already_paid"


def test_a_shop_where_guests_pay_afterwards():
    """Its orders are paid at the till."""
    cafe = Cafe(mode="postpay")
    cafe.order()
    assert cafe.refused(prepare()) == "not_payable"


def test_orders_keep_the_way_in_which_they_were_made():
    """Also when the shop changes its mind meanwhile."""
    cafe = Cafe()
    first = cafe.order()
    cafe.ask(ConfigureStore("온다 카페", "postpay"), "owner:kim")
    assert cafe.types(CreateOrder((Wish("cake", 1),))) == ["OrderCreated", "OrderPlaced"]
    payment = cafe.prepare(first)
    cafe.approve(first, payment)
    cafe.settle(payment, "APPROVED", amount=9000)
    assert cafe.status(first) == "PLACED"


def test_the_checkout_is_noted_once():
    """The guest's page shows where to pay; the first answer counts."""
    cafe = Cafe()
    order = cafe.order()
    payment = cafe.prepare(order)
    assert cafe.types(NoteCheckout(payment, PAGE, "T1"), INSIDE) == ["CheckoutOpened"]
    assert cafe.state.payments[payment].checkout == Checkout(PAGE, "T1")
    assert cafe.state.orders[order].payment.checkout == PAGE
    assert cafe.ask(NoteCheckout(payment, PAGE, "T1"), INSIDE) == []
    assert cafe.ask(NoteCheckout(payment, "https://pay.example/2", "T2"), INSIDE) == []
    requested = cafe.ask(ApprovePayment(order, payment, "token"))[0]
    assert requested.checkout == "T1"


def test_a_checkout_that_comes_too_late():
    """For a payment that is under way, given up or not there."""
    cafe = Cafe()
    order = cafe.order()
    first = cafe.prepare(order)
    second = cafe.prepare(order, "toss")
    cafe.approve(order, second)
    for payment in (first, second, "id-99"):
        assert cafe.ask(NoteCheckout(payment, PAGE), INSIDE) == []


def test_approving_pins_the_stock_and_asks_the_gateway():
    """The attempt is on record with everything that the call needs, and a name of its own."""
    cafe = Cafe()
    order = cafe.order(Wish("cake", 2), Wish("milk", 1))
    payment = cafe.prepare(order)
    requested = ApprovalRequested(
        *(order, NOW, None, "u1"),
        payment=payment,
        attempt="id-2",
        method="sandbox",
        amount=20000,
        taxable=18000,
        tax_free=2000,
        vat=1636,
        payer="u1",
        name="케이크 외 1건",
        ref="token",
        stock=(StockChange("cake", 1, 1, 2, 0, 0, 2),),
    )
    assert cafe.ask(ApprovePayment(order, payment, "token")) == [requested]
    assert cafe.cakes() == (1, 0, 2)
    assert cafe.state.orders[order].payment.status == "REQUESTED"
    assert cafe.status(order) == "PENDING_PAYMENT"


def answer(payment="id-1", status="UNKNOWN", **more):
    return {"payment": payment, "order": "o1", "status": status} | more


def test_the_answer_of_approve_follows_the_payment():
    """Nobody knows at first; then it is what the gateway said, each time the same."""
    cafe = Cafe()
    cafe.prepare(cafe.order())
    approve = ApprovePayment("o1", "id-1", "token")
    assert cafe.result(approve) == answer()
    assert cafe.result(approve) == answer()
    cafe.settle("id-1", "UNKNOWN", code="TIMEOUT", message="no answer")
    assert cafe.result(approve) == answer(code="TIMEOUT", message="no answer")
    cafe.settle("id-1", "APPROVED", amount=9000)
    assert cafe.result(approve) == answer(status="PAID")
    assert cafe.ask(approve) == []


def test_the_answer_of_approve_when_it_was_declined():
    """With the gateway's reason, also when asked again with another reference."""
    cafe = Cafe()
    order, payment = cafe.requested()
    cafe.settle(payment, "DECLINED", code="LIMIT", message="over the limit")
    said = answer(status="DECLINED", code="LIMIT", message="over the limit")
    assert cafe.result(ApprovePayment(order, payment, "token")) == said
    assert cafe.result(ApprovePayment(order, payment, "another")) == said


@pytest.mark.parametrize(
    ("order", "payment", "code"),
    [
        ("o9", "id-1", "unknown_order"),
        ("o1", "id-9", "unknown_payment"),
        ("o2", "id-1", "unknown_payment"),
    ],
)
def test_approving_what_is_not_there(order, payment, code):
    """A payment belongs to one order."""
    cafe = Cafe()
    cafe.prepare(cafe.order())
    cafe.order()
    assert cafe.refused(ApprovePayment(order, payment, "token")) == code


def test_a_payment_in_review():
    """A person decides; the guest waits."""
    cafe = Cafe()
    order, payment = cafe.reviewed()
    assert cafe.refused(ApprovePayment(order, payment, "token")) == "payment_in_review"
    assert cafe.refused(prepare()) == "payment_in_progress"


def test_a_hold_that_nobody_has_swept_yet_can_be_paid():
    """The deadline has passed, but its stock is still there."""
    cafe = Cafe()
    order = cafe.order()
    payment = cafe.prepare(order)
    cafe.now_ms += 11 * MINUTE
    assert cafe.types(ApprovePayment(order, payment, "token")) == ["ApprovalRequested"]
    assert "OrderExpired" not in cafe.wait(0)
    assert cafe.settle(payment, "APPROVED", amount=9000) == ["PaymentApproved", "OrderPaid", "OrderPlaced"]


def test_a_table_pays_its_own_cart():
    """From the cart to the placed order."""
    cafe = Cafe()
    cafe.ask(TakeCart("3-1", "3", 4, (Wish("cake", 1, line="t3-1"),)), TABLE)
    payment = cafe.prepare("3-1", by=TABLE)
    cafe.approve("3-1", payment, by=TABLE)
    cafe.settle(payment, "APPROVED", amount=9000)
    assert cafe.status("3-1") == "PLACED"


def test_a_guest_does_not_fill_the_shop_with_payments(monkeypatch):
    """Who changes the method again and again has to order anew; the last one can still be paid."""
    monkeypatch.setattr(payments, "PAYMENTS_MAX", 2)
    cafe = Cafe()
    order = cafe.order()
    cafe.prepare(order)
    last = cafe.prepare(order, "toss")
    assert cafe.refused(prepare()) == "too_many_payments"
    assert cafe.prepare(order, "toss") == last
    cafe.approve(order, last)
