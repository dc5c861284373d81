"""From records to rows. Pure but for one question to the database: what a product's counts were before.

Orders, payments and campaigns come out of the envelope's patch, which holds each of them as it looks after
the event; the audit of the stock comes out of the event itself. What is gone from the patch has only left
the shop's memory: the history keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Table

from engine.domain.order import Order
from engine.domain.payment import Payment
from engine.domain.store.menu import ProductPut, StockAdjusted
from engine.domain.store.state import Product
from engine.domain.store.stock import StockChange
from engine.history import tables
from engine.mailbox import Committed

Row = dict[str, Any]


class Counts(NamedTuple):
    """Pieces of one product: what can be ordered, what is held, and what is pinned."""

    available: int = 0
    held: int = 0
    pinned: int = 0

    @property
    def on_hand(self) -> int:
        return self.available + self.held + self.pinned


class _Envelope(msgspec.Struct, gc=False):
    id: str
    type: str
    time: str
    by: str
    cause: str
    patch: dict[str, dict[str, msgspec.Raw]]


class _Campaign(msgspec.Struct, gc=False):
    campaign: str
    name: str = ""
    status: str = ""
    opens_at: str | None = None
    closes_at: str | None = None


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_order = msgspec.json.Decoder(Order | None).decode
_decode_payment = msgspec.json.Decoder(Payment | None).decode
_decode_product = msgspec.json.Decoder(Product | None).decode
_decode_campaign = msgspec.json.Decoder(_Campaign | None).decode


class Rows:
    """What some records, in order, do to the tables.

    Args:
        counts_before: returns what the database last noted of (store, product).
        offset: where the positions of these records begin in the tables (`tables.SPAN`).

    Attributes:
        added: rows that are new, by table. latest: rows that replace those with the same key, by table and
        key.
    """

    def __init__(self, counts_before: Callable[[str, str], Counts], offset: int = 0) -> None:
        self.added: dict[Table, list[Row]] = {}
        self.latest: dict[Table, dict[tuple[Any, ...], Row]] = {}
        self._counts: dict[tuple[str, str], Counts] = {}
        self._counts_before = counts_before
        self._offset = offset

    def take(self, records: Iterable[Committed]) -> None:
        """Add records in the order of the log.

        Raises:
            DecodeError: an envelope that is not one of ours.
        """
        for record in records:
            envelope = _decode(record.body)
            position = self._offset + record.position
            self._take_event(record, position, envelope)
            if record.stream.startswith("store:"):
                store = record.stream[6:]
                if envelope.patch:
                    self._take_patch(store, position, envelope)
                self._take_stock(store, record, position, envelope)
                if envelope.type == "CouponIssued":
                    self._take_coupon(store, record, position)

    def _add(self, table: Table, row: Row) -> None:
        self.added.setdefault(table, []).append(row)

    def _put(self, table: Table, row: Row) -> None:
        key = tuple(row[column.name] for column in table.primary_key)
        self.latest.setdefault(table, {})[key] = row

    def _take_event(self, record: Committed, position: int, envelope: _Envelope) -> None:
        order = getattr(record.event, "order", None)
        row = {
            "position": position,
            "stream": record.stream,
            "version": record.version,
            "id": envelope.id,
            "type": envelope.type,
            "time": envelope.time,
            "by": cut(envelope.by),
            "cause": cut(envelope.cause),
            "order_id": order if isinstance(order, str) else None,
            "body": record.body.decode(),
        }
        self._add(tables.events, row)

    def _take_patch(self, store: str, position: int, envelope: _Envelope) -> None:
        patch = envelope.patch
        for body in patch.get("orders", {}).values():
            order = _decode_order(body)
            if order is not None:
                self._take_order(store, position, envelope.time, order)
        for body in patch.get("payments", {}).values():
            payment = _decode_payment(body)
            if payment is not None:
                self._take_payment(store, position, payment)
        for body in patch.get("campaigns", {}).values():
            campaign = _decode_campaign(body)
            if campaign is not None:
                row = msgspec.structs.asdict(campaign)
                row |= {"store": store, "name": cut(campaign.name), "body": bytes(body).decode()}
                self._put(tables.campaigns, row)

    def _take_order(self, store: str, position: int, time: str, order: Order) -> None:
        row = {
            "store": store,
            "order_id": order.order,
            "number": order.number,
            "status": order.status,
            "table_id": order.table,
            "user_id": order.user,
            "by": cut(order.by),
            "total": order.total,
            "tax_free": order.tax_free,
            "vat": order.vat,
            "discount": order.discount,
            "coupon": order.coupon,
            "paid": order.paid,
            "refunded": order.refunded,
            "owed": order.owed,
            "placed_at": order.placed_at,
            "closed_at": order.closed_at,
            "reason": cut(order.reason or "", tables.LONG_CHARS),
            "lines": _json(order.lines),
            "position": position,
            "changed_at": time,
        }
        self._put(tables.orders, row)
        if order.shipping is not None:
            to = order.shipping
            row = {"store": store, "order_id": order.order, "name": cut(to.name), "phone": cut(to.phone)}
            self._put(tables.shipping, row | {"address": cut(to.address, tables.LONG_CHARS)})

    def _take_payment(self, store: str, position: int, payment: Payment) -> None:
        row = {
            "store": store,
            "payment": payment.payment,
            "status": payment.status,
            "amount": payment.amount,
            "taxable": payment.taxable,
            "tax_free": payment.tax_free,
            "vat": payment.vat,
            "method": payment.method,
            "provider": payment.provider,
            "payer": cut(payment.payer),
            "by": cut(payment.by),
            "order_id": payment.order,
            "table_id": payment.table,
            "user_id": payment.user,
            "created_at": payment.created_at,
            "paid_at": payment.paid_at,
            "refunded": payment.refunded,
            "shares": _json(payment.shares),
            "position": position,
        }
        self._put(tables.payments, row)
        self._take_attempt(store, payment)
        for refund in payment.refunds:
            row = {name: getattr(refund, name) for name in _REFUND}
            row |= {"store": store, "payment": payment.payment, "by": cut(refund.by)}
            row |= {"code": cut(refund.code), "message": cut(refund.message, tables.LONG_CHARS)}
            self._put(tables.refunds, row | {"reason": cut(refund.reason, tables.LONG_CHARS)})

    def _take_attempt(self, store: str, payment: Payment) -> None:
        attempt = payment.attempt
        if attempt is not None:
            row = {name: getattr(attempt, name) for name in _ATTEMPT}
            row |= {"store": store, "payment": payment.payment, "charge": cut(attempt.charge)}
            row |= {"code": cut(attempt.code), "message": cut(attempt.message, tables.LONG_CHARS)}
            self._put(tables.payment_attempts, row)

    def _take_stock(self, store: str, record: Committed, position: int, envelope: _Envelope) -> None:
        number = 0
        for product, before, after in self._changes(store, record, envelope):
            self._counts[store, product] = after
            if before == after:
                continue
            order = getattr(record.event, "order", None)
            row = {
                "position": position,
                "number": number,
                "store": store,
                "product": product,
                "order_id": order if isinstance(order, str) else None,
                "type": envelope.type,
                "reason": cut(getattr(record.event, "reason", "") or "", tables.LONG_CHARS),
                "time": envelope.time,
            }
            for what in ("available", "held", "pinned", "on_hand"):
                row[f"{what}_before"] = getattr(before, what)
                row[f"{what}_after"] = getattr(after, what)
            self._add(tables.stock_audit, row)
            number += 1

    def _changes(
        self, store: str, record: Committed, envelope: _Envelope
    ) -> Iterable[tuple[str, Counts, Counts]]:
        event: Any = record.event
        if isinstance(event, ProductPut):
            yield event.product, self._before(store, event.product), self._after(event.product, envelope)
        elif isinstance(event, StockAdjusted):
            after = self._after(event.product, envelope)
            yield event.product, after._replace(available=event.before), after
        else:
            changes = getattr(event, "stock", None)
            for change in changes if isinstance(changes, tuple) else ():
                if isinstance(change, StockChange):
                    before = Counts(change.before, change.held_before, change.pinned_before)
                    after = Counts(change.after, change.held_after, change.pinned_after)
                    yield change.product, before, after

    def _before(self, store: str, product: str) -> Counts:
        counts = self._counts.get((store, product))
        return self._counts_before(store, product) if counts is None else counts

    def _after(self, name: str, envelope: _Envelope) -> Counts:
        product = _decode_product(envelope.patch["products"][name])
        if product is None or product.stock is None:
            return Counts()
        return Counts(product.stock, product.held, product.pinned)

    def _take_coupon(self, store: str, record: Committed, position: int) -> None:
        event: Any = record.event
        row = {
            "position": position,
            "store": store,
            "coupon": event.coupon,
            "holder": cut(event.holder),
            "user_id": event.user,
            "table_id": event.table,
            "sequence": event.sequence,
            "issued_at": event.at,
        }
        self._add(tables.coupon_issue, row)


_REFUND = ("refund", "status", "amount", "taxable", "tax_free", "vat", "void", "requested_at", "settled_at")
_ATTEMPT = ("attempt", "status", "requested_at", "settled_at", "queries")


def cut(text: str, chars: int = tables.TEXT_CHARS) -> str:
    """Return a text as every database takes it: not too long, and without the NUL that PostgreSQL refuses."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:chars]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
