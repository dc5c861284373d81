"""A shop out of the Redis that nodes shared into a data folder without one.

Partitions become one order by the ids of events, which begin with their time. Each keeps its own order, and
records of one command stay together, as whoever reads the log relies on that.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from engine.errors import LogCorrupt, LogMoved
from engine.log.opening import new_epoch
from engine.log.redis_scripts import MOVED
from engine.migrating.folder import Filling, Folder, Sizes, target
from engine.migrating.kept_file import reading, writing
from engine.migrating.kept_shared import KeptShared
from engine.migrating.looking import Spots, check_heads, read_heads, read_partition
from engine.migrating.places import Join, Places
from engine.migrating.shared import WHERE, Meta, Shared, find
from engine.migrating.tally import TOLD_EVERY, Head, Kept, Report, Tally, Told, compare_heads, quiet
from engine.migrating.tokens import take_revoked
from engine.records import Entry

Unit = tuple[str, int, list[tuple[int, str, int, bytes]]]
"""What stays together: the id to sort it by, its partition; position, stream, version and bytes of each."""


def from_redis(data: str, url: str, sizes: Sizes, *, again: bool = False, told: Told = quiet) -> Report:
    """Bring the shop that nodes shared in a Redis into a data folder without one.

    Args:
        data: the folder; made when it is missing.
        url: of the Redis, on which no node may run.
        sizes: of the log's files.
        again: take away what an unfinished move has left in the folder, and begin anew.
        told: see `Told`; it may raise, too.

    Raises:
        ConfigError: there is no log in this Redis, or something in the folder.
        LogLocked: nodes run on it, or a server has the folder open.
        LogMoved: the log in this Redis was moved already.
        LogCorrupt: keys are missing in Redis, or what was written is not what was read.
        LogAway: Redis does not answer.
        LogFailed: the disk does not take it.
    """
    with closing(find(url)) as shared:
        moved = shared.standing() == MOVED
        if moved and not again:
            raise LogMoved("the log in this Redis was moved already: `onda migrate --undo` lets it be used")
        shared.check_alone()
        metas = [shared.meta(number) for number in range(shared.partitions)]
        same = len({meta.epoch for meta in metas}) == 1 and all(meta.intact for meta in metas)
        epoch = metas[0].epoch if same else new_epoch(os.urandom)
        kept = KeptShared(shared)
        for number in range(shared.partitions):
            kept.check(number)
        heads = read_heads(shared)
        with target(data, again=again, unfinished=moved) as folder:
            gone = _gone(heads, metas)
            join = Join(
                [kept.places(number, before) for number, before in enumerate(gone)],
                gone,
                {one.stream: one.version for one in kept.states(heads)},
            )
            filling = Filling(folder, epoch, sum(gone) + 1, sizes)
            tally = _write(filling, shared, metas, heads, join, told)
            told("checkpoint", tally.records)
            tally.add_resting(join.saved.items(), epoch)
            places = join.places()
            with writing(folder.checkpoint) as file:
                sums = Kept.empty()
                file.add_states(sums.states.each(kept.states(heads)))
                file.add_answers(sums.answers.each_answer(kept.answers()))
                file.add_tasks(sums.tasks.each(kept.tasks()))
                file.add_places(places)
            _compare(folder, tally, heads, places, sums, told)
            told("close", tally.records)
            shared.close_log(metas)
            take_revoked(data, shared)
            told("open", tally.records)
            folder.finish()
    return Report.of(tally, epoch, sums, places, fresh=not same)


def undo_from_redis(url: str) -> bool:
    """Let the Redis that was left be used again; return whether it was closed."""
    with closing(find(url)) as shared:
        return shared.reopen_log()


def _gone(heads: Mapping[str, Head], metas: Sequence[Meta]) -> list[int]:
    """Return by partition how many records were dropped: all positions before its first."""
    found = [0] * len(metas)
    for head in heads.values():
        found[head.partition] += head.low - 1
    for number, (gone, meta) in enumerate(zip(found, metas, strict=True)):
        if gone != meta.first - 1:
            lost = f"{gone} records of streams were dropped, but it begins at {meta.first}"
            raise LogCorrupt(WHERE, 0, f"partition {number}: {lost}")
    return found


def _write(
    filling: Filling,
    shared: Shared,
    metas: Sequence[Meta],
    heads: Mapping[str, Head],
    join: Join,
    told: Told,
) -> Tally:
    """Write the records; return what there was."""
    tally, spots = Tally(shared.partitions, WHERE), Spots()
    told("write", 0)
    units = [_units(shared, number, meta, tally, spots) for number, meta in enumerate(metas)]
    written = 0
    for _, number, records in heapq.merge(*units, key=_sort_key):
        for position, stream, version, data in records:
            join.add(number, position, stream, version)
            filling.add(data)
            written += 1
            if written % TOLD_EVERY == 0:
                told("write", written)
    filling.close()
    check_heads(tally, heads)
    spots.compare(shared, heads)
    return tally


def _sort_key(unit: Unit) -> str:
    return unit[0]


def _units(shared: Shared, number: int, meta: Meta, tally: Tally, spots: Spots) -> Iterator[Unit]:
    """Yield what stays together in a partition, under ids that never fall."""
    key, same = "", ("", "")
    unit: list[tuple[int, str, int, bytes]] = []
    for record, data, origin in read_partition(shared, number, meta, tally, spots):
        stream = record.entry.stream
        if (stream, origin.cause) != same:
            if unit:
                yield key, number, unit
            key, same, unit = max(key, origin.id), (stream, origin.cause), []
        unit.append((record.position, stream, record.entry.version, data))
    if unit:
        yield key, number, unit


def _compare(
    folder: Folder, tally: Tally, heads: Mapping[str, Head], places: Places, sums: Kept, told: Told
) -> None:
    """Read all of it back.

    Raises:
        LogCorrupt: it is not what was read from Redis.
    """
    found = Tally(len(tally.counts), folder.log)

    def visit(position: int, entry: Entry) -> None:
        found.add(entry)
        if found.records % TOLD_EVERY == 0:
            told("read back", found.records)

    folder.read_back(visit)
    tally.compare(found)
    with reading(folder.checkpoint) as file:
        found.add_resting(file.versions(), "")
        for name, head in found.heads.items():
            if not head.kept and name in heads:
                head.id = heads[name].id  # a folder has no ids of records that are dropped
        compare_heads(heads, found.heads, folder.log)
        if Kept.of(file.states(), file.answers(), file.tasks()) != sums:
            raise LogCorrupt(folder.checkpoint, 0, "states, answers or tasks are not what was written")
        if file.places().ordered() != places.ordered():
            raise LogCorrupt(folder.checkpoint, 0, "the positions are not what was written")
