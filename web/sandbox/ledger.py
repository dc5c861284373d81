"""The sandbox's books: what was authorised, charged and cancelled, to the won, in one SQLite file.

A `ref` is what a guest brings back from the page: it authorises one charge for ten minutes. A charge belongs
to one attempt, a cancel to one refund: the same idempotency key never books twice. Answers to keys are kept
in the same transaction as what they tell of.

Its calls block, but no longer than a write into the page cache: it survives the end of the process, and a
power cut is nothing that a sandbox has to survive.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

WINDOW_MS = 10 * 60_000
"""From a guest's yes to the charge, at most; after it there certainly is none."""

AUTHORISED, CHARGED, DECLINED, EXPIRED = "authorised", "charged", "declined", "expired"
OPEN, PAID, LEFT = "open", "paid", "left"
"""States of a page, beside `declined`."""

_TABLES = """
CREATE TABLE IF NOT EXISTS checkouts (
    checkout TEXT PRIMARY KEY, key TEXT UNIQUE, order_id TEXT, amount INTEGER, tax_free INTEGER, name TEXT,
    back TEXT, webhook TEXT, state TEXT, ref TEXT);
CREATE TABLE IF NOT EXISTS authorisations (
    ref TEXT PRIMARY KEY, order_id TEXT, amount INTEGER, at_ms INTEGER, state TEXT);
CREATE TABLE IF NOT EXISTS charges (
    charge TEXT PRIMARY KEY, attempt TEXT UNIQUE, ref TEXT UNIQUE, order_id TEXT, amount INTEGER,
    tax_free INTEGER, at_ms INTEGER);
CREATE TABLE IF NOT EXISTS cancels (
    cancel TEXT PRIMARY KEY, refund TEXT UNIQUE, charge TEXT, amount INTEGER, reason TEXT, at_ms INTEGER);
CREATE TABLE IF NOT EXISTS answers (
    verb TEXT, key TEXT, digest TEXT, status INTEGER, body BLOB, PRIMARY KEY (verb, key));
"""


class Checkout(NamedTuple):
    """A page where a guest pays."""

    checkout: str
    key: str
    order_id: str
    amount: int
    tax_free: int
    name: str
    back: str
    webhook: str
    state: str
    ref: str


class Authorisation(NamedTuple):
    """A guest's yes. `order_id` and `amount` are `None` for a ref that no page made."""

    ref: str
    order_id: str | None
    amount: int | None
    at_ms: int
    state: str


class Charge(NamedTuple):
    """Money taken."""

    charge: str
    attempt: str
    ref: str
    order_id: str
    amount: int
    tax_free: int
    at_ms: int


class Cancel(NamedTuple):
    """Money given back."""

    cancel: str
    refund: str
    charge: str
    amount: int
    reason: str
    at_ms: int


class Kept(NamedTuple):
    """The answer to an idempotency key. `digest` tells whether a repeat has the same body."""

    digest: str
    status: int
    body: bytes


class Ledger:
    """The books in a `file`, or in memory. `now_ms` is the clock."""

    def __init__(self, file: str | None, now_ms: Callable[[], int]) -> None:
        self._db = sqlite3.connect(file or ":memory:", isolation_level=None)
        self._now_ms = now_ms
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Pages

    def open_checkout(self, key: str, order: str, amount: int, tax_free: int, **texts: str) -> Checkout:
        """Return the page of an idempotency key, a new one at first; `texts`: name, back, webhook."""
        key = key or _new_id("key")
        self._db.execute(
            "INSERT OR IGNORE INTO checkouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '')",
            (
                _new_id("co"),
                key,
                order,
                amount,
                tax_free,
                texts["name"],
                texts["back"],
                texts["webhook"],
                OPEN,
            ),
        )
        return Checkout(*self._row("SELECT * FROM checkouts WHERE key = ?", key))

    def checkout(self, checkout: str) -> Checkout | None:
        """Return a page."""
        row = self._db.execute("SELECT * FROM checkouts WHERE checkout = ?", (checkout,)).fetchone()
        return Checkout(*row) if row else None

    def decide(self, checkout: str, state: str) -> Checkout | None:
        """Close an open page with the guest's choice: `paid` makes a ref. A closed one stays as it is."""
        ref = _new_id("ref") if state == PAID else ""
        with self._transaction():
            changed = self._db.execute(
                "UPDATE checkouts SET state = ?, ref = ? WHERE checkout = ? AND state = ?",
                (state, ref, checkout, OPEN),
            ).rowcount
            page = self.checkout(checkout)
            if changed and page is not None and ref:
                self._db.execute(
                    "INSERT INTO authorisations VALUES (?, ?, ?, ?, ?)",
                    (ref, page.order_id, page.amount, self._now_ms(), AUTHORISED),
                )
        return page

    # Charges

    def authorisation(self, ref: str) -> Authorisation:
        """Return what a ref is worth. One that no page made counts as a yes from when it is first seen."""
        now = self._now_ms()
        self._db.execute(
            "INSERT OR IGNORE INTO authorisations VALUES (?, NULL, NULL, ?, ?)", (ref, now, AUTHORISED)
        )
        self._db.execute(
            "UPDATE authorisations SET state = ? WHERE ref = ? AND state = ? AND at_ms <= ?",
            (EXPIRED, ref, AUTHORISED, now - WINDOW_MS),
        )
        return Authorisation(*self._row("SELECT * FROM authorisations WHERE ref = ?", ref))

    def decline(self, ref: str, attempt: str, digest: str, kept: tuple[int, bytes]) -> None:
        """Refuse a ref for good, and keep the answer."""
        with self._transaction():
            self._db.execute("UPDATE authorisations SET state = ? WHERE ref = ?", (DECLINED, ref))
            self.keep("charge", attempt, digest, *kept)

    def charge(self, charge: Charge, digest: str, kept: tuple[int, bytes]) -> None:
        """Take money, once, and keep the answer.

        Raises:
            sqlite3.IntegrityError: the ref or the attempt was charged before; nothing happened.
        """
        with self._transaction():
            self._db.execute("INSERT INTO charges VALUES (?, ?, ?, ?, ?, ?, ?)", charge)
            self._db.execute("UPDATE authorisations SET state = ? WHERE ref = ?", (CHARGED, charge.ref))
            self.keep("charge", charge.attempt, digest, *kept)

    def new_charge(self, attempt: str, ref: str, order: str, amount: int, tax_free: int) -> Charge:
        """Return a charge that is not booked yet."""
        return Charge(_new_id("ch"), attempt, ref, order, amount, tax_free, self._now_ms())

    def find_charge(self, column: str, value: str) -> Charge | None:
        """Return the charge whose `charge`, `attempt` or `ref` is this."""
        assert column in ("charge", "attempt", "ref")
        row = self._db.execute(f"SELECT * FROM charges WHERE {column} = ?", (value,)).fetchone()
        return Charge(*row) if row else None

    # Cancels

    def cancel(
        self, refund: str, charge: str, amount: int, reason: str, digest: str, kept: tuple[int, bytes]
    ) -> None:
        """Give money back, once, and keep the answer."""
        row = (_new_id("ca"), refund, charge, amount, reason, self._now_ms())
        with self._transaction():
            self._db.execute("INSERT INTO cancels VALUES (?, ?, ?, ?, ?, ?)", row)
            self.keep("cancel", refund, digest, *kept)

    def rest(self, charge: Charge) -> int:
        """Return what is left of a charge, in won."""
        (back,) = self._row("SELECT COALESCE(SUM(amount), 0) FROM cancels WHERE charge = ?", charge.charge)
        return charge.amount - int(back)

    # Answers

    def keep(self, verb: str, key: str, digest: str, status: int, body: bytes) -> None:
        """Keep the answer to an idempotency key."""
        self._db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", (verb, key, digest, status, body))

    def kept(self, verb: str, key: str) -> Kept | None:
        """Return the answer that a key was given."""
        row = self._db.execute(
            "SELECT digest, status, body FROM answers WHERE verb = ? AND key = ?", (verb, key)
        ).fetchone()
        return Kept(*row) if row else None

    # The truth

    def charges(self) -> list[Charge]:
        """Return every charge, oldest first."""
        return [Charge(*row) for row in self._db.execute("SELECT * FROM charges ORDER BY rowid")]

    def cancels(self) -> list[Cancel]:
        """Return every cancel, oldest first."""
        return [Cancel(*row) for row in self._db.execute("SELECT * FROM cancels ORDER BY rowid")]

    def balance(self) -> int:
        """Return all that was charged and not given back, in won."""
        return sum(charge.amount for charge in self.charges()) - sum(back.amount for back in self.cancels())

    def _row(self, sql: str, *values: object) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(sql, values).fetchone()
        return row

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """All of it or nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"
