"""Toss Payments. Certain are its listed refusals; 409, 5xx, `PROVIDER_ERROR` and codes unknown to us are not.

Toss compares idempotency keys and not bodies, so the key is the attempt's or the refund's own id and nothing
else. A payment that is "already processed" is asked about: it may be this very attempt.
"""

from __future__ import annotations

import base64
import logging
from typing import Any
from urllib.parse import quote

from engine.domain.payment import Checkout
from engine.domain.store.gateway import ApprovalRequested, PaymentPrepared, QueryRequested, RefundSent
from engine.payments.contract import Approved, Declined, Links, Result, Unknown, look_up, order_id
from engine.payments.http import Answer, Line

URL = "https://api.tosspayments.com"

REFUSALS = frozenset(
    {
        "BELOW_MINIMUM_AMOUNT",
        "EXCEED_MAX_AMOUNT",
        "EXCEED_MAX_CARD_INSTALLMENT_PLAN",
        "EXCEED_MAX_DAILY_PAYMENT_COUNT",
        "EXCEED_MAX_PAYMENT_AMOUNT",
        "INVALID_API_KEY",
        "INVALID_CARD_EXPIRATION",
        "INVALID_REJECT_CARD",
        "INVALID_STOPPED_CARD",
        "NOT_FOUND_PAYMENT",
        "NOT_REGISTERED_BUSINESS",
        "UNAUTHORIZED_KEY",
    }
)
"""Beside `REJECT_…`: the charge was certainly not made."""

ASK = frozenset({"ALREADY_PROCESSED_PAYMENT", "NOT_FOUND_PAYMENT_SESSION", "EXPIRED_PAYMENT_SESSION"})
"""What became of the payment shows only when it is asked about."""

CANCEL_REFUSALS = frozenset(
    {"NOT_CANCELABLE_AMOUNT", "NOT_CANCELABLE_PAYMENT", "EXCEED_CANCEL_AMOUNT", "NOT_ALLOWED_PARTIAL_REFUND"}
)

_WAITING = frozenset({"READY", "IN_PROGRESS", "WAITING_FOR_DEPOSIT"})
_NEVER = frozenset({"NOT_FOUND_PAYMENT", "not_charged_yet"})
_GONE = frozenset({"ABORTED", "EXPIRED", "CANCELED"})

logger = logging.getLogger("onda.gateway")


class Toss:
    """The adapter of Toss Payments."""

    name = "toss"

    def __init__(self, line: Line, links: Links) -> None:
        self._line = line
        self._links = links

    @staticmethod
    def headers(secret_key: str) -> dict[str, str]:
        """Return what proves who we are: Basic, the key as the name, no password."""
        return {"authorization": f"Basic {encoded(secret_key)}"}

    async def open(self, prepared: PaymentPrepared, store: str) -> Checkout | None:
        back = await self._links.back(store, prepared.payment)
        answer = await self._line.post(
            "/v1/payments",
            json={
                "method": "CARD",
                "amount": prepared.amount,
                "taxFreeAmount": prepared.tax_free,
                "orderId": order_id(store, prepared.payment),
                "orderName": prepared.name[:100],
                "successUrl": back,
                "failUrl": back,
            },
            key=f"open-{prepared.payment}",
        )
        url = answer.part("checkout").get("url")
        return Checkout(url) if answer.status == 200 and isinstance(url, str) else None

    async def approve(self, requested: ApprovalRequested, store: str) -> Result:
        order = order_id(store, requested.payment)
        body = {"paymentKey": requested.ref, "orderId": order, "amount": requested.amount}
        answer = await self._line.post("/v1/payments/confirm", json=body, key=requested.attempt)
        if answer.status == 200:
            return self._read(answer, order)
        code, message = self._said(answer)
        if code in ASK and answer.status < 500:
            found = await look_up(self, requested, store)
            gone = code != "ALREADY_PROCESSED_PAYMENT"
            never = isinstance(found, Unknown) and found.code in _NEVER  # not: it could not be asked
            return Declined(code, message) if gone and never else found
        if answer.status in range(400, 500) and (code in REFUSALS or code.startswith("REJECT_")):
            return Declined(code, message)
        return Unknown(code, message)

    async def query(self, asked: QueryRequested, store: str) -> Result:
        order = order_id(store, asked.payment)
        answer = await self._line.get(f"/v1/payments/orders/{order}")
        return self._read(answer, order) if answer.status == 200 else Unknown(*self._said(answer))

    async def cancel(self, sent: RefundSent, store: str, *, again: bool) -> Result:
        if not sent.charge:
            return Unknown("no_charge", "the charge's name at the gateway is not known")
        answer = await self._line.post(
            f"/v1/payments/{quote(sent.charge, safe='')}/cancel",
            json={
                "cancelReason": sent.reason[:200] or "refund",
                "cancelAmount": sent.amount,
                "taxFreeAmount": sent.tax_free,
            },
            key=sent.refund,
        )
        if answer.status == 200 and answer.text("status") in ("CANCELED", "PARTIAL_CANCELED"):
            left = answer.body.get("balanceAmount")
            if left != sent.remaining - sent.amount:
                logger.warning("toss has %r left of %s, we count otherwise", left, sent.payment)
            return Approved(sent.amount, sent.charge)
        code, message = self._said(answer)
        if code == "ALREADY_CANCELED_PAYMENT":
            return Approved(sent.amount, sent.charge, note=code)
        refused = code in CANCEL_REFUSALS and answer.status in range(400, 500)
        return Declined(code, message) if refused else Unknown(code, message)

    def _read(self, answer: Answer, order: str) -> Result:
        """Return what a payment's own description says."""
        body: dict[str, Any] = answer.body
        status, key, amount = answer.text("status"), answer.text("paymentKey"), body.get("totalAmount")
        if answer.text("orderId") != order:
            return Unknown("order_mismatch", "the gateway speaks of another order")
        if status == "DONE" and key and isinstance(amount, int):
            free = body.get("taxFreeAmount")
            return Approved(amount, key, free if isinstance(free, int) else None)
        if status in _GONE:
            return Declined(status.lower())
        return Unknown("not_charged_yet" if status in _WAITING else self._line.clean(status).lower() or "odd")

    def _said(self, answer: Answer) -> tuple[str, str]:
        code = self._line.clean(answer.text("code")) or f"http_{answer.status}"
        return code, self._line.clean(answer.text("message"))

    async def aclose(self) -> None:
        await self._line.aclose()


def encoded(secret_key: str) -> str:
    """Return the key as it goes over the wire, which is as secret as the key itself."""
    return base64.b64encode(f"{secret_key}:".encode()).decode()
