"""Shop, table and user while an order is paid: everybody shows the same, and the shop confirms its stock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.reactions import FOLLOWED, react
from engine.domain.store.gateway import NoteCheckout, SettleApproval
from engine.domain.store.holds import ConfirmStock, ExpireHolds
from engine.domain.store.kitchen import AcceptOrder, MarkReady, MarkServed
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, OrderPlaced, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.reconciling import QueryPayment, ReconcilePayments, ResolvePayment
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.table.cart import AddToCart, SubmitCart
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.errors import Rejected
from tests.domain.pay_given import MINUTE, check_ledger
from tests.harness_domain import NOW, World

SHOP, TABLE, USER = "store:s1", "table:s1/3", "user:u1"


def cafe(again=lambda: False):
    world = World(again)
    for stream, command in (
        (SHOP, ConfigureStore("온다 카페", "prepay")),
        (SHOP, PutProduct("cake", "케이크", 9000, stock=3)),
        (SHOP, OpenStore()),
        (TABLE, OpenTable(2)),
    ):
        world.ask(stream, command)
    world.settle()
    return world


def check_copies(world):
    """Every copy is the original, as far as its holder may see it."""
    orders = world[SHOP].visible()["orders"]
    for name, copy in world[TABLE].visible()["orders"].items():
        assert copy == orders.get(name, copy)
    for name, copy in world[USER].visible()["orders"].items():
        original = orders.get(name.partition("/")[2])
        assert original is None or {key: value for key, value in copy.items() if key != "store"} == original


def do(world, command, by="owner:kim"):
    """Do a command in the shop, and all that follows."""
    result = world.result(SHOP, command, by)
    world.settle()
    check_copies(world)
    check_ledger(world[SHOP].state)
    return result


def test_a_table_pays_for_its_cart():
    """From the cart to the served meal: the table sees each step, and the stock is sold in the end."""
    world = cafe()
    world.ask(TABLE, AddToCart("cake", 2), TABLE)
    world.ask(TABLE, SubmitCart(), TABLE)
    world.settle()
    seen = world[TABLE].state.orders
    assert (seen["3-1"].status, seen["3-1"].hold_expires_at is None) == ("CREATED", False)
    payment = do(world, PreparePayment("3-1", 18000, "3", "sandbox"), TABLE)["payment"]
    assert seen["3-1"].status == "PENDING_PAYMENT"
    do(world, NoteCheckout(payment, "https://pay.example/1"))
    assert seen["3-1"].payment.checkout == "https://pay.example/1"
    do(world, ApprovePayment("3-1", payment, "token"), TABLE)
    assert seen["3-1"].payment.status == "REQUESTED"
    attempt = world[SHOP].state.payments[payment].attempt.attempt
    do(world, SettleApproval(payment, attempt, "UNKNOWN"))
    assert seen["3-1"].payment.status == "UNKNOWN"
    do(world, SettleApproval(payment, attempt, "APPROVED", 18000))
    assert (seen["3-1"].status, seen["3-1"].paid, seen["3-1"].payment.status) == ("PLACED", 18000, "PAID")
    assert world[SHOP].state.holds == {}
    for command in (AcceptOrder("3-1"), MarkReady("3-1"), MarkServed("3-1")):
        do(world, command)
    world.ask(TABLE, CloseTable())
    world.settle()
    assert world[SHOP].state.products["cake"].stock == 1


def test_a_table_closes_when_its_unpaid_orders_have_expired():
    """Until then its party is not through."""
    world = cafe()
    world.ask(TABLE, AddToCart("cake", 1), TABLE)
    world.ask(TABLE, SubmitCart(), TABLE)
    world.settle()
    with pytest.raises(Rejected) as refusal:
        world.ask(TABLE, CloseTable())
    assert refusal.value.code == "orders_open"
    world.now_ms += 10 * MINUTE
    do(world, ExpireHolds())
    assert world[TABLE].state.orders["3-1"].status == "EXPIRED"
    assert world.ask(TABLE, CloseTable())


def test_a_table_closes_over_a_payment_in_doubt():
    """The next party need not wait for hours until the gateway or a person knows."""
    world = cafe()
    world.ask(TABLE, AddToCart("cake", 1), TABLE)
    world.ask(TABLE, SubmitCart(), TABLE)
    world.settle()
    payment = world.result(
        SHOP, PreparePayment("3-1", world[SHOP].state.orders["3-1"].total, "3", "sandbox"), TABLE
    )
    world.ask(SHOP, ApprovePayment("3-1", payment["payment"], "ref"), TABLE)
    world.settle()
    with pytest.raises(Rejected):
        world.ask(TABLE, CloseTable())
    attempt = world[SHOP].state.payments[payment["payment"]].attempt.attempt
    world.ask(SHOP, SettleApproval(payment["payment"], attempt, "UNKNOWN"))
    world.settle()
    assert world.ask(TABLE, CloseTable())
    world.settle()
    assert world[SHOP].state.payments[payment["payment"]].status == "UNKNOWN"


def test_what_follows_from_a_later_placing():
    """Copies first, and the shop's own stock last; nothing for an order that was placed as it was created."""
    sends = react(SHOP, OrderPlaced("o1", 1, NOW, "3", "u1"), "r1")
    assert [send.stream for send in sends] == [TABLE, USER, SHOP]
    assert sends[-1].command == ConfirmStock("o1")
    assert react(SHOP, OrderPlaced("o1", 1), "r1") == []


@pytest.mark.parametrize(
    "name",
    [
        "OrderPlaced",
        "OrderExpired",
        "OrderRevived",
        "PaymentPrepared",
        "CheckoutOpened",
        "ApprovalRequested",
        "PaymentApproved",
        "OrderPaid",
        "PaymentDeclined",
        "PaymentUnknown",
        "PaymentSentToReview",
    ],
)
def test_everybody_hears_of_it(name):
    """Each event that changes an order goes to those who hold a copy."""
    assert name in FOLLOWED


steps = st.sampled_from(
    [
        "order",
        "cart",
        "prepare",
        "other",
        "note",
        "approve",
        "yes",
        "no",
        "doubt",
        "short",
        "query",
        "wait",
        "wait",
        "resolve",
        "refuse",
        "again",
    ]
)


@settings(max_examples=60)
@given(st.lists(steps, max_size=25), st.data())
def test_copies_agree_whatever_happens(path, data):
    """Each record's consequences may come twice; tables and users end up with what the shop has."""
    world = cafe(again=lambda: data.draw(st.booleans(), "again"))
    for step in path:
        try:
            take(world, step)
        except Rejected:
            continue
        if data.draw(st.booleans(), "settle"):
            world.settle()
    world.settle()
    check_copies(world)
    check_ledger(world[SHOP].state)
    assert not [hold for hold in world[SHOP].state.holds if world[SHOP].state.orders[hold].status == "PLACED"]


def take(world, step):
    """Do one step to the newest order or payment."""
    state = world[SHOP].state
    order = next(reversed(state.orders), "o9")
    payment = next(reversed(state.payments), "id-9")
    attempt = state.payments[payment].attempt if payment in state.payments else None
    attempt = attempt.attempt if attempt is not None else "id-9"
    total = state.orders[order].total if order in state.orders else 1
    payer = state.orders[order].by if order in state.orders else "x"
    match step:
        case "order":
            world.ask(SHOP, CreateOrder((Wish("cake", 1),)), USER)
        case "cart":
            world.ask(TABLE, AddToCart("cake", 1), TABLE)
            world.ask(TABLE, SubmitCart(), TABLE)
            world.settle()
        case "prepare" | "other":
            method = "sandbox" if step == "prepare" else "toss"
            world.ask(SHOP, PreparePayment(order, total, payer, method), payer)
        case "note":
            world.ask(SHOP, NoteCheckout(payment, "https://pay.example/1"))
        case "approve":
            world.ask(SHOP, ApprovePayment(order, payment, "token"))
        case "yes" | "short":
            amount = 1 if step == "short" else state.payments[payment].amount if attempt != "id-9" else 1
            world.ask(SHOP, SettleApproval(payment, attempt, "APPROVED", amount, "c-1"))
        case "no" | "doubt":
            verdict = "DECLINED" if step == "no" else "UNKNOWN"
            world.ask(SHOP, SettleApproval(payment, attempt, verdict))
        case "query":
            world.ask(SHOP, QueryPayment(payment))
        case "wait":
            world.now_ms += 5 * MINUTE
            world.ask(SHOP, ExpireHolds())
            world.ask(SHOP, ReconcilePayments())
        case "resolve" | "refuse":
            world.ask(SHOP, ResolvePayment(payment, step == "resolve", "looked"))
        case "again":
            world.settle()
