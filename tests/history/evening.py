"""An evening in two shops, for a history to keep, and what is in a database afterwards."""

from __future__ import annotations

from typing import Any

import trio
from sqlalchemy import create_engine, select

from engine import Node
from engine.config import Config
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.domain.store.menu import AdjustStock, PutProduct
from engine.domain.store.orders import CreateOrder, Destination, Wish
from engine.domain.table.cart import AddToCart, SubmitCart
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.history import tables
from engine.history.database import database_url
from tests.engine.shop import OWNER, STORE, make_shop, state_of
from tests.engine.shop import config as engine_config

USER = "user:u1"


def config(data: str, db: str = "", **changes: Any) -> Config:
    """Settings of a node on disk with a history, whose database is asked again quickly."""
    return engine_config(data, db=db, **changes)


def wishes(**quantities: int) -> tuple[Wish, ...]:
    return tuple(Wish(product=product, quantity=quantity) for product, quantity in quantities.items())


async def spend(node: Node) -> None:
    """Orders of all kinds, what becomes of them, and a menu that changes meanwhile."""
    await make_shop(node, stock=40)
    await make_shop(node, "store:s2")
    await node.ask(
        STORE, PutProduct(product="rice", name="밥", price=1000, tax_free=True, stock=30), by=OWNER
    )
    await node.ask("table:s1/3", OpenTable(guests=2), by="table:s1/3")
    await settled(node, history=False)  # the table has its menu
    for number in range(3):
        await node.ask("table:s1/3", AddToCart(product="ramen", quantity=number + 1), by="table:s1/3")
        await node.ask("table:s1/3", SubmitCart(), by="table:s1/3")
        await settled(node, history=False)
    there = Destination("김 \0 ☂", "010-1", "서울 " * 50)
    for name in ("o-a", "O-A", "o-b", "o-c", "o-d"):
        order = CreateOrder(wishes(ramen=2, rice=1), order=name, user="u1", shipping=there)
        await node.ask(STORE, order, by=USER)
    await node.ask("store:s2", CreateOrder(wishes(ramen=1), order="o-a"), by=OWNER)
    await node.ask(STORE, RejectOrder(order="o-a", reason="없음 \0"), by=OWNER)
    await node.ask(STORE, CancelOrder(order="o-b", reason="changed my mind"), by=USER)
    line = (await state_of(node, STORE))["orders"]["O-A"]["lines"][0]["line"]
    await node.ask(STORE, CancelLine(order="O-A", line=line, reason="burnt"), by=OWNER)
    await node.ask(STORE, AdjustStock(product="ramen", delta=-3, reason="dropped"), by=OWNER)
    await node.ask(STORE, PutProduct(product="rice", name="쌀밥", price=1100, stock=None), by=OWNER)
    await node.ask(STORE, PutProduct(product="rice", name="쌀밥", price=1100, stock=7), by=OWNER)
    for name in ("o-c", "3-1", "3-2", "3-3"):
        await node.ask(STORE, MarkReady(order=name), by=OWNER)
        await node.ask(STORE, MarkServed(order=name), by=OWNER)
    await settled(node)
    await node.ask("table:s1/3", CloseTable(), by=OWNER)
    await settled(node)


async def settled(node: Node, *, history: bool = True, seconds: float = 20.0) -> None:
    """Wait until everything that follows from the log has followed."""
    with trio.fail_after(seconds):
        while node.statistics()["reaction_lag"] or (history and node.history and node.history.lag):
            await trio.sleep(0.01)


def dump(db: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in the order of its key."""
    url = database_url(db, "")
    assert url is not None
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return {
                table.name: [
                    tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))
                ]
                for table in tables.metadata.sorted_tables
            }
    finally:
        engine.dispose()


def names(table: str, rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Rows as dictionaries."""
    columns = [column.name for column in tables.metadata.tables[table].columns]
    return [dict(zip(columns, row, strict=True)) for row in rows]
