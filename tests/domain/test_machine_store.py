"""A shop under any sequence of commands: every piece of stock is somewhere, every won has its order, and what
holds for all domains holds.
"""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from engine.domain import store
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.kitchen import (
    AcceptOrder,
    MarkItemReady,
    MarkReady,
    MarkServed,
    RecallOrder,
    StartCooking,
)
from engine.domain.store.menu import AdjustStock, PutProduct, SetSoldOut
from engine.domain.store.orders import CartRefused, CreateOrder, TakeCart, Wish
from engine.domain.store.shop import CloseStore, ConfigureStore, OpenStore, PauseOrders, ResumeOrders
from engine.domain.store.tables import NoteCall, NoteTable
from tests.domain.shop_given import EXTRA, SIZE
from tests.domain.stock_model import BEFORE_COOKING, Model
from tests.harness_domain import check_replay

PRODUCTS = ("ramen", "kimbap", "tteok", "pizza")
CODES = {
    "store_closed",
    "orders_paused",
    "forbidden",
    "table_closed",
    "order_exists",
    "unknown_product",
    "unknown_order",
    "unknown_line",
    "unknown_option",
    "option_required",
    "too_many_options",
    "sold_out",
    "duplicate_line",
    "stock_negative",
    "stock_not_counted",
    "wrong_status",
    "too_late",
    "not_paid",
    "not_payable",
    "already_paid",
    "hold_expired",
    "hold_expiring",
    "payment_in_progress",
    "payment_in_review",
    "payment_replaced",
    "unknown_payment",
}
products = st.sampled_from(PRODUCTS)
tables = st.sampled_from(["1", "2"])
people = st.sampled_from(["owner:kim", "staff:lee", "table:s1/1", "user:u1", "service:pos"])
wishes = st.builds(
    Wish,
    products,
    st.integers(1, 4),
    st.sampled_from([(), ("small",), ("large", "egg")]),
    line=st.sampled_from([None, None, None, "a", "b"]),
)
orders_of_lines = st.lists(wishes, min_size=1, max_size=4).map(tuple)


class Shop(Model):
    """A shop with all that happens in it, whether guests pay first or afterwards."""

    @initialize(stock=st.integers(0, 12), mode=st.sampled_from(["prepay", "postpay"]))
    def make_shop(self, stock, mode):
        self.send(ConfigureStore("온다 분식", mode))
        self.send(OpenStore())
        self.put("ramen", None, ())
        self.put("kimbap", stock, ())
        self.put("tteok", stock, (SIZE, EXTRA))

    @rule(product=products, stock=st.none() | st.integers(0, 9), options=st.sampled_from([(), (SIZE, EXTRA)]))
    def put_product(self, product, stock, options):
        self.put(product, stock, options)

    @rule(product=products, price=st.integers(0, 9))
    def change_price(self, product, price):
        if product in self.stock:
            self.send(PutProduct(product, product, price))

    @rule(product=products, sold_out=st.booleans())
    def switch(self, product, sold_out):
        self.send(SetSoldOut(product, sold_out))

    @rule(product=products, delta=st.integers(-5, 9))
    def adjust(self, product, delta):
        if self.send(AdjustStock(product, delta, "counted")):
            self.stock[product] += delta

    @rule(command=st.sampled_from([OpenStore(), CloseStore(), PauseOrders("busy"), ResumeOrders()]))
    def sometimes_turn_the_shop(self, command):
        self.send(command)
        self.send(OpenStore())

    @rule(lines=orders_of_lines, by=people, order=st.sampled_from([None, None, "o2", "mine"]))
    def order(self, lines, by, order):
        self.send(CreateOrder(lines, order), by)

    @rule(product=st.sampled_from(["ramen", "kimbap"]), quantity=st.integers(1, 2), by=people)
    def order_what_is_mostly_there(self, product, quantity, by):
        self.send(CreateOrder((Wish(product, quantity),)), by)

    @rule(lines=orders_of_lines, table=tables, number=st.integers(1, 9))
    def cart(self, lines, table, number):
        before = len(self.stream.state.orders)
        events = self.send(TakeCart(f"{table}-{number}", table, 1, lines), f"table:s1/{table}")
        refused = isinstance(events[0], CartRefused)
        assert len(self.stream.state.orders) == before + (not refused)

    @rule(data=st.data(), by=people)
    @precondition(lambda self: self.stream.state.orders)
    def tap(self, data, by):
        order = data.draw(st.sampled_from(sorted(self.stream.state.orders)), "order")
        lines = sorted(self.seen_lines[order])
        command = data.draw(
            st.sampled_from(
                [AcceptOrder, StartCooking, MarkReady, MarkServed, RecallOrder, RejectOrder, CancelOrder]
                + [MarkItemReady, CancelLine] * 2
            ),
            "tap",
        )
        if command in (RejectOrder, CancelOrder):
            self.send(command(order, "x"), by)
        elif command in (MarkItemReady, CancelLine):
            line = data.draw(st.sampled_from(lines), "line")
            before = self.orders[order].status
            if command is MarkItemReady:
                self.send(command(order, line))
            elif self.send(command(order, line, "x")) and before in BEFORE_COOKING:
                self.give_back(order, [line])
        else:
            self.send(command(order))

    @rule(mode=st.sampled_from(["prepay", "postpay"]), seconds=st.sampled_from([60, 600]))
    def change_the_mode(self, mode, seconds):
        self.send(ConfigureStore("온다 분식", mode, seconds))

    @rule(table=tables, sitting=st.integers(1, 3), opens=st.booleans())
    def table(self, table, sitting, opens):
        self.send(NoteTable(table, sitting, opens, calls=() if opens else ("c1",)))

    @rule(table=tables, call=st.sampled_from(["c1", "c2"]), answered=st.booleans())
    def call(self, table, call, answered):
        self.send(NoteCall(table, call, "bill", "2027-01-15T08:00:00.000Z", answered))

    @rule(minutes=st.integers(0, 40))
    def wait(self, minutes):
        self.pass_time(minutes)

    @invariant()
    def lines_keep_their_ids_and_totals_add_up(self):
        for name, order in self.stream.state.orders.items():
            assert {line.line for line in order.lines} == self.seen_lines[name]
            assert len(order.lines) == len(self.seen_lines[name])
            if order.status != "CANCELLED":
                open_lines = [line for line in order.lines if line.status != "CANCELLED"]
                assert order.total == sum(line.price * line.quantity for line in open_lines)

    @invariant()
    def nothing_is_kept_for_ever(self):
        state = self.stream.state
        closed = {name for name, order in state.orders.items() if order.closed_at}
        assert set(state.closed) | set(state.staying) == closed
        assert not set(state.closed) & set(state.staying)
        waiting = {name for name, order in state.orders.items() if order.status in ("PLACED", "ACCEPTED")}
        assert set(state.taken) <= waiting
        numbers = [order.number for order in state.orders.values()]
        assert len(numbers) == len(set(numbers))

    @invariant()
    def events_touch_little(self):
        """What an event names has to do with the event, not with the size of the shop."""
        for event in self.stream.events[-3:]:
            assert len(store.touched(event)) <= 1 + len(msgspec.json.encode(event)) / 8

    def teardown(self):
        assert self.codes <= CODES
        check_replay(self.stream, len(self.stream.events) // 2)


TestShop = Shop.TestCase
TestShop.settings = settings(max_examples=60, stateful_step_count=40)
