"""A payment as the shop holds it: what it is for, its one attempt at the gateway, and its refunds.

Everything here is immutable: a change makes a new payment. A payment has at most one attempt, so whoever
wants to try again after a refusal prepares another payment, and a charge always belongs to exactly one of
them.

    PENDING ──approve──> REQUESTED ──> PAID | DECLINED | UNKNOWN
       │                                 UNKNOWN ──query──> PAID | DECLINED | MANUAL_REVIEW
       │                                               MANUAL_REVIEW ──person──> PAID | DECLINED
       └─ prepared with another method, or the order died: DROPPED
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

PENDING, REQUESTED, UNKNOWN, PAID = "PENDING", "REQUESTED", "UNKNOWN", "PAID"
DECLINED, MANUAL_REVIEW, DROPPED = "DECLINED", "MANUAL_REVIEW", "DROPPED"
OPEN = frozenset({REQUESTED, UNKNOWN, MANUAL_REVIEW})
"""Money may have moved, or may be moving: nobody starts another attempt, and its hold stays pinned."""

QUEUED, DONE, FAILED = "QUEUED", "DONE", "FAILED"
"""Statuses of a refund, beside REQUESTED, UNKNOWN and MANUAL_REVIEW."""
GIVING_BACK = OPEN | {QUEUED}
"""A refund that has not come to its end."""
SUCCEEDED = "SUCCEEDED"
"""Status of an attempt, beside REQUESTED, FAILED, UNKNOWN and MANUAL_REVIEW."""

TILL = "till"
"""Provider of what is paid at the shop's own till: money that no gateway of ours moves."""

Method = Literal["sandbox", "naverpay", "toss", "kakaopay"]
"""Methods of payments that a gateway approves; each is also the gateway's name."""
TillMethod = Literal["cash", "card", "transfer", "other"]
Verdict = Literal["APPROVED", "DECLINED", "UNKNOWN"]
"""What a gateway's answer means."""


class Share(Struct, frozen=True, gc=False):
    """How much of a payment or refund is for which order, and its tax; `lines` are those that it pays for,
    if it was split so; `user` is the order's, who has to hear of refunds also when the order has left.
    """

    order: str
    amount: int
    lines: tuple[str, ...] = ()
    tax_free: int = 0
    vat: int = 0
    user: str | None = None


class Checkout(Struct, frozen=True, gc=False):
    """Where a guest pays: the gateway's page, and the gateway's own reference of it (never a secret)."""

    url: str
    ref: str = ""


class Attempt(Struct, frozen=True, gc=False):
    """One request for a charge. `attempt` is also its idempotency key at the gateway; `ref` is what the guest
    brought from the gateway's page, `charge` the gateway's name of the charge.
    """

    attempt: str
    status: str
    ref: str
    requested_at: str
    charge: str = ""
    settled_at: str | None = None
    code: str = ""
    message: str = ""
    queries: int = 0
    next_query_at: str | None = None
    querying: bool = False


class Refund(Struct, frozen=True, gc=False):
    """Money on its way back. `refund` is also its idempotency key at the gateway. `void`: a charge that no
    order stands behind is cancelled; it is not part of what was captured. `shares`: of a payment that has
    shares, how much goes back for which order. `owed`: the guest has to pay it anew, in another way.
    """

    refund: str
    amount: int
    taxable: int
    tax_free: int
    vat: int
    reason: str
    by: str
    status: str
    requested_at: str
    void: bool = False
    charge: str = ""
    settled_at: str | None = None
    code: str = ""
    message: str = ""
    tries: int = 0
    next_try_at: str | None = None
    shares: tuple[Share, ...] = ()
    owed: bool = False


class Payment(Struct, frozen=True, gc=False):
    """A payment. `order` is its payable (`None`: a table's bill, see `shares`); `provider` moves the money:
    a gateway's name or `till`; `taxable` contains `vat`; `refunded` is what refunds have given or are
    giving back.
    """

    payment: str
    status: str
    amount: int
    taxable: int
    tax_free: int
    vat: int
    method: str
    provider: str
    payer: str
    by: str
    created_at: str
    order: str | None = None
    table: str | None = None
    user: str | None = None
    shares: tuple[Share, ...] = ()
    checkout: Checkout | None = None
    attempt: Attempt | None = None
    paid_at: str | None = None
    refunded: int = 0
    refunds: tuple[Refund, ...] = ()


class OrderPayment(Struct, frozen=True, gc=False):
    """What an order's guest has to know of its newest payment at a gateway."""

    payment: str
    method: str
    status: str
    amount: int
    checkout: str | None = None
    code: str = ""
    message: str = ""
