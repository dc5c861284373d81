"""What the gateway's verdict means for the payment, its order and the stock; twice, late and wrong too."""

import pytest

from engine.domain.payment import OrderPayment
from engine.domain.store.approvals import OrderPaid, PaymentApproved, PaymentDeclined
from engine.domain.store.gateway import SettleApproval
from engine.domain.store.orders import OrderPlaced, Wish
from engine.domain.store.payments import ApprovePayment
from engine.domain.store.reconciling import QueryPayment, ResolvePayment
from engine.domain.store.stock import StockChange
from engine.domain.times import to_text
from tests.domain.pay_given import MINUTE, Cafe
from tests.harness_domain import NOW, NOW_MS

INSIDE, OWNER = "store:s1", "owner:kim"
PAID = ["PaymentApproved", "OrderPaid", "OrderPlaced"]


def attempt(cafe, payment):
    return cafe.state.payments[payment].attempt


def test_an_approval_is_one_commit():
    """Payment and order are paid, and the kitchen may start; the stock stays pinned until it is confirmed."""
    cafe = Cafe()
    order, payment = cafe.requested()
    command = SettleApproval(payment, attempt(cafe, payment).attempt, "APPROVED", 9000, "c-1")
    facts = (order, NOW, None, "u1")
    assert cafe.ask(command, INSIDE) == [
        PaymentApproved(*facts, payment="id-1", attempt="id-2", method="sandbox", amount=9000, charge="c-1"),
        OrderPaid(*facts, payment="id-1", amount=9000),
        OrderPlaced(order, 1, NOW, None, "u1"),
    ]
    placed = cafe.state.orders[order]
    assert (placed.status, placed.placed_at, placed.paid, placed.hold_expires_at) == (
        "PLACED",
        NOW,
        9000,
        None,
    )
    assert placed.payment == OrderPayment("id-1", "sandbox", "PAID", 9000)
    paid = cafe.state.payments[payment]
    assert (paid.status, paid.paid_at, paid.refunded) == ("PAID", NOW, 0)
    assert (paid.attempt.status, paid.attempt.charge, paid.attempt.settled_at) == ("SUCCEEDED", "c-1", NOW)
    assert cafe.cakes() == (2, 0, 1)


@pytest.mark.parametrize("verdict", ["APPROVED", "DECLINED", "UNKNOWN"])
@pytest.mark.parametrize("amount", [0, 9000, 1])
def test_nothing_changes_what_is_paid(verdict, amount):
    """Neither a repeat nor a contradiction, with whatever amount."""
    cafe = Cafe()
    _, payment = cafe.paid()
    assert cafe.settle(payment, verdict, amount=amount, charge="c-9") == []


def test_a_decline_holds_the_stock_again_under_its_deadline():
    """The guest may try another payment, in the time that is left."""
    cafe = Cafe()
    order, payment = cafe.requested()
    cafe.now_ms += 4 * MINUTE
    at = to_text(cafe.now_ms)
    command = SettleApproval(payment, "id-2", "DECLINED", code="LIMIT", message="over the limit")
    declined = PaymentDeclined(
        *(order, at, None, "u1"),
        payment=payment,
        attempt="id-2",
        method="sandbox",
        amount=9000,
        code="LIMIT",
        message="over the limit",
        stock=(StockChange("cake", 2, 2, 0, 1, 1, 0),),
    )
    assert cafe.ask(command, INSIDE) == [declined]
    assert (cafe.status(order), cafe.cakes()) == ("PENDING_PAYMENT", (2, 1, 0))
    shown = OrderPayment(payment, "sandbox", "DECLINED", 9000, code="LIMIT", message="over the limit")
    assert cafe.state.orders[order].payment == shown
    assert attempt(cafe, payment).status == "FAILED"
    assert cafe.ask(command, INSIDE) == []
    cafe.now_ms = NOW_MS + 10 * MINUTE - 1
    assert cafe.wait(0) == []
    cafe.now_ms += 1
    assert cafe.wait(0) == ["OrderExpired"]


def test_a_decline_after_the_deadline_ends_the_order():
    """In the same commit: the stock is back."""
    cafe = Cafe(cakes=1)
    order, payment = cafe.requested()
    cafe.now_ms += 10 * MINUTE
    ends = ["PaymentDeclined", "OrderExpired", "MenuAnnounced"]
    assert cafe.settle(payment, "DECLINED") == ends
    assert (cafe.status(order), cafe.cakes(), cafe.state.holds) == ("EXPIRED", (1, 0, 0), {})
    cafe.replay()


def test_a_doubt_keeps_everything():
    """The stock stays pinned, and the gateway is asked in a minute."""
    cafe = Cafe()
    order, payment = cafe.requested()
    assert cafe.settle(payment, "UNKNOWN", code="TIMEOUT", message="no answer") == ["PaymentUnknown"]
    assert (cafe.cakes(), cafe.status(order)) == ((2, 0, 1), "PENDING_PAYMENT")
    assert cafe.state.orders[order].payment.status == "UNKNOWN"
    assert attempt(cafe, payment).status == "UNKNOWN"
    assert attempt(cafe, payment).next_query_at == to_text(cafe.now_ms + MINUTE)
    assert cafe.settle(payment, "UNKNOWN") == []


@pytest.mark.parametrize("doubt", [[], ["UNKNOWN"]])
@pytest.mark.parametrize(("verdict", "status"), [("APPROVED", "PAID"), ("DECLINED", "DECLINED")])
def test_a_doubt_ends_with_the_gateways_word(doubt, verdict, status):
    """At any time, asked or not."""
    cafe = Cafe()
    _, payment = cafe.requested()
    for word in doubt:
        cafe.settle(payment, word)
    cafe.settle(payment, verdict, amount=9000)
    assert cafe.state.payments[payment].status == status
    assert cafe.state.queries.due == {}


@pytest.mark.parametrize("amount", [8999, 9001, 1, 0])
def test_another_amount_is_never_paid(amount):
    """The guest may try again, and what was charged goes back."""
    cafe = Cafe()
    order, payment = cafe.requested()
    types = cafe.settle(payment, "APPROVED", amount=amount, charge="c-1")
    assert types[0] == "PaymentDeclined"
    assert not set(types) & set(PAID)
    declined = cafe.state.payments[payment]
    assert (declined.status, declined.attempt.code) == ("DECLINED", "amount_mismatch")
    assert cafe.state.orders[order].paid == 0
    assert voided(cafe, payment) == [amount or 9000]
    assert cafe.settle(payment, "APPROVED", amount=amount, charge="c-1") == []
    assert cafe.settle(payment, "APPROVED", amount=9000, charge="c-1") == []
    assert voided(cafe, payment) == [amount or 9000]


def voided(cafe, payment):
    """Return the amounts that go back to the gateway without having been paid."""
    return [refund.amount for refund in cafe.state.payments[payment].refunds if refund.void]


@pytest.mark.parametrize("expires", [False, True])
def test_a_late_success_is_recorded_and_goes_back(expires):
    """Never paid: the order may be gone, or paid by another payment meanwhile."""
    cafe = Cafe()
    order, payment = cafe.requested()
    cafe.settle(payment, "DECLINED")
    if expires:
        cafe.wait(10)
    before = cafe.status(order), cafe.cakes()
    types = cafe.settle(payment, "APPROVED", amount=9000, charge="c-1")
    assert types[0] == "LateApproval"
    assert not set(types) & set(PAID)
    assert (cafe.status(order), cafe.cakes()) == before
    late = cafe.state.payments[payment]
    assert (late.status, late.attempt.status, late.attempt.charge) == ("DECLINED", "SUCCEEDED", "c-1")
    assert voided(cafe, payment) == [9000]
    for verdict in ("APPROVED", "DECLINED", "UNKNOWN"):
        assert cafe.settle(payment, verdict, amount=9000, charge="c-1") == []


def test_a_late_success_when_the_order_has_left_long_ago():
    """The payment is still known, and shown again while its charge goes back."""
    cafe = Cafe()
    order, payment = cafe.requested()
    cafe.settle(payment, "DECLINED")
    cafe.wait(10)
    assert cafe.wait(30) == ["OrdersArchived"]
    assert (order in cafe.state.orders, payment in cafe.state.kept) == (False, True)
    assert cafe.settle(payment, "APPROVED", amount=9000, charge="c-1")[0] == "LateApproval"
    assert voided(cafe, payment) == [9000]
    assert cafe.settle(payment, "APPROVED", amount=9000, charge="c-1") == []
    cafe.replay()


def test_a_late_success_beside_another_payment():
    """The order is paid once."""
    cafe = Cafe()
    order, first = cafe.requested()
    cafe.settle(first, "DECLINED")
    second = cafe.prepare(order)
    cafe.approve(order, second)
    assert cafe.settle(first, "APPROVED", amount=9000)[0] == "LateApproval"
    assert cafe.settle(second, "APPROVED", amount=9000) == PAID
    assert cafe.state.orders[order].paid == 9000
    cafe.replay()


@pytest.mark.parametrize(("payment", "attempt"), [("id-9", "id-2"), ("id-1", "id-9"), ("id-1", "")])
@pytest.mark.parametrize("verdict", ["APPROVED", "DECLINED", "UNKNOWN"])
def test_answers_for_somebody_else(payment, attempt, verdict):
    """Only a payment's own attempt settles it."""
    cafe = Cafe()
    cafe.requested()
    assert cafe.ask(SettleApproval(payment, attempt, verdict, 9000), INSIDE) == []


def test_a_payment_that_was_never_approved_has_no_verdict():
    """Also not when it was given up."""
    cafe = Cafe()
    order = cafe.order()
    first = cafe.prepare(order)
    second = cafe.prepare(order, "toss")
    for payment in (first, second):
        assert cafe.ask(SettleApproval(payment, "id-9", "APPROVED", 9000), INSIDE) == []


def test_of_two_payments_the_newest_is_shown():
    """An order's guests see how their newest payment stands."""
    cafe = Cafe()
    order, first = cafe.requested()
    cafe.settle(first, "DECLINED")
    second = cafe.prepare(order)
    assert cafe.state.orders[order].payment.payment == second
    cafe.ask(ApprovePayment(order, second, "token"))
    cafe.settle(second, "APPROVED", amount=9000)
    assert cafe.state.orders[order].payment.status == "PAID"


@pytest.mark.parametrize("given", ["unknown", "review"])
@pytest.mark.parametrize("paid", [True, False])
def test_a_person_decides(given, paid):
    """Where nobody else can tell; with a name and a reason."""
    cafe = Cafe()
    if given == "review":
        order, payment = cafe.reviewed()
    else:
        order, payment = cafe.requested()
        cafe.settle(payment, "UNKNOWN")
    command = ResolvePayment(payment, paid, "looked into the bank account", "c-7")
    events = cafe.ask(command, OWNER)
    assert events[0].by == OWNER
    if paid:
        assert [type(event).__name__ for event in events] == PAID
        assert events[0].reason == "looked into the bank account"
        assert attempt(cafe, payment).charge == "c-7"
        assert cafe.status(order) == "PLACED"
    else:
        assert (events[0].code, events[0].message) == ("resolved", "looked into the bank account")
        assert cafe.status(order) == ("EXPIRED" if given == "review" else "PENDING_PAYMENT")
    assert cafe.ask(command, OWNER) == []
    answer = {"payment": payment, "order": order, "status": "PAID" if paid else "DECLINED"}
    assert cafe.result(command, OWNER) == answer


def test_the_gateway_may_still_say_it_was_paid_after_a_person_said_no():
    """Then the charge goes back."""
    cafe = Cafe()
    _, payment = cafe.reviewed()
    cafe.ask(ResolvePayment(payment, False, "nothing there"), OWNER)
    assert cafe.settle(payment, "APPROVED", amount=9000)[0] == "LateApproval"


@pytest.mark.parametrize(("verdict", "paid"), [("APPROVED", False), ("DECLINED", True)])
def test_a_person_cannot_turn_what_is_certain(verdict, paid):
    """What the gateway has said is final."""
    cafe = Cafe()
    _, payment = cafe.requested()
    cafe.settle(payment, verdict, amount=9000)
    assert cafe.refused(ResolvePayment(payment, paid, "no"), OWNER) == "wrong_status"
    assert cafe.ask(ResolvePayment(payment, not paid, "yes"), OWNER) == []


def test_a_person_has_to_wait_for_the_gateway():
    """And cannot decide on what nobody has tried."""
    cafe = Cafe()
    order = cafe.order()
    payment = cafe.prepare(order)
    assert cafe.refused(ResolvePayment(payment, True, "x"), OWNER) == "wrong_status"
    cafe.approve(order, payment)
    assert cafe.refused(ResolvePayment(payment, True, "x"), OWNER) == "payment_in_progress"
    assert cafe.refused(ResolvePayment("id-9", True, "x"), OWNER) == "unknown_payment"
    assert cafe.refused(QueryPayment("id-9"), OWNER) == "unknown_payment"


def test_several_orders_are_paid_beside_each_other():
    """Each with its own stock."""
    cafe = Cafe()
    one, first = cafe.requested(Wish("cake", 2))
    two, second = cafe.requested(Wish("cake", 1))
    assert cafe.settle(second, "APPROVED", amount=9000) == PAID
    assert cafe.settle(first, "DECLINED") == ["PaymentDeclined"]
    assert (cafe.status(one), cafe.status(two), cafe.cakes()) == ("PENDING_PAYMENT", "PLACED", (0, 2, 1))
