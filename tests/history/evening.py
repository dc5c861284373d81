"""An evening in two shops, for a history to keep, and what is in a database afterwards."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import trio
from sqlalchemy import create_engine, select

from engine import Node
from engine.config import Config
from engine.domain.payment import Checkout
from engine.domain.store.campaigns import ScheduleCampaign
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.store.gateway import ApprovalRequested, PaymentPrepared, QueryRequested, RefundSent
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.domain.store.menu import AdjustStock, PutProduct
from engine.domain.store.orders import CreateOrder, Destination, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.refunds import RefundPayment
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.table.cart import AddToCart, SubmitCart
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.history import tables
from engine.history.database import database_url
from engine.history.keeper import DatabaseDown
from engine.partition import Partition
from engine.payments.contract import Approved, Declined, Result, Unknown
from tests.engine.shop import OWNER, STORE, make_shop, state_of
from tests.engine.shop import config as engine_config

USER = "user:u1"


def config(data: str, db: str = "", **changes: Any) -> Config:
    """Settings of a node on disk with a history, whose database is asked again quickly."""
    return engine_config(data, db=db, **changes)


def wishes(**quantities: int) -> tuple[Wish, ...]:
    return tuple(Wish(product=product, quantity=quantity) for product, quantity in quantities.items())


async def spend(node: Node, *others: Node) -> None:
    """Orders of all kinds, what becomes of them, and a menu that changes meanwhile; all through one node."""
    await make_shop(node, stock=40)
    await make_shop(node, "store:s2")
    await node.ask(
        STORE, PutProduct(product="rice", name="밥", price=1000, tax_free=True, stock=30), by=OWNER
    )
    await node.ask("table:s1/3", OpenTable(guests=2), by="table:s1/3")
    await settled(node, *others, history=False)  # the table has its menu
    for number in range(3):
        await node.ask("table:s1/3", AddToCart(product="ramen", quantity=number + 1), by="table:s1/3")
        await node.ask("table:s1/3", SubmitCart(), by="table:s1/3")
        await settled(node, *others, history=False)
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
    await settled(node, *others)
    await node.ask("table:s1/3", CloseTable(), by=OWNER)
    await settled(node, *others)


class Bank:
    """A gateway that does what it is told: refs that begin with `no` are declined."""

    name = "sandbox"

    async def open(self, prepared: PaymentPrepared, store: str) -> Checkout | None:
        return Checkout("https://pay.test/1", "t-1")

    async def approve(self, requested: ApprovalRequested, store: str) -> Result:
        if requested.ref.startswith("no"):
            return Declined("no_money", "\0 not today")
        return Approved(requested.amount, "c-" + requested.payment[-4:])

    async def query(self, asked: QueryRequested, store: str) -> Result:
        return Unknown("nothing")

    async def cancel(self, sent: RefundSent, store: str, *, again: bool) -> Result:
        return Approved(sent.amount, sent.charge)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


PREPAID = "store:s3"


async def pay_first(node: Node) -> None:
    """A shop where guests pay first: paid, declined, given back, held and gone; a coupon and a campaign."""
    await node.ask(PREPAID, ConfigureStore(name="Paid", payment_mode="prepay", hold_seconds=600), by=OWNER)
    for product, tax_free in (("ramen", False), ("rice", True)):
        put = PutProduct(product=product, name=product, price=5000, stock=50, tax_free=tax_free)
        await node.ask(PREPAID, put, by=OWNER)
    await node.ask(PREPAID, OpenStore(), by=OWNER)
    await node.ask(PREPAID, CreateCoupon(coupon="ten", name="Ten", discount=1000, stock=5), by=OWNER)
    await node.ask(PREPAID, IssueCoupon(coupon="ten", user="u1"), by=USER)
    party = ScheduleCampaign(campaign="happy", name="Happy", opens_at="2099-01-01T00:00:00.000Z")
    await node.ask(PREPAID, party, by=OWNER)
    for name, ref, coupon in (("p-a", "yes", "ten"), ("p-b", "no", None), ("p-c", "yes", None)):
        order = CreateOrder(wishes(ramen=3, rice=2), order=name, user="u1", coupon=coupon)
        await node.ask(PREPAID, order, by=USER)
        total = 24_000 if coupon else 25_000
        asked = PreparePayment(order=name, amount=total, payer="u1", method="sandbox")
        prepared = await node.ask(PREPAID, asked, by=USER)
        payment = msgspec.json.decode(prepared.result)["payment"]
        approve = ApprovePayment(order=name, payment=payment, provider_ref=ref)
        await node.ask(PREPAID, approve, by=USER)
        await settled(node, history=False)
        if name == "p-a":
            part = RefundPayment(payment=payment, amount=7_777, reason="cold \0")
            await node.ask(PREPAID, part, by=OWNER)
    await settled(node, history=False)
    await node.ask(PREPAID, CancelOrder(order="p-c", reason="closed"), by=OWNER)
    await node.ask(PREPAID, CreateOrder(wishes(ramen=1), order="p-d", user="u1"), by=USER)
    await node.ask(PREPAID, CancelOrder(order="p-d", reason="no"), by=USER)
    await node.ask(PREPAID, CreateOrder(wishes(ramen=1), order="p-e", user="u1"), by=USER)
    await settled(node)


async def settled(*nodes: Node, history: bool = True, seconds: float = 20.0) -> None:
    """Wait until everything that follows from the log has followed, at whichever node."""
    with trio.fail_after(seconds):
        while not all(map(_handled, zip(*(node.partitions for node in nodes), strict=True))):
            await trio.sleep(0.01)
        for node in nodes:
            while history and node.history and await _lag(node):
                await trio.sleep(0.01)


def _handled(same: tuple[Partition, ...]) -> bool:
    """Whether reactions have come to the end of a partition that several nodes have."""
    head = max(part.log.head for part in same)
    runners = [one for part in same for one in part.runners if part.on_duty and one.name != "history"]
    return bool(runners) and all(runner.position >= head for runner in runners)


async def _lag(node: Node) -> int:
    assert node.history is not None
    with suppress(DatabaseDown):
        await node.history.query(lambda database: None)
    return node.history.lag


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
