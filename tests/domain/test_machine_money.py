"""A shop's money under any sequence of orders, payments, verdicts, refunds, cancels and bills at the till.

Beside the shop stands a gateway with books of its own: what it charged and what it gave back. It answers
late, twice, or not at all, but it does not lie.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain import store
from engine.domain.order import DEAD
from engine.domain.payment import OPEN, PAID, TILL
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.store.gateway import SettleApproval, SettleRefund
from engine.domain.store.holds import ConfirmStock
from engine.domain.store.kitchen import AcceptOrder, MarkReady, MarkServed, RecallOrder
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.reconciling import QueryPayment, ResolvePayment
from engine.domain.store.refunds import RefundPayment
from engine.domain.store.repaying import ResolveRefund
from engine.domain.store.settling import SettleOrder, SettleTable, TillPart
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.store.tables import NoteTable
from engine.errors import Rejected
from tests.domain.money_model import Bank, check_books, check_orders, check_payments
from tests.domain.pay_given import check_ledger
from tests.harness_domain import NOW_MS, Stream, check_replay
from tests.simulation.money_checks import EDGES

OWNER, INSIDE = "owner:kim", "store:s1"
GUESTS = ("user:u1", "user:u2", "table:s1/1", "table:s1/2", OWNER)
verdicts = st.sampled_from(["APPROVED", "APPROVED", "DECLINED", "UNKNOWN"])
wishes = st.lists(
    st.builds(Wish, st.sampled_from(["cake", "coffee", "milk", "candy"]), st.integers(1, 3)),
    min_size=1,
    max_size=4,
).map(tuple)
picks = st.integers(0, 9)


class Till(RuleBasedStateMachine):
    """Sends commands; `bank` knows what really moved."""

    def __init__(self):
        super().__init__()
        self.stream = Stream("store:s1")
        self.now_ms = NOW_MS
        self.bank = Bank()
        self.sittings = {"1": 0, "2": 0}
        self.statuses = {}

    @property
    def state(self):
        return self.stream.state

    @initialize(mode=st.sampled_from(["prepay", "prepay", "postpay"]))
    def make_shop(self, mode):
        for command in (
            ConfigureStore("온다 카페", mode),
            PutProduct("cake", "케이크", 9000, stock=12),
            PutProduct("coffee", "커피", 4500),
            PutProduct("milk", "우유", 2000, tax_free=True),
            PutProduct("candy", "사탕", 7),
            OpenStore(),
            CreateCoupon("off", "할인", 1500, 9),
            IssueCoupon("off", user="u1"),
        ):
            assert self.send(command)
        self.sit("1", True)

    def send(self, command, by=OWNER):
        """Return the events, or None when refused; what the engine itself sends never is."""
        try:
            events = self.stream.do(command, by, self.now_ms)
        except Rejected:
            assert by != INSIDE, command
            return None
        names = [type(event).__name__ for event in events]
        if "PaymentApproved" in names:
            assert names[:3] == ["PaymentApproved", "OrderPaid", "OrderPlaced"]
        for event in events:
            self.bank.note(event)
        for name, payment in (self.state.payments | self.state.kept).items():
            old = self.statuses.get(name, "")
            if payment.provider != TILL and payment.status != old:
                reached = {payment.status} if old else {"PENDING"}
                assert reached & EDGES[old] or (old, payment.status) == ("DROPPED", "REQUESTED")
            self.statuses[name] = payment.status
        return events

    def pick(self, values, number):
        return values[number % len(values)] if values else None

    def orders(self):
        return list(self.state.orders.values())

    def payments(self, *statuses):
        known = [*self.state.payments.values(), *self.state.kept.values()]
        return [payment for payment in known if not statuses or payment.status in statuses]

    def reviewed(self):
        return [
            (payment.payment, refund.refund)
            for payment in self.payments()
            for refund in payment.refunds
            if refund.status == "MANUAL_REVIEW"
        ]

    @rule(mode=st.sampled_from(["prepay", "postpay"]))
    def change_mode(self, mode):
        self.send(ConfigureStore("온다 카페", mode))

    @rule(table=st.sampled_from(["1", "2"]), opens=st.booleans())
    def sit(self, table, opens):
        if opens and table not in self.state.sittings:
            self.sittings[table] += 1
        self.send(NoteTable(table, self.sittings[table], opens), f"table:s1/{table}")

    @rule(lines=wishes, by=st.sampled_from(GUESTS), coupon=st.sampled_from([None, "off"]))
    def order(self, lines, by, coupon):
        table = "1" if by == OWNER else None
        self.send(CreateOrder(lines, coupon=coupon, table=table), by)

    @rule(number=picks, method=st.sampled_from(["sandbox", "toss"]), by=st.sampled_from(GUESTS))
    @precondition(lambda self: self.state.orders)
    def prepare(self, number, method, by):
        order = self.pick(self.orders(), number)
        if order is None:
            return
        made = self.send(PreparePayment(order.order, order.total, order.by, method), by)
        assert not made or by in (order.by, f"table:s1/{order.table}", OWNER), "somebody else began to pay"
        assert self.send(PreparePayment(order.order, order.total + 1, order.by, method)) is None

    @rule(number=picks, ref=st.sampled_from(["a", "a", "b"]))
    @precondition(lambda self: self.state.payments)
    def approve(self, number, ref):
        payment = self.pick(self.payments("PENDING", "PENDING", "DROPPED", "UNKNOWN"), number)
        if payment is not None:
            self.send(ApprovePayment(payment.order, payment.payment, ref))

    @rule(number=picks, ref=st.sampled_from(["a", "b"]), verdict=verdicts)
    @precondition(lambda self: any(order.hold_expires_at for order in self.orders()))
    def pay(self, number, ref, verdict):
        """The usual way, so that there is something to give back."""
        order = self.pick([order for order in self.orders() if order.hold_expires_at], number)
        if order is None:
            return
        self.send(PreparePayment(order.order, order.total, order.by, "sandbox"))
        newest = self.state.orders[order.order].payment
        if newest is not None and self.send(ApprovePayment(order.order, newest.payment, ref)):
            attempt = self.state.payments[newest.payment].attempt.attempt
            self.verdict_on(newest.payment, attempt, verdict, order.total)
            self.send(ConfirmStock(order.order), INSIDE)

    @rule(number=picks, verdict=verdicts, other=st.sampled_from([0, 0, 0, 1, -1]))
    @precondition(lambda self: self.state.payments)
    def verdict(self, number, verdict, other):
        payment = self.pick([each for each in self.payments() if each.attempt], number)
        if payment is not None:
            self.verdict_on(payment.payment, payment.attempt.attempt, verdict, payment.amount + other)

    def verdict_on(self, payment, attempt, verdict, amount):
        verdict, amount = self.bank.answer(attempt, verdict, amount)
        self.send(SettleApproval(payment, attempt, verdict, amount, "charge"), INSIDE)

    @rule(number=picks)
    @precondition(lambda self: self.state.payments)
    def ask_the_gateway(self, number):
        payment = self.pick(self.payments(), number)
        if payment is not None:
            self.send(QueryPayment(payment.payment))

    @rule(number=picks)
    @precondition(lambda self: self.payments(*OPEN))
    def decide_on_a_payment(self, number):
        payment = self.pick(self.payments(*OPEN), number)
        if payment is not None:
            charged = self.bank.charged.get(payment.attempt.attempt) == payment.amount
            self.send(ResolvePayment(payment.payment, charged, "looked it up"))

    @rule(number=picks, share=st.integers(1, 9), all_of_it=st.booleans())
    @precondition(lambda self: self.payments(PAID))
    def refund(self, number, share, all_of_it):
        payment = self.pick(self.payments(PAID), number)
        if payment is None:
            return
        rest = payment.amount - payment.refunded
        assert self.send(RefundPayment(payment.payment, rest + 1, "too much")) is None
        if rest:
            self.send(
                RefundPayment(payment.payment, rest if all_of_it else max(1, rest * share // 10), "sorry")
            )

    @rule(number=picks, verdict=verdicts)
    @precondition(lambda self: self.bank.sent)
    def verdict_on_a_refund(self, number, verdict):
        sent = self.pick(self.bank.sent, number)
        if sent is not None:
            verdict = self.bank.answer_refund(sent, verdict)
            self.send(SettleRefund(sent.payment, sent.refund, verdict, "code"), INSIDE)

    @rule(number=picks)
    @precondition(lambda self: self.reviewed())
    def decide_on_a_refund(self, number):
        chosen = self.pick(self.reviewed(), number)
        if chosen is not None:
            self.send(ResolveRefund(*chosen, self.bank.decide(chosen[1]), "looked it up"))

    @rule(number=picks, kind=st.sampled_from([CancelOrder, RejectOrder]), by=st.sampled_from(GUESTS))
    @precondition(lambda self: self.state.orders)
    def take_back(self, number, kind, by):
        order = self.pick(self.orders(), number)
        if order is not None:
            self.send(kind(order.order, "x"), by if kind is CancelOrder else OWNER)

    @rule(number=picks, line=picks)
    @precondition(lambda self: self.state.orders)
    def take_a_line_back(self, number, line):
        order = self.pick(self.orders(), number)
        if order is not None:
            self.send(CancelLine(order.order, self.pick(order.lines, line).line, "x"))

    @rule(number=picks, taps=st.lists(st.sampled_from([AcceptOrder, MarkReady, MarkServed, RecallOrder])))
    @precondition(lambda self: self.state.orders)
    def cook(self, number, taps):
        order = self.pick(self.orders(), number)
        for tap in taps if order is not None else ():
            self.send(tap(order.order))

    @rule(number=picks)
    @precondition(lambda self: self.state.orders)
    def serve(self, number):
        order = self.pick(self.orders(), number)
        if order is not None and self.send(MarkReady(order.order)) is not None:
            self.send(MarkServed(order.order))

    @rule(
        table=st.sampled_from(["1", "2", None]),
        number=picks,
        split=st.sampled_from(["all", "amount", "lines"]),
        share=st.integers(1, 9),
        mixed=st.booleans(),
    )
    @precondition(lambda self: self.state.orders)
    def settle(self, table, number, split, share, mixed):
        """Pay a bill as the till would set it up."""
        order = self.pick(self.orders(), number)
        if order is None:
            return
        kind, name = (SettleOrder, order.order) if table is None else (SettleTable, table)
        fields = {}
        owed = self.send_nothing(kind(name, "cash"))
        if split == "amount" and owed:
            owed = max(1, owed * share // 10)
            fields = {"amount": owed}
        if split == "lines":
            lines = [line.line for line in order.lines if line.line not in order.paid_lines]
            fields = {"lines": tuple(lines[: 1 + share % 3])}
            owed = self.send_nothing(kind(name, "card", **fields))
        if not owed:
            assert self.send(kind(name, "cash", **fields)) is None
            return
        method, parts = "card", ()
        if mixed and owed > 1:
            cash = max(1, owed * share // 10)
            method, parts = "mixed", (TillPart("cash", cash), TillPart("card", owed - cash))
        command = kind(name, method, parts, **fields)
        result = self.stream.domain.answer(self.state, command, self.send(command))
        assert result["paid"] == owed
        assert len(result["payments"]) == max(1, len(parts))
        assert self.send(kind(name, "cash", amount=result["remaining"] + 1)) is None
        if split == "all":
            assert result["remaining"] == 0

    def send_nothing(self, command):
        """Return what a payment would come to, without making it."""
        try:
            events = self.stream.decide(command, OWNER, self.now_ms)
        except Rejected:
            return 0
        return events[0].amount

    @rule(minutes=st.sampled_from([1, 1, 5, 30, 60 * 24 * 31]))
    def wait(self, minutes):
        self.now_ms += minutes * 60_000
        while (due := store.deadline(self.state)) is not None and due[0] <= self.now_ms:
            assert self.send(due[1], INSIDE), f"woken for nothing: {due[1]}"

    @invariant()
    def the_books_fit(self):
        check_ledger(self.state)
        check_payments(self.state)
        check_orders(self.state)
        check_books(self.state, self.bank)

    @precondition(lambda self: self.state.shop)
    @invariant()
    def only_what_is_needed_stays(self):
        state = self.state
        closed = {name for name, order in state.orders.items() if order.closed_at}
        assert state.closed.keys() | state.staying.keys() == closed
        assert not state.closed.keys() & state.staying.keys()
        assert list(state.closed.values()) == sorted(state.closed.values())
        assert set(state.payments_of) <= set(state.orders)
        assert {name for bill in state.bills.values() for name in bill} <= set(state.orders)
        assert all(name in state.kept_until.due for name in state.kept)
        for name in state.kept_until.due:
            assert (name in state.kept) != (name in state.payments)

    def teardown(self):
        """The gateway answers everything; then no won is missing."""
        if not self.state.shop:
            return
        for _ in range(500):
            for payment in self.payments(*OPEN):
                self.verdict_on(payment.payment, payment.attempt.attempt, "APPROVED", payment.amount)
            for sent in self.bank.sent:
                verdict = self.bank.answer_refund(sent, "APPROVED")
                self.send(SettleRefund(sent.payment, sent.refund, verdict), INSIDE)
            if not (self.payments(*OPEN) or self.state.retries.due):
                break
        self.the_books_fit()
        net = Counter(self.bank.charged)
        for refund, amount in self.bank.given.items():
            net[self.bank.attempts[refund]] -= amount
        for payment in self.payments():
            review = any(refund.status in ("FAILED", "MANUAL_REVIEW") for refund in payment.refunds)
            if payment.attempt is not None and not review:
                kept = payment.amount - payment.refunded if payment.status == PAID else 0
                assert net[payment.attempt.attempt] == kept, payment
                order = self.state.orders.get(payment.order)
                assert not kept or order is None or order.status not in DEAD
        check_replay(self.stream, len(self.stream.events) // 2)


TestTill = Till.TestCase
TestTill.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
