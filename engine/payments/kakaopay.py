"""KakaoPay. It knows no idempotency keys: what protects a repeat is asking first, and telling what should be
left.

A charge goes by the `tid` of its page; the guest brings the `pg_token`. `-702` (approved already) is asked
about: it may be this very attempt.
"""

from __future__ import annotations

import logging
from typing import Any

from engine.domain.payment import Checkout
from engine.domain.store.gateway import ApprovalRequested, PaymentPrepared, QueryRequested, RefundSent
from engine.payments.contract import Approved, Declined, Links, Result, Unknown, look_up, order_id
from engine.payments.http import Answer, Line

URL = "https://open-api.kakaopay.com"

REFUSALS = frozenset({"-701", "-704", "-706", "-707", "-708", "-721", "-723"})
"""Not authenticated, another amount, order or user, a bad token, no such page, too late."""

ALREADY_APPROVED = "-702"
CANCEL_TOO_MUCH = "-710"

_DEAD = frozenset({"QUIT_PAYMENT", "FAIL_PAYMENT", "CANCEL_PAYMENT"})

logger = logging.getLogger("onda.gateway")


class KakaoPay:
    """The adapter of KakaoPay. `cid`: the shop's code there."""

    name = "kakaopay"

    def __init__(self, line: Line, links: Links, cid: str) -> None:
        self._line = line
        self._links = links
        self._cid = cid

    @staticmethod
    def headers(secret_key: str) -> dict[str, str]:
        """Return what proves who we are."""
        return {"authorization": f"SECRET_KEY {secret_key}"}

    async def open(self, prepared: PaymentPrepared, store: str) -> Checkout | None:
        back = await self._links.back(store, prepared.payment)
        answer = await self._post(
            "ready",
            partner_order_id=order_id(store, prepared.payment),
            partner_user_id=prepared.payer[:100],
            item_name=prepared.name[:100],
            quantity=1,
            total_amount=prepared.amount,
            tax_free_amount=prepared.tax_free,
            vat_amount=prepared.vat,
            approval_url=back,
            cancel_url=f"{back}?result=cancel",
            fail_url=f"{back}?result=fail",
        )
        tid, url = answer.text("tid"), answer.text("next_redirect_mobile_url")
        return Checkout(url, tid) if answer.status == 200 and tid and url else None

    async def approve(self, requested: ApprovalRequested, store: str) -> Result:
        if not requested.checkout:
            return Declined("no_checkout", "the guest was on no page of KakaoPay")
        order = order_id(store, requested.payment)
        answer = await self._post(
            "approve",
            tid=requested.checkout,
            partner_order_id=order,
            partner_user_id=requested.payer[:100],
            pg_token=requested.ref,
            total_amount=requested.amount,
        )
        if answer.status == 200:
            return _verify(answer, order, requested.checkout)
        code, message = self._said(answer)
        if code == ALREADY_APPROVED:
            return await look_up(self, requested, store)
        refused = code in REFUSALS and answer.status in range(400, 500)
        return Declined(code, message) if refused else Unknown(code, message)

    async def query(self, asked: QueryRequested, store: str) -> Result:
        tid = asked.charge or asked.checkout
        if not tid:
            return Unknown("no_checkout", "the guest was on no page of KakaoPay")
        answer = await self._post("order", tid=tid)
        if answer.status != 200:
            return Unknown(*self._said(answer))
        status = answer.text("status")
        if status == "SUCCESS_PAYMENT":
            return _verify(answer, order_id(store, asked.payment), tid)
        if status in _DEAD:
            return Declined(status.lower())
        return Unknown("partly_cancelled" if status == "PART_CANCEL_PAYMENT" else "not_charged_yet")

    async def cancel(self, sent: RefundSent, store: str, *, again: bool) -> Result:
        if not sent.charge:
            return Unknown("no_charge", "the charge's name at the gateway is not known")
        after = sent.remaining - sent.amount
        if again and (left := await self._left(sent.charge)) != sent.remaining:
            if left == after:
                return Approved(sent.amount, sent.charge, note="already_cancelled")
            return Unknown("rest_differs", f"KakaoPay has {left} won left, {sent.remaining} were expected")
        answer = await self._post(
            "cancel",
            tid=sent.charge,
            cancel_amount=sent.amount,
            cancel_tax_free_amount=sent.tax_free,
            cancel_vat_amount=sent.vat,
            cancel_available_amount=sent.remaining,
        )
        if answer.status == 200 and answer.text("status") in ("CANCEL_PAYMENT", "PART_CANCEL_PAYMENT"):
            if _inner(answer, "cancel_available_amount", "total") not in (after, None):
                logger.warning("kakaopay counts %s otherwise than we do", sent.payment)
            return Approved(sent.amount, sent.charge)
        code, message = self._said(answer)
        if code != CANCEL_TOO_MUCH:
            return Unknown(code, message)
        left = await self._left(sent.charge)
        if left == after:
            return Approved(sent.amount, sent.charge, note="already_cancelled")
        return Unknown(code, message) if left is None or left >= sent.amount else Declined(code, message)

    async def _left(self, tid: str) -> int | None:
        """Return how much of a charge KakaoPay still has; `None` when it does not say."""
        answer = await self._post("order", tid=tid)
        return _inner(answer, "cancel_available_amount", "total") if answer.status == 200 else None

    async def _post(self, verb: str, **fields: Any) -> Answer:
        return await self._line.post(f"/online/v1/payment/{verb}", json={"cid": self._cid, **fields})

    def _said(self, answer: Answer) -> tuple[str, str]:
        code = answer.body.get("error_code", answer.body.get("code"))
        message = answer.body.get("error_message", answer.body.get("msg"))
        return self._line.clean(code) or f"http_{answer.status}", self._line.clean(message)

    async def aclose(self) -> None:
        await self._line.aclose()


def _verify(answer: Answer, order: str, tid: str) -> Result:
    if answer.text("partner_order_id") != order:
        return Unknown("order_mismatch", "the gateway speaks of another order")
    total = _inner(answer, "amount", "total")
    return (
        Unknown("unreadable_answer")
        if total is None
        else Approved(total, tid, _inner(answer, "amount", "tax_free"))
    )


def _inner(answer: Answer, part: str, name: str) -> int | None:
    value = answer.part(part).get(name)
    return value if isinstance(value, int) else None
