"""What the crowd does: staff, guests, parties that come and go, and the kitchen, until it is enough."""

from __future__ import annotations

from typing import Any

import trio

from tests.chaos.crowd import COUNTED, PARTY_TABLE, PRODUCTS, STAGES, STORE, USER, Crowd
from web.client import Client
from web.follower import Follower


def run_all(crowd: Crowd, client: Client, nursery: trio.Nursery, many_staff: int = 2) -> None:
    """Start everyone."""
    for _ in range(many_staff):
        nursery.start_soon(staff, crowd, client)
    for table in crowd.tables:
        nursery.start_soon(guests, crowd, client, table)
    nursery.start_soon(kitchen, crowd, client)
    nursery.start_soon(parties, crowd, client)


def all_served(screen: Follower) -> bool:
    """Whether a table has nothing more to wait for."""
    orders = screen.state.get("orders", {}).values()
    return not screen.state.get("sending") and all(order["status"] == "SERVED" for order in orders)


async def staff(crowd: Crowd, client: Client) -> None:
    """Take orders at the counter and for tables, and bring them all the way to the guest."""
    while not crowd.enough:
        key = crowd.new_key()
        lines = [{"product": crowd.chance.choice(PRODUCTS), "quantity": 1, "note": key}]
        body: dict[str, Any] = {"lines": lines}
        for_whom = crowd.chance.random()
        if for_whom < 0.3:
            body["table"] = crowd.chance.choice(crowd.tables)
        elif for_whom < 0.5:
            body["user"] = USER
        created = await crowd.do(client, f"stores/{STORE}/create-order", body, key)
        for stage in STAGES[: crowd.chance.randrange(4)]:
            if created is not None:
                await crowd.do(client, f"stores/{STORE}/{stage}", {"order": created.result["order"]})


async def guests(crowd: Crowd, client: Client, table: str) -> None:
    """Fill the cart of a table and submit it."""
    while not crowd.enough:
        for _ in range(crowd.chance.randint(1, 3)):
            key = crowd.new_key()
            body = {
                "product": crowd.chance.choice(PRODUCTS),
                "quantity": crowd.chance.randint(1, 3),
                "note": key,
            }
            await crowd.do(client, f"tables/{STORE}/{table}/add-to-cart", body, key)
        await crowd.do(client, f"tables/{STORE}/{table}/submit-cart", {})


async def parties(crowd: Crowd, client: Client) -> None:
    """Let one party after the other sit down at a table of its own, eat, and leave."""
    table = f"tables/{STORE}/{PARTY_TABLE}"
    screen = crowd.screen(table)
    while not crowd.enough:
        await crowd.do(client, f"{table}/open-table", {"guests": 4})
        await screen.wait(lambda screen: bool(screen.state.get("menu")))
        key = crowd.new_key()
        await crowd.do(client, f"{table}/add-to-cart", {"product": COUNTED, "quantity": 1, "note": key}, key)
        sent = await crowd.do(client, f"{table}/submit-cart", {})
        if sent is None:
            continue
        order = sent.result["order"]
        await screen.wait(lambda screen, order=order: order in screen.state.get("orders", {}))
        for stage in STAGES:
            await crowd.do(client, f"stores/{STORE}/{stage}", {"order": order})
        await screen.wait(all_served)
        await crowd.do(client, f"{table}/close-table", {})


async def kitchen(crowd: Crowd, client: Client) -> None:
    """Serve what tables have ordered, as the store's screen shows it."""
    screen = crowd.screen(f"stores/{STORE}")
    while not crowd.enough:
        orders = screen.state.get("orders", {}).values()
        waiting = [
            order["order"]
            for order in orders
            if order["status"] == "PLACED" and order["table"] in crowd.tables
        ]
        for order in waiting[:5]:
            for stage in STAGES:
                await crowd.do(client, f"stores/{STORE}/{stage}", {"order": order})
        cursor = screen.cursor
        with trio.move_on_after(0.2):  # to look whether it is enough
            await screen.wait(lambda screen, seen=cursor: screen.cursor != seen)
