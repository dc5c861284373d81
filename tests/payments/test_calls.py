"""The reaction that calls gateways: what it asks, what it tells the shop, and what it does after a crash."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from engine import Committed
from engine.answers import Answer
from engine.domain.contract import Command
from engine.domain.payment import Attempt, Checkout, Payment, Refund
from engine.domain.store.gateway import NoteCheckout, SettleApproval, SettleRefund
from engine.domain.store.state import State
from engine.errors import IdempotencyMismatch, ReadOnly, Rejected
from engine.metrics import Metrics
from engine.payments import Approved, Declined, Gateways, Result, Unknown
from engine.payments.calls import CALLS_MAX, Calls
from engine.payments.http import Lost, NotSent
from tests.engine.shop import config
from tests.payments import events

CHARGED = Approved(12_000, "ch-1", 1_000)


def waiting(**changes: Any) -> State:
    """A shop whose payment waits for the answer to its attempt, and for that to a refund."""
    sent = Refund(events.uuid(201), 12_000, 11_000, 1_000, 1_000, "", "", "REQUESTED", events.AT, tries=1)
    fields: dict[str, Any] = {
        "payment": events.PAYMENT,
        "status": "REQUESTED",
        "amount": 12_000,
        "taxable": 11_000,
        "tax_free": 1_000,
        "vat": 1_000,
        "method": "sandbox",
        "provider": "sandbox",
        "payer": "user:kim",
        "by": "user:kim",
        "created_at": events.AT,
        "attempt": Attempt(events.uuid(101), "REQUESTED", "ref-1", events.AT),
        "refunds": (sent,),
    }
    return State(payments={events.PAYMENT: Payment(**(fields | changes))})


class FakeHost:
    """A node that only takes commands. `refuse`: raised for the next ones."""

    def __init__(self, **settings: Any) -> None:
        self.config = config(gateway_timeout_s=5.0, **settings)
        self.metrics = Metrics()
        self.told: list[Command] = []
        self.ids: list[str | None] = []
        self.refuse: list[Exception] = []
        self.state = waiting()

    async def ask_inside(
        self, stream: str, command: Command, *, by: str, id: str | None, cause: str | None
    ) -> Answer:
        await trio.lowlevel.checkpoint()
        if self.refuse:
            raise self.refuse.pop(0)
        assert stream == by == f"store:{events.STORE}"
        assert id == f"{cause}.0"
        self.told.append(command)
        self.ids.append(id)
        return Answer("x-1", 1, [], b"{}")

    async def examine(self, stream: str, look: Callable[[Any, int], bool]) -> bool:
        await trio.lowlevel.checkpoint()
        return look(self.state, 1)


class FakeGateway:
    """A gateway that does as told; `said` are its verbs. An exception is raised, a function is asked."""

    name = "sandbox"

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.said: list[str] = []
        self.again: list[bool] = []

    async def _do(self, verb: str) -> Any:
        self.said.append(verb)
        await trio.lowlevel.checkpoint()
        answer = self.answers[verb]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if callable(answer):
            answer = await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def open(self, prepared: Any, store: str) -> Checkout | None:
        return await self._do("open")

    async def approve(self, requested: Any, store: str) -> Result:
        return await self._do("approve")

    async def query(self, asked: Any, store: str) -> Result:
        return await self._do("query")

    async def cancel(self, sent: Any, store: str, *, again: bool) -> Result:
        self.again.append(again)
        return await self._do("cancel")

    async def aclose(self) -> None:
        return None


def record(event: Any, position: int = 7) -> Committed:
    """A record as a reaction sees it."""
    return Committed(position, f"store:{events.STORE}", position, f"id-{position}", event, b"")


def calls(gateway: FakeGateway | None, host: FakeHost, head: int = 0) -> Callable[[Committed], Any]:
    """The reaction's handler."""
    adapters = {"sandbox": gateway} if gateway is not None else {}
    return Calls(host, Gateways(adapters), head).reaction.handle


async def settle(event: Any, head: int = 0, **answers: Any) -> tuple[FakeGateway, FakeHost]:
    """Handle one record."""
    gateway, host = FakeGateway(**answers), FakeHost()
    await calls(gateway, host, head)(record(event))
    return gateway, host


async def test_each_record_leads_to_its_call_and_its_answer() -> None:
    """Prepared: a page; requested: a charge; queried: a question; refund: a cancel."""
    _, host = await settle(events.prepared(), open=Checkout("https://pay.example/1", "co-1"))
    assert host.told == [NoteCheckout(events.PAYMENT, "https://pay.example/1", "co-1")]
    _, host = await settle(events.requested(), approve=CHARGED)
    assert host.told == [SettleApproval(events.PAYMENT, events.uuid(101), "APPROVED", 12_000, "ch-1")]
    _, host = await settle(events.asked(), query=Declined("expired", "too late"))
    assert host.told == [
        SettleApproval(events.PAYMENT, events.uuid(101), "DECLINED", 0, "", "expired", "too late")
    ]
    gateway, host = await settle(events.refund("ch-1"), cancel=Approved(12_000, "ch-1"))
    assert host.told == [SettleRefund(events.PAYMENT, events.uuid(201), "APPROVED")]
    assert gateway.again == [False]


async def test_a_gateway_that_was_certainly_not_reached_declines() -> None:
    """Nothing was sent, so the guest may try again; a question or a cancel just stays open."""
    for verb, event, verdict in (
        ("approve", events.requested(), "DECLINED"),
        ("query", events.asked(), "UNKNOWN"),
        ("cancel", events.refund("ch-1"), "UNKNOWN"),
    ):
        _, host = await settle(event, **{verb: NotSent("ConnectError")})
        assert host.told[0].verdict == verdict
        assert host.told[0].code == "not_sent"


@pytest.mark.parametrize("failure", [Lost("read_timeout"), KeyError("oops"), ValueError("bad")])
async def test_whatever_goes_wrong_after_sending_is_a_doubt(failure: Exception) -> None:
    """Also a fault of our own."""
    _, host = await settle(events.requested(), approve=failure)
    assert host.told[0].verdict == "UNKNOWN"


async def test_a_slow_gateway_is_given_up_on_in_time(autojump_clock: trio.testing.MockClock) -> None:
    """After the setting's time the outcome is unknown, and the record is done with."""
    _, host = await settle(events.requested(), approve=trio.sleep_forever)
    assert trio.current_time() == pytest.approx(5.0)
    assert (host.told[0].verdict, host.told[0].code) == ("UNKNOWN", "timeout")


async def test_a_method_that_is_not_configured_is_declined_at_once() -> None:
    """Unless the record is from before the start: then it may have gone out while it was."""
    host = FakeHost()
    await calls(None, host)(record(events.requested("toss")))
    assert (host.told[0].verdict, host.told[0].code) == ("DECLINED", "method_unavailable")
    for event in (events.asked(), events.refund("ch-1")):
        await calls(None, host)(record(event))
        assert host.told[-1].verdict == "UNKNOWN"
    await calls(None, host, head=7)(record(events.requested("toss")))
    assert host.told[-1].verdict == "UNKNOWN"
    await calls(None, host)(record(events.prepared("toss")))
    assert len(host.told) == 4


async def test_after_a_restart_the_gateway_is_asked_first() -> None:
    """What was charged before the crash is found, and not charged again."""
    gateway, host = await settle(events.requested(), head=7, query=CHARGED)
    assert gateway.said == ["query"]
    assert host.told[0].verdict == "APPROVED"
    gateway, host = await settle(
        events.requested(), head=7, query=Unknown("not_charged_yet"), approve=CHARGED
    )
    assert gateway.said == ["query", "approve"]
    assert host.told[0].verdict == "APPROVED"
    gateway, _ = await settle(events.requested(), head=6, approve=CHARGED)
    assert gateway.said == ["approve"]


async def test_after_a_restart_what_has_its_end_is_left_alone() -> None:
    """A refusal that is durable never becomes a charge, whatever the gateway would say now."""
    event = events.requested()
    other = Attempt(events.uuid(102), "REQUESTED", "ref-1", events.AT)
    for state in (waiting(status="DECLINED"), waiting(status="PAID"), waiting(attempt=other), State()):
        gateway, host = FakeGateway(), FakeHost()
        host.state = state
        await calls(gateway, host, head=7)(record(event))
        assert not gateway.said
        assert not host.told


async def test_after_a_restart_not_reached_is_a_doubt() -> None:
    """The call from before the crash may have gone out."""
    _, host = await settle(events.requested(), head=7, query=NotSent("x"), approve=NotSent("x"))
    assert host.told[0].verdict == "UNKNOWN"


async def test_a_cancel_says_when_it_may_be_a_repeat() -> None:
    """After a restart, and when the shop sends it again."""
    done = Approved(12_000, "ch-1")
    gateway, _ = await settle(events.refund("ch-1"), head=7, cancel=done)
    assert gateway.again == [True]
    gateway, _ = await settle(events.refund("ch-1", number=2), cancel=done)
    assert gateway.again == [True]


async def test_an_answer_that_the_shop_cannot_take_is_not_asked_for_again() -> None:
    """The disk was full: the next try tells the shop what the first one found out."""
    gateway, host = FakeGateway(approve=CHARGED), FakeHost()
    handle = calls(gateway, host)
    host.refuse = [ReadOnly()]
    with pytest.raises(ReadOnly):
        await handle(record(events.requested()))
    await handle(record(events.requested()))
    assert gateway.said == ["approve"]
    assert host.told[0].verdict == "APPROVED"


async def test_a_call_that_was_broken_off_counts_as_perhaps_made(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The next try in the same process asks first."""
    gateway, host = FakeGateway(approve=trio.sleep_forever, query=CHARGED), FakeHost()
    handle = calls(gateway, host)
    with trio.move_on_after(1):
        await handle(record(events.requested()))
    await handle(record(events.requested()))
    assert gateway.said == ["approve", "query"]
    assert host.told[0].verdict == "APPROVED"


async def test_settled_before_the_crash_is_settled() -> None:
    """The shop knows the record's answer under another body: nothing more to do. Other refusals do count."""
    host = FakeHost()
    host.refuse = [IdempotencyMismatch()]
    await calls(FakeGateway(query=CHARGED), host, head=7)(record(events.requested()))
    assert not host.told
    host.refuse = [Rejected("unknown_payment")]
    with pytest.raises(Rejected):
        await calls(FakeGateway(approve=CHARGED), host)(record(events.requested()))


async def test_a_charge_with_another_tax_split_is_a_doubt() -> None:
    """In an approval and in a question; another amount is the shop's to judge."""
    wrong = Approved(12_000, "ch-1", 0)
    for verb, event in (("approve", events.requested()), ("query", events.asked())):
        _, host = await settle(event, **{verb: wrong})
        assert (host.told[0].verdict, host.told[0].code) == ("UNKNOWN", "tax_mismatch")
    _, host = await settle(events.requested(), approve=Approved(13_000, "ch-1", 0))
    assert (host.told[0].verdict, host.told[0].amount) == ("APPROVED", 13_000)
    _, host = await settle(events.requested(), approve=Approved(12_000, "ch-1"))
    assert host.told[0].verdict == "APPROVED"


async def test_a_page_is_asked_for_a_few_times(autojump_clock: trio.testing.MockClock) -> None:
    """A refusal or a lost answer does no harm; in the end there is no page, and no error."""
    page = Checkout("https://pay.example/1")
    gateway, host = await settle(events.prepared(), open=[Lost("x"), None, page])
    assert host.told == [NoteCheckout(events.PAYMENT, page.url)]
    gateway, host = await settle(events.prepared(), open=[Lost("x"), None, None])
    assert gateway.said == ["open"] * 3
    assert not host.told


async def test_payments_have_lanes_of_their_own() -> None:
    """The lane is the payment, whatever the record."""
    reaction = Calls(FakeHost(), Gateways(), 0).reaction
    assert reaction.name == "gateway"
    for event in (events.prepared(), events.requested(), events.asked(), events.refund("ch-1")):
        assert reaction.lane(record(event)) == events.PAYMENT
        assert type(event).__name__ in reaction.types


async def test_a_slow_gateway_holds_up_only_itself(autojump_clock: trio.testing.MockClock) -> None:
    """Its slots are full; another gateway answers at once."""
    slow, quick, host = FakeGateway(approve=trio.sleep_forever), FakeGateway(approve=CHARGED), FakeHost()
    slow.name = "toss"  # type: ignore[misc]
    handle = Calls(host, Gateways({"toss": slow, "sandbox": quick}), 0).reaction.handle
    async with trio.open_nursery() as nursery:
        for number in range(CALLS_MAX + 3):
            nursery.start_soon(handle, record(events.requested("toss"), number + 1))
        await trio.testing.wait_all_tasks_blocked()
        assert len(slow.said) == CALLS_MAX
        await handle(record(events.requested(), 1000))
        assert trio.current_time() == 0
        assert host.told[0].verdict == "APPROVED"
        nursery.cancel_scope.cancel()


async def test_who_waits_too_long_for_a_slot_is_not_sent(autojump_clock: trio.testing.MockClock) -> None:
    """That is certain, so the guest may try again; the slots are free again afterwards."""
    slow, host = FakeGateway(approve=trio.sleep_forever), FakeHost()
    handle = calls(slow, host)
    slow.answers["approve"] = _sleep_long
    host.config = config(gateway_timeout_s=5.0)
    async with trio.open_nursery() as nursery:
        for number in range(CALLS_MAX):
            nursery.start_soon(handle, record(events.requested(), number + 1))
        await trio.testing.wait_all_tasks_blocked()
        host.config = config(gateway_timeout_s=1.0)
        await handle(record(events.requested(), 1000))
        assert trio.current_time() == pytest.approx(1.0)
        assert (host.told[0].verdict, host.told[0].code) == ("DECLINED", "not_sent")
        assert len(slow.said) == CALLS_MAX
    assert {told.code for told in host.told[1:]} == {"timeout"}
    slow.answers["approve"] = CHARGED
    await handle(record(events.requested(), 1001))
    assert host.told[-1].verdict == "APPROVED"


async def _sleep_long() -> None:
    await trio.sleep(100)


async def test_calls_are_counted_and_timed() -> None:
    """By gateway, verb and verdict."""
    _, host = await settle(events.requested(), approve=Lost("cut"))
    shown = host.metrics.registry.get_sample_value
    labels = {"gateway": "sandbox", "verb": "approve"}
    assert shown("onda_gateway_calls_total", labels | {"verdict": "UNKNOWN"}) == 1
    assert shown("onda_gateway_call_seconds_count", labels) == 1


async def test_a_fault_is_logged_without_what_the_gateway_said(caplog: pytest.LogCaptureFixture) -> None:
    """An error's text may hold anything."""
    with caplog.at_level(logging.INFO):
        await settle(events.requested(), approve=ValueError("card 1234-5678 of kim"))
    assert "ValueError" in caplog.text
    assert "1234" not in caplog.text
