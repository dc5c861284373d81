"""Records that come again after a crash: the gateway is not asked for what the shop knows the end of."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

from engine import Node, open_node
from engine.domain.payment import Checkout
from engine.domain.store.gateway import ApprovalRequested, PaymentPrepared, QueryRequested, RefundSent
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.payments import Gateways
from engine.payments.contract import Approved, Links, Result, Unknown
from engine.payments.http import Line, Lost, NotSent
from engine.payments.sandbox import SandboxGateway
from engine.payments.toss import Toss
from tests.engine.kept import Kept, kept
from tests.engine.shop import OWNER, STORE, config, wait_until
from tests.payments.events import requested

__all__ = ["kept"]

GUEST = "user:u1"


class Doorbell:
    """A gateway that cannot be reached at first, and charges whatever it is asked for later."""

    name = "sandbox"

    def __init__(self) -> None:
        self.reachable = False
        self.charged: list[str] = []

    async def open(self, prepared: PaymentPrepared, store: str) -> Checkout | None:
        return Checkout("http://gateway.test/pay/1", "1")

    async def approve(self, requested: ApprovalRequested, store: str) -> Result:
        if not self.reachable:
            raise NotSent("refused")
        self.charged.append(requested.attempt)
        return Approved(requested.amount, "c1")

    async def query(self, asked: QueryRequested, store: str) -> Result:
        return Unknown("not_charged_yet")

    async def cancel(self, sent: RefundSent, store: str, *, again: bool) -> Result:
        return Approved(sent.amount, sent.charge)

    async def aclose(self) -> None:
        """Nothing is open."""


async def status_of(node: Node, payment: str) -> str:
    return str(await node.examine(STORE, lambda state, _: state.payments[payment].status))


async def result_of(node: Node, command: Any, by: str = GUEST) -> Any:
    return msgspec.json.decode((await node.ask(STORE, command, by=by)).result)


async def prepare(node: Node) -> str:
    """Set up the shop and an order that is about to be paid."""
    await node.ask(STORE, ConfigureStore(name="Corner", payment_mode="prepay"), by=OWNER)
    await node.ask(STORE, PutProduct(product="cake", name="떡", price=900), by=OWNER)
    await node.ask(STORE, OpenStore(), by=OWNER)
    await node.ask(STORE, CreateOrder((Wish("cake", 1),), "o1"), by=GUEST)
    prepared = await result_of(node, PreparePayment("o1", 900, "u1", "sandbox"))
    return str(prepared["payment"])


async def test_a_refusal_that_is_durable_is_not_charged_after_a_crash(kept: Kept) -> None:
    """The verdict was written down, the reaction's position was not: the record comes again, the charge
    must not.
    """
    gateway = Doorbell()
    async with open_node(config(), gateways=Gateways({"sandbox": gateway})) as node:
        payment = await prepare(node)
        await node.ask(STORE, ApprovePayment("o1", payment, "ref"), by=GUEST)
        await wait_until(lambda: not node.statistics()["reaction_lag"])
        assert await status_of(node, payment) == "DECLINED"
        node._stopped = True  # as a process that ends without a last checkpoint
    gateway.reachable = True
    async with open_node(config(), gateways=Gateways({"sandbox": gateway})) as node:
        await wait_until(lambda: not node.statistics()["reaction_lag"])
        assert await status_of(node, payment) == "DECLINED"
    assert gateway.charged == []


async def test_an_attempt_without_an_answer_is_sent_again_after_a_crash(kept: Kept) -> None:
    """The process ended before the call, or before its answer was durable: the same attempt goes out."""
    gateway = Doorbell()
    gateway.reachable = True
    async with open_node(config(), gateways=Gateways()) as node:
        payment = await prepare(node)
        await wait_until(lambda: not node.statistics()["reaction_lag"])
        kept.log.hold()
        async with trio.open_nursery() as asking:
            asking.start_soon(result_of, node, ApprovePayment("o1", payment, "ref"))
            await wait_until(lambda: kept.log._held)
            held = kept.log._held or []
            kept.log._commit(held[0].entries)
            asking.cancel_scope.cancel()
        node._stopped = True
    async with open_node(config(), gateways=Gateways({"sandbox": gateway})) as node:
        await wait_until(lambda: not node.statistics()["reaction_lag"])
        assert await status_of(node, payment) == "PAID"
    assert len(gateway.charged) == 1


async def test_a_question_that_could_not_be_sent_says_nothing_about_the_charge(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The gateway has had this approval before; that it cannot be asked now makes a doubt, not a refusal."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            raise httpx.ConnectError("refused")
        return httpx.Response(409, stream=httpx.ByteStream(b'{"code": "already_processed"}'))

    line = Line("http://gateway.test", {}, timeout_s=0.01, transport=httpx.MockTransport(answer))
    gateway = SandboxGateway(line, Links("http://shop.test"))
    with trio.fail_after(10), pytest.raises(Lost):
        await gateway.approve(requested(), "s1")
    await gateway.aclose()


async def test_toss_a_session_that_is_gone_is_a_doubt_while_toss_cannot_be_asked() -> None:
    """The first approval may have charged: only an answer to the question makes a refusal certain."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(500, stream=httpx.ByteStream(b'{"code": "FAILED_INTERNAL"}'))
        return httpx.Response(404, stream=httpx.ByteStream(b'{"code": "NOT_FOUND_PAYMENT_SESSION"}'))

    line = Line("http://gateway.test", {}, timeout_s=0.01, transport=httpx.MockTransport(answer))
    gateway = Toss(line, Links("http://shop.test"))
    assert isinstance(await gateway.approve(requested("toss"), "s1"), Unknown)
    await gateway.aclose()
