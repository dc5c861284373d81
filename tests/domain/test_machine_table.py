"""A table and a user under any sequence of commands: a cart is the fold of what was accepted."""

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from engine.domain import user
from engine.domain.order import Order, OrderChange
from engine.domain.table.calls import AnswerCall, CallStaff
from engine.domain.table.cart import AddToCart, ChangeQuantity, RemoveFromCart, ReturnCart, SubmitCart
from engine.domain.table.copies import RecordChange, RecordOrder, ShowMenu
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.errors import Rejected
from tests.domain.shop_given import EXTRA, SIGN, SIZE, item, line
from tests.harness_domain import NOW, Stream, check_replay

CODES = {
    "table_closed",
    "orders_open",
    "unknown_product",
    "sold_out",
    "unknown_option",
    "option_required",
    "unknown_line",
    "cart_empty",
    "store_closed",
    "still_sending",
    "unknown_call",
}
ORDER = Order("o1", 1, "3", None, "PLACED", (line("a"), line("b")), 12000, "staff:lee", NOW)
names = st.integers(1, 6).map(lambda number: f"t3-{number}")
orders = st.sampled_from(["3-1", "3-2", "o1", "o2"])
changes = st.builds(
    lambda order, status, line: (
        OrderChange(order, NOW, line=line, line_status=status)
        if line
        else OrderChange(order, NOW, status, "because")
    ),
    orders,
    st.sampled_from(["ACCEPTED", "COOKING", "READY", "SERVED", "REJECTED", "CANCELLED"]),
    st.sampled_from([None, None, "a", "no such line"]),
)
items = st.builds(
    item,
    st.sampled_from(["ramen", "kimbap", "tteok"]),
    st.booleans(),
    price=st.integers(1, 3),
    options=st.sampled_from([(), (SIZE, EXTRA)]),
)


class Table(RuleBasedStateMachine):
    """Sends commands; keeps a model of the cart and what is on its way."""

    def __init__(self):
        super().__init__()
        self.stream = Stream("table:s1/3")
        self.cart = {}
        self.sending = {}
        self.lines = []
        self.codes = set()

    @initialize()
    def sit_down(self):
        self.send(OpenTable(2))
        self.send(ShowMenu((item(), item("kimbap"), item("tteok", options=(SIZE, EXTRA))), SIGN))

    def send(self, command):
        """Return the result and events, or None when refused."""
        try:
            events = self.stream.do(command, "table:s1/3")
        except Rejected as refusal:
            self.codes.add(refusal.code)
            return None
        return self.stream.domain.answer(self.stream.state, command, events), events

    @rule(
        product=st.sampled_from(["ramen", "kimbap", "tteok", "pizza"]),
        quantity=st.integers(1, 3),
        options=st.sampled_from([(), ("small",), ("large", "egg")]),
    )
    def add(self, product, quantity, options):
        if done := self.send(AddToCart(product, quantity, options)):
            name = done[0]["line"]
            self.cart[name] = (product, quantity)
            self.lines.append(name)

    @rule(name=names, quantity=st.integers(1, 3))
    def change_quantity(self, name, quantity):
        done = self.send(ChangeQuantity(name, quantity))
        assert (done is not None) == (name in self.cart)
        if done:
            self.cart[name] = (self.cart[name][0], quantity)

    @rule(name=names)
    def remove(self, name):
        done = self.send(RemoveFromCart(name))
        assert (done is not None) == (name in self.cart)
        self.cart.pop(name, None)

    @rule()
    def submit(self):
        if done := self.send(SubmitCart()):
            self.sending[done[0]["order"]] = self.cart
            self.cart = {}

    @rule(order=orders)
    def refuse(self, order):
        assert self.send(ReturnCart(order, "sold_out", "none left")) is not None
        self.cart |= self.sending.pop(order, {})

    @rule(order=orders, sitting=st.integers(0, 3))
    def record(self, order, sitting):
        _, events = self.send(RecordOrder(replace(ORDER, order=order), sitting))
        if events:
            self.sending.pop(order, None)

    @rule(change=changes)
    def record_change(self, change):
        assert self.send(RecordChange(change)) is not None

    @rule(shown=st.lists(items, max_size=3), open=st.sampled_from([True, True, False]))
    def show(self, shown, open):
        assert self.send(ShowMenu(tuple(shown), replace(SIGN, open=open))) is not None

    @rule(
        command=st.sampled_from([CallStaff("water"), CallStaff("bill"), AnswerCall("c1"), AnswerCall("c2")])
    )
    def bell(self, command):
        self.send(command)

    @rule(reopen=st.booleans())
    def leave(self, reopen):
        if done := self.send(CloseTable()):
            assert not self.sending or not done[1]
            if done[1]:
                self.cart = {}
                state = self.stream.state
                assert [state.cart, state.sending, state.orders, state.calls] == [{}] * 4
        if reopen:
            self.send(OpenTable())

    @invariant()
    def the_cart_is_the_fold_of_what_was_accepted(self):
        state = self.stream.state
        seen = {name: (line.product, line.quantity) for name, line in state.cart.items()}
        assert seen == self.cart
        assert {
            order: {line.line: (line.product, line.quantity) for line in submission.lines}
            for order, submission in state.sending.items()
        } == self.sending

    @invariant()
    def ids_are_never_used_again(self):
        assert len(self.lines) == len(set(self.lines))
        assert all(name == line.line for name, line in self.stream.state.cart.items())

    @invariant()
    def one_bell_per_kind(self):
        kinds = [call.kind for call in self.stream.state.calls.values()]
        assert len(kinds) == len(set(kinds))

    def teardown(self):
        assert self.codes <= CODES
        check_replay(self.stream, len(self.stream.events) // 2)


class User(RuleBasedStateMachine):
    """Notices and orders, of which only the last are kept."""

    def __init__(self):
        super().__init__()
        self.stream = Stream("user:u1")
        self.told = 0
        self.ids = itertools.count(1)

    @rule(title=st.text(min_size=1, max_size=5), times=st.integers(1, 30))
    def notify(self, title, times):
        for _ in range(times):
            self.stream.do(user.notices.Notify(title, "안녕", "/demo"), "service:pos")
        self.told += times

    @rule(store=st.sampled_from(["s1", "s2"]), times=st.integers(1, 20))
    def record(self, store, times):
        for _ in range(times):
            self.stream.do(
                user.orders.RecordOrder(store, replace(ORDER, order=f"o{next(self.ids)}")), f"store:{store}"
            )

    @rule(store=st.sampled_from(["s1", "s2"]), change=changes)
    def record_change(self, store, change):
        self.stream.do(user.orders.RecordChange(store, change), f"store:{store}")

    @invariant()
    def only_the_last_are_kept(self):
        state = self.stream.state
        kept = [int(name[1:]) for name in state.notices]
        assert kept == list(range(max(1, self.told - 99), self.told + 1))
        assert len(state.orders) <= 50

    def teardown(self):
        check_replay(self.stream, len(self.stream.events) // 2)


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40)
TestUser = User.TestCase
TestUser.settings = settings(max_examples=15, stateful_step_count=12)
