"""Payments and refunds of every store that somebody may have to look after, and checks that must hold.

Read from the states of the stores. A store that did not change since the last look is not read again; and one
that is not in memory has not changed, unless another node was heard to change it, so looking does not keep
stores in memory that nobody uses.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from engine import Node
from engine.domain.order import DEAD, UNPAID
from engine.domain.payment import FAILED, MANUAL_REVIEW, OPEN, PAID, QUEUED, REQUESTED, TILL, UNKNOWN, Payment

ROWS_MAX = 200
"""Payments, and refunds, that are listed at most: the oldest."""
OVERDUE_MS = 60_000
"""How long after its deadline a hold may be there at most: the sweep comes once a minute."""

_REFUNDS_SHOWN = frozenset({UNKNOWN, MANUAL_REVIEW, FAILED})
_REFUNDS_PENDING = frozenset({REQUESTED, QUEUED, UNKNOWN})

Row = dict[str, Any]


class Findings(NamedTuple):
    """What one store has to show. `holds`: deadlines (ms) of the holds that time may end."""

    version: int
    payments: list[Row]
    refunds: list[Row]
    counts: Counter[str]
    holds: list[int]


class Money:
    """What is known of every store's money. `look` brings it up to date."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[str, tuple[int, Findings]] = {}

    async def look(self) -> dict[str, Any]:
        """Return payments and refunds to look after, oldest first, with counts and checks.

        A check is the number of its violations: it must be 0. `more` says that rows were left out.
        """
        counts: Counter[str] = Counter()
        payments: list[Row] = []
        refunds: list[Row] = []
        overdue_ms = self._node.clock.now_ms() - OVERDUE_MS
        for stream in self._node.stores:
            found = await self._of(stream)
            payments += found.payments
            refunds += found.refunds
            counts.update(found.counts)
            counts["holds_overdue"] += sum(1 for deadline_ms in found.holds if deadline_ms < overdue_ms)
        payments.sort(key=lambda row: row["requested_at"])
        refunds.sort(key=lambda row: row["requested_at"])
        return {
            "payments": payments[:ROWS_MAX],
            "refunds": refunds[:ROWS_MAX],
            "more": max(len(payments), len(refunds)) > ROWS_MAX,
            "counts": {name: counts[name] for name in _COUNTS},
            "checks": {name: counts[name] for name in _CHECKS},
        }

    async def _of(self, stream: str) -> Findings:
        gaps = self._node.partition_of(stream).gaps
        before, known = self._known.get(stream, (gaps, None))
        if (
            known is not None
            and before == gaps
            and self._node.loaded_version(stream) in (None, known.version)
        ):
            return known
        found = await self._node.examine(stream, lambda state, version: findings(stream, state, version))
        self._known[stream] = gaps, found
        return found


_COUNTS = ("open", "review", "refunds_pending", "refunds_failed")
_CHECKS = (
    "paid_without_order",
    "refunded_too_much",
    "stock_mismatch",
    "holds_overdue",
    "coupons_overissued",
)


def findings(stream: str, state: Any, version: int) -> Findings:
    """Return what the state of a store has to show."""
    store = stream.partition(":")[2]
    counts: Counter[str] = Counter()
    payments: list[Row] = []
    refunds: list[Row] = []
    for payment in (*state.payments.values(), *filter(_has_failed, state.kept.values())):
        if payment.status in OPEN:
            payments.append(_payment_row(store, payment))
            counts["review" if payment.status == MANUAL_REVIEW else "open"] += 1
        counts["paid_without_order"] += _is_paid_without_order(state, payment)
        counts["refunded_too_much"] += payment.refunded > payment.amount
        for refund in payment.refunds:
            counts["refunds_pending"] += refund.status in _REFUNDS_PENDING
            if refund.status == FAILED and not refund.void and payment.refunded >= payment.amount:
                continue  # all of it went back by others
            counts["refunds_failed"] += refund.status in (FAILED, MANUAL_REVIEW)
            if refund.status in _REFUNDS_SHOWN:
                refunds.append(_refund_row(store, payment, refund))
    counts["stock_mismatch"] = _stock_mismatch(state)
    counts["coupons_overissued"] = sum(
        1 for coupon in state.coupons.values() if coupon.issued + coupon.remaining != coupon.stock
    )
    holds = [hold.deadline_ms for hold in state.holds.values() if hold.attempt is None]
    return Findings(version, payments, refunds, counts, holds)


def _has_failed(payment: Payment) -> bool:
    """Whether money of it should have gone back and did not: somebody has to look, its order there or not."""
    return any(refund.status == FAILED for refund in payment.refunds)


def _is_paid_without_order(state: Any, payment: Payment) -> bool:
    """A paid payment at a gateway, nothing of it given back, and no order that the shop works on."""
    if payment.status != PAID or payment.provider == TILL or payment.refunds or payment.order is None:
        return False
    order = state.orders.get(payment.order)
    return order is None or order.status in UNPAID or order.status in DEAD


def _stock_mismatch(state: Any) -> int:
    """Count the products whose held and pinned pieces are not those of the holds, or that have less than
    none.
    """
    held: Counter[str] = Counter()
    pinned: Counter[str] = Counter()
    for hold in state.holds.values():
        (held if hold.attempt is None else pinned).update(hold.pieces)
    return sum(
        1
        for name, product in state.products.items()
        if (product.held, product.pinned) != (held[name], pinned[name]) or (product.stock or 0) < 0
    )


def _payment_row(store: str, payment: Payment) -> Row:
    attempt = payment.attempt
    row: Row = {
        "store": store,
        "payment": payment.payment,
        "order": payment.order,
        "table": payment.table,
        "user": payment.user,
        "status": payment.status,
        "method": payment.method,
        "amount": payment.amount,
        "requested_at": payment.created_at if attempt is None else attempt.requested_at,
    }
    if attempt is not None:
        row |= {
            "attempt": attempt.attempt,
            "charge": attempt.charge,
            "code": attempt.code,
            "message": attempt.message,
            "queries": attempt.queries,
            "querying": attempt.querying,
            "next_query_at": attempt.next_query_at,
        }
    return row


def _refund_row(store: str, payment: Payment, refund: Any) -> Row:
    return {
        "store": store,
        "payment": payment.payment,
        "order": payment.order,
        "refund": refund.refund,
        "status": refund.status,
        "method": payment.method,
        "amount": refund.amount,
        "reason": refund.reason,
        "by": refund.by,
        "requested_at": refund.requested_at,
        "void": refund.void,
        "code": refund.code,
        "message": refund.message,
        "tries": refund.tries,
        "next_try_at": refund.next_try_at,
    }
