"""The database of the history: where it is, and every write to it, each with the place after it (`places`).

Everything here blocks and belongs into the history's one worker thread. Rows that replace others are deleted
and inserted, as each database has its own words for doing both at once; SQLite, which runs in this process,
is spoken to in its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    SQLAlchemyError,
)

from engine.config import hide_password
from engine.errors import ConfigError
from engine.history import aside, places, tables
from engine.history.places import Place, move
from engine.history.rows import Counts, Rows
from engine.mailbox import Committed

OFF = "none"
FILE = "history.db"
"""Name in the data folder, when no other database is given."""

CONNECT_S = 5
STATEMENT_S = 30
"""A database that says nothing for so long counts as gone."""
OPENINGS = 8
"""Tries to open a database that others are opening, too."""
VALUES_MAX = 10_000
"""Values in one statement; SQLite takes 32,766."""

T = TypeVar("T")

logger = logging.getLogger("onda.history")

_MADE_MEANWHILE = ("already exists", "duplicate", "unique constraint", "database is locked")
"""What databases say to the second one who makes something."""

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}


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
    """An open database, or one that will be: nothing connects before the first call. `shared`: others write
    here at the same time, what belongs to other partitions.
    """

    def __init__(self, url: URL, *, shared: bool = False) -> None:
        self.shown = hide_password(url.render_as_string(hide_password=True))
        try:
            self._engine = _make_engine(url, shared)
        except (ImportError, NoSuchModuleError) as error:
            extra = (
                url.drivername.partition("+")[0].replace("mariadb", "mysql").replace("postgresql", "postgres")
            )
            raise ConfigError(f"db: {error}; install onda[{extra}]") from None

    def connect(self) -> Connection:
        """Return a connection, for reading."""
        return self._engine.connect()

    def open(self, partition: int | None = None) -> Place:
        """Make the tables if need be, and return the place in one node's own log, or in a partition.

        Raises:
            NotOurs: it holds the history of another kind of log, or a newer version made the tables.
            SQLAlchemyError: the database does not answer.
        """
        return _patiently(lambda: self._open(partition))

    def _open(self, partition: int | None) -> Place:
        self._make()
        with self._engine.begin() as connection:
            return places.open_place(connection, partition)

    def make(self) -> None:
        """Make the tables if need be."""
        _patiently(self._make)

    def _make(self) -> None:
        tables.metadata.create_all(self._engine)
        self._add_indexes()

    def read_places(self) -> tuple[list[Place], int]:
        """Return every place that there is, by partition, and how many records were set aside.

        Raises:
            SQLAlchemyError: it does not answer, or nobody has opened it yet.
        """
        with self._engine.connect() as connection:
            return places.read_places(connection), places.count_lost(connection)

    def split_place(self, place: Place, parts: Sequence[Place]) -> None:
        """Make the history of one node's own log that of the shared log into which that log was copied.

        Its records stay as they are; what comes after them in each partition is taken from there.

        Args:
            place: of the history in the old log, as `open` returned it, and nobody has moved it since.
            parts: for each partition its epoch, and position and id of the last record in it that is not
                after `place` in the old log (0 and nothing where there is none).

        Raises:
            Moved, SQLAlchemyError: nothing has changed.
        """
        with self._engine.begin() as connection:
            places.split(connection, place, parts)

    def join_place(self) -> bool:
        """Take `split_place` back; return whether this is the history of one node's own log now. It is not if
        it has records of the shared log: then nothing has changed.

        Raises:
            Moved, SQLAlchemyError: nothing has changed.
        """
        with self._engine.begin() as connection:
            return places.join(connection)

    def set_aside(self, place: Place, upto: int, epoch: str, now: str) -> tuple[Place, int]:
        """Take what the log of a partition lost out of the history: see `aside.set_aside`."""
        with self._engine.begin() as connection:
            return aside.set_aside(connection, place, upto, epoch, now)

    def ids(self, place: Place, after: int) -> dict[int, str]:
        """Return the ids of the records of a partition that are here after a position, by position."""
        events = tables.events.c
        low, high = place.offset + after, place.offset + place.position
        query = select(events.position, events.id).where(events.position > low, events.position <= high)
        with self._engine.connect() as connection:
            return {position - place.offset: id_ for position, id_ in connection.execute(query)}

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
                low, high = (place.offset + position for position in gap)
                values = {"low": low, "high": high, "noted_at": now}
                connection.execute(insert(tables.history_gaps).values(values))
                after = after._replace(position=gap[1], last_id="")
            move(connection, place, after)
        return after

    def write(self, records: Sequence[Committed], place: Place, after: Place) -> None:
        """Write what some records do, and the place after them, in one transaction. A single one may be there
        already: it was parked once, and replayed.

        Raises:
            Moved: somebody else writes here.
            SQLAlchemyError, DecodeError: nothing was written, or (a connection that broke) perhaps all.
        """
        with self._engine.begin() as connection:
            move(connection, place, after)
            rows = Rows(lambda store, product: _last_counts(connection, store, product), place.offset)
            rows.take(records)
            _insert(connection, rows, again=len(records) == 1)

    def write_again(self, record: Committed, partition: int | None = None) -> None:
        """Write what one record does that lies before the place. Repeats without harm."""
        offset = places.offset_of(partition)
        before = offset + record.position
        with self._engine.begin() as connection:
            rows = Rows(lambda store, product: _last_counts(connection, store, product, before), offset)
            rows.take((record,))
            _insert(connection, rows, again=True)

    def look(self, place: Place) -> None:
        """See that a place is still where it was.

        Raises:
            Moved: somebody else writes here.
        """
        with self._engine.begin() as connection:
            move(connection, place, place)

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

    def forget(self, before: str, limit: int, partition: int | None = None) -> int:
        """Delete the oldest events of a log, `limit` at most, from before a time; return how many went. Those
        of the log before a shared one go with the first partition's.
        """
        events = tables.events.c
        low = places.offset_of(partition) if partition else 0
        mine = and_(events.position > low, events.position < places.offset_of(partition) + tables.SPAN)
        oldest = select(events.position, events.time).where(mine).order_by(events.position).limit(limit)
        with self._engine.begin() as connection:
            old = [position for position, time in connection.execute(oldest) if time < before]
            if old:
                passed = and_(mine, events.position <= max(old), events.time < before)
                connection.execute(delete(tables.events).where(passed))
        return len(old)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _patiently(make: Callable[[], T]) -> T:
    """Return what `make` makes, again while others are making the same."""
    for _ in range(OPENINGS):
        try:
            return make()
        except DBAPIError as error:
            if not any(word in str(error.orig).lower() for word in _MADE_MEANWHILE):
                raise
    return make()


def _make_engine(url: URL, shared: bool) -> Engine:
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
    more: dict[str, Any] = {}
    if shared and kind != "sqlite":
        more["isolation_level"] = "READ COMMITTED"  # MySQL's own locks gaps, where others may have to insert
    engine = create_engine(url, hide_parameters=True, connect_args=options, pool_pre_ping=True, **more)
    if kind == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


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
