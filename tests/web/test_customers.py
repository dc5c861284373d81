"""Customers who are recognized: the event goes in once, and shop, customer and counts hear of it."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.web.site import Running, order, running, set_up, wait_until

EVENT: dict[str, Any] = {
    "event_id": "0192d3a4-5b6c-7d8e-9f00-112233445566",
    "event_type": "CustomerIdentified",
    "timestamp": "2025-03-02T12:00:00Z",
    "version": "v1",
    "data": {
        "customer_id": "cust123",
        "location": "Table 3",
        "confidence": 0.95,
        "beacon": {"uuid": "550e8400-e29b-41d4-a716-446655440000", "major": 100, "minor": 3, "rssi": -50},
        "detected_at": "2025-03-02T12:00:00Z",
    },
}
IDENTIFY = "/v1/customers/identify"


@pytest.fixture
async def site() -> AsyncIterator[Running]:
    async with running() as one:
        yield one


def with_(path: str, value: Any) -> dict[str, Any]:
    """The event with another value at a place; `...` takes it out."""
    event = copy.deepcopy(EVENT)
    *way, last = path.split(".")
    inner = event
    for name in way:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return event


async def test_shop_customer_and_counts_hear_of_it_once(site: Running) -> None:
    """However often it is sent; what was ordered before is recommended first."""
    async with site.client("service") as client:
        await set_up(client)
        lines = [{"product": "cola", "quantity": 2}]
        await order(client, user="cust123", lines=lines)
        await order(client)
        await wait_until_orders(site)
        event = with_("data.store", "s1")
        first = (await client.post(IDENTIFY, json=event)).json()
        assert first == {
            "topic": "customer-events",
            "event_id": EVENT["event_id"],
            "partition": 1,
            "offset": 1,
            "duplicate": False,
        }
        again = (await client.post(IDENTIFY, json=event)).json()
        assert again == {**first, "duplicate": True}
        user = site.node
        await wait_until(lambda: len(_notices(site)) == 2)
        await wait_until(lambda: "visits:customer-events" in site.node.feeds)
        notices = sorted((one.title, one.body) for one in _notices(site).values())
        assert notices == [
            ("고객 cust123 입장", "Table 3: customer cust123 is here"),
            ("추천 메뉴", "콜라, 라면"),
        ]
        shop = (await client.get("/v1/stores/s1/sync")).json()["state"]
        [visit] = shop["visits"].values()
        assert (visit["customer"], visit["location"]) == ("cust123", "Table 3")
        await wait_until(lambda: user.feeds["visits:customer-events"].head == 1)
        told = (await client.get("/v1/customers/visits")).json()
        assert told == {"hours": {"2025-03-02T12": {"Table 3": 1}}}
        assert (await client.get("/v1/customers/visits?from=2025-03-02T13")).json() == {"hours": {}}


async def wait_until_orders(site: Running) -> None:
    """The customer's copy of the order is there."""
    await wait_until(lambda: "user:cust123" in site.node.actors)
    await wait_until(lambda: site.node.actors["user:cust123"].state.orders)


def _notices(site: Running) -> dict[str, Any]:
    actor = site.node.actors.get("user:cust123")
    return {} if actor is None else actor.state.notices


async def test_a_shop_tells_of_a_customer(site: Running) -> None:
    """The command of the shop comes to the same, and its own event is not noted twice."""
    async with site.client("staff:s1") as client, site.client("service") as service:
        await set_up(service)
        body = {"customer_id": "A", "location": "Entrance", "confidence": 1}
        told = (await client.post("/v1/stores/s1/identify-customer", json=body)).json()
        assert told["result"]["duplicate"] is False
        name = told["result"]["event_id"]
        repeat = {**body, "event_id": name.upper()}
        told = (await client.post("/v1/stores/s1/identify-customer", json=repeat)).json()
        assert told == {**told, "events": [], "result": {"event_id": name, "duplicate": True}}
        await wait_until(lambda: "user:A" in site.node.actors and site.node.actors["user:A"].state.notices)
        shop = (await client.get("/v1/stores/s1/sync")).json()["state"]
        assert list(shop["visits"]) == [name]


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (with_("event_id", "evt-uuid-1234-5678-9012"), 422, "event_id_invalid"),
        (with_("event_id", ...), 400, "malformed"),
        (with_("event_type", "CustomerLost"), 422, "event_type_invalid"),
        (with_("version", "v2"), 422, "version_invalid"),
        (with_("timestamp", "2025-03-02T12:00:00+09:00"), 422, "time_invalid"),
        (with_("timestamp", "2025-03-02T12:00:00.1234Z"), 422, "time_invalid"),
        (with_("timestamp", "2025-02-30T12:00:00Z"), 422, "time_invalid"),
        (with_("data.detected_at", "yesterday"), 422, "time_invalid"),
        (with_("data.confidence", 1.01), 422, "confidence_invalid"),
        (with_("data.confidence", -0.1), 422, "confidence_invalid"),
        (with_("data.confidence", "high"), 400, "malformed"),
        (with_("data.confidence", True), 400, "malformed"),
        (with_("data.store", "a b"), 400, "malformed"),
        (with_("data.store", "nobodys"), 404, "unknown_store"),
        (with_("data.customer_id", ""), 422, "customer_invalid"),
        (with_("data.customer_id", "고객"), 422, "customer_invalid"),
        (with_("data.location", " "), 422, "location_invalid"),
        (with_("data.location", "x" * 101), 422, "location_invalid"),
        (with_("data.beacon.uuid", "550e8400"), 422, "beacon_invalid"),
        (with_("data.beacon.major", 65_536), 422, "beacon_invalid"),
        (with_("data.beacon.minor", -1), 422, "beacon_invalid"),
        (with_("data.beacon.rssi", 21), 422, "beacon_invalid"),
        (with_("data.beacon.rssi", ...), 400, "malformed"),
        (with_("data.store", "nowhere"), 404, "unknown_store"),
    ],
)
async def test_constraints(site: Running, event: dict[str, Any], status: int, code: str) -> None:
    """Each has its code, and nothing is published."""
    async with site.client("service") as client:
        answer = await client.post(IDENTIFY, json=event)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert (await client.get("/v1/topics/customer-events")).status_code == 404


@pytest.mark.parametrize(
    "event",
    [
        with_("timestamp", "2025-03-02T12:00:00.123Z"),
        with_("data.confidence", 0),
        with_("data.confidence", 1.0),
        with_("data.beacon", ...),
    ],
)
async def test_what_fits_is_taken(site: Running, event: dict[str, Any]) -> None:
    """To the millisecond, and up to the limits."""
    async with site.client("service") as client:
        assert (await client.post(IDENTIFY, json=event)).status_code == 200


async def test_who_may_tell(site: Running) -> None:
    """Staff of their own shop; guests never."""
    async with site.client("service") as client:
        await set_up(client)
    for who, event, status in [
        ("staff:s1", EVENT, 200),
        ("owner:s1", with_("data.store", "s1"), 200),
        ("staff:s1", with_("data.store", "s2"), 403),
        ("user:cust123", EVENT, 403),
        ("table:s1/3", EVENT, 403),
    ]:
        async with site.client(who) as client:
            answer = await client.post(IDENTIFY, json=event)
            assert answer.status_code == status, (who, answer.text)
    async with site.client("owner:s1") as client:
        assert (await client.get("/v1/customers/visits")).status_code == 403
