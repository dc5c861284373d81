"""A shop where guests pay first, in a simulated world: beside all that `world` does to the log and the node,
a gateway with books of its own that declines, stalls and miscounts, a wire that loses and doubles, guests who
pay twice, late, wrongly or not at all, staff who cancel and give back, and a clock that jumps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from engine import Node, open_node
from engine.domain.contract import Command
from engine.domain.coupon import Discount
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.domain.store.kitchen import AcceptOrder, MarkReady, MarkServed, StartCooking
from engine.domain.store.menu import AdjustStock, PutProduct, SetSoldOut
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.reconciling import QueryPayment, ResolvePayment
from engine.domain.store.refunds import RefundPayment
from engine.domain.store.repaying import ResolveRefund
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.table.sitting import OpenTable
from engine.errors import Rejected, Unavailable
from engine.payments.gateways import open_gateways
from tests.engine.shop import OWNER
from tests.payments.direct import DirectTransport
from tests.simulation.money_bank import KEY, URL, Bank
from tests.simulation.money_wire import CALM, OUTAGE, WEATHERS, Wire
from tests.simulation.world import World

SHOP = "store:s1"
STREAMS = (SHOP, "table:s1/1", "user:u1", "user:u2")
GUESTS = (("user:u1", "u1"), ("user:u2", "u2"), ("table:s1/1", "1"))
HOLD_S = 600
STOCK = 12
JUMPS_MS = (61_000, 61_000, 61_000, 130_000, 130_000, 601_000, 16 * 60_000)
"""How far the clock jumps now and then."""
OUTAGE_LOOKS = 60
REST_MS = 5 * 60_000
"""How far the clock goes at each look while everything comes to rest."""


class MoneyWorld(World):
    """Everything around a node that takes money, and the gateway."""

    streams = STREAMS
    patience_s = 0.5

    def __init__(self, seed: int, folder: str) -> None:
        super().__init__(seed, folder)
        chance = self.chance
        self.settings = msgspec.structs.replace(
            self.settings,
            demo=False,
            reaction_backoff_ms=50,
            reaction_backoff_ms_max=1000,
            checkpoint_s=chance.choice((0.5, 5.0, 3600.0)),
            sandbox="on",
            sandbox_url=URL,
            sandbox_key=KEY,
            public_url="http://shop.test",
            gateway_timeout_s=chance.choice((0.3, 2.0)),
        )
        self.bank = Bank(self.clock, chance)
        self.wire = Wire(chance, lambda: self.log.head, self.settings.gateway_timeout_s)
        self.orders: list[str] = []
        self.payments: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.rash: list[str] = []

    @asynccontextmanager
    async def open_node(self) -> AsyncIterator[Node]:
        async with open_gateways(self.settings, transport=self.wire) as gateways:
            async with open_node(self.settings, gateways=gateways, clock=self.clock) as node:
                yield node

    async def run(self, lives: int, steps: int) -> Node:
        async with trio.open_nursery() as beside:
            self.wire.lay(beside, DirectTransport(self.bank.sandbox, beside))
            return await super().run(lives, steps)

    # What happens in a life

    async def _step(self, clients: trio.Nursery, operators: trio.Nursery, node: Node) -> None:
        chance, log = self.chance, self.log
        self.clock.ms += chance.randint(0, chance.choice((500, 5000)))
        match chance.randint(0, 39):
            case 0:
                log.hold()
            case 1 | 2:
                log.release()
            case 3:
                log.refusing = chance.choice((0.0, 0.0, 0.5))
            case 4:
                log.set_writable(chance.random() < 0.7)
            case 5:
                operators.start_soon(self._upkeep, node)
            case 6:
                clients.start_soon(self._look, node, SHOP)
            case 7:
                self.clock.ms += chance.choice(JUMPS_MS)
            case 8 | 9 | 10:
                self.wire.weather = chance.choice(WEATHERS)
                self.bank.change_mood()
            case 11 | 12:
                clients.start_soon(self._review)
            case 13 | 14 | 15 | 16 | 17:
                await trio.sleep(chance.random())
            case 18 | 19 | 20 | 21 | 22 | 23:
                clients.start_soon(self._shop)
            case _:
                clients.start_soon(self._ask, *self._command())
        if chance.random() < 0.5:
            await trio.sleep(chance.random() / 50)

    async def _set_up(self) -> None:
        for command in (
            ConfigureStore(name="Corner", payment_mode="prepay", hold_seconds=HOLD_S),
            PutProduct(product="ramen", name="라면", price=5000),
            PutProduct(product="cake", name="떡", price=900, stock=STOCK),
            PutProduct(product="milk", name="우유", price=1111, stock=STOCK, tax_free=True),
            CreateCoupon(coupon="hello", name="환영", discount=900, stock=2),
            CreateCoupon(coupon="again", name="또 오세요", discount=Discount(percent=10), stock=3),
            OpenStore(),
        ):
            await self._ask(SHOP, command, OWNER)
        await self._ask("table:s1/1", OpenTable(guests=2), "table:s1/1")

    def _command(self) -> tuple[str, Command, str]:
        """Return what somebody in the shop wants next, or what the gateway hints at."""
        chance = self.chance
        order = chance.choice(self.orders or ["o1"])
        payment = chance.choice(self.payments or ["p1"])
        match chance.randint(0, 14):
            case 0:
                return SHOP, CancelOrder(order=order, reason="late"), OWNER
            case 1:
                return SHOP, RejectOrder(order=order, reason="no"), OWNER
            case 2:
                return SHOP, CancelOrder(order=order, reason="hungry no more"), chance.choice(GUESTS)[0]
            case 3:
                number = chance.randint(1, 2)
                return SHOP, CancelLine(order=order, line=f"{order}-{number}", reason="burnt"), OWNER
            case 4 | 5:
                amount = chance.choice((1, 450, 900, 5000, 5900, chance.randint(1, 12_000)))
                return SHOP, RefundPayment(payment=payment, amount=amount, reason="cold"), OWNER
            case 6 | 7 | 8:  # a webhook comes late, twice, or for nothing
                payment = chance.choice([payment, *self.bank.hints[-1:]])
                return SHOP, QueryPayment(payment=payment), "service:sandbox"
            case 9:
                return SHOP, AcceptOrder(order=order), OWNER
            case 10:
                return SHOP, StartCooking(order=order), OWNER
            case 11:
                return SHOP, MarkReady(order=order), OWNER
            case 12:
                return SHOP, MarkServed(order=order), OWNER
            case 13:
                product = chance.choice(("cake", "milk"))
                return SHOP, AdjustStock(product=product, delta=chance.randint(-2, 3), reason="count"), OWNER
            case _:
                return SHOP, SetSoldOut(product="cake", sold_out=chance.random() < 0.3), OWNER

    # Guests

    async def _shop(self) -> None:
        """Order, and try to pay: perhaps late, perhaps several times, perhaps not at all."""
        chance = self.chance
        by, payer = chance.choice(GUESTS)
        coupon = chance.choice((None, None, "hello", "again"))
        if coupon is not None and by.startswith("user:"):
            await self._result(IssueCoupon(coupon), by)
        made = await self._result(self._order(coupon), by)
        if made is None or made["total"] == 0:
            return
        order, total = made["order"], made["total"]
        self.orders.append(order)
        for _ in range(chance.choice((0, 1, 2, 2, 3))):
            await self._tamper(order, total, payer)
            prepared = await self._result(PreparePayment(order, total, payer, "sandbox"), by)
            if prepared is None:
                return
            payment = prepared["payment"]
            self.payments.append(payment)
            ref = await self._page(payment)
            if ref is None or chance.random() < 0.1:
                continue
            if chance.random() < 0.2:
                await trio.sleep(chance.random() * 3)
            async with trio.open_nursery() as approving:
                for _ in range(chance.choice((1, 1, 2, 3))):
                    approving.start_soon(self._approve, order, payment, ref, by)
                if chance.random() < 0.3:
                    approving.start_soon(self._pay_beside, order, total, payer, by)
            if await self._outcome(payment) != "DECLINED":
                return

    def _order(self, coupon: str | None) -> CreateOrder:
        chance = self.chance
        products = chance.choices(("cake", "cake", "ramen", "milk"), k=chance.choice((1, 1, 2)))
        wishes = [Wish(product=name, quantity=chance.choice((1, 1, 2))) for name in products]
        return CreateOrder(lines=tuple(wishes), coupon=coupon)

    async def _tamper(self, order: str, total: int, payer: str) -> None:
        """Nobody pays another amount, or another's order."""
        if self.chance.random() < 0.2:
            for amount, name in ((total - 1, payer), (total, "somebody"), (total * 10, payer)):
                result = await self._result(PreparePayment(order, amount, name, "sandbox"), "service:web")
                assert result is None, f"{order} for {total}: {name} may pay {amount}"

    async def _page(self, payment: str) -> str | None:
        """Pay at the gateway's page, once there is one; return what it hands the guest."""
        for _ in range(10):
            found = await self._payment(payment)
            if found is None or found.status != "PENDING":
                return None
            if found.checkout is not None:
                return self.bank.pay(found.checkout.ref)
            await trio.sleep(self.chance.random())
        return None

    async def _approve(self, order: str, payment: str, ref: str, by: str) -> None:
        result = await self._result(ApprovePayment(order, payment, ref), by)
        if result is not None:
            self.told.append((payment, result["status"]))

    async def _pay_beside(self, order: str, total: int, payer: str, by: str) -> None:
        """The same guest, impatient, on another phone."""
        prepared = await self._result(PreparePayment(order, total, payer, "sandbox"), by)
        if prepared is not None:
            self.payments.append(prepared["payment"])
            ref = await self._page(prepared["payment"])
            if ref is not None:
                await self._approve(order, prepared["payment"], ref, by)

    async def _outcome(self, payment: str) -> str:
        """Return what a payment comes to within a while."""
        for _ in range(20):
            found = await self._payment(payment)
            if found is None or found.status not in ("REQUESTED", "UNKNOWN"):
                break
            await trio.sleep(self.chance.random())
        return "" if found is None else str(found.status)

    async def _review(self) -> None:
        """A person compares what is in doubt with the gateway's books, and says what they found."""
        found = await self._examine(lambda state: [*state.payments.values(), *state.kept.values()])
        for payment in found:
            if self.wire.behind:
                return  # what is on its way can still arrive
            if payment.status in ("UNKNOWN", "MANUAL_REVIEW"):
                paid = self.bank.settled(payment.attempt.attempt, payment.attempt.ref, payment.amount)
                if self.chance.random() < 0.35:
                    self.rash.append(payment.payment)
                    command = ResolvePayment(payment.payment, False, "they never pay")
                    await self._ask(SHOP, command, OWNER)
                elif paid is not None:
                    charge = self.bank.charge_of(payment.attempt.attempt)
                    command = ResolvePayment(payment.payment, paid, "seen in their books", charge)
                    await self._ask(SHOP, command, OWNER)
            for refund in payment.refunds:
                if refund.status == "MANUAL_REVIEW":
                    done = self.bank.gave_back(refund.refund)
                    await self._ask(SHOP, ResolveRefund(payment.payment, refund.refund, done, "seen"), OWNER)

    async def _result(self, command: Command, by: str) -> dict[str, Any] | None:
        answer = await self._ask(SHOP, command, by)
        return None if answer is None else msgspec.json.decode(answer.result)

    async def _payment(self, name: str) -> Any:
        return await self._examine(lambda state: state.payments.get(name) or state.kept.get(name))

    async def _examine(self, look: Any) -> Any:
        while True:
            node = await self.wait_node()
            try:
                return await node.examine(SHOP, lambda state, _: look(state))
            except (Unavailable, Rejected):
                await trio.sleep(0.001 + self.chance.random() * self.patience_s)

    # The end

    async def _settle(self, clients: trio.Nursery, node: Node) -> None:
        """Let every hold, question and refund come to its end, with a gateway that works again."""
        self.bank.cheer_up()
        if self.chance.random() < 0.2:
            self.wire.weather = OUTAGE
            for _ in range(OUTAGE_LOOKS):
                self.clock.ms += REST_MS
                await trio.sleep(1.5)
        self.wire.weather = CALM
        for payment in self.rash:  # the gateway's own hint, late
            clients.start_soon(self._ask, SHOP, QueryPayment(payment=payment), "service:sandbox")
        while True:
            await super()._settle(clients, node)
            busy = await node.examine(SHOP, lambda state, _: _unsettled(state))
            if not busy and not self.wire.behind:
                return
            self.clock.ms += REST_MS
            await trio.sleep(1.5)


def _unsettled(state: Any) -> bool:
    payments = [*state.payments.values(), *state.kept.values()]
    statuses = Counter(payment.status for payment in payments)
    for payment in payments:
        refunds = [refund.status for refund in payment.refunds]
        if "MANUAL_REVIEW" not in refunds:  # those behind it wait for that person, too
            statuses.update(refunds)
    held = any(hold.attempt is None for hold in state.holds.values())
    return held or any(statuses[name] for name in ("PENDING", "REQUESTED", "UNKNOWN", "QUEUED"))
