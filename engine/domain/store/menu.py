"""The menu: products with their options, the sold-out switch, and counts corrected by hand."""

from __future__ import annotations

from typing import Annotated, ClassVar, assert_never

from msgspec import UNSET, Meta, UnsetType

from engine.domain import contract
from engine.domain.contract import STAFF, Context
from engine.domain.fields import Delta, Id, Name, Price, Reason, Ref, Stock
from engine.domain.product import OPTIONS_MAX, Option, check_options
from engine.domain.store.announce import announce_items
from engine.domain.store.state import Product, State, menu_item
from engine.domain.store.stock import announce_crossing, moved
from engine.errors import Rejected

PRODUCTS_MAX = 1_000


class PutProduct(contract.Command, frozen=True):
    """Put a `product` on the menu or replace it, with its `name`, `price`, `options`, kitchen `station`,
    whether it is `tax_free`, and its `stock`: null is not counted, and left out it stays as it is.
    """

    allowed: ClassVar = frozenset({"owner"})
    product: Id
    name: Name
    price: Price
    stock: Stock | UnsetType | None = UNSET
    station: Id | None = None
    tax_free: bool = False
    options: Annotated[tuple[Option, ...], Meta(max_length=OPTIONS_MAX)] = ()


class SetSoldOut(contract.Command, frozen=True):
    """Switch a `product` off or on by hand with `sold_out`, whatever its count."""

    allowed: ClassVar = STAFF
    product: Ref
    sold_out: bool


class AdjustStock(contract.Command, frozen=True):
    """Correct the count of a `product` by `delta` pieces and say the `reason`."""

    allowed: ClassVar = STAFF
    product: Ref
    delta: Delta
    reason: Reason


class ProductPut(contract.Event, frozen=True):
    """A product is on the menu like this from now on. `stock_before` is its count until then."""

    product: str
    name: str
    price: int
    stock: int | None = None
    stock_before: int | None = None
    station: str | None = None
    tax_free: bool = False
    options: tuple[Option, ...] = ()


class SoldOutSet(contract.Event, frozen=True):
    """A product was switched off or on by hand."""

    product: str
    sold_out: bool


class StockAdjusted(contract.Event, frozen=True):
    """A count was corrected by hand."""

    product: str
    before: int
    after: int
    reason: str


Command = PutProduct | SetSoldOut | AdjustStock
Event = ProductPut | SoldOutSet | StockAdjusted


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what happens to the menu, and what the tables have to be told.

    Raises:
        Rejected: `unknown_product`, `menu_full`, `options_invalid`, `stock_negative`, `stock_not_counted`.
    """
    match command:
        case PutProduct():
            return _put(state, command)
        case SetSoldOut(product=name, sold_out=sold_out):
            product = _known(state, name)
            if product.sold_out == sold_out:
                return []
            item = menu_item(product, sold_out, product.stock)
            return [SoldOutSet(name, sold_out), *announce_items(state, [item])]
        case AdjustStock(product=name, delta=delta, reason=reason):
            product = _known(state, name)
            if product.stock is None:
                raise Rejected("stock_not_counted", f"{product.name} is not counted: set its stock first")
            after = product.stock + delta
            if after < 0:
                raise Rejected("stock_negative", f"{product.name}: there are {product.stock}, not {-delta}")
            if not delta:
                return []
            change = moved(product, delta)
            return [StockAdjusted(name, change.before, after, reason), *announce_crossing(state, (change,))]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Change the menu."""
    match event:
        case ProductPut():
            known = state.products.get(event.product)
            state.products[event.product] = _product(event, known)
            if event.stock is None and known is not None and known.stock is not None:
                _count_no_more(state, event.product)
        case SoldOutSet(product=name, sold_out=sold_out):
            if name in state.products:
                state.products[name].sold_out = sold_out
        case StockAdjusted(product=name, after=after):
            if name in state.products:
                state.products[name].stock = after
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Each of these is about one product."""
    return [("products", event.product)]


def _put(state: State, command: PutProduct) -> list[contract.Event]:
    known = state.products.get(command.product)
    if known is None and len(state.products) >= PRODUCTS_MAX:
        raise Rejected("menu_full", f"A menu has {PRODUCTS_MAX} products at most")
    check_options(command.options)
    before = known.stock if known else None
    event = ProductPut(
        product=command.product,
        name=command.name,
        price=command.price,
        stock=before if command.stock is UNSET else command.stock,
        stock_before=before,
        station=command.station,
        tax_free=command.tax_free,
        options=command.options,
    )
    product = _product(event, known)
    if product == known:
        return []
    seen = menu_item(product, product.sold_out, product.stock)
    if known is not None and seen == menu_item(known, known.sold_out, known.stock):
        return [event]
    return [event, *announce_items(state, [seen])]


def _product(event: ProductPut, known: Product | None) -> Product:
    counted = known is not None and known.stock is not None and event.stock is not None
    return Product(
        product=event.product,
        name=event.name,
        price=event.price,
        stock=event.stock,
        sold_out=known is not None and known.sold_out,
        station=event.station,
        tax_free=event.tax_free,
        options=event.options,
        held=known.held if known is not None and counted else 0,
        pinned=known.pinned if known is not None and counted else 0,
    )


def _count_no_more(state: State, product: str) -> None:
    """Orders keep no pieces of what is not counted: nothing of it can come back later."""
    for hold in state.holds.values():
        hold.pieces.pop(product, None)
    for pieces in state.taken.values():
        pieces.pop(product, None)


def _known(state: State, name: str) -> Product:
    product = state.products.get(name)
    if product is None:
        raise Rejected("unknown_product", f"There is no product {name}")
    return product
