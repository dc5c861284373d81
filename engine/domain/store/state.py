"""The state of one shop: what its screens see, and what only its rules need."""

from __future__ import annotations

from msgspec import Struct

from engine.domain.fields import PaymentMode
from engine.domain.order import Order
from engine.domain.product import MenuItem, Option, ShopSign

SELF = "self"
"""The id of the one entity in a collection of one."""


class Shop(Struct, frozen=True, gc=False):
    """The shop's settings and whether it takes orders."""

    name: str
    payment_mode: PaymentMode
    hold_seconds: int
    open: bool = False
    paused: bool = False
    pause_reason: str | None = None


class Product(Struct, gc=False):
    """A product as the shop sees it: `stock` is what can still be ordered, `sold_out` the switch set by
    hand; `held` and `pinned` are pieces of orders that are not paid yet.
    """

    product: str
    name: str
    price: int
    stock: int | None
    sold_out: bool
    station: str | None
    tax_free: bool
    options: tuple[Option, ...]
    held: int = 0
    pinned: int = 0


class Hold(Struct, gc=False):
    """Stock that is kept for an unpaid order: by product, until `deadline_ms`; while an `attempt` to pay is
    open it is pinned, and no clock ends it.
    """

    deadline_ms: int
    pieces: dict[str, int]
    attempt: str | None = None


class SeenTable(Struct, frozen=True, gc=False):
    """What the shop knows of a table from the table's stream."""

    table: str
    open: bool
    guests: int | None
    opened_at: str | None


class RingingCall(Struct, frozen=True, gc=False):
    """A table's call that nobody has answered yet."""

    table: str
    call: str
    kind: str
    called_at: str


class State(Struct):
    """A shop. The first five are the collections that readers see.

    Attributes:
        number: number of the newest order; numbers are never used twice. sittings: open tables and the
        number of the party that sits there. taken: what each order took out of counted stock and may still
        give back, by product: gone once it cooks. closed: closed orders that can still be recalled, oldest
        first, and when they closed (ms). archived: ids of orders that have left, oldest first, so that they
        are not taken again soon.
    """

    shop: dict[str, Shop] = {}
    products: dict[str, Product] = {}
    orders: dict[str, Order] = {}
    tables: dict[str, SeenTable] = {}
    calls: dict[str, RingingCall] = {}
    number: int = 0
    sittings: dict[str, int] = {}
    taken: dict[str, dict[str, int]] = {}
    closed: dict[str, int] = {}
    archived: dict[str, bool] = {}


COLLECTIONS = ("shop", "products", "orders", "tables", "calls")


def menu_item(product: Product, sold_out: bool, stock: int | None) -> MenuItem:
    """Return a product as guests see it, with `sold_out` and `stock` as they are about to be."""
    return MenuItem(
        product.product,
        product.name,
        product.price,
        sold_out or stock == 0,
        product.station,
        product.tax_free,
        product.options,
    )


def shop_sign(shop: Shop) -> ShopSign:
    """Return what tables may know of the shop."""
    return ShopSign(shop.name, shop.payment_mode, shop.open, shop.paused, shop.pause_reason)
