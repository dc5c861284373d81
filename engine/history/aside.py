"""What a shared log has lost is taken back out of the history, and kept aside.

The events go to `history_lost`, and what they did is undone: their changes of stock and their coupons go, and
each order, payment and campaign that they changed is what the last event before made of it, which is read
back out of `events`. All of it, and the place, is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, and_, delete, func, insert, select

from engine.history import tables
from engine.history.places import NotOurs, Place, low_of, move
from engine.history.rows import Counts, Row, Rows
from engine.mailbox import Committed
from engine.onward import to_committed
from engine.records import Entry

CHUNK = 500
PARTS: dict[Table, tuple[tuple[Table, str], ...]] = {
    tables.orders: ((tables.shipping, "order_id"),),
    tables.payments: ((tables.payment_attempts, "payment"), (tables.refunds, "payment")),
    tables.campaigns: (),
}
"""What is read back, and which rows are parts of it, with the column that says of which."""

Key = tuple[Table, tuple[Any, ...]]


class _Start(NamedTuple):
    """No event before this one can have to do with a row."""

    version: int
    time: str


def set_aside(connection: Connection, place: Place, upto: int, epoch: str, now: str) -> tuple[Place, int]:
    """Take everything after the position `upto` out; return the place, in the log's new epoch, and how many
    events it was.

    Raises:
        Moved: somebody else writes here.
        NotOurs: there is more to it than can be taken out.
    """
    assert place.partition is not None
    if upto < low_of(connection, place.partition):
        gone = "the log lost records that the history has from the log before this one"
        raise NotOurs(f"{gone}: make it again with `onda history --rebuild`, in another database")
    last = _id_at(connection, place.offset + upto)
    after = place._replace(position=upto, epoch=epoch, last_id=last)
    move(connection, place, after)
    events = tables.events
    query = select(events).where(_beyond(events, place, upto)).order_by(events.c.position)
    lost = [dict(row) for row in connection.execute(query).mappings()]
    if lost:
        names = [column.name for column in tables.history_lost.columns if column.name in events.c]
        noted = {"epoch": place.epoch, "noted_at": now}
        connection.execute(
            insert(tables.history_lost), [{name: row[name] for name in names} | noted for row in lost]
        )
    did = Rows(lambda store, product: Counts())
    did.take(_records(lost))
    for table in (events, tables.stock_audit, tables.coupon_issue):
        connection.execute(delete(table).where(_beyond(table, place, upto)))
    for table, rows in did.latest.items():
        for row in rows.values():
            connection.execute(delete(table).where(_same(table, row)))
    for table, row in _read_back(connection, did):
        connection.execute(delete(table).where(_same(table, row)))  # a part that was not lost
        connection.execute(insert(table), row)
    return after, len(lost)


def _beyond(table: Table, place: Place, upto: int) -> Any:
    position = table.c.position
    return and_(position > place.offset + upto, position < place.offset + tables.SPAN)


def _same(table: Table, row: Row) -> Any:
    return and_(*(column == row[column.name] for column in table.primary_key))


def _id_at(connection: Connection, position: int) -> str:
    events = tables.events.c
    return connection.execute(select(events.id).where(events.position == position)).scalar() or ""


def _records(rows: Iterable[Row]) -> Iterator[Committed]:
    for row in rows:
        yield to_committed(row["position"], Entry(row["stream"], row["version"], b"", row["body"].encode()))


def _read_back(connection: Connection, lost: Rows) -> Iterator[tuple[Table, Row]]:
    """Yield the rows that lost records changed, as they were before."""
    wanted: dict[str, dict[Key, _Start]] = {}
    for table in PARTS:
        for key, row in lost.latest.get(table, {}).items():
            start = _start_of(connection, table, row)
            if start is not None:
                wanted.setdefault(row["store"], {})[table, key] = start
    for store, starts in wanted.items():
        for record, time in _backwards(connection, f"store:{store}", starts):
            did = Rows(lambda store, product: Counts())
            did.take((record,))
            for table, rows in did.latest.items():
                for key, row in rows.items():
                    if starts.pop((table, key), None) is not None:
                        yield table, row
                        yield from _parts(did, table, row)
            for one in [one for one, start in starts.items() if record.version <= start.version]:
                del starts[one]
            for one in [one for one, start in starts.items() if time < start.time]:
                del starts[one]


def _parts(did: Rows, table: Table, row: Row) -> Iterator[tuple[Table, Row]]:
    for part, column in PARTS[table]:
        for one in did.latest.get(part, {}).values():
            if one[column] == row[column]:
                yield part, one


def _start_of(connection: Connection, table: Table, row: Row) -> _Start | None:
    """Return where a row begins; `None` when it is younger than everything that is left."""
    if table is tables.payments:
        return _Start(0, row["created_at"])
    if table is tables.campaigns:
        return _Start(0, "")
    events = tables.events.c
    query = select(func.min(events.version)).where(
        events.order_id == row["order_id"], events.stream == f"store:{row['store']}"
    )
    version = connection.execute(query).scalar()
    return None if version is None else _Start(version, "")


def _backwards(
    connection: Connection, stream: str, starts: dict[Key, _Start]
) -> Iterator[tuple[Committed, str]]:
    """Yield the events of a stream with their times, the last one first, while there are `starts`."""
    events = tables.events
    version = tables.SPAN
    while starts:
        query = select(events).where(events.c.stream == stream, events.c.version < version)
        query = query.order_by(events.c.version.desc()).limit(CHUNK)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        for row, record in zip(rows, _records(rows), strict=True):
            if not starts:
                return
            yield record, row["time"]
        if len(rows) < CHUNK:
            return
        version = rows[-1]["version"]
