"""The menu and the shop's sign on their way to the tables.

Whatever changes what guests see is followed by a `MenuAnnounced` that carries what changed and to whom it
goes, so that passing it on needs nothing but the event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.domain.contract import Event
from engine.domain.coupon import Offer
from engine.domain.product import MenuItem, ShopSign
from engine.domain.store.state import SELF, Coupon, State, menu_item, shop_sign

ANNOUNCED_MAX = 500
"""Products and choices from which on the rest of a menu goes into another event: some 50 KB."""


class MenuAnnounced(Event, frozen=True):
    """Tables are told what is on the menu now, and whether the shop takes orders."""

    tables: tuple[str, ...]
    products: tuple[MenuItem, ...] = ()
    shop: ShopSign | None = None


class OffersAnnounced(Event, frozen=True):
    """Tables are told which coupons there are, and which are no more (`gone`)."""

    tables: tuple[str, ...]
    offers: tuple[Offer, ...] = ()
    gone: tuple[str, ...] = ()


def announce_items(state: State, items: Iterable[MenuItem]) -> list[Event]:
    """Tell all open tables about products; `[]` when no table is open or there is nothing to tell."""
    products = tuple(items)
    if not state.sittings or not products:
        return []
    return [MenuAnnounced(tuple(state.sittings), products)]


def announce_shop(state: State, sign: ShopSign) -> list[Event]:
    """Tell all open tables about the shop itself; `[]` when no table is open."""
    return [MenuAnnounced(tuple(state.sittings), shop=sign)] if state.sittings else []


def announce_offers(state: State, offers: Iterable[Offer] = (), gone: tuple[str, ...] = ()) -> list[Event]:
    """Tell all open tables about coupons; `[]` when no table is open."""
    return [OffersAnnounced(tuple(state.sittings), tuple(offers), gone)] if state.sittings else []


def offer_of(coupon: Coupon) -> Offer:
    """Return a coupon as guests see it."""
    window = coupon.starts_at, coupon.expires_at
    return Offer(coupon.coupon, coupon.name, coupon.discount, coupon.remaining, *window)


def announce_all(state: State, table: str) -> list[Event]:
    """Tell one table everything: the shop's sign with the first part of the menu."""
    items = [menu_item(product, product.sold_out, product.stock) for product in state.products.values()]
    first, *rest = list(_parts(items)) or [()]
    sign = shop_sign(state.shop[SELF])
    return [MenuAnnounced((table,), first, sign), *(MenuAnnounced((table,), part) for part in rest)]


def _parts(items: Iterable[MenuItem]) -> Iterator[tuple[MenuItem, ...]]:
    part: list[MenuItem] = []
    size = 0
    for item in items:
        part.append(item)
        size += 1 + sum(len(option.choices) for option in item.options)
        if size >= ANNOUNCED_MAX:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)
