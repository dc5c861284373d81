"""What must hold of stock and money after any run, checked from records of the log and the gateway's ledger.

Nothing here knows the domain: a record is read as everybody reads it, from the JSON of its envelope.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

DEAD = {"CANCELLED", "REJECTED", "EXPIRED"}
OPEN = {"REQUESTED", "UNKNOWN", "MANUAL_REVIEW"}
EDGES = {
    "": {"PENDING"},
    "PENDING": {"REQUESTED", "DROPPED"},
    "DROPPED": {"PENDING"},  # its order expired, and came back
    "REQUESTED": {"PAID", "DECLINED", "UNKNOWN"},
    "UNKNOWN": {"PAID", "DECLINED", "MANUAL_REVIEW"},
    "MANUAL_REVIEW": {"PAID", "DECLINED"},
    "DECLINED": set(),
    "PAID": set(),
}
"""How a payment at a gateway may move."""

ENDS = {"OrderExpired", "OrderCancelled", "OrderRejected"}
UNCOOKED = {"CREATED", "PENDING_PAYMENT", "PLACED", "ACCEPTED"}
GONE = {"OrderCancelled", "OrderRejected", "LineCancelled"}
MOVES: dict[str, set[tuple[int, int, int]]] = {
    "OrderCreated": {(-1, 1, 0), (-1, 0, 0)},
    "OrderRevived": {(-1, 1, 0)},
    "OrderExpired": {(1, -1, 0)},
    "ApprovalRequested": {(0, -1, 1)},
    "PaymentDeclined": {(0, 1, -1)},
    "StockConfirmed": {(0, 0, -1)},
    **{name: {(1, -1, 0), (1, 0, -1), (1, 0, 0)} for name in GONE},
}
"""Which event moves pieces how: signs for available, held, pinned."""

ASKED = {
    "PaymentPrepared": (("open", "payment"),),
    "ApprovalRequested": (("approve", "attempt"), ("query", "attempt")),
    "QueryRequested": (("query", "attempt"),),
    "RefundSent": (("cancel", "refund"),),
}
"""Which record allows which call, under which key."""


class Record(NamedTuple):
    """One record of the log: at `position`, written together with others of the same `append`."""

    position: int
    append: int
    stream: str
    version: int
    type: str
    time: str
    cause: str
    data: dict[str, Any]
    patch: dict[str, Any]


class Call(NamedTuple):
    """A request that left for the gateway when the log's head was `head`; `key` is the attempt or refund."""

    head: int
    kind: str
    key: str


class Charge(NamedTuple):
    """A charge in the gateway's own ledger, for an `attempt`; `cancelled` of its `amount` went back."""

    attempt: str
    amount: int
    cancelled: int


def record_of(position: int, append: int, body: bytes) -> Record:
    """Return a record from its envelope."""
    envelope = msgspec.json.decode(body)
    known = {name: envelope[name] for name in ("stream", "version", "type", "time", "cause", "data")}
    return Record(position, append, patch=envelope["patch"], **known)


def stock_adds_up(records: Iterable[Record]) -> None:
    """Per product: every change begins where the last one ended, no count is below zero, and what came into
    the house or left it is what orders took and gave back.
    """
    counts: dict[tuple[str, str], tuple[int, int, int]] = {}
    for record in records:
        data = record.data
        if record.type == "ProductPut" and data.get("stock") is not None:
            known = counts.get((record.stream, data["product"]), (0, 0, 0))
            counts[record.stream, data["product"]] = (data["stock"], known[1], known[2])
        elif record.type == "StockAdjusted":
            known = counts[record.stream, data["product"]]
            assert data["before"] == known[0], record
            counts[record.stream, data["product"]] = (data["after"], known[1], known[2])
        for change in _changes(record):
            before, after = _counts(change, "before"), _counts(change, "after")
            assert counts[record.stream, change["product"]] == before, f"a gap in the audit: {record}"
            assert min(after) >= 0, f"a count below zero: {record}"
            assert before != after, f"a change of nothing: {record}"
            counts[record.stream, change["product"]] = after
        for name, product in (record.patch.get("products") or {}).items():
            if product is not None and product["stock"] is not None:
                shown = product["stock"], product.get("held", 0), product.get("pinned", 0)
                held = counts[record.stream, name]
                assert shown == held, f"shown {shown}, audited {held}: {record}"


class _Pieces:
    """What one order has of one product, by where it is."""

    def __init__(self) -> None:
        self.held = self.pinned = self.taken = self.sold = 0


def holds_end_once(records: Iterable[Record]) -> dict[tuple[str, str, str], _Pieces]:
    """Per order and product: pieces move only along the allowed ways, so a hold ends once: sold or given
    back; by its deadline only then, and never while it is pinned. Return what each order has at the end.
    """
    pieces: dict[tuple[str, str, str], _Pieces] = defaultdict(_Pieces)
    deadlines: dict[tuple[str, str], str] = {}
    status: dict[str, str] = {}
    wanted: dict[tuple[str, str, str], int] = {}
    for record in records:
        data, order = record.data, record.data.get("order", "")
        if record.type == "OrderCreated":
            _check_demand(record)
            for change in _changes(record):
                wanted[record.stream, order, change["product"]] = change["before"] - change["after"]
            if data.get("hold_expires_at"):
                deadlines[record.stream, order] = data["hold_expires_at"]
        if record.type == "OrderExpired":
            assert record.time >= deadlines[record.stream, order], f"expired too early: {record}"
            for key, have in pieces.items():
                assert key[:2] != (record.stream, order) or not have.pinned, f"expired while paid: {record}"
        moved_deadline = (record.patch.get("orders") or {}).get(order) or {}
        if moved_deadline.get("hold_expires_at"):
            assert moved_deadline["hold_expires_at"] == deadlines[record.stream, order], f"moved: {record}"
        for change in _changes(record):
            before, after = _counts(change, "before"), _counts(change, "after")
            delta = tuple(new - old for old, new in zip(before, after, strict=True))
            count = max(map(abs, delta))
            signs = tuple(part // count if part % count == 0 else 9 for part in delta)
            assert signs in MOVES[record.type], f"pieces went the wrong way: {record}"
            have = pieces[record.stream, order, change["product"]]
            have.held += delta[1]
            have.pinned += delta[2]
            have.taken -= sum(delta)
            have.sold += count if record.type == "StockConfirmed" else 0
            assert min(have.held, have.pinned, have.taken) >= 0, f"given back twice: {record}"
        if record.type == "PaymentApproved":
            for key, count in wanted.items():
                assert key[:2] != (record.stream, order) or pieces[key].pinned == count, (
                    f"not there: {record}"
                )
        if record.type in ENDS and status[order] in UNCOOKED:
            for key, have in pieces.items():
                left = have.held or have.pinned or have.taken
                assert key[:2] != (record.stream, order) or not left, f"kept by nobody: {record}"
        for name, shown in (record.patch.get("orders") or {}).items():
            status[name] = shown["status"] if shown is not None else ""
    return pieces


def paid_in_one_commit(records: Sequence[Record], prepay: Iterable[str]) -> None:
    """In these shops, `PaymentApproved`, `OrderPaid` and `OrderPlaced` are written together, once per order;
    an order that costs nothing is placed as it is made.
    """
    prepay, placed = set(prepay), Counter[tuple[str, str]]()
    by_version = {(record.stream, record.version): record for record in records}
    for record in records:
        if record.stream not in prepay:
            continue
        if record.type == "PaymentApproved":
            for step, wanted in enumerate(("OrderPaid", "OrderPlaced"), 1):
                other = by_version[record.stream, record.version + step]
                assert (other.type, other.data["order"]) == (wanted, record.data["order"]), (record, other)
                assert (other.append, other.cause) == (record.append, record.cause), (record, other)
        elif record.type == "OrderPlaced":
            placed[record.stream, record.data["order"]] += 1
            paid = by_version.get((record.stream, record.version - 2))
            if paid is None or paid.type != "PaymentApproved":
                created = by_version[record.stream, record.version - 1]
                while created.type in ("CouponRedeemed", "OrderPaid"):
                    created = by_version[record.stream, created.version - 1]
                assert created.type == "OrderCreated", record
                assert created.data["total"] == 0, f"placed without money: {record}"
    assert max(placed.values(), default=0) <= 1, placed.most_common(2)


def payments_move_forward(records: Iterable[Record]) -> dict[tuple[str, str], dict[str, Any]]:
    """Payments take only the allowed steps, at most one of an order is open or paid, and nobody asks for
    more money than it costs. Return each payment as it was seen last.
    """
    payments: dict[tuple[str, str], dict[str, Any]] = {}
    open_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        for name, payment in (record.patch.get("payments") or {}).items():
            if payment is None or payment["provider"] == "till":
                continue
            old = payments.get((record.stream, name), {"status": ""})["status"]
            new = payment["status"]
            assert new == old or new in EDGES[old], f"{old} to {new}: {record}"
            payments[record.stream, name] = payment
            live = open_of[record.stream, payment["order"]]
            live.discard(name)
            if new in OPEN or new == "PAID":
                live.add(name)
            assert len(live) <= 1, f"two payments at once, {live}: {record}"
            if new == "PAID":
                assert payment["refunded"] <= payment["amount"], record
            busy = [refund for refund in payment["refunds"] if refund["status"] in OPEN]
            assert len(busy) <= 1, f"two refunds at once at the gateway: {record}"
    return payments


def refunds_split_up(payments: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The tax parts of every refund add up to it, and over a payment never exceed what was paid."""
    for key, payment in payments.items():
        given = Counter[str]()
        for refund in payment.get("refunds", ()):
            assert refund["taxable"] + refund["tax_free"] == refund["amount"], (key, refund)
            if not refund.get("void") and refund["status"] != "FAILED":
                for part in ("amount", "taxable", "tax_free", "vat"):
                    given[part] += refund[part]
        for part in ("amount", "taxable", "tax_free", "vat"):
            assert 0 <= given[part] <= payment[part], f"{key}: {part} {given[part]} of {payment[part]}"
        if given["amount"] == payment["amount"]:
            assert all(given[part] == payment[part] for part in ("taxable", "tax_free", "vat")), (key, given)


def nobody_pays_for_nothing(
    records: Iterable[Record], payments: dict[tuple[str, str], dict[str, Any]]
) -> None:
    """What the shop keeps of an order's money is at most what the order costs; of a dead one it keeps
    nothing. A refund that failed is in a person's list.
    """
    orders: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        for name, order in (record.patch.get("orders") or {}).items():
            if order is not None:
                orders[record.stream, name] = order
    for key, payment in payments.items():
        refunds = [refund for refund in payment["refunds"] if not refund["void"]]
        if payment["status"] == "PAID" and all(refund["status"] != "FAILED" for refund in refunds):
            order = orders[key[0], payment["order"]]
            costs = 0 if order["status"] in DEAD else order["total"]
            kept = payment["amount"] - sum(refund["amount"] for refund in refunds)
            assert kept <= costs, f"kept {kept} of {costs}: {order}"


def coupons_come_back(records: Iterable[Record]) -> None:
    """Who has a coupon uses it for one living order at a time, never before it was issued; sequences have no
    hole; and with each order that dies it is back.
    """
    issued: dict[tuple[str, str], int] = {}
    used: dict[tuple[str, str], str | None] = {}
    status: dict[str, str] = {}
    for record in records:
        data = record.data
        if record.type == "CouponIssued":
            key = data["coupon"], data["holder"]
            assert key not in issued, f"issued twice: {record}"
            issued[key] = data["sequence"]
        elif record.type == "CouponRedeemed":
            key = data["coupon"], data["holder"]
            assert key in issued, f"never issued: {record}"
            assert used.get(key) is None, f"used twice: {record}"
            used[key] = data["order"]
        elif record.type == "CouponReturned":
            assert used[data["coupon"], data["holder"]] == data["order"], f"not in use: {record}"
            used[data["coupon"], data["holder"]] = None
        for name, order in (record.patch.get("orders") or {}).items():
            status[name] = order["status"] if order is not None else status[name]
    for name in {name for name, _ in issued}:
        numbers = sorted(number for (coupon, _), number in issued.items() if coupon == name)
        assert numbers == list(range(1, len(numbers) + 1)), f"{name}: {numbers}"
    for key, name in used.items():
        assert name is None or status[name] not in DEAD, f"{name} is {status[name]} and keeps {key}"


def asked_before_called(records: Iterable[Record], calls: Iterable[Call]) -> None:
    """Whenever the gateway was called, the record that asks for it was durable before."""
    asked: dict[tuple[str, str], int] = {}
    for record in records:
        for kind, key in ASKED.get(record.type, ()):
            asked.setdefault((kind, record.data[key]), record.position)
    for call in calls:
        position = asked.get((call.kind, call.key))
        assert position is not None, f"nobody asked for {call}"
        assert position <= call.head, f"{call} before position {position} was durable"


class Verdict(NamedTuple):
    """What a comparison with the gateway came to, in won; `reviews` waits for a person."""

    charged: int
    refunded: int
    reviews: int


def ledgers_agree(payments: dict[tuple[str, str], dict[str, Any]], charges: Iterable[Charge]) -> Verdict:
    """Per payment, what the gateway has of it is what the shop has, except where a person has to look; each
    order has at most one charge that was not cancelled.
    """
    of_attempt = {p["attempt"]["attempt"]: key for key, p in payments.items() if p.get("attempt")}
    net: Counter[tuple[str, str]] = Counter()
    live: Counter[tuple[str, str]] = Counter()
    charged = reviews = 0
    for charge in charges:
        key = of_attempt.get(charge.attempt)
        assert key is not None, f"a charge that nobody asked for: {charge}"
        assert 0 <= charge.cancelled <= charge.amount, charge
        charged += charge.amount
        net[key] += charge.amount - charge.cancelled
        doubtful = payments[key]["status"] in OPEN or _looked_into(payments[key])
        live[key[0], payments[key]["order"]] += charge.cancelled < charge.amount and not doubtful
    assert max(live.values(), default=0) <= 1, f"charged twice: {live.most_common(2)}"
    for key, payment in payments.items():
        if payment["status"] == "MANUAL_REVIEW":
            reviews += 1
            continue
        assert payment["status"] not in OPEN, f"never settled: {payment}"
        refunds = payment.get("refunds", ())
        done = sum(r["amount"] for r in refunds if r["status"] == "DONE" and not r["void"])
        shop = payment["amount"] - done if payment["status"] == "PAID" else 0
        perhaps = sum(r["amount"] for r in refunds if r["status"] == "MANUAL_REVIEW" and not r["void"])
        stuck = sum(r["amount"] for r in refunds if r["status"] in ("MANUAL_REVIEW", "FAILED") and r["void"])
        reviews += bool(perhaps or stuck)
        fits = shop - perhaps <= net[key] <= shop + stuck
        assert fits, f"the gateway has {net[key]}, the shop {shop}: {key} {payment}"
    return Verdict(charged, charged - sum(net.values()), reviews)


def _looked_into(payment: dict[str, Any]) -> bool:
    return any(refund["status"] in ("MANUAL_REVIEW", "FAILED") for refund in payment.get("refunds", ()))


def _changes(record: Record) -> list[dict[str, Any]]:
    changes = record.data.get("stock")
    return changes if isinstance(changes, list) else []


def _counts(change: dict[str, Any], side: str) -> tuple[int, int, int]:
    """Return available, held, pinned."""
    return change[side], change.get(f"held_{side}", 0), change.get(f"pinned_{side}", 0)


def _check_demand(record: Record) -> None:
    """What an order takes of counted products is what its lines need together."""
    wanted: Counter[str] = Counter()
    for line in record.data["lines"]:
        wanted[line["product"]] += line["quantity"]
    for change in _changes(record):
        took = change["before"] - change["after"]
        assert took == wanted[change["product"]], f"took {took} for {wanted}: {record}"
