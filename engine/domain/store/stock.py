"""Counted stock: taken when an order is made, given back once if it ends before it cooks, corrected by hand.

`Product.stock` is what can still be ordered. What an order took stays in `State.taken` until it goes back
or the kitchen uses it up, so nothing can be given back twice. Each change is in one event with the count
before and after.
"""

from __future__ import annotations

from msgspec import Struct

from engine.domain.contract import Event
from engine.domain.product import MenuItem
from engine.domain.store.announce import announce_items
from engine.domain.store.state import Product, State, menu_item
from engine.errors import Rejected


class StockChange(Struct, frozen=True, gc=False):
    """The audit of one change of a product's count; its event says which order, and why."""

    product: str
    before: int
    after: int


def take(state: State, demand: dict[str, int]) -> tuple[StockChange, ...]:
    """Return what `demand` (product -> pieces, all counted) does to the stock.

    Raises:
        Rejected: `sold_out`.
    """
    changes = []
    for name, wanted in demand.items():
        product = state.products[name]
        left = product.stock or 0
        if left < wanted:
            raise Rejected("sold_out", f"{product.name}: {left} left, {wanted} ordered")
        changes.append(StockChange(name, left, left - wanted))
    return tuple(changes)


def give_back(state: State, order: str, pieces: dict[str, int] | None = None) -> tuple[StockChange, ...]:
    """Return what happens to the stock when an order gives back `pieces`, or all that it still has."""
    taken = state.taken.get(order, {})
    changes = []
    for name, count in (taken if pieces is None else pieces).items():
        product = state.products.get(name)
        count = min(count, taken.get(name, 0))
        if product is not None and product.stock is not None and count:
            changes.append(StockChange(name, product.stock, product.stock + count))
    return tuple(changes)


def apply(state: State, changes: tuple[StockChange, ...]) -> None:
    """Set the counts."""
    products = state.products
    for change in changes:
        product = products.get(change.product)
        if product is not None:
            product.stock = change.after


def used_up(state: State, order: str) -> None:
    """Nothing of this order goes back any more: the kitchen has begun, or it is over."""
    state.taken.pop(order, None)


def let_go(state: State, order: str, product: str, count: int) -> None:
    """The order no longer has these pieces."""
    taken = state.taken.get(order, {})
    if taken.get(product, 0) > count:
        taken[product] -= count
    else:
        taken.pop(product, None)


def announce_crossing(state: State, changes: tuple[StockChange, ...]) -> list[Event]:
    """Tell the tables of products that have just run out or come back."""
    items: list[MenuItem] = []
    for change in changes:
        if (change.before == 0) != (change.after == 0):
            product: Product = state.products[change.product]
            items.append(menu_item(product, product.sold_out, change.after))
    return announce_items(state, items) if items else []
