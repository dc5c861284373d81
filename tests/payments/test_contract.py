"""What every gateway's adapter has to do, each against a server that plays its provider on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engine.payments import Approved, Declined, Gateway, Result, Unknown
from engine.payments.http import Lost, NotSent
from engine.payments.toss import encoded
from tests.payments import events
from tests.payments.events import ORDER, STORE
from tests.payments.player import Asked, Played, Player, playing
from tests.payments.providers import SECRET, FakeKakaoPay, FakeNaverPay, FakeToss, Provider
from tests.payments.sandboxed import OwnSandbox

ALL = [FakeToss, FakeNaverPay, FakeKakaoPay, OwnSandbox]
every = pytest.mark.parametrize("make", ALL, ids=lambda make: make.name)


class Stage:
    """A provider at work, and the adapter that talks to it."""

    def __init__(self, provider: Provider, player: Player, gateway: Gateway) -> None:
        self.provider = provider
        self.player = player
        self.gateway = gateway

    async def approve(self, **more: Any) -> Result:
        return await self.gateway.approve(events.requested(**self._named(more)), STORE)

    async def query(self, **more: Any) -> Result:
        return await self.gateway.query(events.asked(**self._named(more)), STORE)

    async def cancel(self, amount: int = 12_000, *, again: bool = False, **more: Any) -> Result:
        sent = events.refund(self.charge, amount, **({"tax_free": amount // 12} | more))
        return await self.gateway.cancel(sent, STORE, again=again)

    def _named(self, more: dict[str, Any]) -> dict[str, Any]:
        provider = self.provider
        named = {"method": provider.name, "ref": provider.ref, "checkout": provider.checkout}
        return named | more

    charge = ""


@asynccontextmanager
async def stage(make: type[Provider], *, order: str = ORDER) -> AsyncIterator[Stage]:
    """A payment of 12,000 won that the guest has said yes to."""
    provider = make()
    provider.authorise(order, 12_000, 1_000)
    async with playing(provider.play) as player:
        gateway = provider.gateway(player.url)
        try:
            with trio.fail_after(10):
                yield Stage(provider, player, gateway)
        finally:
            await gateway.aclose()


async def charged(stage: Stage) -> Approved:
    """Approve, and remember the charge."""
    result = await stage.approve()
    assert isinstance(result, Approved)
    stage.charge = result.charge
    return result


@every
async def test_a_yes_is_charged_once_with_its_amount_and_tax(make: type[Provider]) -> None:
    """The same attempt again finds the same charge."""
    async with stage(make) as on:
        first = await charged(on)
        assert (first.amount, first.tax_free) == (12_000, 1_000)
        assert await on.approve() == first
        assert await on.query() == first
        assert on.provider.charges == 1
        assert on.provider.secret_seen
        if on.provider.repeats_by_key:
            assert on.provider.key(on.player.asked[0]) == events.uuid(101)


@every
async def test_a_page_is_opened_and_the_guest_comes_back_to_us(make: type[Provider]) -> None:
    """The provider is told the amount and the way back, and gives an address."""
    async with stage(make) as on:
        page = await on.gateway.open(events.prepared(on.provider.name), STORE)
        assert page is not None
        assert page.url.startswith(("https://", on.player.url))
        assert SECRET not in page.url
        assert "12000" in on.player.asked[0].body.decode()


@every
async def test_a_page_that_is_refused_is_none(make: type[Provider]) -> None:
    """No address, no fault."""
    async with stage(make) as on:
        on.player.answer = lambda _: Played(500, {"code": "broken"})
        assert await on.gateway.open(events.prepared(on.provider.name), STORE) is None


@every
async def test_listed_refusals_are_certain(make: type[Provider]) -> None:
    """Nothing was charged, and nobody has to ask again."""
    for refusal in make.refusals:
        async with stage(make) as on:
            on.provider.next = refusal
            result = await on.approve()
            assert isinstance(result, Declined), refusal
            assert on.provider.charges == 0


@every
async def test_everything_else_is_in_doubt(make: type[Provider]) -> None:
    """Codes nobody has heard of, 5xx whatever they say, and what cannot be read."""
    doubtful = [
        make.unlisted,
        *make.in_doubt,
        Played(502, b"<html>bad gateway</html>"),
        Played(200, b"[1]"),
        Played(200, b'{"code": "Success"'),
        Played(200, {}),
        Played(200, b"x" * 300_000),
        Played(200, {"code": "Success", "status": "DONE", "body": {"detail": []}}),
        Played(cut=True),
    ]
    for played in doubtful:
        async with stage(make) as on:
            on.provider.next = played
            try:
                result = await on.approve()
            except Lost:
                continue
            assert isinstance(result, Unknown), (played, result)


@every
async def test_a_cut_after_the_charge_shows_when_asked(make: type[Provider]) -> None:
    """The answer is lost, the charge is found, and a repeat does not charge again."""
    async with stage(make) as on:
        on.provider.then_cut = True
        with pytest.raises(Lost):
            await on.approve()
        found = await on.query()
        assert isinstance(found, Approved)
        assert found.amount == 12_000
        assert await on.approve() == found
        assert on.provider.charges == 1


@every
async def test_processed_already_is_asked_about(make: type[Provider]) -> None:
    """Another attempt for a charged payment finds that charge and makes no second one."""
    async with stage(make) as on:
        first = await charged(on)
        again = await on.approve(attempt=events.uuid(102))
        assert again == first
        assert on.provider.charges == 1


@every
async def test_before_the_charge_nothing_is_final(make: type[Provider]) -> None:
    """A question before the approval is a doubt, never a no."""
    async with stage(make) as on:
        assert isinstance(await on.query(), Unknown)
        assert isinstance(await on.approve(), Approved)


@every
async def test_a_question_without_a_good_answer_is_a_doubt(make: type[Provider]) -> None:
    """The charge may be there although nobody can say so just now."""
    for played in (
        Played(500, {"code": "internal"}),
        Played(502, b"<html>bad gateway</html>"),
        Played(200, b"[1]"),
        Played(200, {}),
    ):
        async with stage(make) as on:
            on.player.answer = lambda _, played=played: played  # type: ignore[misc]
            try:
                result = await on.query()
            except Lost:
                continue
            assert isinstance(result, Unknown), (played, result)


@every
async def test_a_charge_of_another_order_is_never_ours(make: type[Provider]) -> None:
    """Whatever the guest brings: what was paid for another payment does not pay for this one."""
    other = f"{events.uuid(77)}_{STORE}"
    async with stage(make, order=other) as on:
        assert not isinstance(await on.approve(), Approved)
        on.provider.charged = 12_000
        assert not isinstance(await on.query(), Approved)


@every
async def test_another_amount_is_told_as_it_is(make: type[Provider]) -> None:
    """The shop has to see what was really charged, or that nothing was."""
    async with stage(make) as on:
        on.provider.authorise(ORDER, 11_000, 1_000)
        result = await on.approve()
        assert not isinstance(result, Approved) or result.amount == 11_000


@every
async def test_a_cancel_is_carried_out_once(make: type[Provider]) -> None:
    """Also when its answer is lost and it is sent again."""
    async with stage(make) as on:
        await charged(on)
        on.provider.then_cut = True
        with pytest.raises(Lost):
            await on.cancel(5_000)
        assert on.provider.rest == 7_000
        result = await on.cancel(5_000, again=True)
        assert isinstance(result, Approved)
        assert result.amount == 5_000
        assert on.provider.rest == 7_000
        rest = await on.cancel(7_000, refund=events.uuid(202), remaining=7_000)
        assert isinstance(rest, Approved)
        assert on.provider.rest == 0


@every
async def test_a_cancel_that_never_arrived_is_carried_out_when_it_is_sent_again(make: type[Provider]) -> None:
    """Asking first does not stop what has not happened."""
    async with stage(make) as on:
        await charged(on)
        assert isinstance(await on.cancel(5_000, again=True), Approved)
        assert on.provider.rest == 7_000


@every
async def test_cancelled_by_somebody_else_is_a_success_with_a_note(make: type[Provider]) -> None:
    """The guest has the money; that it was not us is worth a line in the log."""
    async with stage(make) as on:
        await charged(on)
        assert isinstance(await on.cancel(refund=events.uuid(202)), Approved)
        result = await on.cancel()
        assert isinstance(result, Approved)
        assert result.note
        assert on.provider.rest == 0


@every
async def test_more_than_there_is_cannot_be_cancelled(make: type[Provider]) -> None:
    """A certain no, and nothing moves."""
    async with stage(make) as on:
        await charged(on)
        await on.cancel(10_000, refund=events.uuid(202))
        result = await on.cancel(5_000, remaining=12_000)
        assert isinstance(result, Declined)
        assert on.provider.rest == 2_000


@every
async def test_a_cancel_in_doubt_is_no_answer(make: type[Provider]) -> None:
    """5xx and unlisted codes."""
    for played in (make.unlisted, Played(500, {"code": "internal"}), Played(200, {"code": "Huh"})):
        async with stage(make) as on:
            await charged(on)
            on.provider.next = played
            assert isinstance(await on.cancel(), Unknown), played


@every
async def test_a_gateway_that_is_not_there_was_certainly_not_asked(make: type[Provider]) -> None:
    """Refused connections are tried again until shortly before the deadline."""
    provider = make()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    gateway = provider.gateway(f"http://127.0.0.1:{port}")
    wanted = events.requested(provider.name, checkout=provider.checkout)
    with trio.fail_after(2), pytest.raises(NotSent):
        await gateway.approve(wanted, STORE)
    await gateway.aclose()


@every
async def test_our_secrets_never_come_back(make: type[Provider]) -> None:
    """A gateway that repeats our headers in its error does not put them into our events."""

    def echo(asked: Asked) -> Played:
        sent = asked.headers
        told = f"{sent.get('authorization')} {sent.get('x-naver-client-secret')}\r\n" + "x" * 1000
        said = {"code": told, "message": told, "error_code": told, "error_message": told}
        return Played(400 if make.name != "naverpay" else 200, said)

    async with stage(make) as on:
        on.charge = on.provider.ref
        on.player.answer = echo
        for result in (await on.approve(), await on.query(), await on.cancel()):
            assert isinstance(result, Unknown)
            assert "[hidden]" in result.message
            assert SECRET not in repr(result)
            assert encoded(SECRET) not in repr(result)
            assert "\n" not in result.message
            assert len(result.message) <= 200
