"""Onda's engine: usable without the web in any trio program.

    import trio
    from engine import Config, open_node
    from engine.commands import ConfigureStore

    async def main():
        async with open_node(Config(data="shop")) as node:
            await node.ask("store:s1", ConfigureStore(name="Corner", payment_mode="postpay"))
            print((await node.read("store:s1")).state)

    trio.run(main)

What is listed in `__all__`, the commands in `engine.commands` and the errors in `engine.errors` are public.
"""

from engine.answers import Answer
from engine.config import Config, load
from engine.feed import Frame, Snapshot, Subscription
from engine.mailbox import Committed
from engine.node import Node
from engine.opening import MEMORY, open_node, tune_collector
from engine.plugins import Plugin
from engine.publishing import Message, Placed
from engine.reactions import Reaction
from engine.records import Cursor
from engine.topics import Delivery

__all__ = [
    "MEMORY",
    "Answer",
    "Committed",
    "Config",
    "Cursor",
    "Delivery",
    "Frame",
    "Message",
    "Node",
    "Placed",
    "Plugin",
    "Reaction",
    "Snapshot",
    "Subscription",
    "load",
    "open_node",
    "tune_collector",
]
