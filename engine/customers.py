"""What follows when a customer is recognized: the topic `customer-events`, and three groups that handle it.

    shop   CustomerIdentified -> published, keyed by the customer
    group  notification    the shop's board and the customer are told: "고객 A 입장"
    group  recommendation  the customer is told what they liked before, and what sells now
    group  analytics       visits are counted by place and hour

The groups begin to work once there is such a topic. A record may come again: every effect is sent under an id
made of the record's `event_id`, so it is once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeVar

import msgspec
import trio

from engine.actor import Actor
from engine.answers import Answer
from engine.config import Config
from engine.consuming import Consuming
from engine.domain.contract import Command
from engine.domain.customer import EVENT_TYPE, TOPIC, VERSION, Sighting
from engine.domain.store.state import State as Store
from engine.domain.store.visits import CustomerIdentified, NoteVisit
from engine.domain.topic import PARTITIONS
from engine.domain.user.notices import Notify
from engine.domain.user.state import State as User
from engine.domain.visits import CountVisit
from engine.errors import Rejected, Unavailable
from engine.mailbox import Committed
from engine.partition import Partition
from engine.publishing import Message, topic_stream
from engine.reactions import Reaction
from engine.records import stream_name
from engine.topics import Delivery, Topics

VISITS = stream_name("visits", TOPIC)
GROUPS = ("notification", "recommendation", "analytics")
"""What they send has the record's `event_id`, a dot and the group's name as its id, and so as its cause."""
FULL_S = 2.0
"""Pause before a group that takes no more members is asked again."""
CHOICES = 3
"""Products in one recommendation."""
BODY_CHARS = 2000

T = TypeVar("T")

logger = logging.getLogger("onda.customers")


class Seen(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who was recognized, as it stands in the event. `store`: at which shop, when that is known."""

    customer_id: str
    location: str
    confidence: float
    detected_at: str
    beacon: Any = None
    store: str | None = None


class CustomerEvent(msgspec.Struct, frozen=True, gc=False):
    """The event as subscribers get it."""

    event_id: str
    timestamp: str
    data: Seen
    event_type: str = EVENT_TYPE
    version: str = VERSION


class Host(Protocol):
    """What this needs of its node."""

    config: Config
    actors: MutableMapping[str, Actor]
    topics: Topics

    def partition_of(self, stream: str) -> Partition: ...

    async def ask(self, stream: str, command: Command, *, by: str = ..., id: str | None = ...) -> Answer: ...

    async def examine(self, stream: str, look: Callable[[Any, int], T]) -> T: ...

    def consume(self, topic: str, group: str, member: str | None = None) -> Consuming: ...


def message_of(event_id: str, timestamp: str, seen: Sighting, store: str | None) -> Message:
    """Return what is published when a customer was recognized."""
    beacon = None if seen.beacon is None else msgspec.to_builtins(seen.beacon)
    told = Seen(seen.customer_id, seen.location, seen.confidence, seen.detected_at, beacon, store)
    event = CustomerEvent(event_id, timestamp, told)
    return Message(event, seen.customer_id, EVENT_TYPE, event_id, timestamp)


class Customers:
    """Publishes what shops saw, and runs the three groups of one node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._there = trio.Event()
        self.reaction = Reaction(
            "customers", frozenset({EVENT_TYPE, "TopicMade"}), self._publish, self._wants, _lane
        )

    def _wants(self, record: Committed) -> bool:
        if record.stream == topic_stream("topic", TOPIC, PARTITIONS):
            self._there.set()
        return isinstance(record.event, CustomerIdentified)

    async def _publish(self, record: Committed) -> None:
        event = record.event
        assert isinstance(event, CustomerIdentified)
        seen = Sighting(event.customer_id, event.location, event.confidence, event.detected_at, event.beacon)
        store = record.stream.partition(":")[2]
        message = message_of(event.event_id, event.at, seen, store)
        await self._host.topics.publish(TOPIC, [message], by=record.stream)

    async def run(self) -> None:
        """Run the groups, once there is something to handle."""
        stream = topic_stream("topic", TOPIC, PARTITIONS)
        if stream in self._host.actors or await self._is_saved(stream):
            self._there.set()
        await self._there.wait()
        async with trio.open_nursery() as nursery:
            for group, handler in zip(GROUPS, (self.notify, self.recommend, self.count), strict=True):
                nursery.start_soon(self._take_part, group, handler)

    async def _is_saved(self, stream: str) -> bool:
        try:
            return bool(await self._host.partition_of(stream).checkpoint.load_states([stream]))
        except Unavailable:
            return True  # a shared log is away: the groups wait for it

    async def _take_part(self, group: str, handler: Callable[[CustomerEvent], Awaitable[None]]) -> None:
        async def handle(record: Delivery) -> None:
            if record.type == EVENT_TYPE:
                await handler(msgspec.json.decode(record.data, type=CustomerEvent))

        member = self._host.consume(TOPIC, group, self._host.config.node_id)
        while True:
            try:
                await member.handle(handle)
            except Rejected as refusal:  # services may join the group too, and fill it
                logger.warning("%s of %s waits: %s", group, TOPIC, refusal.detail)
                await trio.sleep(FULL_S)
            else:
                return

    async def notify(self, event: CustomerEvent) -> None:
        """Tell the shop's board and the customer."""
        seen = event.data
        if seen.store is not None:
            note = NoteVisit(event.event_id, seen.customer_id, seen.location, seen.detected_at)
            await self._send(f"store:{seen.store}", note, "notification", event)
        words = f"{seen.location}: customer {seen.customer_id} is here"
        notice = Notify(f"고객 {seen.customer_id} 입장", words)
        await self._send(f"user:{seen.customer_id}", notice, "notification", event)

    async def recommend(self, event: CustomerEvent) -> None:
        """Tell the customer what they ordered before and can have now, and what sells now."""
        seen = event.data
        user = f"user:{seen.customer_id}"
        before, last = await self._host.examine(user, lambda state, _: _ordered(state))
        store = seen.store or last
        if store is None:
            return
        try:
            stream = f"store:{store}"
            names = await self._host.examine(stream, lambda state, _: _choose(state, before.get(store)))
        except Rejected:
            return  # there is no such shop
        if names:
            notice = Notify("추천 메뉴", ", ".join(names)[:BODY_CHARS])
            await self._send(user, notice, "recommendation", event)

    async def count(self, event: CustomerEvent) -> None:
        """Count the visit."""
        counted = CountVisit(event.data.location, event.data.detected_at[:13])
        await self._send(VISITS, counted, "analytics", event)

    async def _send(self, stream: str, command: Command, group: str, event: CustomerEvent) -> None:
        try:
            await self._host.ask(stream, command, by=f"service:{group}", id=f"{event.event_id}.{group}")
        except Rejected as refusal:
            if refusal.code != "unknown_store":
                raise


def _lane(record: Committed) -> str:
    return f"{record.stream}>{getattr(record.event, 'customer_id', '')}"


def _ordered(state: User) -> tuple[dict[str, Counter[str]], str | None]:
    """Return what a user ordered, by shop, and the shop of the newest order."""
    before: dict[str, Counter[str]] = {}
    last = None
    for order in state.orders.values():
        last = order.store
        before.setdefault(last, Counter()).update({line.product: line.quantity for line in order.lines})
    return before, last


def _choose(state: Store, before: Counter[str] | None) -> list[str]:
    """Return names of products that can be had: those that the customer likes first, then what sells."""
    selling: Counter[str] = Counter()
    for order in state.orders.values():
        selling.update({line.product: line.quantity for line in order.lines})
    wanted = [product for counts in (before, selling) if counts for product, _ in counts.most_common()]
    chosen = []
    for name in dict.fromkeys(wanted):
        product = state.products.get(name)
        if product is not None and not product.sold_out and product.stock != 0:
            chosen.append(product.name)
    return chosen[:CHOICES]
