"""The database of the history: where it is, what it holds up to which record, and every write to it.

Everything here blocks and belongs into the history's one worker thread. Rows that replace others are deleted
and inserted, as each database has its own words for doing both at once; SQLite, which runs in this process,
is spoken to in its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from engine.config import hide_password
from engine.errors import ConfigError
from engine.history import tables
from engine.history.rows import Counts, Rows
from engine.mailbox import Committed

OFF = "none"
FILE = "history.db"
"""Name in the data folder, when no other database is given."""

CONNECT_S = 5
STATEMENT_S = 30
"""A database that says nothing for so long counts as gone."""
VALUES_MAX = 10_000
"""Values in one statement; SQLite takes 32,766."""

logger = logging.getLogger("onda.history")

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}


class Place(NamedTuple):
    """How far a history has come: up to the record `last_id` at a `position` of the log `epoch`."""

    position: int
    epoch: str
    last_id: str


class NotOurs(Exception):
    """The database holds the history of another log, or was written by a newer version."""


class Moved(Exception):
    """The place in the database is not the one that was last seen there."""


def database_url(db: str, data: str) -> URL | None:
    """Return where the history is for the settings `db` and `data`; `None`: there is none.

    Raises:
        ConfigError: not a URL, or of a database that Onda does not know.
    """
    if db == OFF:
        return None
    if not db:
        return URL.create("sqlite", database=f"{data}/{FILE}")
    try:
        url = make_url(db)
    except ArgumentError:
        raise ConfigError("db is no URL: write postgresql://user:password@host/database") from None
    kind = url.drivername.partition("+")[0]
    if kind not in (*_DRIVERS, "sqlite"):
        raise ConfigError(f"db: {kind} is none of sqlite, postgresql, mysql, mariadb")
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


class Database:
    """An open database, or one that will be: nothing connects before the first call."""

    def __init__(self, url: URL) -> None:
        self.shown = hide_password(url.render_as_string(hide_password=True))
        try:
            self._engine = _make_engine(url)
        except (ImportError, NoSuchModuleError) as error:
            extra = (
                url.drivername.partition("+")[0].replace("mariadb", "mysql").replace("postgresql", "postgres")
            )
            raise ConfigError(f"db: {error}; install onda[{extra}]") from None

    def connect(self) -> Connection:
        """Return a connection, for reading."""
        return self._engine.connect()

    def open(self) -> Place:
        """Make the tables if need be, and return the place.

        Raises:
            NotOurs: a newer version made them.
            SQLAlchemyError: the database does not answer.
        """
        tables.metadata.create_all(self._engine)
        self._add_indexes()
        place = tables.history_position
        with self._engine.begin() as connection:
            row = connection.execute(select(place)).first()
            if row is None:
                values = {"one": 1, "format": tables.FORMAT, "position": 0, "epoch": "", "last_id": ""}
                connection.execute(insert(place).values(values))
                return Place(0, "", "")
        if row.format != tables.FORMAT:
            raise NotOurs(f"it has format {row.format}, this version writes {tables.FORMAT}")
        return Place(row.position, row.epoch, row.last_id)

    def _add_indexes(self) -> None:
        """Make indexes that came after their tables. They are for speed: where one cannot be made, as it
        takes longer than a statement may, everything goes on without it.
        """
        for table in tables.metadata.tables.values():
            there = {one["name"] for one in inspect(self._engine).get_indexes(table.name)}
            for index in table.indexes:
                if index.name in there:
                    continue
                try:
                    index.create(self._engine)
                except SQLAlchemyError as error:
                    logger.warning("the history is without the index %s: %s", index.name, short(error))

    def adopt(self, place: Place, epoch: str, gap: tuple[int, int] | None, now: str) -> Place:
        """Go on in the log `epoch`, after a gap if there is one; return the place.

        Raises:
            Moved, SQLAlchemyError
        """
        after = place._replace(epoch=epoch)
        with self._engine.begin() as connection:
            if gap is not None:
                values = {"low": gap[0], "high": gap[1], "noted_at": now}
                connection.execute(insert(tables.history_gaps).values(values))
                after = after._replace(position=gap[1], last_id="")
            _move(connection, place, after)
        return after

    def write(self, records: Sequence[Committed], place: Place, after: Place) -> None:
        """Write what some records do, and the place after them, in one transaction. A single one may be there
        already: it was parked once, and replayed.

        Raises:
            Moved: somebody else writes here.
            SQLAlchemyError, DecodeError: nothing was written, or (a connection that broke) perhaps all.
        """
        with self._engine.begin() as connection:
            _move(connection, place, after)
            rows = Rows(lambda store, product: _last_counts(connection, store, product))
            rows.take(records)
            _insert(connection, rows, again=len(records) == 1)

    def write_again(self, record: Committed) -> None:
        """Write what one record does that lies before the place. Repeats without harm."""
        with self._engine.begin() as connection:
            rows = Rows(lambda store, product: _last_counts(connection, store, product, record.position))
            rows.take((record,))
            _insert(connection, rows, again=True)

    def probe(self) -> None:
        """Read every table and write something that changes nothing.

        Raises:
            SQLAlchemyError: the database is to blame, not what was written to it.
        """
        with self._engine.begin() as connection:
            for table in tables.metadata.tables.values():
                connection.execute(select(table).limit(1)).first()
            place = tables.history_position
            connection.execute(update(place).values(format=place.c.format))

    def forget(self, before: str, limit: int) -> int:
        """Delete the oldest events, `limit` at most, from before a time; return how many went."""
        events = tables.events
        oldest = select(events.c.position, events.c.time).order_by(events.c.position).limit(limit)
        with self._engine.begin() as connection:
            old = [position for position, time in connection.execute(oldest) if time < before]
            if old:
                connection.execute(
                    delete(events).where(events.c.position <= max(old), events.c.time < before)
                )
        return len(old)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _make_engine(url: URL) -> Engine:
    kind = url.get_backend_name()
    options: dict[str, Any] = {}
    if kind == "sqlite":
        options = {"timeout": 10}
    elif kind == "postgresql":
        limit_ms = STATEMENT_S * 1000
        options = {"connect_timeout": CONNECT_S, "options": f"-c statement_timeout={limit_ms}"}
        options |= {"tcp_user_timeout": limit_ms, "keepalives_idle": STATEMENT_S}
        options = {name: value for name, value in options.items() if name not in url.query}
    else:
        options = {"connect_timeout": CONNECT_S, "read_timeout": STATEMENT_S, "write_timeout": STATEMENT_S}
        if "charset" not in url.query:
            options["charset"] = "utf8mb4"
    engine = create_engine(url, hide_parameters=True, connect_args=options, pool_pre_ping=True)
    if kind == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _move(connection: Connection, place: Place, after: Place) -> None:
    table = tables.history_position
    here = and_(table.c.position == place.position, table.c.epoch == place.epoch)
    moved = connection.execute(update(table).where(here).values(after._asdict()))
    if moved.rowcount != 1:
        raise Moved(place.position)


def _insert(connection: Connection, rows: Rows, *, again: bool) -> None:
    for table, latest in rows.latest.items():
        _replace(connection, table, list(latest.values()))
    for table, added in rows.added.items():
        if again:
            _replace(connection, table, added)
        else:
            _add(connection, table, added)


def _add(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if connection.dialect.name == "sqlite":
        _write_many(connection, table, rows, replace=False)
    else:
        connection.execute(insert(table), rows)


def _replace(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if connection.dialect.name == "sqlite":
        _write_many(connection, table, rows, replace=True)
        return
    columns = list(table.primary_key)
    same = and_(*(column == bindparam(f"key_{column.name}") for column in columns))
    keys = [{f"key_{column.name}": row[column.name] for column in columns} for row in rows]
    connection.execute(delete(table).where(same), keys)
    connection.execute(insert(table), rows)


def _write_many(connection: Connection, table: Table, rows: list[dict[str, Any]], *, replace: bool) -> None:
    """Write many rows into SQLite with one statement. Row by row, its driver would let Python's lock go and
    take it back for each, in competition with trio's thread. Values are numbers, texts and booleans: nothing
    that SQLAlchemy would have to convert.
    """
    quote = connection.dialect.identifier_preparer.quote
    names = [column.name for column in table.columns]
    columns = ", ".join(map(quote, names))
    after = ""
    if replace:
        key = ", ".join(quote(column.name) for column in table.primary_key)
        news = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in names)
        after = f" ON CONFLICT ({key}) DO UPDATE SET {news}"
    marks = f"({', '.join('?' * len(names))})"
    step = VALUES_MAX // len(names)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        values = tuple([row.get(name) for row in some for name in names])
        lines = ", ".join([marks] * len(some))
        statement = f"INSERT INTO {quote(table.name)} ({columns}) VALUES {lines}{after}"
        connection.exec_driver_sql(statement, values)


def _last_counts(connection: Connection, store: str, product: str, before: int | None = None) -> Counts:
    audit = tables.stock_audit
    query = select(audit.c.available_after, audit.c.held_after, audit.c.pinned_after)
    query = query.where(audit.c.store == store, audit.c.product == product)
    if before is not None:
        query = query.where(audit.c.position < before)
    row = connection.execute(query.order_by(audit.c.position.desc(), audit.c.number.desc()).limit(1)).first()
    return Counts() if row is None else Counts(*row)


def short(error: BaseException) -> str:
    """Return the first line of what a database said; statements and values are left out."""
    if isinstance(error, SQLAlchemyError):
        error = getattr(error, "orig", None) or error
    text = re.sub(r"\s+", " ", str(error).partition("\n")[0])
    return f"{type(error).__name__}: {text[:300]}"
