"""What a gateway is to the shop, and what its answers mean.

An answer is one of three. `Approved`: the money moved (or a cancel was carried out). `Declined`: it certainly
did not and will not. `Unknown`: everything else, whatever the reason; the shop asks again later, and a
payment in doubt is never tried a second time. So an adapter says `Declined` only for codes that it knows to
be final, and `Unknown` for all that it has never heard of.

Gateways know a payment under an order id of ours. It carries the store beside the payment's id, so that a
hint from a gateway finds its way without an index: `<payment>_<store>`, or the payment's id alone where the
store's name does not fit into what gateways take (6-64 of `A-Z a-z 0-9 _ -`).
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

import trio

from engine.domain.payment import Checkout
from engine.domain.store.gateway import ApprovalRequested, PaymentPrepared, QueryRequested, RefundSent
from engine.payments.http import Lost, NotSent

_PAYMENT = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ORDER_ID = re.compile(rf"({_PAYMENT})(?:_([A-Za-z0-9_-]{{1,27}}))?")
_STORE = re.compile(r"[A-Za-z0-9_-]{1,27}")


class Approved(NamedTuple):
    """It is done. `amount`: won that moved; `charge`: the gateway's name of the charge; `tax_free`: how much
    of it the gateway counts as free of tax, where it says so; `note`: what was odd about it.
    """

    amount: int
    charge: str
    tax_free: int | None = None
    note: str = ""


class Declined(NamedTuple):
    """It is certain that nothing moved. `code` is the gateway's, or ours in snake_case."""

    code: str
    message: str = ""


class Unknown(NamedTuple):
    """It may or may not have happened, or not yet."""

    code: str
    message: str = ""


Result = Approved | Declined | Unknown


class Gateway(Protocol):
    """One gateway. `store` is the shop's id.

    The methods may raise `NotSent` and `Lost` (see `engine.payments.http`); whoever calls them turns those
    into results, and bounds the time.
    """

    @property
    def name(self) -> str:
        """The gateway's name, which is also the payment method."""

    async def open(self, prepared: PaymentPrepared, store: str) -> Checkout | None:
        """Open a page where the guest pays; `None` where this gateway has none of its own. May be called
        twice for one payment: the second page replaces the first.
        """

    async def approve(self, requested: ApprovalRequested, store: str) -> Result:
        """Charge. Safe to repeat: a second call finds what the first one did."""

    async def query(self, asked: QueryRequested, store: str) -> Result:
        """Ask what became of an attempt. Never changes anything at the gateway."""

    async def cancel(self, sent: RefundSent, store: str, *, again: bool) -> Result:
        """Give money back. `again`: this may have been asked before, with the same refund id."""

    async def aclose(self) -> None:
        """Close its connections."""


class Links:
    """Addresses of ours that gateways are given. The base may become known only when the server listens."""

    def __init__(self, public_url: str = "") -> None:
        self._url = ""
        self._published = trio.Event()
        if public_url:
            self.publish(public_url)

    @property
    def known(self) -> bool:
        """Whether gateways can be told where we are."""
        return bool(self._url)

    def publish(self, public_url: str) -> None:
        """Say where guests and gateways reach this server: `https://pay.example.com`."""
        self._url = public_url.rstrip("/")
        self._published.set()

    async def back(self, store: str, payment: str) -> str:
        """Return the page to which a gateway sends the guest back."""
        await self._published.wait()
        return f"{self._url}/pay/{store}/{payment}"

    def webhook(self, provider: str, store: str, payment: str) -> str:
        """Return the address for a gateway's hints about one payment, "" while it is not known."""
        return self._url and f"{self._url}/v1/payments/{provider}/webhook/{store}/{payment}"


def order_id(store: str, payment: str) -> str:
    """Return under which id gateways know a payment."""
    return f"{payment}_{store}" if _STORE.fullmatch(store) else payment


def read_order_id(text: str) -> tuple[str, str] | None:
    """Return store and payment of an order id of ours; the store is "" where the id does not carry it."""
    match = _ORDER_ID.fullmatch(text)
    return (match[2] or "", match[1]) if match else None


async def look_up(gateway: Gateway, requested: ApprovalRequested, store: str) -> Result:
    """Return what a gateway knows of an approval that it says it had before.

    Raises:
        Lost: it cannot be asked. That the question was not sent says nothing about the approval, which was.
    """
    try:
        return await gateway.query(as_query(requested), store)
    except NotSent:
        raise Lost("not_asked") from None


def as_query(requested: ApprovalRequested) -> QueryRequested:
    """Return the question what became of an attempt, for one that was perhaps never sent."""
    return QueryRequested(
        order=requested.order,
        at=requested.at,
        payment=requested.payment,
        attempt=requested.attempt,
        method=requested.method,
        amount=requested.amount,
        payer=requested.payer,
        ref=requested.ref,
        checkout=requested.checkout,
        tax_free=requested.tax_free,
    )
