"""Payments whose answer is overdue: when the gateway is asked, how often, and when a person has to look."""

import pytest

from engine.domain.store.gateway import QueryRequested
from engine.domain.store.payments import ORPHANED_MS, ApprovePayment
from engine.domain.store.reconciling import QUERIES_MAX, QueryPayment, ReconcilePayments
from engine.domain.times import to_ms, to_text
from tests.domain.pay_given import MINUTE, Cafe
from tests.harness_domain import NOW, NOW_MS

INSIDE, STAFF = "store:s1", "staff:lee"
DOUBT = {"code": "TIMEOUT", "message": "no answer"}


def doubtful():
    cafe = Cafe()
    _, payment = cafe.requested()
    cafe.settle(payment, "UNKNOWN", **DOUBT)
    return cafe, payment


def attempt(cafe, payment):
    return cafe.state.payments[payment].attempt


def test_the_question_has_all_that_the_call_needs():
    """The same as the attempt."""
    cafe, payment = doubtful()
    cafe.now_ms += MINUTE
    asked = QueryRequested(
        order="o1",
        at=to_text(cafe.now_ms),
        payment=payment,
        attempt="id-2",
        method="sandbox",
        amount=9000,
        payer="u1",
        ref="token",
        number=1,
        again_at=to_text(cafe.now_ms + 2 * MINUTE),
        tax_free=0,
    )
    assert cafe.ask(ReconcilePayments(), INSIDE) == [asked]
    assert cafe.ask(ReconcilePayments(), INSIDE) == []


def test_the_gateway_is_asked_later_and_later_and_then_a_person():
    """After 1, 2, 4 … minutes, at most 30 apart; ten times, answered or not."""
    cafe, payment = doubtful()
    start, asked = cafe.now_ms, []
    for _ in range(QUERIES_MAX + 1):
        cafe.now_ms = cafe.state.queries.first() - 1
        assert cafe.ask(ReconcilePayments(), INSIDE) == [], "never early"
        cafe.now_ms += 1
        (event,) = cafe.ask(ReconcilePayments(), INSIDE)
        asked.append((cafe.now_ms - start) // MINUTE)
        start = cafe.now_ms
        if isinstance(event, QueryRequested) and len(asked) % 2:
            assert cafe.settle(payment, "UNKNOWN", **DOUBT) == ["QueryAnswered"]
    assert asked == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30]
    assert type(event).__name__ == "PaymentSentToReview"
    assert cafe.state.payments[payment].status == "MANUAL_REVIEW"
    assert attempt(cafe, payment).queries == QUERIES_MAX
    assert (attempt(cafe, payment).code, attempt(cafe, payment).message) == tuple(DOUBT.values())
    assert cafe.state.orders["o1"].payment.status == "MANUAL_REVIEW"
    assert cafe.cakes() == (2, 0, 1)
    assert cafe.wait(24 * 60) == []
    cafe.replay()


def test_an_attempt_without_any_answer_is_asked_after():
    """When a quarter of an hour has passed; it is a doubt then."""
    cafe = Cafe()
    _, payment = cafe.requested()
    cafe.now_ms += ORPHANED_MS - 1
    assert cafe.wait(0) == []
    cafe.now_ms += 1
    assert cafe.wait(0) == ["PaymentUnknown", "QueryRequested"]
    assert attempt(cafe, payment).status == "UNKNOWN"
    assert cafe.settle(payment, "APPROVED", amount=9000)[0] == "PaymentApproved"


def test_several_are_asked_in_one_go():
    """Each by itself."""
    cafe = Cafe()
    for _ in range(3):
        _, payment = cafe.requested()
        cafe.settle(payment, "UNKNOWN")
    assert cafe.wait(1) == ["QueryRequested"] * 3


@pytest.mark.parametrize("status", ["REQUESTED", "UNKNOWN", "MANUAL_REVIEW", "DECLINED"])
def test_asking_by_hand(status):
    """Staff and webhooks may hint; while a question is under way there is no second one."""
    cafe = Cafe()
    order, payment = cafe.reviewed() if status == "MANUAL_REVIEW" else cafe.requested()
    if status in ("UNKNOWN", "DECLINED"):
        cafe.settle(payment, status)
    number = attempt(cafe, payment).queries
    (asked,) = cafe.ask(QueryPayment(payment), STAFF)
    assert asked.number == number
    assert cafe.ask(QueryPayment(payment), STAFF) == []
    assert cafe.result(QueryPayment(payment), STAFF) == {"payment": payment, "order": order, "status": status}
    if status != "REQUESTED":
        assert cafe.settle(payment, "UNKNOWN") == ["QueryAnswered"]
        assert cafe.types(QueryPayment(payment), STAFF) == ["QueryRequested"]


def test_hints_hand_nothing_over_to_a_person():
    """However many come: the questions that count are asked when they were due anyway."""
    cafe, payment = doubtful()
    due = cafe.state.queries.first()
    for _ in range(2 * QUERIES_MAX):
        assert cafe.types(QueryPayment(payment), "service:toss-webhook") == ["QueryRequested"]
        assert cafe.settle(payment, "UNKNOWN") == ["QueryAnswered"]
        cafe.now_ms += 1000
    assert cafe.state.queries.first() == due
    assert attempt(cafe, payment).queries == 0
    cafe.now_ms = due
    assert cafe.types(ReconcilePayments(), INSIDE) == ["QueryRequested"]
    assert attempt(cafe, payment).queries == 1
    cafe.replay()


def test_a_question_whose_answer_is_lost_may_be_asked_again():
    """Nothing is under way for ever."""
    cafe = Cafe()
    _, payment = cafe.reviewed()
    cafe.ask(QueryPayment(payment), STAFF)
    cafe.now_ms = to_ms(attempt(cafe, payment).next_query_at) - 1
    assert cafe.ask(QueryPayment(payment), STAFF) == []
    cafe.now_ms += 1
    assert len(cafe.ask(QueryPayment(payment), STAFF)) == 1


def test_nothing_to_ask():
    """What is paid, not tried yet, given up, or on its way back."""
    cafe = Cafe()
    order = cafe.order()
    dropped = cafe.prepare(order, "toss")
    pending = cafe.prepare(order)
    _, paid = cafe.paid()
    _, back = cafe.requested()
    cafe.settle(back, "DECLINED")
    cafe.settle(back, "APPROVED", amount=9000, charge="c-2")
    for payment in (dropped, pending, paid, back):
        assert cafe.ask(QueryPayment(payment), STAFF) == []


def test_a_review_ends_with_the_gateways_word():
    """Asked by hand, it answers after all."""
    cafe = Cafe()
    order, payment = cafe.reviewed()
    cafe.ask(QueryPayment(payment), STAFF)
    assert cafe.settle(payment, "APPROVED", amount=9000)[0] == "PaymentApproved"
    assert cafe.status(order) == "PLACED"


def test_a_question_about_a_declined_payment_finds_a_late_success():
    """It goes back."""
    cafe = Cafe()
    _, payment = cafe.requested()
    cafe.settle(payment, "DECLINED")
    cafe.ask(QueryPayment(payment), STAFF)
    assert cafe.settle(payment, "APPROVED", amount=9000)[0] == "LateApproval"
    assert not attempt(cafe, payment).querying


def test_repeated_declines_after_a_question_change_nothing():
    """The answer is noted, so that one may ask again."""
    cafe = Cafe()
    _, payment = cafe.requested()
    cafe.settle(payment, "DECLINED", code="LIMIT")
    cafe.ask(QueryPayment(payment), STAFF)
    assert cafe.settle(payment, "DECLINED", code="LIMIT") == ["QueryAnswered"]
    assert cafe.settle(payment, "DECLINED", code="LIMIT") == []
    assert cafe.state.payments[payment].status == "DECLINED"


def test_the_guests_repeat_does_not_move_the_question():
    """Approving again waits for the same answer."""
    cafe, payment = doubtful()
    due = cafe.state.queries.first()
    cafe.now_ms += 30_000
    assert cafe.ask(ApprovePayment("o1", payment, "token")) == []
    assert cafe.state.queries.first() == due == NOW_MS + MINUTE
    assert attempt(cafe, payment).requested_at == NOW
