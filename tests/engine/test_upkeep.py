"""Memory: the rings of streams that nobody follows keep to one bound, whatever their number."""

from __future__ import annotations

from engine import Cursor, open_node
from tests.engine.shop import OWNER, config, make_shop, order

STORES = 12
BOUND = 30_000


async def test_rings_that_nobody_follows_keep_to_their_bound() -> None:
    """The longest unchanged are emptied; the newest stay, and so does one that is followed."""
    async with open_node(config(feeds_bytes_max=BOUND, checkpoint_s=3600.0)) as node:
        streams = [f"store:s{number}" for number in range(STORES)]
        early: dict[str, int] = {}
        for stream in streams:
            await make_shop(node, stream)
            early[stream] = node.actors[stream].version
            for number in range(4):
                await node.ask(stream, order(order=f"o{number}"), by=OWNER)
        followed = await node.subscribe(streams[0], Cursor(node.epoch, early[streams[0]]))
        assert sum(feed.bytes for feed in node.feeds.values()) > 2 * BOUND
        await node.upkeep.take()
        await node.upkeep._drop_idle()
        rings = {stream: len(node.feeds[stream]) for stream in streams}
        assert sum(node.feeds[stream].bytes for stream in streams[1:]) <= BOUND
        assert not rings[streams[1]]
        assert rings[streams[-1]]
        assert len(followed.take()) == 8
        for stream in streams:
            subscription = await node.subscribe(stream, Cursor(node.epoch, node.actors[stream].version))
            assert subscription.reset is None
            subscription.close()
        assert (await node.subscribe(streams[1], Cursor(node.epoch, early[streams[1]]))).reset == "expired"
        await node.ask(streams[1], order(order="new"), by=OWNER)
        assert [frame.type for frame in node.feeds[streams[1]].after(early[streams[1]] + 8, 9)] == [
            "OrderCreated",
            "OrderPlaced",
        ]
