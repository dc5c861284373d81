"""Coupons as the shop, its tables and its users all know them, and what they take off an order."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine.domain.fields import Price
from engine.errors import Rejected

ISSUED, USED = "ISSUED", "USED"
"""Status of a coupon in somebody's hands."""


class Discount(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What a coupon takes off: an `amount` in won, or a `percent` (with a `cap` in won), for orders from
    `minimum` won on.
    """

    amount: Price = 0
    percent: Annotated[int, Meta(ge=0, le=100)] = 0
    cap: Price | None = None
    minimum: Price = 0

    def of(self, whole: int) -> int:
        """Return the won it takes off an order of `whole` won: never more than all of it, part won fall to
        the shop.
        """
        off = self.amount or whole * self.percent // 100
        return min(off, whole if self.cap is None else self.cap, whole)


class Offer(Struct, frozen=True, gc=False):
    """A coupon that the shop gives out. `remaining` is as last announced: the shop tells at each tenth of
    the stock.
    """

    coupon: str
    name: str
    discount: Discount
    remaining: int
    starts_at: str | None
    expires_at: str | None


class HeldCoupon(Struct, frozen=True, gc=False):
    """What the shop tells a holder about the coupon in their hands. `status` is ISSUED or USED (for
    `order`).
    """

    coupon: str
    name: str
    discount: Discount
    sequence: int
    status: str
    issued_at: str
    expires_at: str | None
    order: str | None = None


def discount_of(wanted: int | Discount) -> Discount:
    """Return a discount as it is kept; a plain number is an amount in won.

    Raises:
        Rejected: `discount_invalid`.
    """
    discount = Discount(amount=wanted) if isinstance(wanted, int) else wanted
    if bool(discount.amount) == bool(discount.percent):
        raise Rejected("discount_invalid", "A discount is either an amount or a percent, above 0")
    if discount.cap is not None and (discount.amount or not discount.cap):
        raise Rejected("discount_invalid", "A cap above 0 goes with a percent only")
    return discount
