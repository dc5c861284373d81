"""A café whose guests pay first, driven by commands; its ledger is checked after each of them."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain import store
from engine.domain.order import UNPAID
from engine.domain.payment import PENDING, TILL
from engine.domain.store.gateway import SettleApproval
from engine.domain.store.holds import ConfirmStock
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.reconciling import QUERIES_MAX
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.store.tables import NoteTable
from engine.errors import Rejected
from tests.harness_domain import NOW_MS, Stream, check_replay

GUEST, OTHER, TABLE = "user:u1", "user:u2", "table:s1/3"
MINUTE = 60_000


class Cafe:
    """Cake costs 9000 and is counted; coffee costs 4500, is not counted, and milk is free of tax."""

    def __init__(self, cakes: int | None = 3, mode: Any = "prepay", hold_seconds: int = 600) -> None:
        self.stream = Stream("store:s1")
        self.now_ms = NOW_MS
        self.ask(ConfigureStore("온다 카페", mode, hold_seconds), "owner:kim")
        self.ask(PutProduct("cake", "케이크", 9000, stock=cakes), "owner:kim")
        self.ask(PutProduct("coffee", "커피", 4500), "owner:kim")
        self.ask(PutProduct("milk", "우유", 2000, tax_free=True), "owner:kim")
        self.ask(OpenStore(), "owner:kim")
        self.ask(NoteTable("3", 4, True, 2), "table:s1/3")

    @property
    def state(self) -> Any:
        return self.stream.state

    def ask(self, command: Any, by: str = GUEST) -> list[Any]:
        """Do a command; the ledger fits afterwards."""
        events = self.stream.do(command, by, self.now_ms)
        check_ledger(self.state)
        return events

    def types(self, command: Any, by: str = GUEST) -> list[str]:
        """Do a command; return the types of its events."""
        return [type(event).__name__ for event in self.ask(command, by)]

    def refused(self, command: Any, by: str = GUEST) -> str:
        """Return the code with which a command is refused."""
        with pytest.raises(Rejected) as refusal:
            self.stream.decide(command, by, self.now_ms)
        assert len(refusal.value.detail.split()) >= 2, "a refusal says what to do"
        return refusal.value.code

    def order(self, *wishes: Wish, by: str = GUEST, **fields: Any) -> str:
        """Order a cake, or these; return the order's id."""
        events = self.ask(CreateOrder(wishes or (Wish("cake", 1),), **fields), by)
        return str(events[0].order)

    def prepare(self, order: str, method: Any = "sandbox", by: str = GUEST, payer: str | None = None) -> str:
        """Prepare the payment of an order by its orderer; return the payment's id."""
        known = self.state.orders[order]
        command = PreparePayment(order, known.total, payer or known.user or known.table or "kim", method)
        return str(self.result(command, by)["payment"])

    def approve(self, order: str, payment: str, ref: str = "token", by: str = GUEST) -> str:
        """Approve a payment; return its attempt."""
        self.ask(ApprovePayment(order, payment, ref), by)
        return str(self.state.payments[payment].attempt.attempt)

    def requested(self, *wishes: Wish, **fields: Any) -> tuple[str, str]:
        """Order, prepare and approve; return order and payment: the gateway has not answered."""
        order = self.order(*wishes, **fields)
        payment = self.prepare(order)
        self.approve(order, payment)
        return order, payment

    def reviewed(self, *wishes: Wish, **fields: Any) -> tuple[str, str]:
        """Order and approve; the gateway never says anything, so a person has to look."""
        order, payment = self.requested(*wishes, **fields)
        for _ in range(2 * QUERIES_MAX):
            if self.state.payments[payment].status == "MANUAL_REVIEW":
                break
            assert self.wait(30), "nobody asks any more"
        assert self.state.payments[payment].status == "MANUAL_REVIEW", "asked for ever"
        return order, payment

    def settle(self, payment: str, verdict: Any, **fields: Any) -> list[str]:
        """Bring the gateway's verdict on the payment's attempt; return the types of what follows."""
        known = self.state.payments.get(payment) or self.state.kept[payment]
        return self.types(SettleApproval(payment, known.attempt.attempt, verdict, **fields), "store:s1")

    def paid(self, *wishes: Wish, confirmed: bool = True, **fields: Any) -> tuple[str, str]:
        """Order and pay; return order and payment."""
        order, payment = self.requested(*wishes, **fields)
        amount = self.state.payments[payment].amount
        assert self.settle(payment, "APPROVED", amount=amount, charge="c-1")[:1] == ["PaymentApproved"]
        if confirmed:
            self.ask(ConfirmStock(order), "store:s1")
        return order, payment

    def result(self, command: Any, by: str = GUEST) -> dict[str, Any]:
        """Return the result of a command."""
        result = self.stream.answer(command, by, self.now_ms)
        check_ledger(self.state)
        return result

    def wait(self, minutes: float) -> list[str]:
        """Let time pass; return the types of all that fell due, in order."""
        self.now_ms += int(minutes * MINUTE)
        done: list[str] = []
        while (due := store.deadline(self.state)) is not None and due[0] <= self.now_ms:
            then = self.types(due[1], "store:s1")
            assert then, f"woken for nothing: {due[1]}"
            done += then
        return done

    def status(self, order: str) -> str:
        return str(self.state.orders[order].status)

    def cakes(self) -> tuple[int, int, int]:
        """Return how many cakes can be ordered, are held and are pinned."""
        cake = self.state.products["cake"]
        return cake.stock, cake.held, cake.pinned

    def replay(self) -> None:
        """Check that replay comes to the same state."""
        check_replay(self.stream, len(self.stream.events) // 2)


def check_ledger(state: Any) -> None:
    """Check what holds between stock, holds, orders and payments at any time."""
    held: dict[str, int] = {}
    pinned: dict[str, int] = {}
    for name, hold in state.holds.items():
        order = state.orders[name]
        unpaid = order.status in UNPAID
        assert unpaid or hold.attempt is not None, f"{name} is {order.status} and still holds"
        assert (name in state.expiries.due) == (hold.attempt is None)
        for product, count in hold.pieces.items():
            assert count > 0
            side = held if hold.attempt is None else pinned
            side[product] = side.get(product, 0) + count
    for name, product in state.products.items():
        if product.stock is not None:
            assert (product.held, product.pinned) == (held.get(name, 0), pinned.get(name, 0)), name
            assert min(product.stock, product.held, product.pinned) >= 0
    for name, order in state.orders.items():
        assert (order.status in UNPAID) <= (name in state.holds), f"{name} waits for ever"
    for payment in state.payments.values():
        asked = payment.status in ("REQUESTED", "UNKNOWN")
        assert (payment.payment in state.queries.due) == asked, payment
        if payment.provider != TILL:
            assert (payment.attempt is None) == (payment.status in (PENDING, "DROPPED"))
