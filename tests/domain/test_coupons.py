"""Coupons: one for each holder while there are any, for one order, and back when that order dies."""

import json

import msgspec
import pytest

from engine.domain import store
from engine.domain.coupon import Discount, Offer
from engine.domain.order import Order
from engine.domain.store import announce, coupons
from engine.domain.store.announce import OffersAnnounced
from engine.domain.store.coupons import (
    RETIRE_MS,
    CouponCreated,
    CouponIssued,
    CouponRedeemed,
    CouponReturned,
    CouponsRetired,
    CreateCoupon,
    IssueCoupon,
    RetireCoupons,
)
from engine.domain.store.orders import CreateOrder, OrderCreated
from engine.domain.store.tables import NoteTable, TableNoted
from engine.domain.tax import Split
from engine.domain.times import to_text
from engine.errors import Rejected
from tests.domain.shop_given import CONFIGURED, MENU, OPEN, TABLE_3, create, wish
from tests.harness_domain import NOW, NOW_MS, Stream, check

HOUR_MS = 3_600_000
SOON, LATER = to_text(NOW_MS + HOUR_MS), to_text(NOW_MS + 2 * HOUR_MS)
PAST = to_text(NOW_MS - HOUR_MS)
OFF = Discount(1000)
CREATED = CouponCreated("welcome", "첫 주문 할인", OFF, 10, NOW)
CREATE = CreateCoupon("welcome", "첫 주문 할인", 1000, 10)
WINDOW = CouponCreated("lunch", "점심 할인", OFF, 10, NOW, SOON, LATER)


def issued(holder="u1", sequence=1, remaining=9, coupon="welcome", **fields):
    """A coupon in the hands of a user."""
    values = {"at": NOW, "name": "첫 주문 할인", "discount": OFF, "user": holder}
    return CouponIssued(coupon, holder, sequence, remaining, **(values | fields))


HELD = [*MENU, CREATED, issued()]
AT_TABLE = issued("3/4", user=None, table="3", sitting=4)


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        (OPEN, CREATE, [CREATED]),
        ([*OPEN, CREATED], CREATE, []),
        ([*OPEN, CREATED], CreateCoupon("welcome", "첫 주문 할인", Discount(1000), 10), []),
        (
            OPEN,
            CreateCoupon("lunch", "점심 할인", 1000, 10, SOON.replace(".000", ""), LATER),
            [WINDOW],
        ),
        (
            [*OPEN, TABLE_3],
            CREATE,
            [CREATED, OffersAnnounced(("3",), (Offer("welcome", "첫 주문 할인", OFF, 10, None, None),))],
        ),
    ],
)
def test_creating(given, when, then):
    """It is offered once; the same again is nothing, times are kept with their ms, tables hear of it."""
    check(store, given, when, then)


@pytest.mark.parametrize(
    ("when", "code"),
    [
        (CreateCoupon("welcome", "다른 이름", 1000, 10), "coupon_exists"),
        (CreateCoupon("welcome", "첫 주문 할인", 1000, 11), "coupon_exists"),
        (CreateCoupon("a", "a", Discount(), 1), "discount_invalid"),
        (CreateCoupon("a", "a", Discount(1000, 10), 1), "discount_invalid"),
        (CreateCoupon("a", "a", Discount(1000, cap=10), 1), "discount_invalid"),
        (CreateCoupon("a", "a", Discount(percent=10, cap=0), 1), "discount_invalid"),
        (CreateCoupon("a", "a", 1, 1, LATER, SOON), "expires_before_start"),
        (CreateCoupon("a", "a", 1, 1, SOON, SOON), "expires_before_start"),
        (CreateCoupon("a", "a", 1, 1, None, PAST), "expires_in_past"),
        (CreateCoupon("a", "a", 1, 1, "2027-13-01T00:00:00Z"), "time_invalid"),
        (CreateCoupon("a", "a", 1, 1, None, "2027-02-30T00:00:00Z"), "time_invalid"),
        (CreateCoupon("a", "a", 1, 1, "0001-01-01T00:00:00Z"), "time_invalid"),
        (CreateCoupon("a", "a", 1, 1, "1969-12-31T23:59:59.999Z"), "time_invalid"),
    ],
)
def test_coupons_that_cannot_be(when, code):
    """Each says why."""
    check(store, [*OPEN, CREATED], when, rejected=code)


def test_a_shop_has_so_many_coupons(monkeypatch):
    """Their number and their pieces together are bounded, because the shop keeps them in memory."""
    monkeypatch.setattr(coupons, "COUPONS_MAX", 1)
    check(store, [*OPEN, CREATED], CreateCoupon("b", "b", 1, 1), rejected="too_many_coupons")
    monkeypatch.setattr(coupons, "COUPONS_MAX", 2)
    monkeypatch.setattr(coupons, "STOCKS_MAX", 15)
    check(store, [*OPEN, CREATED], CreateCoupon("b", "b", 1, 6), rejected="too_many_coupons")
    check(store, [*OPEN, CREATED], CreateCoupon("b", "b", 1, 5))


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"discount": 1000, "stock": 1_000_000}, True),
        ({"discount": {"amount": 1000, "minimum": 5000}, "stock": 1}, True),
        ({"discount": {"percent": 10, "cap": 3000, "minimum": 0}, "stock": 1}, True),
        ({"discount": 1000, "stock": 1, "starts_at": "2027-01-15T08:00:00.1Z"}, True),
        ({"discount": 0, "stock": 1}, False),
        ({"discount": -1, "stock": 1}, False),
        ({"discount": "1000", "stock": 1}, False),
        ({"discount": {"percent": 101}, "stock": 1}, False),
        ({"discount": {"amount": -1}, "stock": 1}, False),
        ({"discount": {"won": 1}, "stock": 1}, False),
        ({"discount": 1, "stock": 0}, False),
        ({"discount": 1, "stock": 1_000_001}, False),
        ({"discount": 1, "stock": 1, "starts_at": "2027-01-15T08:00:00+09:00"}, False),
        ({"discount": 1, "stock": 1, "starts_at": "2027-01-15"}, False),
        ({"discount": 1, "stock": 1, "starts_at": "2027-01-15T08:00:00.1234Z"}, False),
    ],
)
def test_the_form_of_a_coupon(fields, fits):
    """On the wire a discount is won, or an amount or percent; times are UTC to the ms."""
    body = json.dumps({"coupon": "a", "name": "a"} | fields)
    if fits:
        assert msgspec.json.decode(body, type=CreateCoupon)
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(body, type=CreateCoupon)


@pytest.mark.parametrize(
    ("discount", "whole", "off"),
    [
        (Discount(1000), 5000, 1000),
        (Discount(1000), 700, 700),
        (Discount(percent=10), 15_990, 1599),
        (Discount(percent=10), 9, 0),
        (Discount(percent=50, cap=2000), 10_000, 2000),
        (Discount(percent=50, cap=2000), 3000, 1500),
        (Discount(percent=100), 5000, 5000),
        (Discount(1000), 0, 0),
    ],
)
def test_what_a_discount_takes_off(discount, whole, off):
    """Whole won, never more than the order costs; part won fall to the shop."""
    assert discount.of(whole) == off


@pytest.mark.parametrize(
    ("when", "by", "event"),
    [
        (IssueCoupon("welcome"), "user:u1", issued()),
        (IssueCoupon("welcome", "u1"), "user:u1", issued()),
        (IssueCoupon("welcome", "u1"), "staff:lee", issued()),
        (IssueCoupon("welcome", "u1"), "service:pos", issued()),
        (IssueCoupon("welcome"), "table:s1/3", AT_TABLE),
        (IssueCoupon("welcome", table="3"), "table:s1/3", AT_TABLE),
        (IssueCoupon("welcome", table="3"), "owner:kim", AT_TABLE),
    ],
)
def test_issuing(when, by, event):
    """To a user or to the party at a table, with its number and what is left."""
    stream = check(store, [*MENU, CREATED, TABLE_3], when, by=by)
    assert stream.events[-2:][0] == event or stream.events[-1] == event
    shown = stream.visible()["coupons"]["welcome"]
    assert (shown["remaining"], shown["issued"], shown["redeemed"]) == (9, 1, 0)


@pytest.mark.parametrize(
    ("when", "by", "code"),
    [
        (IssueCoupon("welcome", "u2"), "user:u1", "forbidden"),
        (IssueCoupon("welcome", table="3"), "user:u1", "forbidden"),
        (IssueCoupon("welcome", "u1"), "table:s1/3", "forbidden"),
        (IssueCoupon("welcome", table="2"), "table:s1/3", "forbidden"),
        (IssueCoupon("welcome"), "table:s2/3", "forbidden"),
        (IssueCoupon("welcome"), "staff:lee", "holder_missing"),
        (IssueCoupon("welcome", "u1", "3"), "staff:lee", "holder_missing"),
        (IssueCoupon("welcome"), "table:s1/9", "table_closed"),
        (IssueCoupon("else"), "user:u1", "unknown_coupon"),
        (IssueCoupon("lunch"), "user:u1", "coupon_not_started"),
        (IssueCoupon("one"), "user:u1", "coupon_exhausted"),
        (IssueCoupon("one"), "user:u2", "coupon_already_issued"),
    ],
)
def test_who_gets_none(when, by, code):
    """Each refusal has its code; who has one hears that, also when they are all gone."""
    one = [CouponCreated("one", "하나", OFF, 1, NOW), issued("u2", 1, 0, "one")]
    check(store, [*MENU, CREATED, WINDOW, *one, TABLE_3], when, rejected=code, by=by)


@pytest.mark.parametrize(
    ("after_ms", "code"),
    [
        (HOUR_MS - 1, "coupon_not_started"),
        (HOUR_MS, None),
        (2 * HOUR_MS - 1, None),
        (2 * HOUR_MS, "coupon_expired"),
    ],
)
def test_the_window_to_the_millisecond(after_ms, code):
    """From its start on, and until just before it expires."""
    check(store, [*MENU, WINDOW], IssueCoupon("lunch", "u1"), rejected=code, now_ms=NOW_MS + after_ms)


def test_the_next_party_gets_its_own():
    """A coupon belongs to the party, not to the table."""
    given = [*MENU, CREATED, TABLE_3, AT_TABLE]
    check(store, given, IssueCoupon("welcome"), rejected="coupon_already_issued", by="table:s1/3")
    stream = check(store, [*given, TableNoted("3", 5, True)], IssueCoupon("welcome"), by="table:s1/3")
    assert stream.answer(CREATE) == {"coupon": "welcome"}
    assert set(stream.state.issues["welcome"].sequences) == {"3/4", "3/5"}


def test_tables_hear_of_each_tenth():
    """25 pieces: told when a tenth is crossed and when there are none, not for each piece."""
    stream = Stream("store:s1")
    for event in [*MENU, TABLE_3, CouponCreated("welcome", "첫 주문 할인", OFF, 25, NOW)]:
        stream.evolve(event)
    told = []
    for number in range(25):
        for event in stream.do(IssueCoupon("welcome", f"u{number}")):
            if isinstance(event, OffersAnnounced):
                told += [offer.remaining for offer in event.offers]
    assert told == [22, 20, 17, 15, 12, 10, 7, 5, 2, 0]


def test_a_table_that_opens_hears_of_all(monkeypatch):
    """In pieces when they are many, and not of those that have expired."""
    monkeypatch.setattr(announce, "OFFERS_MAX", 2)
    many = [CouponCreated(f"c{number}", "c", OFF, 10, NOW) for number in range(5)]
    over = CouponCreated("over", "over", OFF, 10, PAST, None, to_text(NOW_MS - 1))
    stream = check(store, [*OPEN, *many, over], NoteTable("3", 4, True, 2, NOW))
    told = [event for event in stream.events if isinstance(event, OffersAnnounced)]
    assert [len(event.offers) for event in told] == [2, 2, 1]
    assert not any(offer.coupon == "over" for event in told for offer in event.offers)


def test_a_coupon_takes_off_what_it_says():
    """The order is cheaper, by tax in proportion, and says why."""
    stream = check(store, HELD, CreateOrder((wish("ramen", 2),), coupon="welcome"), by="user:u1")
    order = stream.state.orders["o1"]
    assert (order.total, order.discount, order.coupon, order.vat) == (9000, 1000, "welcome", 818)
    assert CouponRedeemed("welcome", "u1", "o1", 1000, NOW, "u1") in stream.events
    assert stream.state.coupons["welcome"].redeemed == 1


def test_a_party_uses_its_coupon():
    """Ordered by its device, or by staff for the table."""
    for by, fields in (("table:s1/3", {}), ("staff:lee", {"table": "3"})):
        stream = check(store, [*MENU, CREATED, TABLE_3, AT_TABLE], create(coupon="welcome", **fields), by=by)
        assert CouponRedeemed("welcome", "3/4", "o1", 1000, NOW, None, "3", 4) in stream.events


@pytest.mark.parametrize(
    ("given", "by", "coupon", "code"),
    [
        (HELD, "user:u1", "else", "unknown_coupon"),
        (HELD, "user:u2", "welcome", "coupon_not_issued"),
        (HELD, "staff:lee", "welcome", "coupon_not_issued"),
        (
            [*HELD, CouponRedeemed("welcome", "u1", "o7", 1000, NOW, "u1")],
            "user:u1",
            "welcome",
            "coupon_used",
        ),
        ([*HELD, TABLE_3], "table:s1/3", "welcome", "coupon_not_issued"),
        (
            [*MENU, CouponCreated("big", "b", Discount(1, minimum=5001), 1, NOW), issued(coupon="big")],
            "user:u1",
            "big",
            "coupon_minimum",
        ),
    ],
)
def test_coupons_that_cannot_be_used(given, by, coupon, code):
    """The order is refused, nothing is taken."""
    check(store, given, create(coupon=coupon), rejected=code, by=by)


def test_a_coupon_is_used_until_it_expires():
    """To the millisecond, however early it was issued."""
    given = [*MENU, WINDOW, issued(coupon="lunch", at=SOON)]
    ends_ms = NOW_MS + 2 * HOUR_MS
    check(store, given, create(coupon="lunch"), by="user:u1", now_ms=ends_ms - 1)
    check(store, given, create(coupon="lunch"), rejected="coupon_expired", by="user:u1", now_ms=ends_ms)


def test_what_a_dead_order_gives_back():
    """Once; then the holder can use it for another order, and what comes late gives nothing back."""
    stream = check(store, HELD, create(order="a", coupon="welcome"), by="user:u1")
    first = stream.state.orders["a"]
    back = coupons.returned_events(stream.state, first, context(stream))
    assert back == [CouponReturned("welcome", "u1", "a", 1000, NOW, "u1")]
    assert coupons.holder_of(stream.state, first) == "u1"
    stream.evolve(back[0])
    assert coupons.returned_events(stream.state, first, context(stream)) == []
    assert coupons.holder_of(stream.state, first) == "u1", "a guest who pays late needs it again"
    stream.do(create(order="b", coupon="welcome"), "user:u1")
    assert coupons.returned_events(stream.state, first, context(stream)) == []
    assert coupons.returned_events(stream.state, stream.state.orders["b"], context(stream))
    assert list(stream.state.issues["welcome"].holders) == ["b"], "what is known of orders does not grow"
    assert stream.state.coupons["welcome"].redeemed == 1


def test_an_order_without_a_coupon_gives_none_back():
    """Nor one whose coupon has left."""
    stream = check(store, MENU, create())
    assert coupons.returned_events(stream.state, stream.state.orders["o1"], context(stream)) == []
    gone = Order("o9", 9, None, "u1", "CANCELLED", (), 0, "user:u1", coupon="gone")
    assert coupons.returned_events(stream.state, gone, context(stream)) == []


def context(stream):
    """A decision of the shop, now."""
    return store.contract.Context(stream.name, "owner:kim", NOW_MS, NOW, lambda: "id")


def test_redeem_says_the_same_without_an_order():
    """The one question that orders ask, in all its answers."""
    stream = check(store, HELD, CREATE, [])
    assert coupons.redeem(stream.state, "welcome", "u1", Split(700, 100), NOW_MS) == 800
    with pytest.raises(Rejected, match="get the coupon first"):
        coupons.redeem(stream.state, "welcome", None, Split(700, 100), NOW_MS)


def test_expired_coupons_leave():
    """A day after; with them goes what is known of their holders, and tables show them no more."""
    stream = Stream("store:s1")
    for event in [*MENU, TABLE_3, CREATED, WINDOW, issued(coupon="lunch")]:
        stream.evolve(event)
    due_ms = NOW_MS + 2 * HOUR_MS + RETIRE_MS
    assert store.deadline(stream.state) == (due_ms, RetireCoupons())
    assert stream.do(RetireCoupons(), now_ms=due_ms - 1) == []
    events = stream.do(RetireCoupons(), now_ms=due_ms)
    assert events == [CouponsRetired(("lunch",)), OffersAnnounced(("3",), (), ("lunch",))]
    assert list(stream.state.coupons) == list(stream.state.issues) == ["welcome"]
    assert store.deadline(stream.state) is None


def test_the_soonest_coupon_is_the_deadline():
    """In whatever order they were created."""
    ends = [to_text(NOW_MS + hours * HOUR_MS) for hours in (5, 1, 3)]
    given = [CouponCreated(f"c{at}", "c", OFF, 1, NOW, None, end) for at, end in enumerate(ends)]
    stream = check(store, [*OPEN, *given], RetireCoupons(), [])
    assert store.deadline(stream.state) == (NOW_MS + HOUR_MS + RETIRE_MS, RetireCoupons())


def test_a_patch_costs_the_same_for_every_holder():
    """Who has a coupon is in no view of the shop."""
    stream = check(store, HELD, IssueCoupon("welcome", "u2"))
    assert store.touched(issued("u2", 2, 8)) == [("coupons", "welcome")]
    assert "u1" not in json.dumps(stream.visible()["coupons"])


def test_a_shop_that_pays_nothing_for_an_order_in_full():
    """An order that its coupon pays in full is placed at once, also where guests pay first."""
    prepay = msgspec.structs.replace(CONFIGURED, payment_mode="prepay")
    whole = CouponCreated("free", "공짜", Discount(percent=100), 1, NOW)
    given = [*MENU, prepay, whole, issued(coupon="free")]
    stream = check(store, given, create(coupon="free"), by="user:u1")
    created = next(event for event in stream.events if isinstance(event, OrderCreated))
    assert (created.status, created.total, created.hold_expires_at) == ("PLACED", 0, None)
