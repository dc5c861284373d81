"""The history of a shared log: one database for all nodes, and a keeper for each partition.

The node on duty for a partition runs its keeper, so each record is written once, in the order of its
partition; those of different partitions come in any order. A node that believes to be on duty and is not any
more finds the place moved, writes nothing, and looks again. Every node asks the database, on duty or not.

When the log begins a new epoch, its own list of epochs says up to which position an older one holds (where
that is lost, too, records are compared). Where the history knows more, the log has lost what it had
acknowledged: those records are taken back out, with everything that they did, and kept in `history_lost`
(`aside`). So history and log tell one story again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

from engine.codec import decode_envelope
from engine.domain.times import to_text
from engine.errors import CursorUnusable, LogAway
from engine.history.database import Database
from engine.history.keeper import DatabaseDown, Keeper, ask_database, tell_foreign
from engine.history.places import NotOurs, Place
from engine.log import end_of
from engine.partition import Partition
from engine.shared_partition import SharedPartition

LOOK_S = 5.0
"""How often each node looks how far the history is."""
WAIT_S = 5.0
"""How long a record that the history has may not have come here yet."""

T = TypeVar("T")

logger = logging.getLogger("onda.history")


class Host(Protocol):
    """What the history needs of its node."""

    @property
    def partitions(self) -> list[Partition]: ...


class SharedKeeper(Keeper):
    """Keeps what belongs to one partition, while this node is on duty for it."""

    def __init__(
        self, host: SharedPartition, database: Database, partition: int, thread: trio.CapacityLimiter
    ) -> None:
        super().__init__(host, database, partition, thread)
        self._log = host.log

    async def _agree(self, place: Place) -> Place:
        """See `Keeper`: what the log has lost is set aside."""
        epochs = await self._log.epochs()
        newest, end, log = epochs[-1][0], end_of(place.epoch, epochs), epochs[0][0]
        if not newest == self._log.epoch == self._host.epoch:  # so its head may not be known here yet
            raise LogAway(f"partition {place.partition} begins a new epoch")
        if place.log != log and (place.log or (place.epoch and end is None)):
            raise NotOurs(tell_foreign(place))
        place = place._replace(log=log)
        if place.position == 0:
            return place
        if end is not None and end >= place.position and await self._is_there(place):
            return place
        if place.epoch == newest:
            raise NotOurs(f"record {place.position} of partition {place.partition} is not the one in the log")
        upto = place.position if end is None else min(place.position, end)  # an epoch may be lost, too
        upto = await self._agreed(place, upto)
        return place if upto == place.position else await self._set_aside(place, upto)

    async def _is_there(self, place: Place) -> bool:
        """Whether the last record of the history is in the log, or was once and has been dropped."""
        if place.position < self._log.first or not place.last_id:
            return True
        try:  # others have seen it: it may come here a moment later
            found = await self._log.follow(place.position - 1, WAIT_S)
        except CursorUnusable:
            return True
        if not found:
            raise NotOurs(f"the log ends before record {place.position}, which the history has")
        position, entry = found[0]
        return position == place.position and decode_envelope(entry.body).id == place.last_id

    async def _agreed(self, place: Place, upto: int) -> int:
        """Return the last position, at most `upto`, up to which history and log have the same records."""
        agreed = min(upto, self._log.first - 1)
        kept = await self._in_thread(lambda: self._database.ids(place, agreed))
        kept |= {place.position: place.last_id} if place.last_id else {}
        while agreed < upto and (found := await self._log.read(agreed)):
            for position, entry in found:
                id_ = decode_envelope(entry.body).id
                if position > upto or kept.get(position, id_) != id_:
                    return agreed
                agreed = position
        return agreed

    async def _set_aside(self, place: Place, upto: int) -> Place:
        host = self._host
        now = to_text(host.clock.now_ms())
        after, count = await self._in_thread(lambda: self._database.set_aside(place, upto, host.epoch, now))
        host.metrics.history_errors.labels("lost").inc(count)
        logger.error(
            "partition %s: the log lost records %d to %d of epoch %s, which were in the history: %d events "
            "are in history_lost now, and what they did is undone",
            place.partition, upto + 1, place.position, place.epoch, count,
        )  # fmt: skip
        return after


class SharedHistory:
    """The history as one node sees it."""

    def __init__(self, host: Host, database: Database) -> None:
        self._host = host
        self._database = database
        self._thread = trio.CapacityLimiter(1)
        self._keepers: dict[int, SharedKeeper] = {}
        self._places: dict[int, Place] = {}
        self._made = self._answers = False
        self.lost = 0

    def keeper_of(self, partition: Partition) -> SharedKeeper:
        """Return a keeper for a partition that this node is about to be on duty for."""
        assert isinstance(partition, SharedPartition)
        number = self._host.partitions.index(partition)
        made = self._keepers[number] = SharedKeeper(partition, self._database, number, self._thread)
        return made

    def position_of(self, partition: Partition) -> int:
        """See `Keeper.position_of`. For a partition that others keep it may be a few seconds old."""
        return self._position(self._host.partitions.index(partition))

    def _position(self, number: int) -> int:
        mine, place = self._mine(number), self._places.get(number)
        if mine is not None and mine.up:
            return mine.position
        return 0 if place is None else place.position

    def _mine(self, number: int) -> SharedKeeper | None:
        return self._keepers.get(number) if self._host.partitions[number].on_duty else None

    @property
    def lag(self) -> int:
        """Records of all partitions that are not in the database yet."""
        return sum(map(self._lag, range(len(self._host.partitions))))

    def _lag(self, number: int) -> int:
        """Of one partition: at least 1 while its place is in another epoch, and has to be compared."""
        lag = max(0, self._host.partitions[number].log.head - self._position(number))
        return lag if lag or number not in self._places or self._is_up(number) else 1

    @property
    def up(self) -> bool:
        """Whether the database answers, and has a place in the present epoch of every partition."""
        return self._answers and all(map(self._is_up, range(len(self._host.partitions))))

    def _is_up(self, number: int) -> bool:
        mine, place = self._mine(number), self._places.get(number)
        if mine is not None:
            return mine.up
        return place is not None and place.epoch == self._host.partitions[number].epoch

    async def query(self, ask: Callable[[Database], T]) -> T:
        """Return what a question to the database answers; `lag` is then as of the question.

        Raises:
            DatabaseDown: it does not answer, or not in time.
        """
        return await self._query(ask, logging.WARNING)

    async def _query(self, ask: Callable[[Database], T], level: int) -> T:
        def look() -> tuple[list[Place], int, T]:
            return *self._database.read_places(), ask(self._database)

        try:
            places, self.lost, answer = await ask_database(look, self._thread, level)
        except DatabaseDown:
            self._answers = False
            raise
        self._answers = True
        self._places = {place.partition: place for place in places if place.partition is not None}
        return answer

    async def watch(self) -> None:
        """Look now and then how far the history is, for ever."""
        while True:
            try:
                if not self._made:
                    await ask_database(self._database.make, self._thread, logging.DEBUG)
                    self._made = True
                await self._query(lambda database: None, logging.DEBUG)
            except DatabaseDown:
                self._answers = False  # who writes says why
            await trio.sleep(LOOK_S)

    async def close(self) -> None:
        """Close the connections, if the database lets go of them soon."""
        with trio.move_on_after(1.0, shield=True):
            await trio.to_thread.run_sync(self._database.close, limiter=self._thread, abandon_on_cancel=True)
