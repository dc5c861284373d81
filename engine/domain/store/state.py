"""The state of one shop: what its screens see, and what only its rules need."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from engine.domain.campaign import CampaignPrice
from engine.domain.coupon import Discount
from engine.domain.fields import PaymentMode
from engine.domain.order import Order
from engine.domain.payment import Payment
from engine.domain.product import MenuItem, Option, ShopSign
from engine.domain.store.schedule import Schedule

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


class Coupon(Struct, frozen=True, gc=False):
    """A coupon as the shop sees it: of its `stock`, `issued` are in somebody's hands, `redeemed` of them
    used.
    """

    coupon: str
    name: str
    discount: Discount
    stock: int
    remaining: int
    issued: int
    redeemed: int
    starts_at: str | None
    expires_at: str | None


class Use(Struct, frozen=True, array_like=True, gc=False):
    """The newest order for which a holder used a coupon; not `live` once the coupon came back."""

    order: str
    live: bool


class Campaign(Struct, frozen=True, gc=False):
    """A campaign as the shop sees it; `opened_at` minus `opens_at` is how late it opened."""

    campaign: str
    name: str
    status: str
    opens_at: str
    closes_at: str | None
    prices: tuple[CampaignPrice, ...]
    opened_at: str | None = None
    closed_at: str | None = None


class Special(Struct, frozen=True, array_like=True, gc=False):
    """A product's price in an open campaign, and from when to when (ms) that may be open at all."""

    price: int
    opens_ms: int
    closes_ms: int | None

    def holds(self, now_ms: int) -> bool:
        """Whether it is in force: a clock that was set back, or a late closing, ends it too."""
        return self.opens_ms <= now_ms and (self.closes_ms is None or now_ms < self.closes_ms)


class Visit(Struct, frozen=True, gc=False):
    """A customer who was recognized here."""

    visit: str
    customer: str
    location: str
    at: str


class Issues(Struct):
    """Who has a coupon: `sequences` by holder; `uses` of those who ever used it, and `holders` by order."""

    sequences: dict[str, int] = {}
    uses: dict[str, Use] = {}
    holders: dict[str, str] = {}


class State(Struct):
    """A shop. Those in `COLLECTIONS` are what readers see.

    Attributes:
        number: number of the newest order; numbers are never used twice. sittings: open tables and the number
        of the party that sits there. taken: what each order took out of counted stock and may still give
        back, by product: gone once it cooks. closed: closed orders that can still be recalled, oldest first,
        and when they closed (ms). archived: ids of orders that have left, oldest first, so that they are not
        taken again soon. holds: stock kept for unpaid orders, and expiries: when that ends. queries: when the
        gateway is asked after which payment. staying: closed orders that stay for the sake of money, and when
        they closed (ms). payments_of: the payments of each order. bills: by table the orders that were made
        there, each with the number of its party (0: the table was closed). retries: when which payment's
        refund is tried again. kept: payments whose orders have left; kept_until: when these are forgotten, or
        when one that came back into view leaves it. issues: who has which coupon, by coupon. coupon_ends:
        when coupons leave (ms), soonest first. priced: prices of open campaigns, by product and campaign.
        campaign_due: when campaigns open or close next (ms), soonest first. followers: users to tell, by
        the number under which they came; follows: the newest of these. telling: open campaigns of which
        followers are still being told, and up to which number they have been. identified: sightings of
        customers that were told of, and when (ms).
    """

    shop: dict[str, Shop] = {}
    products: dict[str, Product] = {}
    orders: dict[str, Order] = {}
    tables: dict[str, SeenTable] = {}
    calls: dict[str, RingingCall] = {}
    payments: dict[str, Payment] = {}
    coupons: dict[str, Coupon] = {}
    campaigns: dict[str, Campaign] = {}
    visits: dict[str, Visit] = {}
    number: int = 0
    sittings: dict[str, int] = {}
    taken: dict[str, dict[str, int]] = {}
    closed: dict[str, int] = {}
    archived: dict[str, bool] = {}
    holds: dict[str, Hold] = {}
    expiries: Schedule = msgspec.field(default_factory=Schedule)
    queries: Schedule = msgspec.field(default_factory=Schedule)
    staying: dict[str, int] = {}
    payments_of: dict[str, tuple[str, ...]] = {}
    bills: dict[str, dict[str, int]] = {}
    retries: Schedule = msgspec.field(default_factory=Schedule)
    kept: dict[str, Payment] = {}
    kept_until: Schedule = msgspec.field(default_factory=Schedule)
    issues: dict[str, Issues] = {}
    coupon_ends: dict[str, int] = {}
    priced: dict[str, dict[str, Special]] = {}
    campaign_due: dict[str, int] = {}
    followers: dict[str, int] = {}
    follows: int = 0
    telling: dict[str, int] = {}
    identified: dict[str, int] = {}


COLLECTIONS = ("shop", "products", "orders", "tables", "calls", "payments", "coupons", "campaigns", "visits")


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
