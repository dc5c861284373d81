"""A new order: who may place it, what it costs, and what it takes out of stock.

The hot path of the whole engine: nothing here copies state or grows with its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, assert_never

from msgspec import Meta, Struct

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Id, Label, Name, Note, Quantity, Ref, TableId
from engine.domain.order import CREATED, PLACED, Order, OrderChange, OrderLine, Shipping, changed
from engine.domain.product import CHOSEN_MAX, extra_price
from engine.domain.store import campaigns, coupons, holds, stock
from engine.domain.store.closing import seat
from engine.domain.store.state import SELF, Shop, State
from engine.domain.store.stock import StockChange
from engine.domain.tax import Split, discounted, vat_in
from engine.domain.times import to_ms, to_text
from engine.errors import Rejected

LINES_MAX = 100


class Wish(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One position that a guest wants: `line` is its id if it has one already, `by` who wants it."""

    product: Ref
    quantity: Quantity
    options: Annotated[tuple[Ref, ...], Meta(max_length=CHOSEN_MAX)] = ()
    note: Note = ""
    line: Id | None = None
    by: Label = ""


class Destination(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Where an order goes."""

    name: Name
    phone: Annotated[str, Meta(min_length=1, max_length=40)]
    address: Annotated[str, Meta(min_length=1, max_length=500)]


class CreateOrder(contract.Command, frozen=True):
    """Order `lines` of products for a `table` or a `user` (those who order for themselves can leave it
    out), if wanted with an `order` id of one's own, a `coupon`, and `shipping` to an address.
    """

    allowed: ClassVar = frozenset({"table", "user", "staff", "owner"})
    lines: Annotated[tuple[Wish, ...], Meta(min_length=1, max_length=LINES_MAX)]
    order: Id | None = None
    table: TableId | None = None
    user: Id | None = None
    coupon: Ref | None = None
    shipping: Destination | None = None


class TakeCart(contract.Command, frozen=True):
    """A table's cart becomes an order: `lines` for the party `sitting` at the `table`, under the table's
    `order` id, with their `coupon`.
    """

    order: str
    table: str
    sitting: int
    lines: tuple[Wish, ...]
    coupon: str | None = None


class OrderCreated(contract.Event, frozen=True):
    """An order was accepted by the rules, with its prices. `sitting` is the party at the table, 0 if none."""

    order: str
    number: int
    status: str
    lines: tuple[OrderLine, ...]
    total: int
    by: str
    at: str
    table: str | None = None
    user: str | None = None
    sitting: int = 0
    shipping: Shipping | None = None
    stock: tuple[StockChange, ...] = ()
    tax_free: int = 0
    vat: int = 0
    discount: int = 0
    coupon: str | None = None
    hold_expires_at: str | None = None

    def as_order(self) -> Order:
        """Return the order as everyone holds it at first."""
        return Order(
            self.order,
            self.number,
            self.table,
            self.user,
            self.status,
            self.lines,
            self.total,
            self.by,
            self.at if self.status == PLACED else None,
            shipping=self.shipping,
            tax_free=self.tax_free,
            vat=self.vat,
            discount=self.discount,
            coupon=self.coupon,
            hold_expires_at=self.hold_expires_at,
        )


class OrderPlaced(contract.Event, frozen=True):
    """The kitchen may start. An order to be paid afterwards is placed as it is created; one that is paid
    first is placed `at` a later time, of which its `table` and `user` have to hear.
    """

    order: str
    number: int
    at: str | None = None
    table: str | None = None
    user: str | None = None

    def change(self) -> OrderChange:
        """Return what a later placing does to the order."""
        return OrderChange(self.order, self.at or "", PLACED)


class CartRefused(contract.Event, frozen=True):
    """The rules forbid the order that a table sent: its cart goes back."""

    order: str
    table: str
    code: str
    detail: str


Command = CreateOrder | TakeCart
Event = OrderCreated | OrderPlaced | CartRefused


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return the new order's events.

    A refused cart is an event, not a refusal: what follows from it must be as durable as an order would be.

    Raises:
        Rejected: `store_closed`, `orders_paused`, `forbidden`, `table_closed`, `order_exists`,
            `unknown_product`, `sold_out`, `duplicate_line`, those of options and those of coupons.
    """
    match command:
        case CreateOrder():
            table, user = _for_whom(state, command, context)
            sitting = state.sittings.get(table, 0) if table is not None else 0
            return _create(state, command, context, table, user, sitting)
        case TakeCart(order=order, table=table, sitting=sitting, lines=lines, coupon=coupon):
            try:
                wanted = CreateOrder(lines, order, coupon=coupon)
                return _create(state, wanted, context, table, None, sitting)
            except Rejected as refusal:
                return [CartRefused(order, table, refusal.code, refusal.detail)]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Add the order, and take its stock or hold it; place it."""
    match event:
        case OrderCreated():
            order = event.order
            state.orders[order] = event.as_order()
            if event.table is not None:
                seat(state, event.table, order, event.sitting)
            if event.number > state.number:
                state.number = event.number
            if event.stock:
                stock.apply(state, event.stock)
                state.taken[order] = {change.product: change.before - change.after for change in event.stock}
            if event.hold_expires_at is not None:
                pieces = state.taken.pop(order, {})
                holds.begin(state, order, to_ms(event.hold_expires_at), pieces)
        case OrderPlaced(order=order):
            known = state.orders.get(order)
            if event.at is not None and known is not None:
                state.orders[order] = changed(known, event.change())
        case CartRefused():
            pass  # it never was
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The order, and the products whose count it changed."""
    match event:
        case OrderCreated():
            entities = [("orders", event.order)]
            for change in event.stock:
                entities.append(("products", change.product))
            return entities
        case OrderPlaced():
            return [("orders", event.order)]
        case CartRefused():
            return []
        case _:
            assert_never(event)


def _create(
    state: State, command: CreateOrder, context: Context, table: str | None, user: str | None, sitting: int
) -> list[contract.Event]:
    shop = open_shop(state)
    number = state.number + 1
    order = command.order
    if order is None:
        order = f"o{number}"
        while order in state.orders or order in state.archived:  # somebody chose this id
            number += 1
            order = f"o{number}"
    elif order in state.orders or order in state.archived:
        raise Rejected("order_exists", f"There is an order {order} already")
    lines, whole, demand = _price(state, command.lines, number, context.now_ms)
    discount = 0
    redeemed: list[contract.Event] = []
    if command.coupon is not None:
        holder = user or (coupons.party(table, sitting) if table is not None and sitting else None)
        discount, redeemed = _discount(state, command.coupon, holder, whole, order, context)
        whole = discounted(whole, discount)
    unpaid = shop.payment_mode == "prepay" and whole.amount > 0
    changes = stock.take(state, demand, hold=unpaid) if demand else ()
    shipping = _shipping(command.shipping) if command.shipping is not None else None
    by, at = context.by, context.now
    created = OrderCreated(
        order,
        number,
        CREATED if unpaid else PLACED,
        lines,
        whole.amount,
        by,
        at,
        table,
        user,
        sitting,
        shipping,
        changes,
        whole.tax_free,
        vat_in(whole.taxable),
        discount,
        command.coupon,
        to_text(context.now_ms + shop.hold_seconds * 1000) if unpaid else None,
    )
    events = [created, *redeemed] if unpaid else [created, *redeemed, OrderPlaced(order, number)]
    return events + stock.announce_crossing(state, changes) if changes else events


def _discount(
    state: State, coupon: str, holder: str | None, whole: Split, order: str, context: Context
) -> tuple[int, list[contract.Event]]:
    """Return what the coupon takes off, and the note that it is used."""
    discount = coupons.redeem(state, coupon, holder, whole, context.now_ms)
    assert holder is not None  # nobody else can have it
    return discount, coupons.redeemed_events(state, coupon, holder, order, discount, context)


def _for_whom(state: State, command: CreateOrder, context: Context) -> tuple[str | None, str | None]:
    """Return table and user of an order; guests order for themselves only."""
    by = context.by
    if by.startswith("table:"):
        store, _, table = by[6:].partition("/")
        if store != context.stream[6:] or command.table not in (None, table) or command.user is not None:
            raise Rejected("forbidden", "A table orders for itself only")
        if table not in state.sittings:
            raise Rejected("table_closed", f"Table {table} is closed: open it first")
        return table, None
    if by.startswith("user:"):
        user = by[5:]
        if command.user not in (None, user) or command.table is not None:
            raise Rejected("forbidden", "A user orders for themselves only, and not for a table")
        return None, user
    return command.table, command.user


def open_shop(state: State) -> Shop:
    """Return the shop if it takes orders.

    Raises:
        Rejected: `store_closed`, `orders_paused`.
    """
    shop = state.shop[SELF]
    if not shop.open:
        raise Rejected("store_closed", f"{shop.name} is closed: open the store to take orders")
    if shop.paused:
        raise Rejected("orders_paused", f"{shop.name} takes no orders just now: {shop.pause_reason}")
    return shop


def _price(
    state: State, wishes: Sequence[Wish], number: int, now_ms: int
) -> tuple[tuple[OrderLine, ...], Split, dict[str, int]]:
    """Return the lines at the menu's prices, their sum by tax, and what they need of counted products."""
    products = state.products
    lines: list[OrderLine] = []
    taxable = tax_free = 0
    demand: dict[str, int] = {}
    own_ids = False
    for wish in wishes:
        product = products.get(wish.product)
        if product is None:
            raise Rejected("unknown_product", f"There is no product {wish.product}")
        if product.sold_out:
            raise Rejected("sold_out", f"{product.name} is sold out")
        quantity = wish.quantity
        price = campaigns.price_now(state, product, now_ms)
        if product.options or wish.options:
            price += extra_price(product.name, product.options, wish.options)
        if product.stock is not None:
            demand[wish.product] = demand.get(wish.product, 0) + quantity
        line = wish.line
        if line is None:
            line = f"o{number}-{len(lines) + 1}"
        else:
            own_ids = True
        if product.tax_free:
            tax_free += price * quantity
        else:
            taxable += price * quantity
        lines.append(
            OrderLine(
                line,
                wish.product,
                product.name,
                quantity,
                price,
                wish.options,
                wish.note,
                wish.by,
                tax_free=product.tax_free,
            )
        )
    if own_ids and len({line.line for line in lines}) != len(lines):
        raise Rejected("duplicate_line", "Each line needs an id of its own")
    return tuple(lines), Split(taxable, tax_free), demand


def _shipping(destination: Destination) -> Shipping:
    return Shipping(destination.name, destination.phone, destination.address)
