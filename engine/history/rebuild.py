"""A history made again out of the log, on disk or in Redis, beside running servers or without one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:  # redis-py takes its time to load
    from engine.log.redis_kept import KeptLog

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
    place = _begin_empty(database, (None,))[0]
    return _fill(database, place, read_log(log), now_ms, partial, told)


def rebuild_shared(
    log: KeptLog,
    database: Database,
    *,
    now_ms: int,
    partial: bool = False,
    told: Callable[[int], object] = int,
) -> list[Place]:
    """Read what is kept of every partition into an empty database; return the places that were reached.

    Args, Raises: as `rebuild`; and
        LogAway: Redis does not answer.
    """
    numbers = range(log.partitions)
    places = _begin_empty(database, numbers)
    metas = [log.look(number) for number in numbers]
    for meta in metas:
        _check_whole(meta.first, partial)
    done = 0
    for number, meta in enumerate(metas):
        place = places[number]._replace(log=log.epochs(number)[0][0])
        place = _begin(database, place, meta.epoch, meta.first, now_ms, partial)
        records = ((meta.epoch, to_committed(position, entry)) for position, entry in log.read(number, meta))
        places[number] = _fill(
            database, place, records, now_ms, partial, functools.partial(_tell, told, done)
        )
        done += places[number].position
    return places


def _tell(told: Callable[[int], object], before: int, position: int) -> None:
    told(before + position)


def _begin_empty(database: Database, partitions: Iterable[int | None]) -> list[Place]:
    places = [database.open(partition) for partition in partitions]
    with database.connect() as connection:
        there = max(place.position for place in places)
        if there or connection.execute(select(tables.events).limit(1)).first() is not None:
            raise ConfigError(f"{database.shown} is not empty: it holds records up to {there}")
    return places


def _fill(
    database: Database,
    place: Place,
    records: Iterable[tuple[str, Committed]],
    now_ms: int,
    partial: bool,
    told: Callable[[int], object],
) -> Place:
    batch: list[Committed] = []
    last = place.position
    for epoch, record in records:
        if place.epoch != epoch or record.position != last + 1:
            place = _write(database, batch, place) if batch else place
            batch = []
            place = _begin(database, place, epoch, record.position, now_ms, partial)
        last = record.position
        batch.append(record)
        if len(batch) == BATCH_MAX:
            place = _write(database, batch, place)
            told(place.position)
            batch = []
    return _write(database, batch, place) if batch else place


def _begin(database: Database, place: Place, epoch: str, first: int, now_ms: int, partial: bool) -> Place:
    gap = None
    if first > place.position + 1:
        _check_whole(first, partial)
        gap = (place.position + 1, first - 1)
    return database.adopt(place, epoch, gap, to_text(now_ms))


def _check_whole(first: int, partial: bool) -> None:
    if first > 1 and not partial:
        gone = f"the log begins at record {first}: what came before it cannot be rebuilt"
        raise ConfigError(f"{gone}; say --partial to go on without it")


def _write(database: Database, batch: list[Committed], place: Place) -> Place:
    after = place._replace(position=batch[-1].position, last_id=batch[-1].id)
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
