"""A history made again out of the log on disk, beside a running server or without one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from sqlalchemy import select

from engine.domain.times import to_text
from engine.errors import ConfigError, LogCorrupt
from engine.history import tables
from engine.history.database import Database
from engine.history.places import Place
from engine.log.disk import OSDisk
from engine.log.frames import Frame, unpack_entries
from engine.log.segments import load, scan, segment_numbers, segment_path
from engine.mailbox import Committed
from engine.onward import to_committed

BATCH_MAX = 2000


def rebuild(
    log: str, database: Database, *, now_ms: int, partial: bool = False, told: Callable[[int], object] = int
) -> Place:
    """Read the whole log in a folder into an empty database; return the place that was reached.

    Args:
        partial: also when the log no longer reaches back to its first record.
        told: is called with the position after each batch.

    Raises:
        ConfigError: the database is not empty, there is no log, or it begins too late.
        SQLAlchemyError: the database does not take it; what is there already is complete up to its place.
    """
    place = database.open()
    with database.connect() as connection:
        if place.position or connection.execute(select(tables.events).limit(1)).first() is not None:
            raise ConfigError(f"{database.shown} is not empty: it holds records up to {place.position}")
    batch: list[Committed] = []
    for epoch, record in read_log(log):
        if place.epoch != epoch:
            place = _begin(database, place, epoch, record.position, now_ms, partial)
        batch.append(record)
        if len(batch) == BATCH_MAX:
            place = _write(database, batch, place)
            told(place.position)
            batch = []
    return _write(database, batch, place) if batch else place


def _begin(database: Database, place: Place, epoch: str, first: int, now_ms: int, partial: bool) -> Place:
    gap = None
    if not place.epoch and first > 1:
        if not partial:
            gone = f"the log begins at record {first}: what came before it cannot be rebuilt"
            raise ConfigError(f"{gone}; say --partial to go on without it")
        gap = (1, first - 1)
    return database.adopt(place, epoch, gap, to_text(now_ms))


def _write(database: Database, batch: list[Committed], place: Place) -> Place:
    after = Place(batch[-1].position, place.epoch, batch[-1].id)
    database.write(batch, place, after)
    return after


def read_log(folder: str) -> Iterator[tuple[str, Committed]]:
    """Yield each record of a log on disk, and the log's last epoch.

    Raises:
        ConfigError: there is no log.
        LogCorrupt: records are missing in the middle.
    """
    disk = OSDisk()
    numbers = segment_numbers(disk, folder) if os.path.isdir(folder) else []
    if not numbers:
        raise ConfigError(f"there is no log in {folder}")
    epoch = load(disk, segment_path(folder, numbers[-1]))[0].epoch
    last = 0
    for number in numbers:
        header, data = load(disk, segment_path(folder, number))
        frames: list[Frame] = []
        scan(header, data, frames.append)
        for frame in frames:
            entries = unpack_entries(frame.payload, frame.entries)
            for position, entry in enumerate(entries, frame.first_position):
                if last and position != last + 1:
                    raise LogCorrupt(segment_path(folder, number), frame.offset, f"after record {last}")
                last = position
                yield epoch, to_committed(position, entry)
