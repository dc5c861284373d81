"""What the pages work out about money by themselves: the same as the shop does, to the won."""

from __future__ import annotations

import random

import pytest

from engine.domain.coupon import Discount
from engine.domain.order import Order, OrderLine, priced
from engine.domain.store.closing import due
from engine.domain.store.settling import net_prices
from engine.domain.tax import vat_in

pytestmark = pytest.mark.browser


def run(page, module, expression, value):
    return page.evaluate(
        f"async (value) => {{ const m = await import('/static/{module}'); return {expression}; }}", value
    )


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({"status": "CREATED"}, "due"),
        ({"status": "PENDING_PAYMENT", "payment": {"status": "PENDING"}}, "due"),
        ({"status": "PENDING_PAYMENT", "payment": {"status": "REQUESTED"}}, "checking"),
        ({"status": "PENDING_PAYMENT", "payment": {"status": "UNKNOWN"}}, "checking"),
        ({"status": "PENDING_PAYMENT", "payment": {"status": "MANUAL_REVIEW"}}, "review"),
        ({"status": "PENDING_PAYMENT", "payment": {"status": "DECLINED"}}, "declined"),
        ({"status": "EXPIRED", "payment": {"status": "PENDING"}}, "expired"),
        ({"status": "PLACED"}, "unpaid"),
        ({"status": "PLACED", "total": 0}, "none"),
        ({"status": "CANCELLED"}, "none"),
        ({"status": "SERVED", "paid": 400}, "part-paid"),
        ({"status": "SERVED", "paid": 1000}, "paid"),
        ({"status": "SERVED", "paid": 1000, "refunded": 1}, "part-refunded"),
        ({"status": "CANCELLED", "paid": 1000, "refunded": 1000}, "refunded"),
    ],
)
def test_how_an_order_stands(page, order, expected):
    """While money may be moving nobody is told to pay; afterwards what was paid and given back counts."""
    given = {"total": 1000} | order
    assert run(page, "ui/money.js", "m.standing(value)", given) == expected
    words = run(page, "ui/money.js", "m.mark(value)?.textContent ?? null", given)
    assert (words is None) is (expected == "none")


def test_in_review_the_card_says_to_ask_the_staff(page):
    """No button, no countdown."""
    order = {"order": "o1", "status": "PENDING_PAYMENT", "total": 1000, "lines": []}
    order |= {"payment": {"status": "MANUAL_REVIEW"}, "hold_expires_at": "2026-11-20T18:00:00Z"}
    shown = run(
        page,
        "pay/card.js",
        "((card) => [card.textContent, card.querySelectorAll('button, .countdown').length])(m.payCard({"
        "client: {now: () => 0, pending: []}, order: value, store: 's1', entity: 'o1',"
        "flow: {isStarting: () => false}, mayPay: true}))",
        order,
    )
    assert "Please ask the staff." in shown[0]
    assert shown[1] == 0


def an_order(dice: random.Random) -> Order:
    lines = tuple(
        OrderLine(
            f"l{n}",
            "p",
            "Cake",
            dice.randint(1, 4),
            dice.choice([0, 1, 700, 3333, 12_500]),
            (),
            "",
            "",
            dice.choice(["WAITING", "WAITING", "READY", "CANCELLED"]),
            dice.random() < 0.3,
        )
        for n in range(dice.randint(1, 6))
    )
    left = priced(lines, dice.choice([0, 0, 1000, 777, 999_999]))
    paid = dice.choice([0, left.amount, left.amount // 2])
    refunded = dice.choice([0, 0, paid, paid // 3])
    status = dice.choice(["PLACED", "SERVED", "CANCELLED"])
    return Order(
        *("o1", 1, None, None, status, lines, left.amount, "by"),
        tax_free=left.tax_free,
        vat=vat_in(left.taxable),
        paid=paid,
        refunded=refunded,
        owed=dice.choice([0, refunded]),
    )


def test_bills_cost_what_the_shop_says(page):
    """Each line after the discount, and what is due: 300 orders, worked out on both sides."""
    dice = random.Random(7)
    orders = [an_order(dice) for _ in range(300)]
    given = [
        {name: getattr(order, name) for name in ("status", "total", "tax_free", "paid", "refunded", "owed")}
        | {"lines": [{n: getattr(line, n) for n in line.__struct_fields__} for line in order.lines]}
        for order in orders
    ]
    found = run(
        page, "ui/money.js", "value.map((o) => [Object.fromEntries(m.netPrices(o)), m.due(o)])", given
    )
    for order, (prices, open_) in zip(orders, found, strict=True):
        assert prices == net_prices(order), order
        assert open_ == due(order), order


def test_coupons_take_off_what_the_shop_says(page):
    """Amounts, percents with a cap, never more than all of it."""
    dice = random.Random(3)
    cases = []
    for _ in range(200):
        amount, percent = dice.choice([(0, dice.randint(1, 100)), (dice.randint(1, 20_000), 0)])
        cap = dice.choice([None, 500, 3000]) if percent else None
        cases.append(({"amount": amount, "percent": percent, "cap": cap}, dice.randint(0, 40_000)))
    found = run(page, "table/coupons.js", "value.map(([d, whole]) => m.takesOff(d, whole))", cases)
    assert found == [Discount(**fields).of(whole) for fields, whole in cases]


@pytest.mark.parametrize(
    ("method", "query", "ref"),
    [
        ("sandbox", "result=success&ref=r1", "r1"),
        ("sandbox", "result=cancel", ""),
        ("toss", "paymentKey=k1&orderId=o&amount=1", "k1"),
        ("toss", "code=PAY_PROCESS_CANCELED&message=x", ""),
        ("naverpay", "resultCode=Success&paymentId=n1", "n1"),
        ("naverpay", "resultCode=UserCancel&paymentId=n1", ""),
        ("kakaopay", "pg_token=t1", "t1"),
        ("kakaopay", "ref=r1", ""),
    ],
)
def test_what_each_gateway_brings_back(page, method, query, ref):
    """Only a success has a reference to charge with."""
    found = run(
        page, "pay/returned.js", "m.providerRef(value[0], new URLSearchParams(value[1])).ref", [method, query]
    )
    assert found == ref


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (600_000, "10:00"),
        (599_001, "10:00"),
        (599_000, "09:59"),
        (1, "00:01"),
        (-5, "00:00"),
        (3_600_000, "1:00:00"),
    ],
)
def test_countdowns(page, ms, text):
    """Whole seconds, rounded up: 00:00 means that it is over."""
    assert run(page, "ui/money.js", "m.minutesLeft(value)", ms) == text
