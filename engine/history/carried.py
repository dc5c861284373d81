"""What a day hands on to the next: open tables, orders that are not paid, and money on its way."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, and_, or_, select

from engine.domain.order import CLOSED, DEAD, SERVED, Order
from engine.domain.payment import MANUAL_REVIEW, QUEUED, REQUESTED, UNKNOWN
from engine.history import tables

UNSETTLED = (REQUESTED, UNKNOWN, MANUAL_REVIEW, QUEUED)


class Due(Struct, frozen=True):
    """An order that is not paid, or not all of it."""

    order: str
    number: int
    table: str | None
    status: str
    total: int
    due: int


class OpenTable(Struct, frozen=True):
    """A party that sat there when the day ended."""

    table: str
    since: str | None
    guests: int | None


class Unsettled(Struct, frozen=True):
    """A payment or refund whose outcome is not known yet; a MANUAL_REVIEW waits for a person."""

    id: str
    kind: str
    order: str | None
    method: str
    amount: int
    status: str
    since: str


def read_rows(connection: Connection, query: Any) -> list[dict[str, Any]]:
    """Return the rows of a query by column."""
    return [dict(row) for row in connection.execute(query).mappings()]


class _TableNote(Struct):
    table: str
    open: bool = False
    guests: int | None = None
    opened_at: str | None = None


class _Noted(Struct):
    data: _TableNote


def tables_open_at(connection: Connection, store: str, end: str) -> list[OpenTable]:
    """Return the tables that were open when the day ended."""
    events = tables.events.c
    query = (
        select(events.body)
        .where(events.stream == f"store:{store}", events.type == "TableNoted", events.time < end)
        .order_by(events.version)
    )
    last: dict[str, _TableNote] = {}
    for (body,) in connection.execute(query):
        note = msgspec.json.decode(body, type=_Noted).data
        last[note.table] = note
    return [
        OpenTable(note.table, note.opened_at, note.guests)
        for note in sorted(last.values(), key=lambda note: note.table)
        if note.open
    ]


def unpaid_at(
    connection: Connection, store: str, start: str, end: str, open_tables: list[OpenTable]
) -> tuple[list[Due], list[Due]]:
    """Return the orders that were open when the day ended, and those that left on it, unpaid."""
    orders = tables.orders.c
    since = {table.table: table.since or "" for table in open_tables}
    first = min([start, *since.values()])
    query = select(tables.orders).where(
        orders.store == store,
        orders.placed_at < end,
        or_(orders.closed_at.is_(None), orders.closed_at >= first),
    )
    open_, left = [], []
    for row in read_rows(connection, query.order_by(orders.placed_at, orders.number)):
        now = row if row["changed_at"] < end else _as_of(connection, row, end)
        due = now["total"] - now["paid"] + now["owed"]
        if now["status"] in DEAD or due <= 0 or now["placed_at"] is None:
            continue
        told = Due(now["order_id"], now["number"], now["table_id"], now["status"], now["total"], due)
        if now["status"] not in CLOSED or now["placed_at"] >= since.get(now["table_id"] or "", "~"):
            open_.append(told)
        elif now["status"] == SERVED and now["closed_at"] >= start:
            left.append(told)
    return open_, left


def _as_of(connection: Connection, row: dict[str, Any], end: str) -> dict[str, Any]:
    """Return an order that has changed since as it was at the end of the day."""
    events = tables.events.c
    query = (
        select(events.body)
        .where(events.order_id == row["order_id"], events.stream == f"store:{row['store']}")
        .where(events.time < end)
        .order_by(events.version.desc())
    )
    for (body,) in connection.execute(query):
        changed = _orders_of(body)
        order = changed.get(row["order_id"])
        if order is not None:
            return row | {
                "status": order.status,
                "total": order.total,
                "paid": order.paid,
                "refunded": order.refunded,
                "owed": order.owed,
                "placed_at": order.placed_at,
                "closed_at": order.closed_at,
            }
    return row | {"placed_at": None}


class _Loose(Struct):
    patch: dict[str, msgspec.Raw]


def _orders_of(body: str) -> dict[str, Order | None]:
    orders = msgspec.json.decode(body, type=_Loose).patch.get("orders")
    return msgspec.json.decode(orders, type=dict[str, Order | None]) if orders is not None else {}


def unsettled_before(connection: Connection, store: str, end: str) -> list[Unsettled]:
    """Return payments and refunds from before a time whose outcome is not known by now."""
    payments, refunds = tables.payments.c, tables.refunds.c
    asked = select(tables.payments).where(
        payments.store == store, payments.status.in_(UNSETTLED), payments.created_at < end
    )
    found = [
        Unsettled(
            row["payment"],
            "payment",
            row["order_id"],
            row["method"],
            row["amount"],
            row["status"],
            row["created_at"],
        )
        for row in read_rows(connection, asked.order_by(payments.created_at))
    ]
    back = (
        select(tables.refunds, payments.order_id, payments.method)
        .join_from(
            tables.refunds,
            tables.payments,
            and_(payments.store == refunds.store, payments.payment == refunds.payment),
        )
        .where(refunds.store == store, refunds.status.in_(UNSETTLED), refunds.requested_at < end)
        .order_by(refunds.requested_at)
    )
    return found + [
        Unsettled(
            row["refund"],
            "refund",
            row["order_id"],
            row["method"],
            row["amount"],
            row["status"],
            row["requested_at"],
        )
        for row in read_rows(connection, back)
    ]
