"""The ledger of counted stock: each change is in one event, with every count before and after.

What is in the house is available + held + pinned. `Product.stock` is what can still be ordered; `held` is
kept for orders that are not paid yet (`engine.domain.store.holds`), `pinned` for those whose payment is
under way: no clock gives that back.

An order that is paid afterwards takes its pieces out at once. What it took stays in `State.taken` until it
goes back or the kitchen uses it up, so nothing can be given back twice; an order that is paid first gets
there when its pinned pieces are confirmed as sold.
"""

from __future__ import annotations

from msgspec import Struct

from engine.domain.contract import Event
from engine.domain.product import MenuItem
from engine.domain.store.announce import announce_items
from engine.domain.store.state import Product, State, menu_item
from engine.errors import Rejected


class StockChange(Struct, frozen=True, omit_defaults=True, gc=False):
    """The audit of one change of a product's counts; its event says which order, and why. `before` and
    `after` are what can be ordered.
    """

    product: str
    before: int
    after: int
    held_before: int = 0
    held_after: int = 0
    pinned_before: int = 0
    pinned_after: int = 0

    @property
    def on_hand(self) -> int:
        """What came into the house (or, negative, left it) by this change."""
        before = self.before + self.held_before + self.pinned_before
        return self.after + self.held_after + self.pinned_after - before


def moved(product: Product, available: int = 0, held: int = 0, pinned: int = 0) -> StockChange:
    """Return the change that adds these numbers (negative: takes away) to the counts of a counted product."""
    assert product.stock is not None
    return StockChange(
        product.product,
        product.stock,
        product.stock + available,
        product.held,
        product.held + held,
        product.pinned,
        product.pinned + pinned,
    )


def further(change: StockChange, available: int = 0, held: int = 0, pinned: int = 0) -> StockChange:
    """Return the change that follows `change` in the same commit."""
    return StockChange(
        change.product,
        change.after,
        change.after + available,
        change.held_after,
        change.held_after + held,
        change.pinned_after,
        change.pinned_after + pinned,
    )


def take(state: State, demand: dict[str, int], *, hold: bool = False) -> tuple[StockChange, ...]:
    """Return what `demand` (product -> pieces, all counted) does to the stock: sold, or on `hold`.

    Raises:
        Rejected: `sold_out`.
    """
    changes = []
    for name, wanted in demand.items():
        product = state.products[name]
        left = product.stock or 0
        if left < wanted:
            raise Rejected("sold_out", f"{product.name}: {left} left, {wanted} ordered")
        changes.append(moved(product, -wanted, held=wanted if hold else 0))
    return tuple(changes)


def give_back(state: State, order: str, pieces: dict[str, int] | None = None) -> tuple[StockChange, ...]:
    """Return what happens to the stock when an order gives back `pieces`, or all that it still has."""
    taken = state.taken.get(order, {})
    changes = []
    for name, count in (taken if pieces is None else pieces).items():
        product = state.products.get(name)
        count = min(count, taken.get(name, 0))
        if product is not None and product.stock is not None and count:
            changes.append(moved(product, count))
    return tuple(changes)


def apply(state: State, changes: tuple[StockChange, ...]) -> None:
    """Set the counts."""
    products = state.products
    for change in changes:
        product = products.get(change.product)
        if product is not None:
            product.stock = change.after
            product.held = change.held_after
            product.pinned = change.pinned_after


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
