"""Coupons under any sequence of commands, clocks and dying orders, against a model that knows no events."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain import store
from engine.domain.coupon import Discount
from engine.domain.order import UNPAID
from engine.domain.store.coupons import RETIRE_MS, CouponIssued, CreateCoupon, IssueCoupon
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.store.tables import NoteTable
from engine.domain.times import to_ms, to_text
from engine.errors import Rejected
from tests.harness_domain import NOW_MS, Stream, check_replay

NAMES = ("a", "b", "c")
MINUTE_MS = 60_000
names = st.sampled_from(NAMES)
holders = st.sampled_from(["user:u1", "user:u2", "user:u3", "table:s1/1", "table:s1/2"])
discounts = st.sampled_from([1000, 9000, Discount(percent=50), Discount(percent=10, cap=100, minimum=4000)])


class Coupons(RuleBasedStateMachine):
    """A shop in which guests pay first, but never do: so orders die all the time."""

    def __init__(self):
        super().__init__()
        self.stream = Stream("store:s1")
        self.now_ms = NOW_MS
        self.made = {}
        self.given = {}
        self.used = {}
        self.sittings = {"1": 1, "2": 1}

    @initialize()
    def make_shop(self):
        self.send(ConfigureStore("온다 분식", "prepay", 60))
        self.send(PutProduct("ramen", "라면", 3000))
        self.send(OpenStore())
        for table in self.sittings:
            self.send(NoteTable(table, 1, True))

    def send(self, command, by="owner:kim"):
        """Return the events, or the code of the refusal."""
        try:
            return self.stream.do(command, by, self.now_ms)
        except Rejected as refusal:
            return refusal.code

    def holder(self, by):
        kind, _, name = by.partition(":")
        table = name.partition("/")[2]
        return name if kind == "user" else f"{table}/{self.sittings[table]}"

    @rule(
        name=names,
        discount=discounts,
        stock=st.integers(1, 3),
        start=st.none() | st.integers(-3, 3),
        end=st.none() | st.integers(-1, 4),
    )
    def create(self, name, discount, stock, start, end):
        window = [None if one is None else to_text(NOW_MS + one * MINUTE_MS) for one in (start, end)]
        done = self.send(CreateCoupon(name, name, discount, stock, *window))
        if name in self.made:
            assert done == "coupon_exists" or done == [], done
        elif not isinstance(done, str):
            self.made[name] = (stock, *(None if one is None else to_ms(one) for one in window))
            self.given[name] = {}

    @rule(name=names, by=holders)
    def issue(self, name, by):
        done = self.send(IssueCoupon(name), by)
        if isinstance(done, str):
            assert done != "coupon_exhausted" or len(self.given[name]) == self.made[name][0]
            return
        stock, start, end = self.made[name]
        assert start is None or self.now_ms >= start, "given out before its time"
        assert end is None or self.now_ms < end, "given out after its time"
        assert self.holder(by) not in self.given[name], "given twice"
        assert isinstance(done[0], CouponIssued)
        assert done[0].sequence == len(self.given[name]) + 1
        self.given[name][self.holder(by)] = done[0].sequence
        assert done[0].remaining == stock - len(self.given[name])

    @rule(name=names, by=holders, quantity=st.integers(1, 2))
    def order_with_any(self, name, by, quantity):
        self.order(name, by, quantity)

    @precondition(lambda self: any(self.given.values()))
    @rule(data=st.data(), quantity=st.integers(1, 2))
    def order_with_own(self, data, quantity):
        pairs = [(name, holder) for name, given in self.given.items() for holder in given]
        name, holder = data.draw(st.sampled_from(pairs))
        self.order(name, f"table:s1/{holder[0]}" if "/" in holder else f"user:{holder}", quantity)

    def order(self, name, by, quantity):
        done = self.send(CreateOrder((Wish("ramen", quantity),), coupon=name), by)
        if isinstance(done, str):
            return
        holder, end = self.holder(by), self.made[name][2]
        order = self.stream.state.orders[done[0].order]
        assert holder in self.given[name], "used by one who never had it"
        assert (name, holder) not in self.used.values(), "used twice"
        assert end is None or self.now_ms < end, "used after its time"
        assert order.total == 3000 * quantity - order.discount >= 0
        self.used[order.order] = name, holder

    @rule(seconds=st.integers(0, 200))
    def wait(self, seconds):
        self.pass_time(seconds * 1000)

    @rule()
    def a_day_passes(self):
        self.pass_time(RETIRE_MS)

    def pass_time(self, ms):
        """Time passes; what is due happens."""
        self.now_ms += ms
        while (due := store.deadline(self.stream.state)) is not None and due[0] <= self.now_ms:
            assert self.send(due[1]), "it was due and did nothing"
        for name, (_, _, end) in list(self.made.items()):
            if end is not None and end + RETIRE_MS <= self.now_ms:
                del self.made[name], self.given[name]
        for order, (name, _) in list(self.used.items()):
            known = self.stream.state.orders.get(order)
            unpaid = known is not None and known.status in UNPAID
            if name not in self.made or not (unpaid or known is None or known.status == "PLACED"):
                del self.used[order]

    @rule(table=st.sampled_from(["1", "2"]))
    def next_party(self, table):
        self.send(NoteTable(table, self.sittings[table], False))
        self.sittings[table] += 1
        self.send(NoteTable(table, self.sittings[table], True))

    @rule(at=st.integers(0, 30))
    def restart(self, at):
        """What comes back from disk gives out no more than what is left."""
        check_replay(self.stream, min(at, len(self.stream.events)))

    @invariant()
    def the_books_balance(self):
        state = self.stream.state
        assert set(state.coupons) == set(self.made) == set(state.issues)
        for name, coupon in state.coupons.items():
            given = self.given[name]
            assert coupon.remaining + coupon.issued == coupon.stock == self.made[name][0]
            assert coupon.issued == len(given) <= coupon.stock
            assert state.issues[name].sequences == given
            assert sorted(given.values()) == list(range(1, len(given) + 1))
            assert coupon.redeemed == sum(used == name for used, _ in self.used.values())


TestCoupons = Coupons.TestCase
TestCoupons.settings = settings(max_examples=80, stateful_step_count=40)
