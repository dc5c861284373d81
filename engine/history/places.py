"""How far a history is: one place in one node's own log, or one in each partition of a shared log.

A place changes in the transaction of what it stands for, and only from where it was: whoever finds it
elsewhere (`Moved`) was not alone, wrote nothing, and has to look again. Everything here blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from engine.history import tables


class Place(NamedTuple):
    """How far a history has come: up to the record `last_id` at a `position` of the log `epoch`. `partition`:
    of a shared log; `None`: it is one node's own log. `log`: the epoch that the partition began with, which
    names the log for ever (empty: not known yet).
    """

    position: int
    epoch: str
    last_id: str
    partition: int | None = None
    log: str = ""

    @property
    def offset(self) -> int:
        """See `offset_of`."""
        return offset_of(self.partition)


class NotOurs(Exception):
    """The database holds the history of another log, or was written by a newer version."""


class Moved(Exception):
    """The place in the database is not the one that was last seen there."""


def offset_of(partition: int | None) -> int:
    """Return what is added to a position of a partition where tables have it beside those of others."""
    return 0 if partition is None else (partition + 1) * tables.SPAN


def place_in(position: int) -> tuple[int, str]:
    """Return where a position of the tables is in its log, and words for which partition that is."""
    partition, within = divmod(position, tables.SPAN)
    return within, f" of partition {partition - 1}" if partition else ""


def open_place(connection: Connection, partition: int | None) -> Place:
    """Return the place in a log; one at its beginning is made when there is none.

    Raises:
        NotOurs: it is the history of a log of the other kind, or a newer version made it.
    """
    wanted = tables.FORMAT if partition is None else tables.FORMAT_SHARED
    one = tables.history_position
    row = connection.execute(select(one)).first()
    if row is None:
        values = {"one": 1, "format": wanted, "position": 0, "epoch": "", "last_id": ""}
        connection.execute(insert(one).values(values))
    elif row.format == tables.FORMAT and not row.epoch:  # nobody has written here
        connection.execute(update(one).where(one.c.epoch == "").values(format=wanted))
    elif row.format != wanted:
        raise NotOurs(_tell_format(row.format, wanted))
    if partition is None:
        return Place(0, "", "") if row is None else Place(row.position, row.epoch, row.last_id)
    places = tables.history_places
    row = connection.execute(select(places).where(places.c.partition == partition)).first()
    if row is None:
        _insert_place(connection, Place(0, "", "", partition), low=0)
        return Place(0, "", "", partition)
    return Place(row.position, row.epoch, row.last_id, partition, row.log)


def _tell_format(found: int, wanted: int) -> str:
    kinds = {tables.FORMAT: "of one node's own log", tables.FORMAT_SHARED: "of a shared log"}
    if found in kinds:
        return f"it holds the history {kinds[found]}, and this is that {kinds[wanted]}: name another database"
    return f"it has format {found}, this version writes {wanted}"


def move(connection: Connection, place: Place, after: Place) -> None:
    """Go from one place to another.

    Raises:
        Moved: somebody else has.
    """
    table = tables.history_position if place.partition is None else tables.history_places
    here = and_(table.c.position == place.position, table.c.epoch == place.epoch)
    values = {"position": after.position, "epoch": after.epoch, "last_id": after.last_id}
    if place.partition is not None:
        here = and_(here, table.c.partition == place.partition)
        values["log"] = after.log
    if connection.execute(update(table).where(here).values(values)).rowcount != 1:
        raise Moved(place.position)


def read_places(connection: Connection) -> list[Place]:
    """Return every place, by partition; one node's own log has one."""
    one = tables.history_position
    row = connection.execute(select(one)).first()
    if row is None or row.format != tables.FORMAT_SHARED:
        return [] if row is None else [Place(row.position, row.epoch, row.last_id)]
    places = tables.history_places.c
    query = select(*(places[name] for name in Place._fields))
    return [Place(*found) for found in connection.execute(query.order_by(places.partition))]


def count_records(connection: Connection) -> int:
    """Return up to which position everything is there; of a shared log, the sum over its partitions."""
    return sum(place.position for place in read_places(connection))


def count_lost(connection: Connection) -> int:
    """Return how many records were set aside because the log had lost them."""
    return connection.execute(select(func.count()).select_from(tables.history_lost)).scalar() or 0


def split(connection: Connection, place: Place, parts: Sequence[Place]) -> None:
    """See `Database.split_place`."""
    move(connection, place, place)
    values = {"format": tables.FORMAT_SHARED}
    connection.execute(update(tables.history_position).values(values))
    for part in parts:
        _insert_place(connection, part, low=part.position)


def join(connection: Connection) -> bool:
    """See `Database.join_place`."""
    one, places = tables.history_position, tables.history_places
    if connection.execute(select(one.c.format)).scalar() != tables.FORMAT_SHARED:
        return True
    written = select(func.count()).select_from(places).where(places.c.position != places.c.low)
    if connection.execute(written).scalar():
        return False
    connection.execute(delete(places).where(places.c.position == places.c.low))
    if connection.execute(select(func.count()).select_from(places)).scalar():
        raise Moved("somebody writes here")
    connection.execute(update(one).values(format=tables.FORMAT))
    return True


def low_of(connection: Connection, partition: int) -> int:
    """Return up to which position the records of a partition came along from another log."""
    places = tables.history_places.c
    query = select(places.low).where(places.partition == partition)
    return connection.execute(query).scalar() or 0


def _insert_place(connection: Connection, place: Place, *, low: int) -> None:
    connection.execute(insert(tables.history_places).values(low=low, **place._asdict()))
