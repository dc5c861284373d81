"""A gateway's own books, and what must hold between them and a shop's orders and payments at any time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from engine.domain.order import DEAD, UNPAID
from engine.domain.payment import DONE, FAILED, GIVING_BACK, OPEN, PAID, QUEUED, REQUESTED, TILL, UNKNOWN
from engine.domain.store.approvals import LateApproval, PaymentApproved, PaymentDeclined
from engine.domain.store.closing import due, orders_of
from engine.domain.store.gateway import RefundSent
from engine.domain.store.splits import rest_of
from engine.domain.tax import Taxed, total, vat_in


class Bank:
    """What really moved. `charged` by attempt, `given` by refund; `told`: charges the shop has heard of."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self.given: dict[str, int] = {}
        self.refused: set[str] = set()
        self.attempts: dict[str, str] = {}
        self.told: set[str] = set()
        self.sent: list[RefundSent] = []

    def note(self, event: Any) -> None:
        """Take a call of the shop; it has to fit what is there."""
        match event:
            case RefundSent():
                left = self.charged[event.attempt] - self.back_of(event.attempt, event.refund)
                assert event.remaining == left, f"{left} are left: {event}"
                assert event.captured == self.charged[event.attempt]
                if event.number == 1:
                    assert all(sent.refund != event.refund for sent in self.sent)
                    self.sent.append(event)
                    self.attempts[event.refund] = event.attempt
                else:
                    first = next(sent for sent in self.sent if sent.refund == event.refund)
                    assert (first.amount, first.tax_free, first.vat) == (
                        event.amount,
                        event.tax_free,
                        event.vat,
                    )
            case PaymentApproved() | LateApproval():
                self.told.add(event.attempt)
            case PaymentDeclined(charged=charged) if charged:
                self.told.add(event.attempt)

    def back_of(self, attempt: str, but: str = "") -> int:
        """Return what went back of a charge, without one refund."""
        return sum(
            amount
            for refund, amount in self.given.items()
            if self.attempts[refund] == attempt and refund != but
        )

    def answer(self, attempt: str, verdict: Any, amount: int) -> tuple[Any, int]:
        """Return the verdict that is possible, and what was charged."""
        if verdict == "APPROVED":
            self.charged.setdefault(attempt, amount)
        if verdict == "DECLINED" and attempt in self.charged:
            verdict = "UNKNOWN"
        return verdict, self.charged.get(attempt, 0)

    def answer_refund(self, sent: RefundSent, verdict: Any) -> Any:
        """Return the verdict on a refund that is possible: it is done, refused, or not yet decided."""
        if sent.refund in self.given:
            return "UNKNOWN" if verdict == "UNKNOWN" else "APPROVED"
        if sent.refund in self.refused:
            return "UNKNOWN" if verdict == "UNKNOWN" else "DECLINED"
        if verdict == "APPROVED":
            self.given[sent.refund] = sent.amount
            assert self.back_of(sent.attempt) <= self.charged[sent.attempt], "more than was charged"
        if verdict == "DECLINED":
            self.refused.add(sent.refund)
        return verdict

    def decide(self, refund: str) -> bool:
        """Return what a person finds out; what was not given will not be either."""
        if refund not in self.given:
            self.refused.add(refund)
        return refund in self.given


def check_payments(state: Any) -> None:
    """Sums and splits of each payment; one refund at a time; what is due."""
    for payment in [*state.payments.values(), *state.kept.values()]:
        assert payment.taxable + payment.tax_free == payment.amount
        live = [refund for refund in payment.refunds if refund.status != FAILED and not refund.void]
        assert payment.refunded == sum(refund.amount for refund in live) <= payment.amount
        back = total(Taxed(refund.taxable, refund.tax_free, refund.vat) for refund in live)
        whole = Taxed(payment.taxable, payment.tax_free, payment.vat)
        assert min(whole - back) >= 0, f"more of one part than was paid: {payment}"
        if back.amount == whole.amount:
            assert back == whole, f"the parts do not come to the whole: {payment}"
        for refund in payment.refunds:
            assert refund.taxable + refund.tax_free == refund.amount > 0
            assert 0 <= refund.vat <= refund.taxable
            assert not refund.shares or sum(share.amount for share in refund.shares) == refund.amount
        statuses = Counter(refund.status for refund in payment.refunds)
        busy = sum(statuses[status] for status in OPEN)
        assert busy <= 1, "two refunds at the gateway at once"
        assert busy or not statuses[QUEUED], "a refund waits for nothing"
        assert (payment.payment in state.retries.due) == bool(statuses[REQUESTED] + statuses[UNKNOWN])
        if payment.provider == TILL:
            assert set(statuses) <= {DONE}
        if payment.payment in state.payments:
            there = any(order in state.orders for order in orders_of(payment))
            waits = payment.payment in state.kept_until.due
            giving = any(refund.status in GIVING_BACK for refund in payment.refunds)
            assert there or waits or giving, "a payment that would never leave"


def check_orders(state: Any) -> None:
    """Each order agrees with its payments, to the won and by tax."""
    for name, order in state.orders.items():
        paid = [state.payments[each] for each in state.payments_of.get(name, ())]
        paid = [payment for payment in paid if payment.status == PAID]
        assert sum(payment.provider != TILL for payment in paid) <= 1, "paid twice"
        shares = [share for payment in paid for share in payment.shares if share.order == name]
        gateway = sum(payment.amount for payment in paid if not payment.shares)
        assert order.paid == gateway + sum(share.amount for share in shares)
        assert len(set(order.paid_lines)) == len(order.paid_lines)
        refunds = [refund for payment in paid for refund in payment.refunds]
        has = total(rest_of(payment, name) for payment in paid)
        failed = any(refund.status == FAILED for refund in refunds)
        if order.status in DEAD and not failed:
            assert has.amount == 0, f"{name} is dead, and the shop has {has}"
        if order.status in UNPAID | DEAD:
            assert due(order) == 0
        elif not failed:
            assert has.amount <= order.total, f"the shop has {has} for {order.total}"
        untouched = not refunds and all(line.status != "CANCELLED" for line in order.lines)
        if untouched and paid and has.amount == order.total:
            assert has == Taxed(order.total - order.tax_free, order.tax_free, order.vat)
        assert order.vat == vat_in(order.total - order.tax_free)


def check_books(state: Any, bank: Bank) -> None:
    """Each charge that the shop was told of stands behind a paid order, or goes back."""
    payments = {p.attempt.attempt: p for p in [*state.payments.values(), *state.kept.values()] if p.attempt}
    for attempt in bank.told:
        payment = payments.get(attempt)
        if payment is None:
            continue  # forgotten after 30 days
        voids = [refund for refund in payment.refunds if refund.void]
        if payment.status == PAID:
            assert bank.charged.get(attempt, payment.amount) == payment.amount
            assert not voids
        else:
            assert [refund.amount for refund in voids] == [bank.charged[attempt]]
        done = sum(refund.amount for refund in payment.refunds if refund.status == DONE)
        assert done <= bank.back_of(attempt), "the shop thinks that more went back than did"
