"""A model of a shop's stock and money for machines that send commands; it looks at states, not at events."""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, invariant

from engine.domain import store
from engine.domain.order import UNPAID
from engine.domain.payment import OPEN, PAID
from engine.domain.store.closing import RECALL_MS
from engine.domain.store.holds import OrderExpired
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import OrderCreated, OrderPlaced
from engine.domain.times import to_ms
from engine.errors import Rejected
from tests.harness_domain import NOW_MS, Stream

BEFORE_COOKING = ("CREATED", "PENDING_PAYMENT", "PLACED", "ACCEPTED")


class Model(RuleBasedStateMachine):
    """Sends commands, and says where each piece and each won has to be.

    `stock`: what can be ordered. `pieces`: what each order has of it by line, as long as it may come back.
    `sold`: orders whose pieces have left the house, or that the shop was told to confirm.
    """

    def __init__(self):
        super().__init__()
        self.stream = Stream("store:s1")
        self.now_ms = NOW_MS
        self.stock = {}
        self.pieces = {}
        self.sold = set()
        self.seen_lines = {}
        self.deadlines = {}
        self.charged = {}
        self.codes = set()

    @property
    def orders(self):
        return self.stream.state.orders

    def send(self, command, by="owner:kim"):
        """Return the events, or None when refused."""
        before = {name: order.status for name, order in self.orders.items()}
        try:
            events = self.stream.do(command, by, self.now_ms)
        except Rejected as refusal:
            self.codes.add(refusal.code)
            return None
        for event in events:
            if isinstance(event, OrderCreated):
                self.take(event.order, command.lines)
                before[event.order] = event.status
            if isinstance(event, OrderExpired):
                assert self.deadlines[event.order] <= self.now_ms, "never early"
        for name, status in before.items():
            if name in self.orders and self.orders[name].status != status:
                self.went_on(name, status, self.orders[name].status)
        return events

    def take(self, order, lines):
        created = self.orders[order]
        self.seen_lines[order] = {line.line for line in created.lines}
        self.pieces[order] = {}
        if created.status == "CREATED":
            self.deadlines[order] = to_ms(created.hold_expires_at)
        else:
            self.sold.add(order)
        for line, wanted in zip(created.lines, lines, strict=True):
            if self.stock[wanted.product] is not None:
                self.pieces[order][line.line] = (wanted.product, wanted.quantity)
                self.stock[wanted.product] -= wanted.quantity

    def went_on(self, order, before, after):
        """An order has another status: what may come back of it does, or never will."""
        if before == "EXPIRED":
            for line in self.orders[order].lines:
                if self.stock[line.product] is not None:
                    self.pieces[order][line.line] = (line.product, line.quantity)
                    self.stock[line.product] -= line.quantity
        elif after in ("EXPIRED", "CANCELLED", "REJECTED") and before in BEFORE_COOKING:
            self.give_back(order, list(self.pieces[order]))
        elif after not in BEFORE_COOKING and order in self.sold:
            self.pieces[order] = {}

    def give_back(self, order, lines):
        for name in lines:
            product, quantity = self.pieces[order].pop(name, (None, 0))
            if product is not None:
                self.stock[product] += quantity

    def put(self, product, stock, options):
        if self.send(PutProduct(product, product, 1000, stock=stock, options=options)) is not None:
            self.stock[product] = stock
            for pieces in self.pieces.values() if stock is None else ():
                for line in [line for line, (name, _) in pieces.items() if name == product]:
                    del pieces[line]  # nothing comes back of what is not counted

    def pass_time(self, minutes):
        """Time passes; the timer fires until nothing is due, and never for nothing."""
        self.now_ms += minutes * 60_000
        while (due := store.deadline(self.stream.state)) is not None and due[0] <= self.now_ms:
            closed = dict(self.stream.state.closed)
            events = self.send(due[1])
            assert events
            for event in events:
                for gone in getattr(event, "orders", ()):
                    assert gone not in self.orders
                    assert closed.get(gone, self.now_ms) + RECALL_MS <= self.now_ms
        for name, hold in self.stream.state.holds.items():
            assert hold.attempt is not None or hold.deadline_ms > self.now_ms, f"{name} is held for ever"

    @invariant()
    def stock_is_conserved(self):
        """On hand is available + held + pinned, and each piece is where its order's stage says."""
        held, pinned = {}, {}
        for name, pieces in self.pieces.items():
            if name in self.orders and name not in self.sold:
                payment = self.orders[name].payment
                status = payment.status if payment is not None else None
                side = pinned if status in (*OPEN, PAID) else held
                for product, quantity in pieces.values():
                    side[product] = side.get(product, 0) + quantity
        for name, product in self.stream.state.products.items():
            assert product.stock == self.stock[name], name
            if product.stock is not None:
                assert (product.held, product.pinned) == (held.get(name, 0), pinned.get(name, 0)), name
                assert min(product.stock, product.held, product.pinned) >= 0

    @invariant()
    def every_hold_is_an_unpaid_order_or_waits_for_its_confirmation(self):
        state = self.stream.state
        for name, hold in state.holds.items():
            assert state.orders[name].status in UNPAID or hold.attempt is not None
            assert hold.deadline_ms == self.deadlines[name], "a deadline never moves"
        assert all(name in state.holds for name, order in state.orders.items() if order.status in UNPAID)

    @invariant()
    def what_is_paid_was_charged(self):
        """At most one payment of an order is paid, with its whole amount, and only then it is placed."""
        state = self.stream.state
        paid = {}
        for payment in state.payments.values():
            if payment.status == PAID and payment.attempt is not None:
                assert self.charged[payment.payment] == payment.amount
                assert payment.order not in paid, "paid twice"
                paid[payment.order] = payment.amount
        for name, order in state.orders.items():
            assert order.paid == paid.get(name, 0)
            if name in self.deadlines and order.status not in (*UNPAID, "EXPIRED", "CANCELLED", "REJECTED"):
                assert name in paid, "placed without money"
            tries = [pay for pay in state.payments.values() if pay.order == name and pay.status in OPEN]
            assert len(tries) <= 1
        placed = [event.order for event in self.stream.events if isinstance(event, OrderPlaced)]
        assert len(placed) == len(set(placed))
