"""What follows from each record for other streams: the one place where shop, tables and users meet. Pure.

    table  CartSubmitted  -> shop   TakeCart
    shop   CartRefused    -> table  ReturnCart
    shop   OrderCreated   -> table  RecordOrder,      user RecordOrder
    shop   any OrderEvent -> table  RecordChange,     user RecordChange
    shop   OrderPlaced    -> the same, and shop ConfirmStock, where it was paid first
    table  TableOpened, TableClosed -> shop NoteTable
    table  StaffCalled, CallAnswered -> shop NoteCall
    shop   MenuAnnounced  -> tables ShowMenu
    shop   OffersAnnounced -> tables ShowOffers
    shop   CouponIssued   -> table or user RecordCoupon
    shop   CouponRedeemed, CouponReturned -> table or user RecordCouponUse
    shop   CampaignAnnounced -> users Notify

These run at least once, and in order per lane (`lane_of`); whoever sends them gives each an id derived from
the record, so that its effect is once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from engine.domain import store
from engine.domain.contract import Event, Send, members
from engine.domain.coupon import ISSUED, HeldCoupon, Offer
from engine.domain.order import OrderChange, OrderEvent
from engine.domain.store.announce import MenuAnnounced, OffersAnnounced
from engine.domain.store.campaigns import CampaignAnnounced
from engine.domain.store.coupons import CouponIssued, CouponRedeemed, CouponReturned
from engine.domain.store.holds import ConfirmStock
from engine.domain.store.orders import CartRefused, OrderCreated, OrderPlaced, TakeCart, Wish
from engine.domain.store.tables import NoteCall, NoteTable
from engine.domain.table.calls import CallAnswered, StaffCalled
from engine.domain.table.cart import CartSubmitted, ReturnCart
from engine.domain.table.copies import RecordChange, RecordOrder, ShowMenu
from engine.domain.table.coupons import RecordCoupon, RecordCouponUse, ShowOffers
from engine.domain.table.sitting import TableClosed, TableOpened
from engine.domain.user import coupons as user_coupons
from engine.domain.user import orders as user_orders
from engine.domain.user.notices import Notify


def react(stream: str, event: Event, event_id: str) -> list[Send]:
    """Return the commands that follow from a record of `stream`, in the order in which to send them."""
    follow = _FOLLOW.get(type(event))
    return follow(stream, event) if follow is not None else []


def lane_of(stream: str, event: Event) -> str:
    """Return which records of a stream have to be followed one after the other: those that meet again.

    A table or a user is a stream with one shop to tell, so its records keep their order. A shop tells many,
    and what it tells one table has nothing to do with what it tells another. So an order's records stay in
    order, as do all orders of one table, and of one user. The menu goes its own way, as a table can have it
    before or after anything else; so do coupons at tables, which all tables are told of. (Only the orders
    that one user has at several tables may overtake each other on their way to that user, who keeps each by
    itself.)
    """
    if not stream.startswith("store:"):
        return stream
    table, user_ = getattr(event, "table", None), getattr(event, "user", None)
    if table is not None:
        if isinstance(event, _COUPONS):
            return f"{stream}>{OffersAnnounced.__name__}"
        return f"{stream}>table:{table}"
    return f"{stream}>{type(event).__name__}" if user_ is None else f"{stream}>user:{user_}"


def _cart_submitted(stream: str, event: CartSubmitted) -> list[Send]:
    wishes = tuple(
        Wish(line.product, line.quantity, line.options, line.note, line.line, line.by) for line in event.lines
    )
    cart = TakeCart(event.order, event.table, event.sitting, wishes, event.coupon)
    return [Send(f"store:{event.store}", cart)]


def _cart_refused(stream: str, event: CartRefused) -> list[Send]:
    return [Send(_table(stream, event.table), ReturnCart(event.order, event.code, event.detail))]


def _order_created(stream: str, event: OrderCreated) -> list[Send]:
    order = event.as_order()
    sends = []
    if event.table is not None:
        at_table = order if order.shipping is None else replace(order, shipping=None)
        sends.append(Send(_table(stream, event.table), RecordOrder(at_table, event.sitting)))
    if event.user is not None:
        sends.append(Send(f"user:{event.user}", user_orders.RecordOrder(_store(stream), order)))
    return sends


def _order_changed(stream: str, event: OrderEvent) -> list[Send]:
    return _to_copies(stream, event.change(), event.table, event.user)


def _order_placed(stream: str, event: OrderPlaced) -> list[Send]:
    if event.at is None:
        return []  # everybody got it as it was created
    copies = _to_copies(stream, event.change(), event.table, event.user)
    return [*copies, Send(stream, ConfirmStock(event.order))]


def _to_copies(stream: str, change: OrderChange, table: str | None, user_id: str | None) -> list[Send]:
    sends = []
    if table is not None:
        sends.append(Send(_table(stream, table), RecordChange(change)))
    if user_id is not None:
        sends.append(Send(f"user:{user_id}", user_orders.RecordChange(_store(stream), change)))
    return sends


def _menu_announced(stream: str, event: MenuAnnounced) -> list[Send]:
    shown = ShowMenu(event.products, event.shop, event.campaigns)
    return [Send(_table(stream, table), shown) for table in event.tables]


def _offers_announced(stream: str, event: OffersAnnounced) -> list[Send]:
    shown = ShowOffers(event.offers, event.gone)
    return [Send(_table(stream, table), shown) for table in event.tables]


def _coupon_issued(stream: str, event: CouponIssued) -> list[Send]:
    name, discount = event.name, event.discount
    if event.table is not None:
        offer = Offer(event.coupon, name, discount, event.remaining, event.starts_at, event.expires_at)
        return [Send(_table(stream, event.table), RecordCoupon(offer, event.sitting))]
    held = HeldCoupon(event.coupon, name, discount, event.sequence, ISSUED, event.at, event.expires_at)
    return [Send(f"user:{event.user}", user_coupons.RecordCoupon(_store(stream), held))]


def _coupon_moved(stream: str, event: CouponRedeemed | CouponReturned) -> list[Send]:
    used = isinstance(event, CouponRedeemed)
    if event.table is not None:
        moved = RecordCouponUse(event.coupon, event.sitting, used)
        return [Send(_table(stream, event.table), moved)]
    use = user_coupons.RecordCouponUse(_store(stream), event.coupon, event.order if used else None)
    return [Send(f"user:{event.user}", use)]


def _campaign_announced(stream: str, event: CampaignAnnounced) -> list[Send]:
    notice = Notify(event.name, "지금 시작했어요")
    return [Send(f"user:{name}", notice) for name in event.users]


def _table_opened(stream: str, event: TableOpened) -> list[Send]:
    noted = NoteTable(event.table, event.sitting, True, event.guests, event.at)
    return [Send(f"store:{event.store}", noted)]


def _table_closed(stream: str, event: TableClosed) -> list[Send]:
    return [Send(f"store:{event.store}", NoteTable(event.table, event.sitting, False, calls=event.calls))]


def _staff_called(stream: str, event: StaffCalled) -> list[Send]:
    return [Send(f"store:{event.store}", NoteCall(event.table, event.call, event.kind, event.at))]


def _call_answered(stream: str, event: CallAnswered) -> list[Send]:
    noted = NoteCall(event.table, event.call, event.kind, event.called_at, answered=True)
    return [Send(f"store:{event.store}", noted)]


def _store(stream: str) -> str:
    return stream.partition(":")[2]


def _table(stream: str, table: str) -> str:
    return f"table:{_store(stream)}/{table}"


_FOLLOW: dict[type, Callable[[str, Any], list[Send]]] = {
    CartSubmitted: _cart_submitted,
    CartRefused: _cart_refused,
    OrderCreated: _order_created,
    OrderPlaced: _order_placed,
    MenuAnnounced: _menu_announced,
    OffersAnnounced: _offers_announced,
    CouponIssued: _coupon_issued,
    CouponRedeemed: _coupon_moved,
    CouponReturned: _coupon_moved,
    CampaignAnnounced: _campaign_announced,
    TableOpened: _table_opened,
    TableClosed: _table_closed,
    StaffCalled: _staff_called,
    CallAnswered: _call_answered,
}
_FOLLOW.update((kind, _order_changed) for kind in members(store.Event) if issubclass(kind, OrderEvent))

_COUPONS = (CouponIssued, CouponRedeemed, CouponReturned)

FOLLOWED = frozenset(kind.__name__ for kind in _FOLLOW)
"""Types of the events that `react` does anything for."""
