"""The end-of-day report adds up to the won, day by day, method by method, whatever the day was like."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import open_node
from engine.domain.order import Order
from engine.domain.payment import Payment, Refund
from engine.domain.store.cancelling import CancelOrder
from engine.domain.store.closing import OrdersArchived
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.domain.tax import Split, taken, vat_in
from engine.domain.times import to_ms, to_text
from engine.errors import ConfigError
from engine.history.database import Database, Place, database_url
from engine.history.report import Money, Report, day_bounds, day_of, make_report
from engine.mailbox import Committed
from tests.engine.shop import OWNER, STORE, ManualClock, make_shop, order
from tests.history.evening import config, settled

DAYS = ("2026-11-19", "2026-11-20", "2026-11-21")
START_MS = to_ms(day_bounds(DAYS[0], "Asia/Seoul", "05:00")[0])
DAY_MS = 86_400_000


class Book:
    """A history that is written by hand: shops whose payments and orders are what a test says."""

    def __init__(self, folder: Path) -> None:
        url = database_url(f"sqlite:///{folder}/book.db", "")
        assert url is not None
        self.database = Database(url)
        self.place = self.database.adopt(self.database.open(), "e1", None, "")
        self.stores = (f"s{number}" for number in itertools.count(1))

    def write(self, store: str, **patch: dict[str, Any]) -> None:
        position = self.place.position + 1
        envelope = {
            "id": f"id{position}",
            "type": "OrdersArchived",
            "time": to_text(START_MS),
            "patch": patch,
        }
        body = msgspec.json.encode(envelope | {"by": "x", "cause": "y"})
        record = Committed(position, f"store:{store}", position, f"id{position}", OrdersArchived(()), body)
        after = Place(position, "e1", f"id{position}")
        self.database.write((record,), self.place, after)
        self.place = after

    def report(self, store: str, day: str) -> Report:
        with self.database.connect() as connection:
            return make_report(connection, store, day, "Asia/Seoul", "05:00")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    book = Book(tmp_path_factory.mktemp("book"))
    yield book
    book.database.close()


@st.composite
def payments(draw: st.DrawFn, number: int) -> Payment:
    """A payment at any time of three days, in any state, with some of it refunded, in parts, at any time."""
    whole = Split(draw(st.integers(0, 50_000)), draw(st.integers(0, 50_000)))
    time = st.integers(0, 3 * DAY_MS - 1).map(lambda ms: to_text(START_MS + ms))
    status = draw(
        st.sampled_from(["PAID", "PAID", "PAID", "PENDING", "DECLINED", "UNKNOWN", "MANUAL_REVIEW"])
    )
    refunds: list[Refund] = []
    left = whole
    while status == "PAID" and left.amount and len(refunds) < 3 and draw(st.booleans()):
        part = taken(left, draw(st.integers(1, left.amount)))
        rest = Split(left.taxable - part.taxable, left.tax_free - part.tax_free)
        vat = vat_in(left.taxable) - vat_in(rest.taxable)
        done = draw(st.sampled_from(["DONE", "DONE", "REQUESTED", "FAILED", "MANUAL_REVIEW"]))
        refunds.append(
            Refund(
                f"r{number}-{len(refunds)}", part.amount, *part, vat, "cold", "owner:kim", done, draw(time),
                void=draw(st.sampled_from([False, False, True])),
                settled_at=draw(time) if done in ("DONE", "FAILED") else None,
            )
        )  # fmt: skip
        left = rest
    provider, method = draw(st.sampled_from([("till", "cash"), ("till", "card"), ("toss", "toss")]))
    return Payment(
        f"p{number}", status, whole.amount, *whole, vat_in(whole.taxable), method, provider, "user:u1", "x",
        draw(time), paid_at=draw(time) if status == "PAID" else None, refunds=tuple(refunds),
    )  # fmt: skip


@given(data=st.data(), count=st.integers(0, 8))
def test_every_won_is_on_one_day_and_under_one_method(book: Book, data: st.DataObject, count: int) -> None:
    """Against a model that only adds; and the days together are all that was ever paid and given back."""
    store = next(book.stores)
    made = [data.draw(payments(number)) for number in range(count)]
    for payment in made:
        book.write(store, payments={payment.payment: payment})
    reports = [book.report(store, day) for day in DAYS]
    for number, report in enumerate(reports):
        low, high = (to_text(START_MS + (number + add) * DAY_MS) for add in (0, 1))
        assert (report.start, report.end) == (low, high)
        paid = [p for p in made if p.paid_at is not None and low <= p.paid_at < high]
        back = [
            (p, r) for p in made for r in p.refunds
            if r.status == "DONE" and r.settled_at is not None and low <= r.settled_at < high
        ]  # fmt: skip
        kept = [(p, r) for p, r in back if not r.void]
        assert report.gross == _money(paid)
        assert report.refunds == _money([r for _, r in kept])
        assert report.net.amount == report.gross.amount - report.refunds.amount
        for money in (report.gross, report.refunds, report.net):
            assert money.amount == money.taxable + money.tax_free
        assert sum(method.net for method in report.methods) == report.net.amount
        gross, refunded = Counter[str](), Counter[str]()
        for p in paid:
            gross[p.method] += p.amount
        for p, r in kept:
            refunded[p.method] += r.amount
        assert {m.method: m.gross for m in report.methods if m.payments} == dict(gross)
        assert {m.method: m.refunded for m in report.methods if m.refunds} == dict(refunded)
        assert {given.refund for given in report.given_back} == {r.refund for _, r in back}
    assert sum(report.gross.amount for report in reports) == sum(p.amount for p in made if p.status == "PAID")
    last = {found.id for found in reports[-1].unsettled}
    assert last == {p.payment for p in made if p.status in ("UNKNOWN", "MANUAL_REVIEW")} | {
        r.refund for p in made for r in p.refunds if r.status in ("REQUESTED", "MANUAL_REVIEW")
    }


def _money(parts: list[Any]) -> Money:
    sums = (sum(getattr(part, name) for part in parts) for name in ("amount", "taxable", "tax_free", "vat"))
    return Money(len(parts), *sums)


def test_orders_and_discounts_are_counted_on_their_day(book: Book) -> None:
    """Placed on the day they were placed, ended on the day they ended; a dead order gives no discount."""
    store = next(book.stores)
    noon, later = to_text(START_MS + DAY_MS // 2), to_text(START_MS + DAY_MS + 1)
    for name, status, discount, coupon, placed_at, closed_at in (
        ("a", "SERVED", 500, "ten", noon, noon),
        ("b", "SERVED", 700, "ten", noon, later),
        ("c", "CANCELLED", 900, "ten", noon, later),
        ("d", "EXPIRED", 0, None, None, noon),
        ("e", "REJECTED", 0, None, noon, noon),
        ("f", "SERVED", 100, None, noon, noon),
    ):
        made = Order(
            name, 1, None, None, status, (), 5000, "x", placed_at, closed_at=closed_at,
            discount=discount, coupon=coupon, paid=5000,
        )  # fmt: skip
        book.write(store, orders={name: made})
    first, second = book.report(store, DAYS[0]), book.report(store, DAYS[1])
    assert first.orders == {"placed": 5, "cancelled": 0, "expired": 1, "rejected": 1}
    assert second.orders == {"placed": 0, "cancelled": 1, "expired": 0, "rejected": 0}
    assert {(d.coupon, d.orders, d.amount) for d in first.discounts} == {("ten", 2, 1200), (None, 1, 100)}


async def test_what_is_open_is_told_as_it_was_when_the_day_ended(tmp_path: Path) -> None:
    """What happened since changes nothing in it."""
    clock = ManualClock(START_MS + DAY_MS // 2)
    async with open_node(config(str(tmp_path), timer_tick_s=1.0), clock=clock) as node:
        await make_shop(node)
        for table in ("1", "2"):
            await node.ask(f"table:s1/{table}", OpenTable(guests=2), by=OWNER)
        await settled(node)
        for name, table in (("walked", None), ("eats", "1"), ("waits", "1"), ("gone", None), ("left", "2")):
            await node.ask(STORE, order(order=name, table=table), by=OWNER)
        for name in ("walked", "eats", "left"):
            await node.ask(STORE, MarkReady(order=name), by=OWNER)
            await node.ask(STORE, MarkServed(order=name), by=OWNER)
        await node.ask(STORE, CancelOrder(order="gone", reason="none"), by=OWNER)
        await settled(node)
        await node.ask("table:s1/2", CloseTable(), by=OWNER)
        await settled(node)
        before = await _report(node)
        clock.ms += DAY_MS
        await node.ask(STORE, MarkReady(order="waits"), by=OWNER)
        await node.ask(STORE, MarkServed(order="waits"), by=OWNER)
        await settled(node)
        await node.ask("table:s1/1", CloseTable(), by=OWNER)
        await settled(node)
        after = await _report(node)
    for report in (before, after):
        assert [(due.order, due.status, due.due) for due in report.open_orders] == [
            ("eats", "SERVED", 5000),
            ("waits", "PLACED", 5000),
        ]
        assert [(table.table, table.guests) for table in report.open_tables] == [("1", 2)]
        assert [due.order for due in report.left_unpaid] == ["walked", "left"]
        assert report.orders["placed"] == 5
        assert report.orders["cancelled"] == 1


async def _report(node: Any) -> Report:
    def ask(database: Database) -> Report:
        with database.connect() as connection:
            return make_report(connection, "s1", DAYS[0], "Asia/Seoul", "05:00")

    report: Report = await node.history.query(ask)
    return report


def test_a_day_is_where_the_shop_is() -> None:
    """By its time zone and the hour at which its day begins, also where clocks are put back."""
    assert day_bounds("2026-11-20", "Asia/Seoul", "00:00") == (
        "2026-11-19T15:00:00.000Z",
        "2026-11-20T15:00:00.000Z",
    )
    assert day_bounds("2026-11-20", "Asia/Seoul", "05:00")[0] == "2026-11-19T20:00:00.000Z"
    low, high = day_bounds("2026-10-25", "Europe/Berlin", "00:00")
    assert to_ms(high) - to_ms(low) == 25 * 3_600_000
    for moment, day in (
        ("2026-11-20T19:59:59.999Z", "2026-11-20"),
        ("2026-11-20T20:00:00.000Z", "2026-11-21"),
    ):
        assert day_of(to_ms(moment), "Asia/Seoul", "05:00") == day
    for wrong in ("", "today", "2026-13-01", "20261120", "2026-W47-5", "9999-12-31"):
        with pytest.raises(ConfigError, match="2026-11-20"):
            day_bounds(wrong, "Asia/Seoul", "00:00")
