"""The tables of the history, the same on SQLite, PostgreSQL and MySQL; `docs/history.md` explains them.

Times are text as in envelopes (UTC with milliseconds, so text order is time order), money is whole won, and
ids are as in the API. An order's id is its shop's, so `store` belongs to every key that holds one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects.mysql import LONGTEXT

FORMAT = 1
"""Written into `history_position`; a newer one is refused."""
FORMAT_SHARED = 2
"""The same for the history of a shared log, whose places are in `history_places`."""

SPAN = 10**12
"""Positions of one partition in `position`: those of partition p of a shared log begin at (p + 1) * SPAN, and
those of one node's own log at 0. So both fit into one database, and every one into a JavaScript number.
"""

STREAM_CHARS = 160
ID_CHARS = 64
TIME_CHARS = 24
TEXT_CHARS = 255
"""Longest text in a column that is not JSON or an address; longer ones are cut."""
LONG_CHARS = 1000

metadata = MetaData()

_BINARY: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_engine": "InnoDB",
}
_BINARY |= {name.replace("mysql", "mariadb"): value for name, value in _BINARY.items()}


def _text() -> Text:
    return Text().with_variant(LONGTEXT(), "mysql", "mariadb")


def _position() -> BigInteger:
    return BigInteger().with_variant(Integer, "sqlite")


def _id(name: str, *, key: bool = False, optional: bool = False) -> Column[str]:
    return Column(name, String(ID_CHARS), primary_key=key, nullable=optional)


def _time(name: str, *, optional: bool = True) -> Column[str]:
    return Column(name, String(TIME_CHARS), nullable=optional)


def _words(name: str, chars: int = TEXT_CHARS) -> Column[str]:
    return Column(name, String(chars), nullable=False)


def _won(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


events = Table(
    "events",
    metadata,
    Column("position", _position(), primary_key=True, autoincrement=False),
    Column("stream", String(STREAM_CHARS), nullable=False),
    Column("version", BigInteger, nullable=False),
    _id("id"),
    _words("type"),
    _time("time", optional=False),
    _words("by"),
    _words("cause"),
    _id("order_id", optional=True),
    Column("body", _text(), nullable=False),
    Index("events_stream", "stream", "version", unique=True),
    Index("events_type", "stream", "type", "version"),
    Index("events_order", "order_id"),
    Index("events_id", "id"),
    Index("events_cause", "cause"),
    **_BINARY,
)
"""Every envelope, as it stands in the log. `order_id`: the order that it is about, if its data names one."""

orders = Table(
    "orders",
    metadata,
    _id("store", key=True),
    _id("order_id", key=True),
    Column("number", BigInteger, nullable=False),
    _words("status", 32),
    _id("table_id", optional=True),
    _id("user_id", optional=True),
    _words("by"),
    _won("total"),
    _won("tax_free"),
    _won("vat"),
    _won("discount"),
    _id("coupon", optional=True),
    _won("paid"),
    _won("refunded"),
    _won("owed"),
    _time("placed_at"),
    _time("closed_at"),
    _words("reason", LONG_CHARS),
    Column("lines", _text(), nullable=False),
    Column("position", BigInteger, nullable=False),
    _time("changed_at", optional=False),
    Index("orders_placed", "store", "placed_at"),
    Index("orders_closed", "store", "closed_at"),
    **_BINARY,
)
"""Each order as it last looked; `position` is the record that changed it last, at `changed_at`."""

shipping = Table(
    "shipping",
    metadata,
    _id("store", key=True),
    _id("order_id", key=True),
    _words("name"),
    _words("phone"),
    _words("address", LONG_CHARS),
    **_BINARY,
)

payments = Table(
    "payments",
    metadata,
    _id("store", key=True),
    _id("payment", key=True),
    _words("status", 32),
    _won("amount"),
    _won("taxable"),
    _won("tax_free"),
    _won("vat"),
    _words("method", 32),
    _words("provider", 32),
    _words("payer"),
    _words("by"),
    _id("order_id", optional=True),
    _id("table_id", optional=True),
    _id("user_id", optional=True),
    _time("created_at", optional=False),
    _time("paid_at"),
    _won("refunded"),
    Column("shares", _text(), nullable=False),
    Column("position", BigInteger, nullable=False),
    Index("payments_paid", "store", "paid_at"),
    Index("payments_status", "store", "status"),
    **_BINARY,
)
"""Each payment as it last looked. `shares`: JSON, which orders it pays for, if it is a table's bill."""

payment_attempts = Table(
    "payment_attempts",
    metadata,
    _id("store", key=True),
    _id("attempt", key=True),
    _id("payment"),
    _words("status", 32),
    _words("charge"),
    _time("requested_at", optional=False),
    _time("settled_at"),
    _words("code"),
    _words("message", LONG_CHARS),
    Column("queries", Integer, nullable=False),
    **_BINARY,
)

refunds = Table(
    "refunds",
    metadata,
    _id("store", key=True),
    _id("refund", key=True),
    _id("payment"),
    _words("status", 32),
    _won("amount"),
    _won("taxable"),
    _won("tax_free"),
    _won("vat"),
    _words("reason", LONG_CHARS),
    _words("by"),
    Column("void", Boolean, nullable=False),
    _time("requested_at", optional=False),
    _time("settled_at"),
    _words("code"),
    _words("message", LONG_CHARS),
    Index("refunds_settled", "store", "settled_at"),
    **_BINARY,
)

stock_audit = Table(
    "stock_audit",
    metadata,
    Column("position", _position(), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    _id("store"),
    _id("product"),
    _id("order_id", optional=True),
    _words("type"),
    _words("reason", LONG_CHARS),
    _time("time", optional=False),
    *(
        _count(f"{what}_{when}")
        for what in ("available", "held", "pinned", "on_hand")
        for when in ("before", "after")
    ),
    Index("stock_audit_product", "store", "product", "position"),
    **_BINARY,
)
"""Each change of a product's counts, once, each count before and after. What is not counted has none: 0."""

coupon_issue = Table(
    "coupon_issue",
    metadata,
    Column("position", _position(), primary_key=True, autoincrement=False),
    _id("store"),
    _id("coupon"),
    _words("holder"),
    _id("user_id", optional=True),
    _id("table_id", optional=True),
    Column("sequence", BigInteger, nullable=False),
    _time("issued_at", optional=False),
    Index("coupon_issue_coupon", "store", "coupon", "sequence"),
    **_BINARY,
)

campaigns = Table(
    "campaigns",
    metadata,
    _id("store", key=True),
    _id("campaign", key=True),
    _words("name"),
    _words("status", 32),
    _time("opens_at"),
    _time("closes_at"),
    Column("body", _text(), nullable=False),
    **_BINARY,
)
"""Each campaign as it last looked; `body` is the whole of it as JSON."""

history_position = Table(
    "history_position",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    _words("epoch", 64),
    _id("last_id"),
    **_BINARY,
)
"""One row: everything up to `position` of the log `epoch` is here. It changes with what it stands for."""

history_gaps = Table(
    "history_gaps",
    metadata,
    Column("low", BigInteger, primary_key=True, autoincrement=False),
    Column("high", BigInteger, nullable=False),
    _time("noted_at", optional=False),
    **_BINARY,
)
"""Records `low` to `high` that the log had dropped before the history could have them."""

history_places = Table(
    "history_places",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("low", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    _words("log", 64),
    _words("epoch", 64),
    _id("last_id"),
    **_BINARY,
)
"""`history_position` for each partition of a shared log, with positions as they are in the partition. `log`:
the epoch that the partition began with. Records up to `low` were in the log that the shared one was made of,
and are here as records of that.
"""

history_lost = Table(
    "history_lost",
    metadata,
    Column("position", _position(), primary_key=True, autoincrement=False),
    Column("epoch", String(64), primary_key=True),
    Column("stream", String(STREAM_CHARS), nullable=False),
    Column("version", BigInteger, nullable=False),
    _id("id"),
    _words("type"),
    _time("time", optional=False),
    _id("order_id", optional=True),
    Column("body", _text(), nullable=False),
    _time("noted_at", optional=False),
    **_BINARY,
)
"""Events that a shared log lost after they were here, in which epoch; what they did is undone."""
