"""NaverPay. Before its approval a payment does not exist for its history: `InvalidPaymentId` is never final.

Everything answers 200 with a `code`. What we know of v2.2, v2.3, cancels and their codes is second-hand (see
docs/payments.md), so the list of what counts as certain is short, and `Fail`, which says nothing, is not on
it.
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import Any
from urllib.parse import urlsplit

from engine.domain.payment import Checkout
from engine.domain.store.gateway import ApprovalRequested, PaymentPrepared, QueryRequested, RefundSent
from engine.payments.contract import Approved, Declined, Links, Result, Unknown, look_up, order_id
from engine.payments.http import Answer, Line

URL = "https://pay.paygate.naver.com/naverpay-partner/naverpay/payments"
KEY_HEADER = "X-NaverPay-Idempotency-Key"

REFUSALS = frozenset(
    {
        "TimeExpired",
        "OwnerAuthFail",
        "NotEnoughAccountBalance",
        "BankMaintenance",
        "MaintenanceOngoing",
        "FaultCheckOngoing",
        "InvalidMerchant",
    }
)
"""The charge was certainly not made."""

CANCEL_REFUSALS = frozenset(
    {"OverRemainAmount", "CancelDeadlineExpired", "TaxScopeAmountError", "TaxScopeAmtGreaterThanRemainError"}
)
"""The cancel certainly was not and will not be made. After `CancelDeadlineExpired` the shop has to give the
money back itself.
"""

_REF = re.compile(r"[A-Za-z0-9_-]{1,64}")
_APPROVED, _CANCELLED, _PARTLY = "01", "03", "04"

logger = logging.getLogger("onda.gateway")


class NaverPay:
    """The adapter of NaverPay."""

    name = "naverpay"

    def __init__(self, line: Line, links: Links) -> None:
        self._line = line
        self._links = links
        host = urlsplit(line.url).hostname or ""
        prefix = "test-" if host.startswith("dev-") else ""
        self._pages = f"https://{prefix}m.pay.naver.com/payments/"

    @staticmethod
    def headers(client_id: str, client_secret: str, chain_id: str) -> dict[str, str]:
        """Return what proves who we are."""
        named = {"X-Naver-Client-Id": client_id, "X-Naver-Client-Secret": client_secret}
        return named | {"X-NaverPay-Chain-Id": chain_id}

    async def open(self, prepared: PaymentPrepared, store: str) -> Checkout | None:
        answer = await self._line.post(
            "/v2/reserve",
            json={
                "modelVersion": "2",
                "merchantUserKey": hashlib.sha256(prepared.payer.encode()).hexdigest()[:32],
                "merchantPayKey": order_id(store, prepared.payment),
                "productName": prepared.name[:128],
                "productCount": 1,
                "totalPayAmount": prepared.amount,
                "taxScopeAmount": prepared.taxable,
                "taxExScopeAmount": prepared.tax_free,
                "returnUrl": await self._links.back(store, prepared.payment),
            },
            key=prepared.payment,
            key_header=KEY_HEADER,
        )
        reserved = answer.part("body").get("reserveId")
        if answer.text("code") != "Success" or not isinstance(reserved, str) or not _REF.fullmatch(reserved):
            return None
        return Checkout(self._pages + reserved, reserved)

    async def approve(self, requested: ApprovalRequested, store: str) -> Result:
        if not _REF.fullmatch(requested.ref):
            return Declined("invalid_ref", "this is no payment id of NaverPay")
        form = {"paymentId": requested.ref}
        answer = await self._line.post(
            "/v2.2/apply/payment", form=form, key=requested.attempt, key_header=KEY_HEADER
        )
        code, message = self._said(answer)
        if answer.status != 200:
            return Unknown(code, message)
        if code == "Success":
            detail = answer.part("body").get("detail")
            return _verify(detail, requested.ref, order_id(store, requested.payment))
        if code == "AlreadyComplete":
            return await look_up(self, requested, store)
        return Declined(code, message) if code in REFUSALS else Unknown(code, message)

    async def query(self, asked: QueryRequested, store: str) -> Result:
        rows = await self._history(asked.charge or asked.ref)
        if isinstance(rows, Unknown):
            return rows
        kinds = {row.get("admissionTypeCode"): row for row in rows}
        if _CANCELLED in kinds:
            return Declined("cancelled", "the charge was cancelled")
        if _PARTLY in kinds:
            return Unknown("partly_cancelled", "a part of the charge was cancelled")
        if _APPROVED not in kinds:
            return Unknown("not_charged_yet")
        return _verify(kinds[_APPROVED], asked.charge or asked.ref, order_id(store, asked.payment))

    async def cancel(self, sent: RefundSent, store: str, *, again: bool) -> Result:
        if not _REF.fullmatch(sent.charge):
            return Unknown("no_charge", "the charge's name at the gateway is not known")
        form = {
            "paymentId": sent.charge,
            "cancelAmount": str(sent.amount),
            "cancelReason": sent.reason[:80] or "refund",
            "cancelRequester": "2" if sent.by_shop else "1",
            "taxScopeAmount": str(sent.taxable),
            "taxExScopeAmount": str(sent.tax_free),
            "doCompareRest": "1",
            "expectedRestAmount": str(sent.remaining - sent.amount),
        }
        answer = await self._line.post("/v1/cancel", form=form, key=sent.refund, key_header=KEY_HEADER)
        code, message = self._said(answer)
        if answer.status != 200:
            return Unknown(code, message)
        if code == "Success":
            return Approved(sent.amount, sent.charge)
        if code == "AlreadyCanceled":
            return Approved(sent.amount, sent.charge, note=code)
        if code in ("RestAmountDiff", "OverRemainAmount") and await self._is_done(sent):
            return Approved(sent.amount, sent.charge, note="already_cancelled")
        # PreCancelNotComplete and CancelNotComplete: the very same cancel is sent again later.
        return Declined(code, message) if code in CANCEL_REFUSALS else Unknown(code, message)

    async def _is_done(self, sent: RefundSent) -> bool:
        """Return whether the gateway has exactly what it should have after this cancel."""
        rows = await self._history(sent.charge)
        if isinstance(rows, Unknown):
            return False
        charged = sum(_amount(row) for row in rows if row.get("admissionTypeCode") == _APPROVED)
        back = sum(_amount(row) for row in rows if row.get("admissionTypeCode") in (_CANCELLED, _PARTLY))
        return charged > 0 and charged - back == sent.remaining - sent.amount

    async def _history(self, payment_id: str) -> list[dict[str, Any]] | Unknown:
        """Return what happened to a payment, only what succeeded."""
        if not _REF.fullmatch(payment_id):
            return Unknown("invalid_ref", "this is no payment id of NaverPay")
        answer = await self._line.post(f"/v2.3/list/history/{payment_id}", json={"rowsPerPage": 100})
        if answer.status != 200 or answer.text("code") != "Success":
            return Unknown(*self._said(answer))
        rows = answer.part("body").get("list")
        if not isinstance(rows, list):
            return Unknown("unreadable_history")
        found = [row for row in rows if isinstance(row, dict)]
        return [row for row in found if row.get("admissionState", "SUCCESS") == "SUCCESS"]

    def _said(self, answer: Answer) -> tuple[str, str]:
        code = self._line.clean(answer.text("code")) or f"http_{answer.status}"
        return code, self._line.clean(answer.text("message"))

    async def aclose(self) -> None:
        await self._line.aclose()


def _verify(detail: object, charge: str, order: str) -> Result:
    """Return what a charge's description proves: that it is for our order, and how much it is."""
    if not isinstance(detail, dict):
        return Unknown("unreadable_detail")
    if detail.get("merchantPayKey") != order:
        return Unknown("order_mismatch", "the gateway speaks of another order")
    total, taxable, tax_free = (
        detail.get(name) for name in ("totalPayAmount", "taxScopeAmount", "taxExScopeAmount")
    )
    if not isinstance(total, int):
        return Unknown("unreadable_detail")
    if not isinstance(taxable, int) or not isinstance(tax_free, int):
        return Approved(total, charge)
    if taxable + tax_free != total:
        return Unknown("tax_mismatch", "the gateway's tax split does not add up")
    return Approved(total, charge, tax_free)


def _amount(row: dict[str, Any]) -> int:
    value = row.get("totalPayAmount")
    return abs(value) if isinstance(value, int) else 0
