"""The part of the evening in a shop whose guests pay first: every way in which a payment may end."""

from __future__ import annotations

from typing import Any

from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.store.gateway import NoteCheckout, SettleApproval
from engine.domain.store.holds import ExpireHolds
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.reconciling import QUERIES_MAX, QueryPayment, ReconcilePayments, ResolvePayment
from engine.domain.store.shop import ConfigureStore, OpenStore
from tests.harness_domain import World

SHOP, GUEST = "store:s2", "user:u1"


def pay_first(world: World) -> None:
    """Let guests pay, fail, come late, and leave everybody in doubt."""
    for command in (
        ConfigureStore("온다 카페", "prepay"),
        PutProduct("cake", "케이크", 9000, stock=20),
        OpenStore(),
        CreateCoupon("cake", "케이크 할인", 1000, 10),
        IssueCoupon("cake", "u1"),
    ):
        world.ask(SHOP, command)
    bought = _order(world)
    attempt = _approve(world, bought)
    _settle(world, attempt, "APPROVED", amount=9000, charge="c-1")
    refused = _order(world, coupon="cake")
    _settle(world, _approve(world, refused), "DECLINED", code="LIMIT", message="한도 초과")
    _pass(world, minutes=10)
    world.ask(SHOP, ExpireHolds())
    late = _order(world, coupon="cake")
    payment = _prepare(world, late)
    _pass(world, minutes=10)
    world.ask(SHOP, ExpireHolds())
    _settle(world, _approve(world, late, payment), "UNKNOWN", code="TIMEOUT", message="no answer in 60 s")
    for _ in range(QUERIES_MAX + 1):
        _pass(world, minutes=30)
        world.ask(SHOP, ReconcilePayments())
    world.ask(SHOP, ResolvePayment(payment["payment"], False, "통장에 없어요"))
    world.ask(SHOP, QueryPayment(payment["payment"]))
    stored = world[SHOP].state.payments[payment["payment"]].attempt
    verdict = {"payment": payment["payment"], "attempt": stored.attempt}
    _settle(world, verdict, "UNKNOWN", code="TIMEOUT")
    _settle(world, verdict, "APPROVED", amount=8000, charge="c-2")


def _order(world: World, coupon: str | None = None) -> dict[str, Any]:
    return _do(world, CreateOrder((Wish("cake", 1),), coupon=coupon))


def _prepare(world: World, order: dict[str, Any]) -> dict[str, Any]:
    command = PreparePayment(order["order"], order["total"], "u1", "naverpay")
    _do(world, PreparePayment(order["order"], order["total"], "u1", "sandbox"))
    payment = _do(world, command)
    world.ask(SHOP, NoteCheckout(payment["payment"], "https://pay.example/1", "ref-1"))
    return payment


def _approve(world: World, order: dict[str, Any], payment: Any = None) -> dict[str, Any]:
    payment = payment or _prepare(world, order)
    _do(world, ApprovePayment(order["order"], payment["payment"], "token-1"))
    stored = world[SHOP].state.payments[payment["payment"]].attempt
    return {"payment": payment["payment"], "attempt": stored.attempt}


def _settle(world: World, attempt: dict[str, Any], verdict: str, **fields: Any) -> None:
    world.ask(SHOP, SettleApproval(**attempt, verdict=verdict, **fields))
    world.settle()


def _do(world: World, command: Any) -> dict[str, Any]:
    result = world.result(SHOP, command, GUEST)
    world.settle()
    return result


def _pass(world: World, minutes: int) -> None:
    world.now_ms += minutes * 60_000
