"""Onda inside a POS program: no web, no server, a shop in a folder.

Run it twice: the second run finds what the first one left.

    python examples/embed.py [folder]
"""

from __future__ import annotations

import sys

import msgspec
import trio

from engine import Config, Frame, open_node
from engine.commands import ConfigureStore, CreateOrder, OpenStore, PutProduct, Wish

SHOP = "store:corner"
OWNER = "owner:kim"


async def main(folder: str) -> None:
    """Set up a shop, follow it, and take an order."""
    async with open_node(Config(data=folder)) as node:
        await node.ask(SHOP, ConfigureStore(name="Corner", payment_mode="postpay"), by=OWNER)
        await node.ask(SHOP, PutProduct(product="ramen", name="라면", price=4500), by=OWNER)
        await node.ask(SHOP, OpenStore(), by=OWNER)

        with await node.subscribe(SHOP) as orders:
            order = CreateOrder(lines=(Wish(product="ramen", quantity=2),))
            answer = await node.ask(SHOP, order, by=OWNER)
            print("answered", answer.cursor, answer.result.decode())
            await orders.wait()
            for frame in orders.take():
                show(frame)

        state = msgspec.json.decode((await node.read(SHOP)).state)
        print("orders on the board:", ", ".join(state["orders"]))


def show(frame: Frame) -> None:
    """Print what a subscriber gets: the same bytes as every screen."""
    print("followed", frame.version, frame.type)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "data")
