"""The shop itself: its settings, opening and closing, and pausing orders when the kitchen is full."""

from __future__ import annotations

from typing import ClassVar, assert_never

from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import STAFF, Context
from engine.domain.fields import HoldSeconds, Name, PaymentMode, Reason
from engine.domain.store.announce import announce_shop
from engine.domain.store.state import SELF, Shop, State, shop_sign


class ConfigureStore(contract.Command, frozen=True):
    """Make the store or change its settings: its `name`, its `payment_mode` (prepay or postpay), and for
    how many `hold_seconds` stock is held for an order that is not paid.
    """

    allowed: ClassVar = frozenset({"owner"})
    name: Name
    payment_mode: PaymentMode
    hold_seconds: HoldSeconds = 600


class OpenStore(contract.Command, frozen=True):
    """Start to take orders."""

    allowed: ClassVar = STAFF


class CloseStore(contract.Command, frozen=True):
    """Stop taking orders until the store is opened again; orders that are there go on."""

    allowed: ClassVar = STAFF


class PauseOrders(contract.Command, frozen=True):
    """Take no new orders for a while; `reason` is shown to guests."""

    allowed: ClassVar = STAFF
    reason: Reason


class ResumeOrders(contract.Command, frozen=True):
    """Take orders again after a pause."""

    allowed: ClassVar = STAFF


class StoreConfigured(contract.Event, frozen=True):
    """The store has these settings from now on."""

    name: str
    payment_mode: PaymentMode
    hold_seconds: int


class StoreOpened(contract.Event, frozen=True):
    """The store takes orders."""


class StoreClosed(contract.Event, frozen=True):
    """The store takes no more orders."""


class OrdersPaused(contract.Event, frozen=True):
    """No new orders for a while, and why."""

    reason: str


class OrdersResumed(contract.Event, frozen=True):
    """New orders are taken again."""


Command = ConfigureStore | OpenStore | CloseStore | PauseOrders | ResumeOrders
Event = StoreConfigured | StoreOpened | StoreClosed | OrdersPaused | OrdersResumed


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Every one of these changes the shop or nothing, so the event follows from the command alone."""
    event = _event(command)
    now, then = state.shop.get(SELF), _after(state.shop.get(SELF), event)
    return [] if now == then else [event, *announce_shop(state, shop_sign(then))]


def evolve(state: State, event: Event) -> None:
    """Change the shop."""
    state.shop[SELF] = _after(state.shop.get(SELF), event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The shop is one entity."""
    return [("shop", SELF)]


def _event(command: Command) -> Event:
    match command:
        case ConfigureStore(name=name, payment_mode=mode, hold_seconds=seconds):
            return StoreConfigured(name, mode, seconds)
        case OpenStore():
            return StoreOpened()
        case CloseStore():
            return StoreClosed()
        case PauseOrders(reason=reason):
            return OrdersPaused(reason)
        case ResumeOrders():
            return OrdersResumed()
        case _:
            assert_never(command)


def _after(shop: Shop | None, event: Event) -> Shop:
    if shop is None:
        shop = Shop("", "postpay", 600)
    match event:
        case StoreConfigured(name=name, payment_mode=mode, hold_seconds=seconds):
            return replace(shop, name=name, payment_mode=mode, hold_seconds=seconds)
        case StoreOpened():
            return replace(shop, open=True)
        case StoreClosed():
            return replace(shop, open=False)
        case OrdersPaused(reason=reason):
            return replace(shop, paused=True, pause_reason=reason)
        case OrdersResumed():
            return replace(shop, paused=False, pause_reason=None)
        case _:
            assert_never(event)
