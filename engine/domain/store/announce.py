"""The menu and the shop's sign on their way to the tables.

Whatever changes what guests see is followed by a `MenuAnnounced` that carries what changed and to whom it
goes, so that passing it on needs nothing but the event.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from engine.domain.contract import Event
from engine.domain.product import MenuItem, ShopSign
from engine.domain.store.state import SELF, State, menu_item, shop_sign

ANNOUNCED_MAX = 100
"""Products in one event; a larger menu takes several."""


class MenuAnnounced(Event, frozen=True):
    """Tables are told what is on the menu now, and whether the shop takes orders."""

    tables: tuple[str, ...]
    products: tuple[MenuItem, ...] = ()
    shop: ShopSign | None = None


def announce_items(state: State, items: Iterable[MenuItem]) -> list[Event]:
    """Tell all open tables about products; `[]` when no table is open or there is nothing to tell."""
    products = tuple(items)
    if not state.sittings or not products:
        return []
    return [MenuAnnounced(tuple(state.sittings), products)]


def announce_shop(state: State, sign: ShopSign) -> list[Event]:
    """Tell all open tables about the shop itself; `[]` when no table is open."""
    return [MenuAnnounced(tuple(state.sittings), shop=sign)] if state.sittings else []


def announce_all(state: State, table: str) -> list[Event]:
    """Tell one table everything."""
    items = (menu_item(product, product.sold_out, product.stock) for product in state.products.values())
    sign: ShopSign | None = shop_sign(state.shop[SELF])
    events: list[Event] = []
    while (products := tuple(islice(items, ANNOUNCED_MAX))) or sign:
        events.append(MenuAnnounced((table,), products, sign))
        sign = None
    return events
