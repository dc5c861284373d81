"""The part of the evening in which money goes back, and in which bills are paid at the till."""

from __future__ import annotations

from typing import Any

from engine.domain.store.cancelling import CancelLine, CancelOrder
from engine.domain.store.gateway import SettleApproval, SettleRefund
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.refunds import RefundPayment
from engine.domain.store.repaying import TRIES_MAX, ResolveRefund, RetryRefunds
from engine.domain.store.settling import SettleTable, TillPart
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.table.sitting import OpenTable
from tests.harness_domain import World

SHOP, TILL, GUEST = "store:s3", "store:s4", "user:u1"


def give_back(world: World) -> None:
    """Let refunds be done, fail, stay unknown, and end with a person."""
    for command in (
        ConfigureStore("온다 찻집", "prepay"),
        PutProduct("tea", "차", 7000, stock=20),
        PutProduct("rice", "떡", 2000, tax_free=True),
        OpenStore(),
    ):
        world.ask(SHOP, command)
    payment = _paid(world)
    done = _refund(world, payment, 1000, "차가 식었어요")
    _verdict(world, payment, done, "APPROVED", code="already_cancelled")
    failed = _refund(world, payment, 1000, "떡이 딱딱해요")
    _verdict(world, payment, failed, "DECLINED", code="LIMIT", message="취소 한도 초과")
    unknown = _refund(world, payment, 500, "너무 늦었어요")
    for _ in range(TRIES_MAX):
        _verdict(world, payment, unknown, "UNKNOWN", code="TIMEOUT", message="no answer in 60 s")
        world.now_ms += 30 * 60_000
        world.ask(SHOP, RetryRefunds())
    world.ask(SHOP, ResolveRefund(payment, unknown, True, "통장에서 확인했어요"))
    world.settle()
    order = world[SHOP].state.payments[payment].order
    world.ask(SHOP, CancelOrder(order, "마음이 바뀌었어요"), GUEST)
    world.settle()


def settle_bills(world: World) -> None:
    """Let a party pay line by line, in cash and by card."""
    for command in (
        ConfigureStore("온다 주점", "postpay"),
        PutProduct("jeon", "전", 12000),
        PutProduct("rice", "공기밥", 1000, tax_free=True),
        OpenStore(),
    ):
        world.ask(TILL, command)
    world.ask("table:s4/7", OpenTable(3))
    world.settle()
    order = world.result(TILL, CreateOrder((Wish("jeon", 2), Wish("rice", 3)), table="7", user="u1"))["order"]
    lines = tuple(line.line for line in world[TILL].state.orders[order].lines)
    parts = (TillPart("cash", 20_000), TillPart("card", 7_000))
    world.ask(TILL, SettleTable("7", "mixed", parts, lines=lines))
    world.ask(TILL, CancelLine(order, lines[0], "다 탔어요"))
    world.settle()


def _paid(world: World) -> str:
    order = world.result(SHOP, CreateOrder((Wish("tea", 1), Wish("rice", 2))), GUEST)["order"]
    prepared = world.result(SHOP, PreparePayment(order, 11_000, "u1", "toss"), GUEST)
    payment: str = prepared["payment"]
    world.ask(SHOP, ApprovePayment(order, payment, "token-1"), GUEST)
    attempt = world[SHOP].state.payments[payment].attempt.attempt
    world.ask(SHOP, SettleApproval(payment, attempt, "APPROVED", 11_000, "c-3"))
    world.settle()
    return payment


def _refund(world: World, payment: str, amount: int, reason: str) -> str:
    refund: str = world.result(SHOP, RefundPayment(payment, amount, reason))["refund"]
    return refund


def _verdict(world: World, payment: str, refund: str, verdict: Any, **fields: Any) -> None:
    world.ask(SHOP, SettleRefund(payment, refund, verdict, **fields))
    world.settle()
