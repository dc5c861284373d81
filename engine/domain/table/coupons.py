"""Coupons at the table: what the shop gives out, and which of them this party holds.

The shop decides; these follow from its records. What a party holds goes with it: the next one sees the offers
only.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.coupon import Offer
from engine.domain.table.state import SELF, State, TableCoupon, is_open


class ShowOffers(contract.Command, frozen=True):
    """The shop gives out these coupons (`offers`), and others no more (`gone`)."""

    offers: tuple[Offer, ...] = ()
    gone: tuple[str, ...] = ()


class RecordCoupon(contract.Command, frozen=True):
    """The party `sitting` holds a coupon of this `offer`."""

    offer: Offer
    sitting: int


class RecordCouponUse(contract.Command, frozen=True):
    """The party `sitting` has `used` the `coupon` it holds, or has it back."""

    coupon: str
    sitting: int
    used: bool


class OffersShown(contract.Event, frozen=True):
    """The table knows these coupons as they are now; those in `gone` are shown no longer."""

    offers: tuple[Offer, ...] = ()
    gone: tuple[str, ...] = ()


class CouponReceived(contract.Event, frozen=True):
    """The party holds a coupon."""

    coupon: str
    offer: Offer


class CouponUsed(contract.Event, frozen=True):
    """The party's coupon is used, or was given back."""

    coupon: str
    used: bool


Command = ShowOffers | RecordCoupon | RecordCouponUse
Event = OffersShown | CouponReceived | CouponUsed


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Take over what is news here; `[]` for the rest, and for a party that has left."""
    match command:
        case ShowOffers(offers=offers, gone=gone):
            news = tuple(offer for offer in offers if _shown(state, offer) != state.coupons.get(offer.coupon))
            over = tuple(name for name in gone if name in state.coupons)
            return [OffersShown(news, over)] if news or over else []
        case RecordCoupon(offer=offer, sitting=sitting):
            known = state.coupons.get(offer.coupon)
            if not _sits(state, sitting) or (known is not None and known.held):
                return []
            return [CouponReceived(offer.coupon, offer)]
        case RecordCouponUse(coupon=name, sitting=sitting, used=used):
            known = state.coupons.get(name)
            if not _sits(state, sitting) or known is None or not known.held or known.used == used:
                return []
            return [CouponUsed(name, used)]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Update what is shown."""
    match event:
        case OffersShown(offers=offers, gone=gone):
            for name in gone:
                state.coupons.pop(name, None)
            for offer in offers:
                state.coupons[offer.coupon] = _shown(state, offer)
        case CouponReceived(coupon=name, offer=offer):
            state.coupons[name] = replace(_shown(state, offer), coupon=name, held=True, used=False)
        case CouponUsed(coupon=name, used=used):
            if (known := state.coupons.get(name)) is not None:
                state.coupons[name] = replace(known, used=used)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The coupons."""
    match event:
        case OffersShown(offers=offers, gone=gone):
            shown = [("coupons", offer.coupon) for offer in offers]
            return [*shown, *(("coupons", name) for name in gone)]
        case CouponReceived(coupon=name) | CouponUsed(coupon=name):
            return [("coupons", name)]
        case _:
            assert_never(event)


def _shown(state: State, offer: Offer) -> TableCoupon:
    """Return a coupon as the table shows it once it knows of this offer."""
    known = state.coupons.get(offer.coupon)
    mine = (known.held, known.used) if known is not None else (False, False)
    return TableCoupon(
        offer.coupon,
        offer.name,
        offer.discount,
        offer.remaining,
        offer.starts_at,
        offer.expires_at,
        *mine,
    )


def _sits(state: State, sitting: int) -> bool:
    return is_open(state) and state.table[SELF].sitting == sitting
