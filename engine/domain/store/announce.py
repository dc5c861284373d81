"""The menu and the shop's sign on their way to the tables.

Whatever changes what guests see is followed by a `MenuAnnounced` that carries what changed and to whom it
goes, so that passing it on needs nothing but the event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from engine.domain.campaign import OPEN, SCHEDULED, CampaignNote
from engine.domain.contract import Event
from engine.domain.coupon import Offer
from engine.domain.product import MenuItem, ShopSign
from engine.domain.store.state import SELF, Campaign, Coupon, Special, State, menu_item, shop_sign

ANNOUNCED_MAX = 500
"""Products and choices from which on the rest of a menu goes into another event: some 50 KB."""

OFFERS_MAX = 200
"""Coupons from which on the rest goes into another event."""


class MenuAnnounced(Event, frozen=True):
    """Tables are told what is on the menu now, whether the shop takes orders, and all `campaigns` that are
    not over.
    """

    tables: tuple[str, ...]
    products: tuple[MenuItem, ...] = ()
    shop: ShopSign | None = None
    campaigns: tuple[CampaignNote, ...] | None = None


class OffersAnnounced(Event, frozen=True):
    """Tables are told which coupons there are, and which are no more (`gone`)."""

    tables: tuple[str, ...]
    offers: tuple[Offer, ...] = ()
    gone: tuple[str, ...] = ()


def announce_items(state: State, items: Iterable[MenuItem]) -> list[Event]:
    """Tell all open tables about products; `[]` when no table is open or there is nothing to tell."""
    products = tuple(_on_offer(item, state.priced) for item in items)
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


def announce_campaigns(
    state: State, after: Mapping[str, Campaign], moved: Mapping[str, Mapping[str, Special]]
) -> list[Event]:
    """Tell all open tables which campaigns there are after this commit, and what the products cost whose
    campaign prices have `moved` to these.
    """
    if not state.sittings:
        return []
    tables = tuple(state.sittings)
    known = ((state.products[name], specials) for name, specials in moved.items() if name in state.products)
    items = (
        _on_offer(menu_item(product, product.sold_out, product.stock), {product.product: specials})
        for product, specials in known
    )
    first, *rest = list(_parts(items)) or [()]
    return [
        MenuAnnounced(tables, first, campaigns=notes(after)),
        *(MenuAnnounced(tables, part) for part in rest),
    ]


def announce_all(state: State, table: str, now: str) -> list[Event]:
    """Tell one table everything: the shop's sign with the first part of the menu, and what is on offer."""
    items = (
        _on_offer(menu_item(product, product.sold_out, product.stock), state.priced)
        for product in state.products.values()
    )
    first, *rest = list(_parts(items)) or [()]
    sign = shop_sign(state.shop[SELF])
    offers = [
        offer_of(coupon)
        for coupon in state.coupons.values()
        if coupon.expires_at is None or now < coupon.expires_at
    ]
    to = (table,)
    return [
        MenuAnnounced(to, first, sign, notes(state.campaigns) if state.campaigns else None),
        *(MenuAnnounced(to, part) for part in rest),
        *(
            OffersAnnounced(to, tuple(offers[start : start + OFFERS_MAX]))
            for start in range(0, len(offers), OFFERS_MAX)
        ),
    ]


def notes(campaigns: Mapping[str, Campaign]) -> tuple[CampaignNote, ...]:
    """Return what tables know of the campaigns that are not over."""
    return tuple(
        CampaignNote(one.campaign, one.name, one.status == OPEN, one.opens_at, one.closes_at)
        for one in campaigns.values()
        if one.status in (SCHEDULED, OPEN)
    )


def _on_offer(item: MenuItem, priced: Mapping[str, Mapping[str, Special]]) -> MenuItem:
    """Return a product as it is sold while campaigns are open: at the lowest price."""
    specials = priced.get(item.product) if priced else None
    if not specials:
        return item
    price = min(special.price for special in specials.values())
    return replace(item, price=price, was=item.price) if price < item.price else item


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
