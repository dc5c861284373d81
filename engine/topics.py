"""Topics: publishing records, and groups of members that share them. What HTTP and Python programs call.

The rules are in `engine.domain.topic` and `engine.domain.group`; here the commands are put together with what
the rules cannot see: the records themselves, and how long to wait for more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import trio

from engine.actor import Actor
from engine.answers import Answer
from engine.clock import Clock
from engine.config import Config
from engine.domain import group as rules
from engine.domain.contract import Command
from engine.domain.group.delivery import Pull, Window
from engine.domain.group.members import Join
from engine.domain.group.moving import MissRecords, Seek
from engine.domain.group.state import WINDOW, handled
from engine.domain.group.words import Park
from engine.errors import Rejected, Stopping
from engine.feed import UNKNOWN, Feed
from engine.metrics import Metrics
from engine.publishing import Publisher, topic_stream
from engine.shelf import Gone, Shelf
from engine.shelf import Host as Records

LOOK_S = 5.0
"""How often a waiting pull looks again, as a net under the signals."""

T = TypeVar("T")

logger = logging.getLogger("onda.topics")


class Delivery(msgspec.Struct, frozen=True):
    """A record that a member has. `lease` is what it shows to say a word on it."""

    partition: int
    offset: int
    lease: str
    attempt: int
    event_id: str
    key: str | None
    type: str
    time: str | None
    at_ms: int
    data: msgspec.Raw


class _Given(msgspec.Struct):
    partition: int
    offset: int
    lease: str
    attempt: int


class _Delivered(msgspec.Struct):
    records: list[_Given]


class _Front(NamedTuple):
    """How far the group is in one partition, and how much beyond that is taken."""

    partition: int
    committed: int
    ahead: int
    waiting: int


class _Plan(NamedTuple):
    fronts: list[_Front]
    until_ms: int
    lease_ms: int
    due_ms: int | None
    version: int


class Host(Records, Protocol):
    """What topics need of their node."""

    config: Config
    clock: Clock
    metrics: Metrics
    draining: bool
    actors: MutableMapping[str, Actor]

    async def ask(self, stream: str, command: Command, *, by: str = ..., id: str | None = ...) -> Answer: ...

    async def examine(self, stream: str, look: Callable[[Any, int], T]) -> T: ...


class Topics:
    """The topics of one node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        publisher = Publisher(host)
        self.partitions = publisher.partitions
        self.publish = publisher.publish
        self.shelf = Shelf(host)
        self._heads: dict[
            str, int
        ] = {}  # of partitions, and by group what is handled: as last seen in memory
        self._handled: dict[str, list[int]] = {}

    # Groups

    async def ask(self, topic: str, group: str, command: Command, *, by: str = "service:embedded") -> Any:
        """Send a command to a group and return its result."""
        answer = await self._host.ask(topic_stream("group", topic, group), command, by=by)
        return msgspec.json.decode(answer.result)

    async def join(
        self, topic: str, group: str, member: str, *, lease_ms: int, start: str = "first", by: str = ""
    ) -> Any:
        """Let a member take part; the topic is made if need be. A new group begins with the first record,
        or, with `start="last"`, after the last one. Returns member, partitions, generation, lease_ms.
        """
        count = await self.partitions(topic, make=True)
        starts = [0] * count
        if start == "last":
            starts = [
                await self.shelf.head(topic_stream("topic", topic, str(number))) for number in range(count)
            ]
        command = Join(member, tuple(starts), lease_ms)
        return await self.ask(topic, group, command, by=by or "service:embedded")

    async def pull(
        self,
        topic: str,
        group: str,
        member: str,
        *,
        limit: int = 100,
        wait_s: float = 0.0,
        by: str = "service:embedded",
    ) -> list[Delivery]:
        """Give a member records; `[]` when there were none for `wait_s` seconds.

        Raises:
            Rejected: `unknown_member`.
            Stopping: the node is going down.
        """
        ends_s = trio.current_time() + wait_s
        while True:
            plan = await self._plan(topic, group, member)
            heads = {topic_stream("group", topic, group): plan.version}
            for front in plan.fronts:
                stream = topic_stream("topic", topic, str(front.partition))
                heads[stream] = await self.shelf.head(stream)
            if given := await self._give(topic, group, member, plan, limit, by):
                return given
            left_s = ends_s - trio.current_time()
            if left_s <= 0:
                return []
            now_ms = self._host.clock.now_ms()
            nap_s = min(left_s, LOOK_S, max(0.05, (plan.until_ms - now_ms) / 3000))
            if plan.due_ms is not None:
                nap_s = min(nap_s, max(0.0, (plan.due_ms - now_ms) / 1000) + 0.001)
            await self._wait_changed(heads, nap_s)

    async def _plan(self, topic: str, group: str, member: str) -> _Plan:
        def look(state: rules.State, version: int) -> _Plan | None:
            now_ms = self._host.clock.now_ms()  # what is due by now and is not given out waits for its key
            known = state.members.get(member)
            if known is None:
                return None
            fronts, due = [], []
            for number in known.partitions:
                place = state.places[number]
                ahead = len(place.done) + sum(offset > place.committed for offset in place.under_way)
                fronts.append(_Front(number, place.committed, ahead, len(place.waiting)))
                due += [one.due_ms for one in place.waiting.values() if one.due_ms > now_ms]
            return _Plan(fronts, known.until_ms, known.lease_ms, min(due, default=None), version)

        plan = await self._host.examine(topic_stream("group", topic, group), look)
        if plan is None:
            raise Rejected("unknown_member", "This member is not in the group (any more): join first")
        return plan

    async def _give(
        self, topic: str, group: str, member: str, plan: _Plan, limit: int, by: str
    ) -> list[Delivery]:
        """Ask the group for records, with a small view of what comes next and then with all of it."""
        stale = plan.until_ms - self._host.clock.now_ms() < plan.lease_ms // 2
        for size in (2 * limit, WINDOW):
            windows, more = [], False
            for front in plan.fronts:
                length = min(WINDOW, front.ahead + front.waiting + size)
                window, beyond = await self._window(topic, group, front, length, by)
                if front.waiting or len(window.keys) > front.ahead:
                    windows.append(window)
                more |= beyond and length < WINDOW
            if windows or stale:
                result = await self.ask(topic, group, Pull(member, tuple(windows), limit), by=by)
                given = msgspec.convert(result, _Delivered).records
                if given:
                    return [
                        one for one in [await self._load(topic, group, member, g, by) for g in given] if one
                    ]
            if not more:
                break
        return []

    async def _window(
        self, topic: str, group: str, front: _Front, length: int, by: str
    ) -> tuple[Window, bool]:
        """Return the keys of what comes next in a partition, and whether there is more."""
        stream = topic_stream("topic", topic, str(front.partition))
        after = front.committed
        try:
            records = await self.shelf.read(stream, after, length)
        except Gone as gone:
            logger.error("%s: records %d to %d are gone unread by %s", stream, after + 1, gone.upto, group)
            await self.ask(topic, group, MissRecords(front.partition, gone.upto), by=by)
            return Window(front.partition, after + 1, ()), True
        more = await self.shelf.head(stream) > after + len(records)
        return Window(front.partition, after + 1, tuple(one.key for one in records)), more

    async def _load(self, topic: str, group: str, member: str, given: _Given, by: str) -> Delivery | None:
        stream = topic_stream("topic", topic, str(given.partition))
        try:
            [record] = await self.shelf.read(stream, given.offset - 1, 1)
        except Gone:
            await self.ask(topic, group, Park(member, (given.lease,), "the record is gone"), by=by)
            return None
        if given.attempt > 1:
            self._host.metrics.redelivered.inc()
        self._host.metrics.consumed.inc()
        return Delivery(
            given.partition,
            given.offset,
            given.lease,
            given.attempt,
            record.event_id,
            record.key,
            record.type,
            record.time,
            record.at_ms,
            record.data,
        )

    async def _wait_changed(self, heads: dict[str, int], nap_s: float) -> None:
        feeds = [(self._host.feeds.get(stream), head) for stream, head in heads.items()]
        with trio.move_on_after(nap_s):
            async with trio.open_nursery() as nursery:

                async def watch(feed: Feed, head: int) -> None:
                    while feed.head == head and not feed.closed:
                        await feed.wait_changed()
                    nursery.cancel_scope.cancel()

                for feed, head in feeds:
                    if feed is not None and feed.head != UNKNOWN:
                        nursery.start_soon(watch, feed, head)
                await trio.sleep(nap_s)
        if self._host.draining:
            raise Stopping

    async def seek(
        self,
        topic: str,
        group: str,
        *,
        at_ms: int | None = None,
        after: dict[int, int] | None = None,
        by: str = "service:embedded",
    ) -> dict[int, int]:
        """Let a group go on with the first records that were accepted at a time or later, or after these
        offsets by partition; return the offsets after which it goes on.
        """
        count = await self.partitions(topic)
        chosen: dict[int, int] = {}
        for partition in range(count) if after is None else after:
            stream = topic_stream("topic", topic, str(partition))
            head = await self.shelf.head(stream) if 0 <= partition < count else 0
            if after is not None:
                chosen[partition] = min(after[partition], head)
            elif at_ms is not None:
                chosen[partition] = await self._before(stream, head, at_ms)
        await self.ask(topic, group, Seek(chosen), by=by)
        return chosen

    async def _before(self, stream: str, head: int, at_ms: int) -> int:
        """Return the offset of the last record before a time."""
        low, high = 0, head
        while low < high:
            middle = (low + high) // 2
            try:
                [record] = await self.shelf.read(stream, middle, 1)
            except Gone as gone:
                low = gone.upto
                continue
            if record.at_ms < at_ms:
                low = middle + 1
            else:
                high = middle
        return low

    async def lag(self, topic: str, group: str) -> dict[str, Any]:
        """Return how far a group is behind, by partition and in all, and who is in it.

        Raises:
            Rejected: `unknown_group`.
        """

        def look(state: rules.State, version: int) -> Any:
            if not state.places:
                return None
            return msgspec.to_builtins(state), [handled(place) for place in state.places]

        found = await self._host.examine(topic_stream("group", topic, group), look)
        if found is None:
            raise Rejected("unknown_group", "Nobody has joined this group yet")
        state, done = found
        partitions, total = [], 0
        for number, place in enumerate(state["places"]):
            head = await self.shelf.head(topic_stream("topic", topic, str(number)))
            lag = max(0, head - done[number])
            total += lag
            partitions.append(
                {
                    "partition": number,
                    "head": head,
                    "committed": place["committed"],
                    "lag": lag,
                    "under_way": len(place["under_way"]),
                    "waiting": len(place["waiting"]),
                }
            )
        told = {"topic": topic, "group": group, "lag": total, "partitions": partitions}
        counts = {"generation": state["generation"], "missed": state["missed"]}
        return {**told, **counts, "members": state["members"], "parked": list(state["parked"].values())}

    def lag_known(self) -> int:
        """Return the records that the slowest group has still to handle, as far as memory knows: of a group
        or partition that is not there any more, what was seen of it last.
        """
        for actor in self._host.actors.values():
            if actor.kind == "group" and actor.loaded:
                self._handled[actor.stream] = [handled(place) for place in actor.state.places]
        slowest = 0
        for group, places in self._handled.items():
            topic, lag = group.partition(":")[2].partition("/")[0], 0
            for number, done in enumerate(places):
                stream = f"topic:{topic}/{number}"
                feed = self._host.feeds.get(stream)
                if feed is not None and feed.head != UNKNOWN:
                    self._heads[stream] = feed.head
                lag += max(0, self._heads.get(stream, 0) - done)
            slowest = max(slowest, lag)
        return slowest
