"""The history from the command line: how far it is, making it again out of the log, and the day's report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from engine import Config, load
from engine.clock import SystemClock
from engine.errors import ConfigError, OndaError
from engine.log.backup import LOG

if TYPE_CHECKING:
    from engine.history.database import Database
    from engine.history.report import Money, Report

T = TypeVar("T")

_data = click.option("--data", metavar="DIR", help="Data folder.")
_file = click.option("--config", "file", metavar="FILE", help="Settings in TOML.")
_db = click.option("--db", metavar="URL", help="Database of the history.")
_log = click.option("--log", "log_url", metavar="URL", help="Redis that has the log of several nodes.")


class HistoryFailed(OndaError):
    """The database of the history does not answer."""


def add_commands(cli: click.Group) -> None:
    """Add the commands of this module."""
    for command in (history, report):
        cli.add_command(command)


@click.command()
@click.option("--rebuild", is_flag=True, help="Make it again, in an empty database, out of the log.")
@click.option("--partial", is_flag=True, help="Also when the log no longer has its beginning.")
@_data
@_log
@_db
@_file
def history(
    rebuild: bool, partial: bool, data: str | None, log_url: str | None, db: str | None, file: str | None
) -> None:
    """Say how far the history is, or make it again."""
    config = _load(data, db, file)
    database = open_database(config)
    try:
        if rebuild:
            _rebuild(database, config.data, log_url or config.log_url, partial)
        print(asked(database, _status))
    finally:
        database.close()


def _rebuild(database: Database, data: str, log_url: str, partial: bool) -> None:
    from engine.history.rebuild import rebuild, rebuild_shared

    def told(position: int) -> None:
        print(f"\rrecord {position}", end="", file=sys.stderr, flush=True)

    now_ms = SystemClock().now_ms()
    if log_url:
        from engine.log.redis_kept import KeptLog

        with closing(KeptLog(log_url)) as kept:
            asked(database, lambda it: rebuild_shared(kept, it, now_ms=now_ms, partial=partial, told=told))
    else:
        log = os.path.join(data, LOG)
        asked(database, lambda it: rebuild(log, it, now_ms=now_ms, partial=partial, told=told))


def _status(database: Database) -> str:
    from sqlalchemy import select

    from engine.history import tables
    from engine.history.places import place_in

    database.make()
    places, lost = database.read_places()
    with database.connect() as connection:
        gaps = connection.execute(select(tables.history_gaps)).all()
    lines = []
    for place in places:
        of = "" if place.partition is None else f" of partition {place.partition}"
        lines.append(f"holds the records up to {place.position}{of} of epoch {place.epoch or '(none)'}")
    for gap in gaps:
        (low, of), (high, _) = place_in(gap.low), place_in(gap.high)
        lines.append(f"without {low} to {high}{of}, noted {gap.noted_at}")
    if lost:
        lines.append(f"has {lost} events in history_lost: the log lost them after they were here")
    return "\n".join(f"{database.shown} {line}" for line in lines or ["holds nothing"])


@click.command()
@click.option("--day", help="A day of business, 2026-11-20; today when it is left out.")
@click.option("--store", required=True, help="The shop.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_data
@_db
@_file
def report(
    day: str | None, store: str, as_json: bool, data: str | None, db: str | None, file: str | None
) -> None:
    """Print the end-of-day report of a shop, beside a running server too."""
    from engine.history.report import day_bounds, day_of, make_report

    config = _load(data, db, file)
    zone, starts_at = config.timezone, config.day_starts_at
    chosen = day or day_of(SystemClock().now_ms(), zone, starts_at)
    day_bounds(chosen, zone, starts_at)
    database = open_database(config)

    def ask(database: Database) -> Report:
        with database.connect() as connection:
            return make_report(connection, store, chosen, zone, starts_at)

    try:
        made = asked(database, ask)
    finally:
        database.close()
    print(msgspec.json.format(msgspec.json.encode(made)).decode() if as_json else tell(made))


def tell(made: Report) -> str:
    """Return a report for people to read."""
    lines = [f"{made.store}, {made.day} ({made.timezone}, {made.start} to {made.end})", ""]
    for name, money in (("gross", made.gross), ("refunds", made.refunds), ("net", made.net)):
        lines.append(_money(name, money))
    lines += ["", "by method"]
    lines += [
        f"  {m.provider:9} {m.method:9} {m.gross:>12,} - {m.refunded:,} = {m.net:,}" for m in made.methods
    ]
    counts = ", ".join(f"{count} {what}" for what, count in made.orders.items())
    lines += ["", f"orders: {counts}"]
    lines += [f"  coupon {d.coupon or '-'}: {d.orders} orders, {d.amount:,} off" for d in made.discounts]
    lines += ["", f"given back: {len(made.given_back)}"]
    for given in made.given_back:
        what = "void" if given.void else given.method
        lines.append(f"  {given.at} {given.amount:>12,} {what} {given.reason} ({given.by})")
    due = sum(order.due for order in made.open_orders)
    tables = ", ".join(table.table for table in made.open_tables) or "none"
    lines += ["", f"carried forward: {len(made.open_orders)} orders, {due:,} due; open tables: {tables}"]
    lines.append(f"left unpaid: {len(made.left_unpaid)}, {sum(order.due for order in made.left_unpaid):,}")
    lines.append(f"not settled yet: {len(made.unsettled)}")
    lines += [f"  {u.kind} {u.id} {u.amount:,} {u.status} since {u.since}" for u in made.unsettled]
    return "\n".join(lines)


def _money(name: str, money: Money) -> str:
    parts = f"taxable {money.taxable:,} (VAT {money.vat:,}), tax-free {money.tax_free:,}"
    return f"{name:8} {money.count:>5} {money.amount:>14,}   {parts}"


def _load(data: str | None, db: str | None, file: str | None) -> Config:
    return load({"data": data, "db": db}, file)[0]


def open_database(config: Config) -> Database:
    """Return the history's database.

    Raises:
        ConfigError: there is none.
    """
    from engine.history.database import FILE, Database, database_url  # here, as SQLAlchemy takes its time

    url = database_url(config.db, config.data)
    if url is None:
        raise ConfigError("there is no history: db is none")
    if not config.db and config.log_url:
        raise ConfigError("there is no history: with log_url db says where it is")
    if not config.db and not os.path.isdir(config.data):
        raise ConfigError(f"there is no folder {config.data} for {FILE}")
    return Database(url)


def asked(database: Database, ask: Callable[[Database], T]) -> T:
    """Return the database's answer.

    Raises:
        HistoryFailed: it gives none.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from engine.history.database import short
    from engine.history.places import Moved, NotOurs

    try:
        return ask(database)
    except (SQLAlchemyError, Moved, NotOurs) as error:
        raise HistoryFailed(f"{database.shown}: {short(error)}") from error
