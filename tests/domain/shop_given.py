"""Events that rows start from: an open shop with a small menu, orders in every stage, a table with guests."""

from __future__ import annotations

from typing import Any

from engine.domain.order import OrderLine
from engine.domain.product import Choice, MenuItem, Option, ShopSign
from engine.domain.store.kitchen import CookingStarted, OrderAccepted, OrderReady, OrderServed
from engine.domain.store.menu import ProductPut
from engine.domain.store.orders import CreateOrder, OrderCreated, OrderPlaced, Wish
from engine.domain.store.shop import StoreConfigured, StoreOpened
from engine.domain.store.stock import StockChange
from engine.domain.store.tables import TableNoted
from engine.domain.table.copies import MenuShown
from engine.domain.table.sitting import TableOpened
from tests.harness_domain import NOW

SIZE = Option("size", "크기", (Choice("small", "소"), Choice("large", "대", 1000)), min=1, max=1)
EXTRA = Option("extra", "추가", (Choice("cheese", "치즈", 500), Choice("egg", "계란", 700)), max=2)

CONFIGURED = StoreConfigured("온다 분식", "postpay", 600)
OPEN = [CONFIGURED, StoreOpened()]
RAMEN = ProductPut("ramen", "라면", 5000)
KIMBAP = ProductPut("kimbap", "김밥", 3000, stock=10)
LAPTOP = ProductPut("notebook", "노트북", 1_500_000, stock=1)
TTEOK = ProductPut("tteok", "떡볶이", 4000, options=(SIZE, EXTRA))
MENU = [*OPEN, RAMEN, KIMBAP, LAPTOP, TTEOK]
TABLE_3 = TableNoted("3", 4, True, 2, NOW)


def wish(product: str = "ramen", quantity: int = 1, **fields: Any) -> Wish:
    return Wish(product, quantity, **fields)


def create(*wishes: Wish, **fields: Any) -> CreateOrder:
    return CreateOrder(wishes or (wish(),), **fields)


def line(
    line: str,
    product: str = "kimbap",
    quantity: int = 2,
    price: int = 3000,
    name: str = "김밥",
    **fields: Any,
) -> OrderLine:
    return OrderLine(line, product, name, quantity, price, (), "", "", **fields)


def created(order: str = "o1", **fields: Any) -> list[Any]:
    """An order of two lines, of which the first, 2 kimbap, took from the stock of 10."""
    lines = (line(f"{order}-1"), line(f"{order}-2", "ramen", 1, 5000, name="라면"))
    values: dict[str, Any] = {
        "number": 1,
        "status": "PLACED",
        "lines": lines,
        "total": 11000,
        "by": "owner:kim",
        "at": NOW,
        "stock": (StockChange("kimbap", 10, 8),),
    }
    return [OrderCreated(order, **(values | fields)), OrderPlaced(order, 1)]


PLACED = [*MENU, *created()]
ACCEPTED = [*PLACED, OrderAccepted("o1", NOW)]
COOKING = [*ACCEPTED, CookingStarted("o1", NOW)]
READY = [*COOKING, OrderReady("o1", NOW)]
SERVED = [*READY, OrderServed("o1", NOW)]

SIGN = ShopSign("온다 분식", "postpay", open=True, paused=False, pause_reason=None)


def item(product: str = "ramen", sold_out: bool = False, **fields: Any) -> MenuItem:
    values: dict[str, Any] = {
        "name": "라면",
        "price": 5000,
        "station": None,
        "tax_free": False,
        "options": (),
    }
    return MenuItem(product, sold_out=sold_out, **(values | fields))


SAT = [
    TableOpened("s1", "3", 1, 2, NOW),
    MenuShown((item(), item("gone", sold_out=True), item("tteok", options=(SIZE, EXTRA))), SIGN),
]
"""A table with guests and the menu."""
