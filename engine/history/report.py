"""The end-of-day report of one shop, out of the history.

Money counts on the day on which it moved: a payment when it was paid, a refund when it was given back. So the
gross of all days less all refunds is what the shop has, and what is refunded later changes no earlier report.
What is open is told as it was when the day ended; what a gateway has not settled yet, as it is now.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct
from sqlalchemy import Connection, and_, func, select

from engine.domain.order import DEAD
from engine.domain.payment import DONE, PAID
from engine.domain.times import to_text
from engine.errors import ConfigError
from engine.history import tables
from engine.history.carried import (
    Due,
    OpenTable,
    Unsettled,
    read_rows,
    tables_open_at,
    unpaid_at,
    unsettled_before,
)
from engine.history.places import count_records


class Money(Struct, frozen=True):
    """A sum of `count` amounts by tax: `amount` = `taxable` + `tax_free`, and `taxable` contains `vat`."""

    count: int = 0
    amount: int = 0
    taxable: int = 0
    tax_free: int = 0
    vat: int = 0

    def less(self, other: Money) -> Money:
        """Return what is left when the other is taken away; it has the first one's count."""
        return Money(
            self.count,
            self.amount - other.amount,
            self.taxable - other.taxable,
            self.tax_free - other.tax_free,
            self.vat - other.vat,
        )


class Method(Struct, frozen=True):
    """What went through one method of paying; `provider` is the gateway, or `till`."""

    method: str
    provider: str
    payments: int
    gross: int
    refunds: int
    refunded: int
    net: int


class Discount(Struct, frozen=True):
    """What a coupon (`None`: no coupon) took off the day's orders."""

    coupon: str | None
    orders: int
    amount: int


class Given(Struct, frozen=True):
    """A refund that was given back, or (`void`) a charge without an order that was cancelled."""

    refund: str
    payment: str
    order: str | None
    method: str
    amount: int
    reason: str
    by: str
    at: str
    void: bool


class Report(Struct, frozen=True):
    """One day of one shop. `start` ≤ t < `end`; `net` = `gross` - `refunds`, also method by method."""

    store: str
    day: str
    timezone: str
    start: str
    end: str
    gross: Money
    refunds: Money
    net: Money
    methods: list[Method]
    orders: dict[str, int]
    discounts: list[Discount]
    given_back: list[Given]
    open_orders: list[Due]
    open_tables: list[OpenTable]
    left_unpaid: list[Due]
    unsettled: list[Unsettled]
    position: int


def day_bounds(day: str, timezone: str, starts_at: str) -> tuple[str, str]:
    """Return when a day of business begins and when the next one does, as times in envelopes.

    Raises:
        ConfigError: `day` is not as 2026-11-20.
    """
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", day, re.ASCII):
            raise ValueError(day)
        begins = date.fromisoformat(day)
        follows = begins + timedelta(days=1)
        clock, zone = time.fromisoformat(starts_at), ZoneInfo(timezone)
        first, last = (datetime.combine(on, clock, zone) for on in (begins, follows))
        return to_text(round(first.timestamp() * 1000)), to_text(round(last.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise ConfigError(f"{day[:40]!r} is no day: write it as 2026-11-20") from None


def day_of(now_ms: int, timezone: str, starts_at: str) -> str:
    """Return the day of business that a time belongs to."""
    clock = time.fromisoformat(starts_at)
    now = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(timezone))
    return (now - timedelta(hours=clock.hour, minutes=clock.minute)).date().isoformat()


def make_report(
    connection: Connection, store: str, day: str, timezone: str = "Asia/Seoul", starts_at: str = "00:00"
) -> Report:
    """Return the report of a shop's day.

    Raises:
        ConfigError: `day` is not as 2026-11-20.
        SQLAlchemyError: the database does not answer.
    """
    start, end = day_bounds(day, timezone, starts_at)
    paid = _paid(connection, store, start, end)
    given = _given(connection, store, start, end)
    gross = _sum(paid)
    refunds = _sum([row for row in given if not row["void"]])
    open_tables = tables_open_at(connection, store, end)
    open_orders, left = unpaid_at(connection, store, start, end, open_tables)
    return Report(
        store,
        day,
        timezone,
        start,
        end,
        gross,
        refunds,
        gross.less(refunds),
        _methods(paid, given),
        _orders(connection, store, start, end),
        _discounts(connection, store, start, end),
        [Given(**{name: row[name] for name in Given.__struct_fields__}) for row in given],
        open_orders,
        open_tables,
        left,
        unsettled_before(connection, store, end),
        count_records(connection),
    )


def _sum(rows: list[dict[str, Any]]) -> Money:
    names = ("amount", "taxable", "tax_free", "vat")
    return Money(len(rows), *(sum(row[name] for row in rows) for name in names))


def _paid(connection: Connection, store: str, start: str, end: str) -> list[dict[str, Any]]:
    payments = tables.payments.c
    query = select(
        payments.method, payments.provider, payments.amount, payments.taxable, payments.tax_free, payments.vat
    ).where(
        payments.store == store,
        payments.status == PAID,
        payments.paid_at >= start,
        payments.paid_at < end,
    )
    return read_rows(connection, query)


def _given(connection: Connection, store: str, start: str, end: str) -> list[dict[str, Any]]:
    refunds, payments = tables.refunds.c, tables.payments.c
    query = (
        select(
            *(refunds[name] for name in ("refund", "payment", "amount", "taxable", "tax_free", "vat")),
            *(refunds[name] for name in ("reason", "by", "void")),
            refunds.settled_at.label("at"),
            payments.order_id.label("order"),
            payments.method,
            payments.provider,
        )
        .join_from(
            tables.refunds,
            tables.payments,
            and_(payments.store == refunds.store, payments.payment == refunds.payment),
        )
        .where(refunds.store == store, refunds.status == DONE)
        .where(refunds.settled_at >= start, refunds.settled_at < end)
        .order_by(refunds.settled_at, refunds.refund)
    )
    return read_rows(connection, query)


def _methods(paid: list[dict[str, Any]], given: list[dict[str, Any]]) -> list[Method]:
    seen: dict[tuple[str, str], Counter[str]] = {}
    for row in paid:
        counts = seen.setdefault((row["provider"], row["method"]), Counter())
        counts["payments"] += 1
        counts["gross"] += row["amount"]
    for row in given:
        if not row["void"]:
            counts = seen.setdefault((row["provider"], row["method"]), Counter())
            counts["refunds"] += 1
            counts["refunded"] += row["amount"]
    return [
        Method(
            method,
            provider,
            counts["payments"],
            counts["gross"],
            counts["refunds"],
            counts["refunded"],
            counts["gross"] - counts["refunded"],
        )
        for (provider, method), counts in sorted(seen.items())
    ]


def _orders(connection: Connection, store: str, start: str, end: str) -> dict[str, int]:
    orders = tables.orders.c
    placed = select(func.count()).where(
        orders.store == store, orders.placed_at >= start, orders.placed_at < end
    )
    closed = (
        select(orders.status, func.count().label("count"))
        .where(orders.store == store, orders.closed_at >= start, orders.closed_at < end)
        .where(orders.status.in_(DEAD))
        .group_by(orders.status)
    )
    counts = {"placed": int(connection.execute(placed).scalar() or 0)}
    counts |= {status.lower(): 0 for status in sorted(DEAD)}
    return counts | {row["status"].lower(): int(row["count"]) for row in read_rows(connection, closed)}


def _discounts(connection: Connection, store: str, start: str, end: str) -> list[Discount]:
    orders = tables.orders.c
    query = (
        select(orders.coupon, func.count().label("orders"), func.sum(orders.discount).label("amount"))
        .where(orders.store == store, orders.placed_at >= start, orders.placed_at < end)
        .where(orders.discount > 0, orders.status.not_in(DEAD))
        .group_by(orders.coupon)
        .order_by(orders.coupon)
    )
    return [
        Discount(row["coupon"], int(row["orders"]), int(row["amount"]))
        for row in read_rows(connection, query)
    ]
