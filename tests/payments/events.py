"""Events as the shop writes them, for adapters and the reaction."""

from __future__ import annotations

from typing import Any

from engine.domain.store.gateway import ApprovalRequested, PaymentPrepared, QueryRequested, RefundSent
from engine.payments.contract import order_id

STORE = "s1"
AT = "2026-11-21T03:00:00.000Z"
PAYMENT = "0190a000-0000-7000-8000-000000000001"
ORDER = order_id(STORE, PAYMENT)


def uuid(number: int) -> str:
    """An id that looks like ours."""
    return f"0190a000-0000-7000-8000-{number:012x}"


def prepared(
    method: str = "sandbox", amount: int = 12_000, tax_free: int = 1_000, **more: Any
) -> PaymentPrepared:
    """A guest is about to pay."""
    fields: dict[str, Any] = {
        "order": "o1",
        "at": AT,
        "payment": PAYMENT,
        "method": method,
        "amount": amount,
        "taxable": amount - tax_free,
        "tax_free": tax_free,
        "vat": 1_000,
        "payer": "user:kim",
        "by": "user:kim",
        "name": "떡볶이 외 2건",
    }
    return PaymentPrepared(**(fields | more))


def requested(
    method: str = "sandbox", amount: int = 12_000, tax_free: int = 1_000, **more: Any
) -> ApprovalRequested:
    """The attempt."""
    fields: dict[str, Any] = {
        "order": "o1",
        "at": AT,
        "payment": PAYMENT,
        "attempt": uuid(101),
        "method": method,
        "amount": amount,
        "taxable": amount - tax_free,
        "tax_free": tax_free,
        "vat": 1_000,
        "payer": "user:kim",
        "name": "떡볶이 외 2건",
        "ref": "ref-1",
    }
    return ApprovalRequested(**(fields | more))


def asked(method: str = "sandbox", amount: int = 12_000, **more: Any) -> QueryRequested:
    """The question what became of it."""
    fields: dict[str, Any] = {
        "order": "o1",
        "at": AT,
        "payment": PAYMENT,
        "attempt": uuid(101),
        "method": method,
        "amount": amount,
        "payer": "user:kim",
        "ref": "ref-1",
        "tax_free": 1_000,
    }
    return QueryRequested(**(fields | more))


def refund(charge: str, amount: int = 12_000, tax_free: int = 1_000, **more: Any) -> RefundSent:
    """Money on its way back."""
    fields: dict[str, Any] = {
        "at": AT,
        "payment": PAYMENT,
        "refund": uuid(201),
        "attempt": uuid(101),
        "method": "sandbox",
        "amount": amount,
        "taxable": amount - tax_free,
        "tax_free": tax_free,
        "vat": 1_000,
        "reason": "품절",
        "payer": "user:kim",
        "charge": charge,
        "remaining": 12_000,
        "captured": 12_000,
    }
    return RefundSent(**(fields | more))
