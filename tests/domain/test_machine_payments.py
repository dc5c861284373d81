"""Guests who pay first, under any sequence of answers, doubts, delays and changes of mind."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from engine.domain.payment import OPEN
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.gateway import NoteCheckout, SettleApproval
from engine.domain.store.holds import ConfirmStock
from engine.domain.store.kitchen import AcceptOrder, MarkReady, MarkServed, StartCooking
from engine.domain.store.menu import AdjustStock
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.reconciling import QueryPayment, ResolvePayment
from engine.domain.store.shop import ConfigureStore, OpenStore
from tests.domain.stock_model import BEFORE_COOKING, Model
from tests.harness_domain import check_replay

CODES = {
    "sold_out",
    "stock_negative",
    "stock_not_counted",
    "wrong_status",
    "too_late",
    "forbidden",
    "not_paid",
    "not_payable",
    "already_paid",
    "hold_expired",
    "hold_expiring",
    "payment_in_progress",
    "payment_in_review",
    "payment_replaced",
}
GUEST = "user:u1"
wishes = st.builds(Wish, st.sampled_from(["kimbap", "kimbap", "tteok", "ramen"]), st.integers(1, 2))


class Paying(Model):
    """Few products and orders, so that they meet each other."""

    @initialize(stock=st.integers(2, 8))
    def make_shop(self, stock):
        self.send(ConfigureStore("온다 카페", "prepay"))
        self.send(OpenStore())
        self.put("ramen", None, ())
        self.put("kimbap", stock, ())
        self.put("tteok", 3, ())

    def one_of(self, data, names, what):
        return data.draw(st.sampled_from(sorted(names)), what)

    @property
    def payments(self):
        return self.stream.state.payments

    @rule(lines=st.lists(wishes, min_size=1, max_size=3).map(tuple))
    def order(self, lines):
        self.send(CreateOrder(lines), GUEST)

    @rule(lines=st.lists(wishes, min_size=1, max_size=2).map(tuple), verdict=st.none() | st.just("DECLINED"))
    def order_and_approve(self, lines, verdict):
        """The usual way, up to the gateway's answer."""
        if events := self.send(CreateOrder(lines), GUEST):
            order = self.orders[events[0].order]
            prepared = self.send(PreparePayment(order.order, order.total, "u1", "sandbox"), GUEST)
            if prepared is None:
                return
            payment = self.payments[prepared[0].payment]
            self.send(ApprovePayment(order.order, payment.payment, "token"), GUEST)
            if verdict:
                self.answer(self.payments[payment.payment], verdict, 0)

    @rule(data=st.data(), method=st.sampled_from(["sandbox", "sandbox", "toss"]), again=st.booleans())
    @precondition(lambda self: self.orders)
    def prepare(self, data, method, again):
        order = self.orders[self.one_of(data, self.orders, "order")]
        instead_of = order.payment.payment if again and order.payment is not None else None
        self.send(PreparePayment(order.order, order.total or 1, "u1", method, instead_of), GUEST)

    @rule(data=st.data(), ref=st.sampled_from(["token", "token", "other"]))
    @precondition(lambda self: self.payments)
    def approve(self, data, ref):
        payment = self.payments[self.one_of(data, self.payments, "payment")]
        self.send(ApprovePayment(payment.order, payment.payment, ref), GUEST)

    @rule(data=st.data(), verdict=st.sampled_from(["APPROVED", "APPROVED", "DECLINED", "UNKNOWN"]))
    @precondition(lambda self: any(payment.attempt for payment in self.payments.values()))
    def gateway(self, data, verdict):
        """It answers: now or late, once or again, now and then with a wrong amount."""
        tried = [name for name, payment in self.payments.items() if payment.attempt]
        payment = self.payments[self.one_of(data, tried, "payment")]
        self.answer(payment, verdict, data.draw(st.integers(0, 9), "wrong") == 9)

    def answer(self, payment, verdict, wrong):
        amount = payment.amount - wrong
        if verdict == "APPROVED":
            amount = self.charged.setdefault(payment.payment, amount)
        self.send(SettleApproval(payment.payment, payment.attempt.attempt, verdict, amount, "c"))

    @rule(data=st.data())
    @precondition(lambda self: any(payment.status in OPEN for payment in self.payments.values()))
    def gateway_approves(self, data):
        """What is open is approved, as it mostly is."""
        tried = [name for name, payment in self.payments.items() if payment.status in OPEN]
        self.answer(self.payments[self.one_of(data, tried, "payment")], "APPROVED", 0)

    @rule(data=st.data(), paid=st.booleans())
    @precondition(lambda self: self.payments)
    def person(self, data, paid):
        payment = self.one_of(data, self.payments, "payment")
        before = self.payments[payment].status
        resolve = ResolvePayment(payment, paid, "looked")
        others = [QueryPayment(payment), NoteCheckout(payment, "https://pay.example/1")]
        command = data.draw(st.sampled_from([resolve, *others]), "command")
        if self.send(command) and command is resolve and paid and before in OPEN:
            self.charged[payment] = self.payments[payment].amount

    @rule(data=st.data())
    @precondition(lambda self: self.orders)
    def confirm(self, data):
        order = self.one_of(data, self.orders, "order")
        if self.send(ConfirmStock(order)):
            self.sold.add(order)
            if self.orders[order].status not in BEFORE_COOKING:
                self.pieces[order] = {}

    @rule(data=st.data(), by=st.sampled_from([GUEST, "staff:lee"]))
    @precondition(lambda self: self.orders)
    def tap(self, data, by):
        order = self.one_of(data, self.orders, "order")
        kitchen = [AcceptOrder, StartCooking, MarkReady, MarkServed]
        command = data.draw(st.sampled_from([*kitchen, RejectOrder, CancelOrder, CancelLine]), "tap")
        if command is CancelLine:
            line = self.one_of(data, self.seen_lines[order], "line")
            before = self.orders[order].status
            if self.send(command(order, line, "x")) and before in BEFORE_COOKING:
                self.give_back(order, [line])
        else:
            self.send(command(order, "x") if command in (RejectOrder, CancelOrder) else command(order), by)

    @rule(stock=st.none() | st.integers(0, 5))
    def count_anew(self, stock):
        self.put("tteok", stock, ())

    @rule(delta=st.integers(-2, 2))
    def adjust(self, delta):
        if self.send(AdjustStock("kimbap", delta, "counted")):
            self.stock["kimbap"] += delta

    @rule(mode=st.sampled_from(["prepay", "prepay", "postpay"]), seconds=st.sampled_from([60, 600]))
    def change_the_mode(self, mode, seconds):
        """Orders keep the way in which they were made."""
        self.send(ConfigureStore("온다 카페", mode, seconds))

    @rule(minutes=st.sampled_from([0, 1, 5, 10, 40]))
    def wait(self, minutes):
        self.pass_time(minutes)

    def teardown(self):
        assert self.codes <= CODES
        check_replay(self.stream, len(self.stream.events) // 2)


TestPaying = Paying.TestCase
TestPaying.settings = settings(max_examples=120, stateful_step_count=40)
