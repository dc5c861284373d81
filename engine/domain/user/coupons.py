"""The coupons that the user holds, of any store."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import astuple, replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.coupon import ISSUED, USED, HeldCoupon
from engine.domain.user.state import State, UserCoupon, oldest

COUPONS_MAX = 200


class RecordCoupon(contract.Command, frozen=True):
    """The `store` gave this user a `coupon`."""

    store: str
    coupon: HeldCoupon


class RecordCouponUse(contract.Command, frozen=True):
    """The user's `coupon` of a `store` was used for an `order`, or, without one, is back."""

    store: str
    coupon: str
    order: str | None = None


class CouponReceived(contract.Event, frozen=True):
    """A store gave the user a coupon: `copy`. Those in `dropped` are shown no longer."""

    coupon: str
    store: str
    copy: HeldCoupon
    dropped: tuple[str, ...] = ()


class CouponUsed(contract.Event, frozen=True):
    """A coupon was used for an order, or, without one, is back."""

    coupon: str
    store: str
    order: str | None = None


Command = RecordCoupon | RecordCouponUse
Event = CouponReceived | CouponUsed


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Take it over; `[]` when it is known, or nothing to this user."""
    match command:
        case RecordCoupon(store=store, coupon=held):
            known = state.coupons.get(f"{store}/{held.coupon}")
            if known is not None and known.issued_at == held.issued_at:
                return []
            dropped = oldest(state.coupons, COUPONS_MAX) if known is None else ()
            return [CouponReceived(held.coupon, store, held, dropped)]
        case RecordCouponUse(store=store, coupon=name, order=order):
            known = state.coupons.get(f"{store}/{name}")
            return [] if known is None or known.order == order else [CouponUsed(name, store, order)]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Keep the coupon, or note its use."""
    match event:
        case CouponReceived(store=store, coupon=name, copy=held):
            for old in event.dropped:
                state.coupons.pop(old, None)
            state.coupons[f"{store}/{name}"] = UserCoupon(*astuple(held), store=store)
        case CouponUsed(store=store, coupon=name, order=order):
            key = f"{store}/{name}"
            if (coupon := state.coupons.get(key)) is not None:
                status = ISSUED if order is None else USED
                state.coupons[key] = replace(coupon, status=status, order=order)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Name the coupons that came, changed and went."""
    key = ("coupons", f"{event.store}/{event.coupon}")
    if isinstance(event, CouponReceived):
        return [key, *(("coupons", old) for old in event.dropped)]
    return [key]
