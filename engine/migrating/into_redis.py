"""A shop out of a data folder into an empty Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from engine.errors import ConfigError, LogCorrupt, LogMoved
from engine.log.redis_scripts import MOVING, Keys
from engine.migrating.folder import Folder, source
from engine.migrating.kept_file import KeptFile, reading
from engine.migrating.kept_shared import KeptShared
from engine.migrating.looking import read_shared
from engine.migrating.places import Places, Split
from engine.migrating.shared import WHERE, Meta, Shared
from engine.migrating.tally import TOLD_EVERY, Kept, Report, Tally, Told, compare_heads, quiet
from engine.migrating.tokens import put_revoked
from engine.records import Entry

CALL_WORDS = 512
CALL_BYTES = 256 << 10
"""What one run of the script adds to a partition."""
TRIP_BYTES = 1 << 20


def to_redis(
    data: str,
    url: str,
    partitions: int,
    *,
    again: bool = False,
    name: str = "into a Redis",
    seen: Callable[[str, int], object] = lambda epoch, head: None,
    ready: Callable[[Report], object] = lambda report: None,
    told: Told = quiet,
) -> Report:
    """Move the shop in a data folder into an empty Redis.

    Args:
        data: the folder.
        url: of the Redis.
        partitions: how many the log there gets.
        again: take away what an unfinished move has left there, and begin anew.
        name: where to, for the mark in the folder.
        seen: is told the log's epoch and head before anything is written, and may raise.
        ready: is told what was moved, after the folder is closed and before Redis is open, and may raise.
        told: see `Told`; it may raise, too.

    Raises:
        ConfigError: there is no log, or Redis is not empty.
        LogLocked: a server has the folder open.
        LogMoved: the folder's log was moved already.
        LogCorrupt: the log is damaged, or what was written is not what was read.
        LogAway, ReadOnly: Redis does not answer, or takes nothing.
        LogFailed: the disk does not deliver.
    """
    with source(data, moved=again) as folder, closing(Shared(url, partitions)) as shared:
        _check_empty(shared, again)
        with reading(folder.checkpoint) as saved:
            places = saved.places()
            tally, split, epoch, head = _read(folder, places, partitions, told)
            if places.position < head - tally.records:
                raise LogCorrupt(folder.checkpoint, 0, f"it ends at {places.position}, before the log begins")
            if folder.is_moved and not (shared.standing() and shared.claimed_for() in ("", epoch)):
                raise LogMoved(f"{data} was moved already, and this Redis has no unfinished move of it")
            tally.add_resting(saved.versions(), epoch)
            parts = split.places(places, tally.gone())
            seen(epoch, head)
            if shared.standing():
                shared.empty()
            shared.claim(epoch)
            _write(folder, places.floor, shared, tally, told)
            kept = KeptShared(shared, epoch)
            told("checkpoint", tally.records)
            sums = _write_kept(saved, kept, parts)
        metas = _metas(tally, epoch)
        _compare(shared, kept, metas, tally, parts, sums, told)
        told("close", tally.records)
        folder.mark_moved(name)
        report = Report.of(tally, epoch, sums, places)
        ready(report)
        put_revoked(data, shared)
        told("open", tally.records)
        shared.open(metas)
    return report


def undo_to_redis(data: str, *, first: Callable[[], object] = lambda: None) -> bool:
    """Let the folder that was left be used again; return whether it was closed. `first`: is called before, if
    it was; when it raises, it stays closed.
    """
    with source(data, moved=True) as folder:
        if folder.is_moved:
            first()
        return folder.unmark_moved()


def _check_empty(shared: Shared, again: bool) -> None:
    standing = shared.standing()
    if standing == MOVING:
        if not again:
            raise ConfigError("a move into this Redis was not finished: say --again to begin it anew")
        return
    if standing:
        raise ConfigError("there is a log in this Redis already")
    for _, key in shared.all_keys():
        raise ConfigError(f"this Redis is not empty: there is {key.decode(errors='replace')}")


def _read(folder: Folder, places: Places, partitions: int, told: Told) -> tuple[Tally, Split, str, int]:
    """Return what there is, where positions are in partitions, the epoch and the head."""
    tally, split = Tally(partitions, folder.log), Split(places.mentioned(), partitions)
    last = 0

    def visit(position: int, entry: Entry) -> None:
        nonlocal last
        last = position
        head, _, _ = tally.add(entry)
        split.add(position, head.partition)
        if tally.records % TOLD_EVERY == 0:
            told("read", tally.records)

    epoch, first = folder.read(places.floor, visit)
    return tally, split, epoch, max(last, first - 1)


def _write(folder: Folder, floor: int, shared: Shared, known: Tally, told: Told) -> None:
    """Write records and heads."""
    loading = _Loading(shared, known.gone())
    tally = Tally(shared.partitions, folder.log)

    def visit(position: int, entry: Entry) -> None:
        head, data, envelope = tally.add(entry)
        loading.add(head.partition, envelope.id, data)
        if tally.records % TOLD_EVERY == 0:
            told("write", tally.records)

    told("write", 0)
    folder.read(floor, visit)
    loading.close()
    waiting: dict[int, list[str]] = {}
    for stream, head in known.heads.items():
        words = waiting.setdefault(head.partition, [])
        words += (stream, str(head))
        if len(words) >= CALL_WORDS:
            shared.call(head.partition, [("HSET", Keys.of(head.partition).heads, *words)])
            del waiting[head.partition]
    for number, words in waiting.items():
        shared.call(number, [("HSET", Keys.of(number).heads, *words)])


class _Loading:
    """Gathers records by partition, and hands them to the script."""

    def __init__(self, shared: Shared, gone: Sequence[int]) -> None:
        self._shared = shared
        self._words: list[list[str | bytes]] = [[] for _ in gone]
        self._sizes = [0 for _ in gone]
        self._heads = list(gone)
        self._last = ["" for _ in gone]
        self._ready: list[tuple[int, int, str, Sequence[str | bytes]]] = []
        self._bytes = 0

    def add(self, number: int, id_: str, data: bytes) -> None:
        """Take one record."""
        words = self._words[number]
        words += (id_, data)
        self._sizes[number] += len(data)
        if len(words) >= CALL_WORDS or self._sizes[number] > CALL_BYTES:
            self._finish(number)
            if self._bytes > TRIP_BYTES:
                self._send()

    def close(self) -> None:
        """Hand over what is left."""
        for number, words in enumerate(self._words):
            if words:
                self._finish(number)
        self._send()

    def _finish(self, number: int) -> None:
        words = self._words[number]
        self._ready.append((number, self._heads[number], self._last[number], words))
        self._heads[number] += len(words) // 2
        self._last[number] = str(words[-2])
        self._bytes += self._sizes[number]
        self._words[number], self._sizes[number] = [], 0

    def _send(self) -> None:
        self._shared.load(self._ready)
        self._ready, self._bytes = [], 0


def _write_kept(saved: KeptFile, kept: KeptShared, parts: Sequence[Places]) -> Kept:
    sums = Kept.empty()
    kept.add_states(sums.states.each(saved.states()))
    kept.add_answers(sums.answers.each_answer(saved.answers()))
    kept.add_tasks(sums.tasks.each(saved.tasks()))
    for number, places in enumerate(parts):
        kept.add_places(number, places)
    return sums


def _metas(tally: Tally, epoch: str) -> list[Meta]:
    streams = [0] * len(tally.counts)
    for head in tally.heads.values():
        streams[head.partition] += 1
    rows = zip(tally.gone(), tally.counts, tally.last, streams, strict=True)
    return [Meta(epoch, gone + count, gone + 1, last, many) for gone, count, last, many in rows]


def _compare(
    shared: Shared,
    kept: KeptShared,
    metas: Sequence[Meta],
    tally: Tally,
    parts: Sequence[Places],
    sums: Kept,
    told: Told,
) -> None:
    """Read all of it back.

    Raises:
        LogCorrupt: it is not what was read from the folder.
    """
    heads, found = read_shared(shared, metas, told)
    tally.compare(found)
    compare_heads(tally.heads, heads, WHERE)
    if Kept.of(kept.states(heads), kept.answers(), kept.tasks()) != sums:
        raise LogCorrupt(WHERE, 0, "states, answers or tasks are not what was written")
    for number, (part, meta) in enumerate(zip(parts, metas, strict=True)):
        if kept.places(number, meta.first - 1).ordered() != part.ordered():
            raise LogCorrupt(WHERE, 0, f"the positions of partition {number} are not what was written")
