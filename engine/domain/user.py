"""A user, in any shop: notices, copies of the orders they placed, and the coupons they hold."""

from __future__ import annotations

from itertools import islice
from typing import Any, ClassVar, assert_never

from msgspec import Struct
from msgspec.structs import astuple, replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.coupon import ISSUED, USED, HeldCoupon
from engine.domain.fields import Body, Name, Note
from engine.domain.order import Order, OrderChange, changed

NOTICES_MAX = 100
ORDERS_MAX = 50
COUPONS_MAX = 200


class Notice(Struct, frozen=True, gc=False):
    """A message to the user."""

    notice: str
    title: str
    body: str
    link: str
    at: str


class UserOrder(Order, frozen=True, gc=False, kw_only=True):
    """An order, and in which store."""

    store: str


class UserCoupon(HeldCoupon, frozen=True, gc=False, kw_only=True):
    """A coupon, and of which store."""

    store: str


class State(Struct):
    """A user. The first three are the collections that readers see; orders go by `<store>/<order>`, coupons
    by `<store>/<coupon>`.
    """

    notices: dict[str, Notice] = {}
    orders: dict[str, UserOrder] = {}
    coupons: dict[str, UserCoupon] = {}
    notices_made: int = 0


COLLECTIONS = ("notices", "orders", "coupons")


class Notify(contract.Command, frozen=True):
    """Show the user a message: `title`, `body`, and a `link` to where it leads."""

    allowed: ClassVar = frozenset({"service"})
    title: Name
    body: Body = ""
    link: Note = ""


class RecordOrder(contract.Command, frozen=True):
    """The `store` has a new `order` of this user."""

    store: str
    order: Order


class RecordChange(contract.Command, frozen=True):
    """The `store` made this `change` to one of its orders."""

    store: str
    change: OrderChange


class RecordCoupon(contract.Command, frozen=True):
    """The `store` gave this user a `coupon`."""

    store: str
    coupon: HeldCoupon


class RecordCouponUse(contract.Command, frozen=True):
    """The user's `coupon` of a `store` was used for an `order`, or, without one, is back."""

    store: str
    coupon: str
    order: str | None = None


class NoticeAdded(contract.Event, frozen=True):
    """The user was told something. Those in `dropped` are shown no longer."""

    notice: str
    title: str
    at: str
    body: str = ""
    link: str = ""
    dropped: tuple[str, ...] = ()


class OrderReceived(contract.Event, frozen=True):
    """A store has an order of the user: `copy`. Those in `dropped` are shown no longer."""

    order: str
    store: str
    copy: Order
    dropped: tuple[str, ...] = ()


class OrderChanged(contract.Event, frozen=True):
    """An order went on."""

    order: str
    store: str
    change: OrderChange


class CouponReceived(contract.Event, frozen=True):
    """A store gave the user a coupon: `copy`. Those in `dropped` are shown no longer."""

    coupon: str
    store: str
    copy: HeldCoupon
    dropped: tuple[str, ...] = ()


class CouponUsed(contract.Event, frozen=True):
    """A coupon was used for an order, or, without one, is back."""

    coupon: str
    store: str
    order: str | None = None


Command = Notify | RecordOrder | RecordChange | RecordCoupon | RecordCouponUse
Event = NoticeAdded | OrderReceived | OrderChanged | CouponReceived | CouponUsed


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Take it over; `[]` when it is known, or nothing to this user."""
    match command:
        case Notify(title=title, body=body, link=link):
            dropped = _oldest(state.notices, NOTICES_MAX)
            name = f"n{state.notices_made + 1}"
            return [NoticeAdded(name, title, context.now, body, link, dropped)]
        case RecordOrder(store=store, order=order):
            if f"{store}/{order.order}" in state.orders:
                return []
            return [OrderReceived(order.order, store, order, _oldest(state.orders, ORDERS_MAX))]
        case RecordChange(store=store, change=change):
            if f"{store}/{change.order}" not in state.orders:
                return []
            return [OrderChanged(change.order, store, change)]
        case RecordCoupon(store=store, coupon=held):
            known = state.coupons.get(f"{store}/{held.coupon}")
            if known is not None and known.issued_at == held.issued_at:
                return []
            dropped = _oldest(state.coupons, COUPONS_MAX) if known is None else ()
            return [CouponReceived(held.coupon, store, held, dropped)]
        case RecordCouponUse(store=store, coupon=name, order=order):
            known = state.coupons.get(f"{store}/{name}")
            return [] if known is None or known.order == order else [CouponUsed(name, store, order)]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Change `state` by one fact. Total: facts are never refused."""
    match event:
        case NoticeAdded(notice=name):
            state.notices_made += 1
            for old in event.dropped:
                state.notices.pop(old, None)
            state.notices[name] = Notice(name, event.title, event.body, event.link, event.at)
        case OrderReceived(store=store, order=name, copy=order):
            for old in event.dropped:
                state.orders.pop(old, None)
            state.orders[f"{store}/{name}"] = UserOrder(*astuple(order), store=store)
        case OrderChanged(store=store, order=name, change=change):
            known = state.orders.get(f"{store}/{name}")
            if known is not None:
                state.orders[f"{store}/{name}"] = changed(known, change)
        case CouponReceived(store=store, coupon=name, copy=held):
            for old in event.dropped:
                state.coupons.pop(old, None)
            state.coupons[f"{store}/{name}"] = UserCoupon(*astuple(held), store=store)
        case CouponUsed(store=store, coupon=name, order=order):
            key = f"{store}/{name}"
            if (coupon := state.coupons.get(key)) is not None:
                status = ISSUED if order is None else USED
                state.coupons[key] = replace(coupon, status=status, order=order)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Name the entities (collection, id) that the event changed."""
    match event:
        case NoticeAdded(notice=name):
            return [("notices", name), *(("notices", old) for old in event.dropped)]
        case OrderReceived(store=store, order=name):
            return [("orders", f"{store}/{name}"), *(("orders", old) for old in event.dropped)]
        case OrderChanged(store=store, order=name):
            return [("orders", f"{store}/{name}")]
        case CouponReceived(store=store, coupon=name):
            return [("coupons", f"{store}/{name}"), *(("coupons", old) for old in event.dropped)]
        case CouponUsed(store=store, coupon=name):
            return [("coupons", f"{store}/{name}")]
        case _:
            assert_never(event)


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return the command's `result`, after `evolve`."""
    match events:
        case [NoticeAdded(notice=name)]:
            return {"notice": name}
        case _:
            return {}


def deadline(state: State) -> None:
    """A user waits for nothing."""


def fences(event: Event) -> bool:
    """A user may read all that is theirs."""
    return False


def _oldest(entities: dict[str, Any], limit: int) -> tuple[str, ...]:
    """Return who has to go so that one more has room."""
    return tuple(islice(entities, max(0, len(entities) + 1 - limit)))
