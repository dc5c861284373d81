"""The part of the evening in which topics have records, groups handle them, and customers are recognized."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from engine.domain.customer import Beacon
from engine.domain.group.delivery import Pull, Window
from engine.domain.group.members import EndLeases, Join, Leave, Renew
from engine.domain.group.moving import MissRecords, Replay, Seek
from engine.domain.group.words import Ack, Nack, Park
from engine.domain.store.visits import IdentifyCustomer, NoteVisit
from engine.domain.topic import MakeTopic, Publish, Record
from engine.domain.visits import CountVisit
from tests.harness_domain import World

TOPIC, PARTITION, GROUP, VISITS = "topic:news/partitions", "topic:news/0", "group:news/readers", "visits:news"
UUID = "0192d3a4-5b6c-7d8e-9f00-112233445566"
BEACON = Beacon("550e8400-e29b-41d4-a716-446655440000", 100, 3, -50)
BY = "service:embedded"


def tell(world: World) -> None:
    """Publish, share out, handle, fail, and move."""
    world.ask(TOPIC, MakeTopic(1), BY)
    data = Raw(b'{"customer_id":"cust123"}')
    records = tuple(Record(f"e{n}", data, "cust123", "News", "2027-01-15T08:00:00.000Z") for n in range(4))
    world.ask(PARTITION, Publish(records), BY)
    world.ask(GROUP, Join("m1", (0,)), BY)
    world.ask(GROUP, Join("m2", (0,), 600_000), BY)
    world.ask(GROUP, Leave("m2"), BY)
    keys = ("cust123", "cust456", None, "cust123")

    def pull() -> list[str]:
        done: dict[str, Any] = world.result(GROUP, Pull("m1", (Window(0, 1, keys),), 2), BY)
        return [one["lease"] for one in done["records"]]

    first, second = pull()
    world.ask(GROUP, Renew("m1", (first, second)), BY)
    world.ask(GROUP, Nack("m1", (first,), 0, "지금은 안 돼요"), BY)
    world.ask(GROUP, Park("m1", (second,), "읽을 수 없어요"), BY)
    world.ask(GROUP, Replay(), BY)
    first, second = pull()
    world.ask(GROUP, Park("m1", (second,), "읽을 수 없어요"), BY)
    world.ask(GROUP, Replay(drop=True), BY)
    world.ask(GROUP, Ack("m1", (first,)), BY)
    pull()
    world.now_ms += 60_000
    world.ask(GROUP, EndLeases(), BY)
    world.ask(GROUP, Seek({0: 0}), BY)
    world.ask(GROUP, MissRecords(0, 2), BY)
    world.ask(VISITS, CountVisit("Table 3", "2027-01-15T08"), BY)
    world.ask(
        "store:s1", IdentifyCustomer("cust123", "Table 3", 0.95, BEACON, "2027-01-15T08:00:00Z", UUID), BY
    )
    world.ask("store:s1", NoteVisit("e9", "cust456", "Entrance", "2027-01-15T08:00:00.000Z"), BY)
