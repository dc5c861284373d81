"""The state of one table: the party that sits there, its cart and orders, and its copy of the menu."""

from __future__ import annotations

from msgspec import Struct

from engine.domain.campaign import CampaignNote
from engine.domain.coupon import Discount
from engine.domain.order import Order
from engine.domain.product import MenuItem, ShopSign
from engine.errors import Rejected

SELF = "self"
"""The id of the one entity in a collection of one."""


class Sitting(Struct, frozen=True, gc=False):
    """The table itself. `sitting` counts its parties, and stays when one has left."""

    store: str
    table: str
    open: bool
    sitting: int
    guests: int | None
    opened_at: str | None


class Refusal(Struct, frozen=True, gc=False):
    """Why the shop gave a line back."""

    code: str
    detail: str


class CartLine(Struct, frozen=True, gc=False):
    """A wish that has not been ordered yet. Its id stays the line's id in the order."""

    line: str
    product: str
    quantity: int
    options: tuple[str, ...]
    note: str
    by: str
    refused: Refusal | None = None


class Submission(Struct, frozen=True, gc=False):
    """A cart on its way to the shop, under the id that the order will have."""

    order: str
    lines: tuple[CartLine, ...]
    sent_at: str


class Call(Struct, frozen=True, gc=False):
    """A call for staff that is ringing."""

    call: str
    kind: str
    called_at: str


class TableCoupon(Struct, frozen=True, gc=False):
    """A coupon that the shop gives out. `held`: this party has one, which is `used` or not. `remaining` is
    as last heard.
    """

    coupon: str
    name: str
    discount: Discount
    remaining: int
    starts_at: str | None
    expires_at: str | None
    held: bool = False
    used: bool = False


class State(Struct):
    """A table. The first nine are the collections that readers see; counters are never reset."""

    table: dict[str, Sitting] = {}
    shop: dict[str, ShopSign] = {}
    menu: dict[str, MenuItem] = {}
    cart: dict[str, CartLine] = {}
    sending: dict[str, Submission] = {}
    orders: dict[str, Order] = {}
    calls: dict[str, Call] = {}
    coupons: dict[str, TableCoupon] = {}
    campaigns: dict[str, CampaignNote] = {}
    lines_made: int = 0
    orders_made: int = 0
    calls_made: int = 0


COLLECTIONS = ("table", "shop", "menu", "cart", "sending", "orders", "calls", "coupons", "campaigns")


def is_open(state: State) -> bool:
    """Whether a party sits here."""
    return SELF in state.table and state.table[SELF].open


def check_open(state: State) -> None:
    """Refuse what only a party at the table can do.

    Raises:
        Rejected: `table_closed`.
    """
    if not is_open(state):
        raise Rejected("table_closed", "This table is closed: open it first")


def table_of(stream: str) -> tuple[str, str]:
    """Return store and table of a stream `table:s1/3`."""
    store, _, table = stream.partition(":")[2].partition("/")
    return store, table
