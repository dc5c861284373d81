"""The sandbox: a gateway of our own (`web.sandbox`) that moves no money, spoken to as if it did."""

from __future__ import annotations

from typing import Any

from engine.domain.payment import Checkout
from engine.domain.store.gateway import ApprovalRequested, PaymentPrepared, QueryRequested, RefundSent
from engine.payments.contract import Approved, Declined, Links, Result, Unknown, look_up, order_id
from engine.payments.http import Answer, Line

REFUSALS = frozenset({"declined", "expired", "order_mismatch", "amount_mismatch", "invalid_key"})
CANCEL_REFUSALS = frozenset({"over_remaining", "invalid_key"})

_DEAD = frozenset({"declined", "expired", "cancelled"})


class SandboxGateway:
    """The adapter of the sandbox."""

    name = "sandbox"

    def __init__(self, line: Line, links: Links) -> None:
        self._line = line
        self._links = links

    @staticmethod
    def headers(key: str) -> dict[str, str]:
        """Return what proves who we are."""
        return {"authorization": f"Bearer {key}"}

    async def open(self, prepared: PaymentPrepared, store: str) -> Checkout | None:
        answer = await self._line.post(
            "/v1/checkouts",
            json={
                "order": order_id(store, prepared.payment),
                "amount": prepared.amount,
                "tax_free": prepared.tax_free,
                "name": prepared.name,
                "return": await self._links.back(store, prepared.payment),
                "webhook": self._links.webhook(self.name, store, prepared.payment),
            },
            key=prepared.payment,
        )
        url, checkout = answer.text("url"), answer.text("checkout")
        return Checkout(url, checkout) if answer.status == 200 and url else None

    async def approve(self, requested: ApprovalRequested, store: str) -> Result:
        order = order_id(store, requested.payment)
        body = {
            "ref": requested.ref,
            "order": order,
            "amount": requested.amount,
            "tax_free": requested.tax_free,
            "webhook": self._links.webhook(self.name, store, requested.payment),
        }
        answer = await self._line.post("/v1/charges", json=body, key=requested.attempt)
        if answer.status == 200:
            return _read(answer.body, order)
        code, message = self._said(answer)
        if code == "already_processed":
            return await look_up(self, requested, store)
        refused = code in REFUSALS and answer.status in range(400, 500)
        return Declined(code, message) if refused else Unknown(code, message)

    async def query(self, asked: QueryRequested, store: str) -> Result:
        params = {"attempt": asked.attempt, "ref": asked.ref}
        answer = await self._line.get("/v1/charges", params)
        if answer.status != 200:
            return Unknown(*self._said(answer))
        return _read(answer.body, order_id(store, asked.payment))

    async def cancel(self, sent: RefundSent, store: str, *, again: bool) -> Result:
        answer = await self._line.post(
            "/v1/cancels",
            json={
                "charge": sent.charge,
                "amount": sent.amount,
                "reason": sent.reason,
                "expected_rest": sent.remaining - sent.amount,
            },
            key=sent.refund,
        )
        if answer.status == 200 and answer.body.get("cancelled") == sent.amount:
            return Approved(sent.amount, sent.charge)
        code, message = self._said(answer)
        if code == "already_cancelled":
            return Approved(sent.amount, sent.charge, note=code)
        refused = code in CANCEL_REFUSALS and answer.status in range(400, 500)
        return Declined(code, message) if refused else Unknown(code, message)

    def _said(self, answer: Answer) -> tuple[str, str]:
        code = self._line.clean(answer.text("code")) or f"http_{answer.status}"
        return code, self._line.clean(answer.text("message"))

    async def aclose(self) -> None:
        await self._line.aclose()


def _read(body: dict[str, Any], order: str) -> Result:
    status, amount, charge = body.get("status"), body.get("amount"), body.get("charge")
    if body.get("order") not in (order, None):
        return Declined("order_mismatch", "this was paid for another order")
    if status == "charged" and isinstance(amount, int) and isinstance(charge, str):
        free = body.get("tax_free")
        return Approved(amount, charge, free if isinstance(free, int) else None)
    if status in _DEAD:
        return Declined(str(status))
    return Unknown("partly_cancelled" if status == "partly_cancelled" else "not_charged_yet")
