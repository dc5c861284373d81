"""The groups that run in the server: what others do in them does not end it."""

from __future__ import annotations

from contextlib import suppress

import trio

from engine import MEMORY, Config, Message, Node, open_node
from engine.domain.customer import TOPIC
from engine.domain.group.members import Leave
from engine.domain.group.state import MEMBERS_MAX
from engine.errors import Rejected

AT = "2026-11-20T18:15:30.000Z"


def seen(event_id: str) -> Message:
    """Customer A at the entrance."""
    data = {"customer_id": "A", "location": "Entrance", "confidence": 1, "detected_at": AT}
    return Message({"event_id": event_id, "timestamp": AT, "data": data}, "A", "CustomerIdentified", event_id)


async def counted(node: Node) -> int:
    """How many visits there were."""
    hours = await node.examine(f"visits:{TOPIC}", lambda state, _: dict(state.hours))
    return sum(sum(places.values()) for places in hours.values())


async def test_a_group_that_is_full_is_waited_for() -> None:
    """Services may join it too; the node goes on, and so does the group once there is room."""
    async with open_node(Config(data=MEMORY)) as node:
        topics, name = node.topics, node.config.node_id
        for number in range(MEMBERS_MAX - 1):
            await topics.join(TOPIC, "analytics", f"m{number}", lease_ms=600_000)
        with trio.fail_after(10):
            while name in (await topics.lag(TOPIC, "analytics"))["members"]:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(topics.ask, TOPIC, "analytics", Leave(name))
                    for number in range(MEMBERS_MAX):
                        nursery.start_soon(try_to_join, node, f"m{number}")
        await node.publish(TOPIC, [seen("e1")])
        await trio.sleep(0.3)
        assert await counted(node) == 0
        for number in range(MEMBERS_MAX):
            await topics.ask(TOPIC, "analytics", Leave(f"m{number}"))
        with trio.fail_after(10):
            while not await counted(node):
                await trio.sleep(0.02)


async def try_to_join(node: Node, member: str) -> None:
    """Join, if there is room."""
    with suppress(Rejected):
        await node.topics.join(TOPIC, "analytics", member, lease_ms=600_000)
