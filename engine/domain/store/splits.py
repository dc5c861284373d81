"""What the shop still has of a payment, for which order and by tax: the arithmetic of refunds. Pure."""

from __future__ import annotations

from engine.domain.payment import FAILED, Payment, Refund, Share
from engine.domain.tax import Taxed, portion, total


def taxed(share: Share) -> Taxed:
    """Return a share by tax."""
    return Taxed(share.amount - share.tax_free, share.tax_free, share.vat)


def share_of(order: str, part: Taxed, lines: tuple[str, ...] = (), user: str | None = None) -> Share:
    """Return what `part` of a payment or refund is for an order (of a `user`)."""
    return Share(order, part.amount, lines, part.tax_free, part.vat, user)


def shares_of(whole: Payment | Refund, order: str | None) -> tuple[Share, ...]:
    """Return for which orders a payment or refund is; all of it for `order` when it says nothing."""
    return whole.shares or (Share(order or "", whole.amount, (), whole.tax_free, whole.vat),)


def rest_of(payment: Payment, order: str) -> Taxed:
    """Return what the shop has of a payment for an order; what is on its way back it has no longer."""
    paid = total(taxed(share) for share in shares_of(payment, payment.order) if share.order == order)
    back = total(
        taxed(share)
        for refund in payment.refunds
        if refund.status != FAILED and not refund.void
        for share in shares_of(refund, payment.order)
        if share.order == order
    )
    return paid - back


def spread(payment: Payment, amount: int) -> list[Share]:
    """Return how `amount` won are taken from all that a payment is for: in proportion to what is left."""
    rests = [(share.order, rest_of(payment, share.order)) for share in shares_of(payment, payment.order)]
    left = sum(rest.amount for _, rest in rests)
    parts = []
    for order, rest in rests:
        part = amount * rest.amount // left if left else 0
        left, amount = left - rest.amount, amount - part
        if part:
            parts.append(share_of(order, portion(rest, part)))
    return parts
