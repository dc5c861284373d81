"""Money that goes back: how much, by which tax, one at a time, and what every answer of the gateway means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.payment import Share
from engine.domain.store import closing, refunds, repaying
from engine.domain.store.cancelling import CancelLine
from engine.domain.store.closing import KEPT_MS, RECALL_MS
from engine.domain.store.gateway import RefundSent, SettleApproval, SettleRefund
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.domain.store.orders import Wish
from engine.domain.store.payments import ORPHANED_MS
from engine.domain.store.refunds import OrderRefunded, RefundCompleted, RefundPayment, RefundRequested
from engine.domain.store.repaying import (
    TRIES_MAX,
    RefundFailed,
    RefundSentToReview,
    RefundUnknown,
    ResolveRefund,
)
from engine.domain.store.settling import SettleTable
from engine.domain.tax import Taxed, portion, vat_in
from engine.domain.times import to_text
from tests.domain.pay_given import MINUTE, Cafe
from tests.harness_domain import NOW, NOW_MS

OWNER, INSIDE = "owner:kim", "store:s1"


def paid(*wishes):
    """A café in which somebody has paid; its payment."""
    cafe = Cafe()
    order, payment = cafe.paid(*wishes)
    return cafe, order, payment


def refund(cafe, payment, amount, by=OWNER):
    return cafe.result(RefundPayment(payment, amount, "sorry"), by)


def settle(cafe, payment, name, verdict, **fields):
    return cafe.ask(SettleRefund(payment, name, verdict, **fields), INSIDE)


def types(events):
    return [type(event).__name__ for event in events]


def statuses(cafe, payment):
    known = cafe.state.payments.get(payment) or cafe.state.kept[payment]
    return [each.status for each in known.refunds]


def test_a_refund_is_durable_before_the_gateway_is_called():
    """With all that the call needs."""
    cafe, order, payment = paid(Wish("cake", 1), Wish("milk", 1))
    facts = {"payment": payment, "refund": "id-3", "at": NOW}
    parts = {"amount": 1100, "taxable": 900, "tax_free": 200, "vat": 82, "reason": "sorry"}
    assert cafe.ask(RefundPayment(payment, 1100, "sorry"), OWNER) == [
        RefundRequested(**facts, **parts, by=OWNER, order=order),
        RefundSent(
            **facts,
            **parts,
            attempt="id-2",
            method="sandbox",
            payer="u1",
            charge="c-1",
            remaining=11000,
            captured=11000,
        ),
    ]
    assert cafe.state.orders[order].refunded == 0, "nothing went back yet"
    assert cafe.state.payments[payment].refunded == 1100, "but it counts"


def test_the_result_says_what_is_left():
    """The status is the refund's; what waits counts too."""
    cafe, _, payment = paid()
    first = refund(cafe, payment, 4000)
    assert first == {
        "payment": payment,
        "refund": "id-3",
        "amount": 4000,
        "status": "REQUESTED",
        "refunded": 4000,
        "remaining": 5000,
    }
    second = refund(cafe, payment, 5000)
    assert (second["status"], second["refunded"], second["remaining"]) == ("QUEUED", 9000, 0)


@pytest.mark.parametrize(
    ("payment", "amount", "code"),
    [
        ("none", 1, "unknown_payment"),
        ("pending", 1, "not_paid"),
        ("paid", 9001, "refund_too_much"),
        ("partly", 5001, "refund_too_much"),
    ],
)
def test_refused(payment, amount, code):
    """What is on its way counts as given: two refunds of 60 of 100 do not both go."""
    cafe, _, first = paid()
    names = {"none": "none", "paid": first, "partly": first}
    if payment == "pending":
        names["pending"] = cafe.prepare(cafe.order())
    if payment == "partly":
        refund(cafe, first, 4000)
    assert cafe.refused(RefundPayment(names[payment], amount, "x"), OWNER) == code


def test_refunds_have_a_bound(monkeypatch):
    """Somebody who sends it in a loop ends."""
    monkeypatch.setattr(refunds, "REFUNDS_MAX", 2)
    cafe, _, payment = paid()
    refund(cafe, payment, 1)
    refund(cafe, payment, 1)
    assert cafe.refused(RefundPayment(payment, 1, "x"), OWNER) == "too_many_refunds"


def test_one_at_a_time():
    """The next leaves in the commit in which the one before ends, with what is left by then."""
    cafe, order, payment = paid()
    names = [refund(cafe, payment, amount)["refund"] for amount in (1000, 2000, 3000)]
    assert statuses(cafe, payment) == ["REQUESTED", "QUEUED", "QUEUED"]
    done, told, sent = settle(cafe, payment, names[0], "APPROVED")
    assert isinstance(done, RefundCompleted)
    assert told == OrderRefunded(order, NOW, None, "u1", payment=payment, refund=names[0], amount=1000)
    assert (sent.refund, sent.amount, sent.remaining, sent.number) == (names[1], 2000, 8000, 1)
    failed, sent = settle(cafe, payment, names[1], "DECLINED", code="LIMIT", message="too late")
    assert isinstance(failed, RefundFailed)
    assert (sent.refund, sent.remaining) == (names[2], 8000)
    assert statuses(cafe, payment) == ["DONE", "FAILED", "REQUESTED"]
    known = cafe.state.payments[payment]
    assert known.refunded == 4000
    assert (known.refunds[1].code, known.refunds[1].message) == ("LIMIT", "too late")
    assert cafe.state.orders[order].refunded == 1000
    cafe.replay()


@pytest.mark.parametrize("verdict", ["APPROVED", "DECLINED", "UNKNOWN"])
def test_repeats_change_nothing(verdict):
    """Of a refund that is done, that waits, or that nobody knows."""
    cafe, _, payment = paid()
    done = refund(cafe, payment, 1000)["refund"]
    settle(cafe, payment, done, "APPROVED")
    refund(cafe, payment, 1000)
    waiting = refund(cafe, payment, 1000)["refund"]
    for name in (done, waiting, "none"):
        assert settle(cafe, payment, name, verdict) == []
    assert settle(cafe, "none", done, verdict) == []


def test_an_unknown_outcome_is_asked_for_later_and_later():
    """With the same id; after ten times a person has to look."""
    cafe, _, payment = paid()
    name = refund(cafe, payment, 1000)["refund"]
    refund(cafe, payment, 500)
    waits = []
    for number in range(1, TRIES_MAX + 1):
        assert cafe.state.payments[payment].refunds[0].tries == number
        (event,) = settle(cafe, payment, name, "UNKNOWN", code="timeout")
        assert settle(cafe, payment, name, "UNKNOWN") == [], "the same answer twice"
        if isinstance(event, RefundSentToReview):
            break
        assert isinstance(event, RefundUnknown)
        due_ms, command = cafe.stream.domain.deadline(cafe.state)
        assert event.next_try_at == to_text(due_ms)
        waits.append((due_ms - cafe.now_ms) // MINUTE)
        assert cafe.stream.do(command, INSIDE, due_ms - 1) == []
        cafe.now_ms = due_ms
        (sent,) = cafe.ask(command, INSIDE)
        assert (sent.refund, sent.number, sent.remaining) == (name, number + 1, 9000)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert statuses(cafe, payment) == ["MANUAL_REVIEW", "QUEUED"]
    assert cafe.stream.domain.deadline(cafe.state) is None
    cafe.replay()


def test_a_call_without_any_answer_is_made_again():
    """After a while that is longer than any gateway takes."""
    cafe, _, payment = paid()
    refund(cafe, payment, 1000)
    assert cafe.wait(ORPHANED_MS / MINUTE - 1) == []
    assert cafe.wait(1) == ["RefundSent"]
    for _ in range(TRIES_MAX - 2):
        assert cafe.wait(15) == ["RefundSent"]
    assert cafe.wait(15) == ["RefundSentToReview"]


@pytest.mark.parametrize(("done", "left"), [(True, "RefundCompleted"), (False, "RefundFailed")])
def test_a_person_decides(monkeypatch, done, left):
    """And the next refund goes on from there; deciding twice is deciding once."""
    monkeypatch.setattr(repaying, "TRIES_MAX", 1)
    cafe, order, payment = paid()
    name = refund(cafe, payment, 1000)["refund"]
    following = refund(cafe, payment, 500)["refund"]
    decide = ResolveRefund(payment, name, done, "in the gateway's books")
    assert cafe.refused(decide, OWNER) == "refund_in_progress"
    assert types(settle(cafe, payment, name, "UNKNOWN")) == ["RefundSentToReview"]
    events = cafe.ask(decide, OWNER)
    assert type(events[0]).__name__ == left
    assert (events[0].by, events[0].reason) == (OWNER, "in the gateway's books")
    assert events[-1].refund == following
    assert events[-1].remaining == (8000 if done else 9000)
    assert cafe.state.orders[order].refunded == (1000 if done else 0)
    assert cafe.ask(decide, OWNER) == []
    assert cafe.result(decide, OWNER)["status"] == ("DONE" if done else "FAILED")
    if done:
        assert cafe.refused(ResolveRefund(payment, name, False, "x"), OWNER) == "wrong_status"
    assert cafe.refused(ResolveRefund(payment, "none", done, "x"), OWNER) == "unknown_refund"
    assert cafe.refused(ResolveRefund("none", name, done, "x"), OWNER) == "unknown_payment"


def test_a_success_after_it_was_given_up_is_the_truth():
    """Unless meanwhile something else went back in its place."""
    cafe, order, payment = paid()
    name = refund(cafe, payment, 5000)["refund"]
    settle(cafe, payment, name, "DECLINED")
    assert types(settle(cafe, payment, name, "APPROVED")) == ["RefundCompleted", "OrderRefunded"]
    assert cafe.state.payments[payment].refunded == cafe.state.orders[order].refunded == 5000
    cafe, order, payment = paid()
    name = refund(cafe, payment, 5000)["refund"]
    settle(cafe, payment, name, "DECLINED")
    refund(cafe, payment, 9000)
    assert settle(cafe, payment, name, "APPROVED") == []


def test_what_the_gateway_refuses_is_given_back_by_hand():
    """A gateway that cancels nothing after so many months leaves that to the shop, and the books have to know
    it; but not if something else went back in its place.
    """
    cafe, order, payment = paid()
    name = refund(cafe, payment, 5000)["refund"]
    settle(cafe, payment, name, "DECLINED", code="CancelDeadlineExpired")
    other = refund(cafe, payment, 9000)["refund"]
    by_hand = ResolveRefund(payment, name, True, "by bank transfer")
    assert cafe.refused(by_hand, OWNER) == "wrong_status"
    settle(cafe, payment, other, "DECLINED", code="CancelDeadlineExpired")
    assert types(cafe.ask(by_hand, OWNER)) == ["RefundCompleted", "OrderRefunded"]
    assert cafe.ask(by_hand, OWNER) == []
    assert cafe.state.payments[payment].refunded == cafe.state.orders[order].refunded == 5000
    assert statuses(cafe, payment) == ["DONE", "FAILED"]
    cafe.replay()


def test_a_charge_without_an_order_goes_back_or_to_a_person():
    """It is not part of what was captured, and no order hears of it; a refusal does not end it."""
    cafe = Cafe()
    _, payment = cafe.requested()
    attempt = cafe.state.payments[payment].attempt.attempt
    events = cafe.ask(SettleApproval(payment, attempt, "APPROVED", 9500, "c-7"), INSIDE)
    sent = events[-1]
    assert (sent.amount, sent.captured, sent.remaining, sent.charge) == (9500, 9500, 9500, "c-7")
    assert sent.taxable + sent.tax_free == 9500
    assert cafe.state.payments[payment].refunded == 0
    assert types(settle(cafe, payment, sent.refund, "DECLINED", code="x")) == ["RefundSentToReview"]
    assert settle(cafe, payment, sent.refund, "DECLINED") == []
    assert cafe.refused(RefundPayment(payment, 1, "x"), OWNER) == "not_paid"
    assert types(settle(cafe, payment, sent.refund, "APPROVED")) == ["RefundCompleted"]


@given(
    taxable=st.integers(0, 60),
    tax_free=st.integers(0, 60),
    parts=st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(-5, 40))),
)
def test_parts_come_to_the_whole(taxable, tax_free, parts):
    """By each kind of tax, in whatever parts; no part has less than none of anything."""
    rest = Taxed(taxable, tax_free, vat_in(taxable))
    for amount, wanted in parts:
        part = portion(rest, min(amount, rest.amount), wanted)
        assert part.amount == min(amount, rest.amount)
        assert min(part) >= 0
        assert part.vat <= part.taxable
        rest -= part
        assert min(rest) >= 0
    assert portion(rest, rest.amount) == rest


def test_a_refund_that_failed_leaves_its_tax_to_the_others():
    """So that all that goes back in the end is what was paid."""
    cafe, _, payment = paid(Wish("coffee", 1), Wish("milk", 1))
    names = [refund(cafe, payment, amount)["refund"] for amount in (1001, 333, 777)]
    for name, verdict in zip(names, ("APPROVED", "DECLINED", "APPROVED"), strict=True):
        settle(cafe, payment, name, verdict)
    settle(cafe, payment, refund(cafe, payment, 6500 - 1778)["refund"], "APPROVED")
    known = cafe.state.payments[payment]
    done = [each for each in known.refunds if each.status == "DONE"]
    for field in ("amount", "taxable", "tax_free", "vat"):
        assert sum(getattr(each, field) for each in done) == getattr(known, field)


def test_a_bill_goes_back_in_proportion():
    """Each of its orders hears of its share; the till gives at once."""
    cafe = Cafe(mode="postpay")
    for wish in (Wish("cake", 1), Wish("coffee", 1), Wish("milk", 1)):
        cafe.order(wish, by="table:s1/3")
    (payment,) = cafe.result(SettleTable("3", "cash"), "staff:lee")["payments"]
    events = cafe.ask(RefundPayment(payment, 5001, "sorry"), OWNER)
    assert types(events) == ["RefundRequested", "RefundCompleted", *["OrderRefunded"] * 3]
    assert [event.amount for event in events[2:]] == [2903, 1452, 646]
    assert events[0].shares[2] == Share("o3", 646, (), 646, 0)
    result = refund(cafe, payment, 15500 - 5001)
    assert (result["status"], result["remaining"]) == ("DONE", 0)
    for order in cafe.state.orders.values():
        assert order.refunded == order.paid == order.total
    assert cafe.refused(RefundPayment(payment, 1, "x"), OWNER) == "refund_too_much"


def test_a_bill_that_goes_back_when_its_orders_have_left():
    """The table and each order's own user hear of it, as they would have before."""
    cafe = Cafe(mode="postpay")
    orders = [cafe.order(by="staff:lee", table="3", user=user) for user in ("u1", None)]
    (payment,) = cafe.result(SettleTable("3", "cash"), "staff:lee")["payments"]
    for order in orders:
        cafe.ask(MarkReady(order), OWNER)
        cafe.ask(MarkServed(order), OWNER)
    assert cafe.wait(30) == ["OrdersArchived"]
    told = cafe.ask(RefundPayment(payment, 18000, "sorry"), OWNER)[2:]
    assert [(event.order, event.table, event.user) for event in told] == [
        ("o1", "3", "u1"),
        ("o2", "3", None),
    ]
    cafe.replay()


def test_another_order_with_the_same_id_is_not_refunded(monkeypatch):
    """Guests choose ids, and long after an order has left its id is free again."""
    monkeypatch.setattr(closing, "ARCHIVED_MAX", 0)
    cafe = Cafe()
    payments = []
    for _ in range(2):
        order, payment = cafe.paid(order="mine")
        payments.append(payment)
        if len(payments) == 1:
            cafe.ask(CancelLine(order, "o1-1", "x"), OWNER)
            settle(cafe, payment, cafe.state.payments[payment].refunds[0].refund, "DECLINED")
            cafe.wait(30)
    name = refund(cafe, payments[0], 9000)["refund"]
    told = settle(cafe, payments[0], name, "APPROVED")[1]
    assert (told.order, told.table, told.user) == ("mine", None, None)
    assert cafe.state.orders["mine"].refunded == 0
    assert cafe.wait(RECALL_MS / MINUTE) == ["OrdersArchived"]
    assert payments[0] not in cafe.state.payments
    cafe.replay()


def test_a_payment_whose_order_has_left_comes_back_into_view():
    """Until the refund is over and a while longer; after 30 days it is gone."""
    cafe, order, payment = paid()
    cafe.ask(MarkReady(order), OWNER)
    cafe.ask(MarkServed(order), OWNER)
    assert cafe.wait(30) == ["OrdersArchived"]
    assert payment not in cafe.state.payments
    name = refund(cafe, payment, 1000)["refund"]
    assert cafe.state.payments[payment].refunds[0].status == "REQUESTED"
    cafe.wait(10)
    events = settle(cafe, payment, name, "APPROVED")
    assert events[1] == OrderRefunded(
        order, to_text(cafe.now_ms), None, "u1", payment=payment, refund=name, amount=1000
    )
    assert cafe.wait(RECALL_MS / MINUTE) == ["OrdersArchived"]
    assert statuses(cafe, payment) == ["DONE"]
    assert payment not in cafe.state.payments
    assert cafe.wait((NOW_MS + KEPT_MS - cafe.now_ms) / MINUTE) == ["OrdersArchived"]
    assert cafe.refused(RefundPayment(payment, 1, "x"), OWNER) == "unknown_payment"
    assert not cafe.state.kept
    assert not cafe.state.kept_until.due
    cafe.replay()
