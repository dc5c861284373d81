"""Campaigns: at their time they open, once and never early, and their prices hold only while they are open."""

from __future__ import annotations

from engine.domain.store.state import Product, State


def price_now(state: State, product: Product, now_ms: int) -> int:
    """Return what one piece of the product costs without options: the lowest of the menu's price and those
    of the campaigns that are open, by their own times too.
    """
    if not state.priced:
        return product.price
    price = product.price
    for special in state.priced.get(product.product, {}).values():
        if special.price < price and special.holds(now_ms):
            price = special.price
    return price
