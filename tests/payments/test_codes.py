"""What only one provider says: its own codes, and what each of them means."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio
import trio.testing

from engine import Config
from engine.payments import Approved, Declined, Unknown
from engine.payments.contract import Links, order_id, read_order_id
from engine.payments.gateways import wants_sandbox
from engine.payments.http import Line, Lost
from engine.payments.kakaopay import KakaoPay
from engine.payments.naverpay import NaverPay
from engine.payments.sandbox import SandboxGateway
from engine.payments.toss import Toss
from tests.payments import events
from tests.payments.player import Played
from tests.payments.providers import FakeKakaoPay, FakeNaverPay, FakeToss
from tests.payments.test_contract import charged, stage


@pytest.mark.parametrize(
    ("store", "known_as"),
    [
        ("s1", f"{events.PAYMENT}_s1"),
        ("gangnam_2-1", f"{events.PAYMENT}_gangnam_2-1"),
        ("shop.with.dots", events.PAYMENT),
        ("s" * 28, events.PAYMENT),
    ],
)
def test_an_order_id_carries_the_store_where_it_fits(store: str, known_as: str) -> None:
    """6-64 of letters, digits, `-` and `_`; and it is read back."""
    assert order_id(store, events.PAYMENT) == known_as
    assert 6 <= len(known_as) <= 64
    carried = store if known_as != events.PAYMENT else ""
    assert read_order_id(known_as) == (carried, events.PAYMENT)


@pytest.mark.parametrize(
    "text", ["", "o1", events.PAYMENT[:-1], f"{events.PAYMENT}_", f"{events.PAYMENT}_a.b", "../x"]
)
def test_what_is_no_order_id_of_ours_is_none(text: str) -> None:
    """Hints are made of such."""
    assert read_order_id(text) is None


async def test_toss_a_session_that_is_gone_was_perhaps_paid_before() -> None:
    """Asked about: a charge counts, else it is a no."""
    gone = Played(404, {"code": "NOT_FOUND_PAYMENT_SESSION", "message": "10분이 지났습니다"})
    async with stage(FakeToss) as on:
        on.provider.next = gone
        assert isinstance(await on.approve(), Declined)
    async with stage(FakeToss) as on:
        first = await charged(on)
        on.provider.next = gone
        assert await on.approve(attempt=events.uuid(102)) == first


@pytest.mark.parametrize("status", ["ABORTED", "EXPIRED"])
async def test_toss_final_states_of_a_payment_are_certain(status: str) -> None:
    """A query that finds the payment dead says no."""
    async with stage(FakeToss) as on:
        on.player.answer = lambda _: Played(
            200, {"orderId": events.ORDER, "status": status, "paymentKey": "pk-1"}
        )
        assert await on.query() == Declined(status.lower())


async def test_toss_a_charge_of_another_order_is_a_doubt() -> None:
    """Whatever address it came from."""
    async with stage(FakeToss) as on:
        paid = {"orderId": "other-order", "status": "DONE", "paymentKey": "pk-1", "totalAmount": 12_000}
        on.player.answer = lambda _: Played(200, paid)
        for result in (await on.query(), await on.approve()):
            assert isinstance(result, Unknown)
            assert result.code == "order_mismatch"


async def test_toss_what_a_guest_brings_is_never_part_of_an_address() -> None:
    """A query goes by our own order id."""
    async with stage(FakeToss) as on:
        await on.query(ref="../../v1/payments/other/cancel")
        assert on.player.asked[-1].path == f"/v1/payments/orders/{events.ORDER}"


@pytest.mark.parametrize("code", ["PreCancelNotComplete", "CancelNotComplete"])
async def test_naverpay_an_unfinished_cancel_is_sent_again_as_it_was(code: str) -> None:
    """In doubt the first time; the second request has the same key and the same body."""
    async with stage(FakeNaverPay) as on:
        await charged(on)
        on.provider.next = Played(200, {"code": code, "message": ""})
        assert isinstance(await on.cancel(5_000), Unknown)
        first = on.player.asked[-1]
        assert isinstance(await on.cancel(5_000, again=True), Approved)
        second = on.player.asked[-1]
        assert second.body == first.body
        assert on.provider.key(second) == on.provider.key(first) == events.uuid(201)


async def test_naverpay_a_cancel_tells_what_should_be_left() -> None:
    """So that a repeat without its key cannot give the money back twice; another rest is a doubt."""
    async with stage(FakeNaverPay) as on:
        await charged(on)
        await on.cancel(5_000)
        form = on.player.asked[-1].form
        assert (form["doCompareRest"], form["expectedRestAmount"]) == ("1", "7000")
        assert form["cancelRequester"] == "2"
        done = await on.cancel(5_000, refund=events.uuid(202))  # as if the key had been forgotten
        assert done == Approved(5_000, on.charge, note="already_cancelled")
        other = await on.cancel(1_000, refund=events.uuid(203))  # expects 11,000, and 7,000 are left
        assert isinstance(other, Unknown)
        assert on.provider.rest == 7_000


async def test_naverpay_after_the_deadline_the_shop_gives_the_money_back_itself() -> None:
    """A certain no, with a code that says so."""
    async with stage(FakeNaverPay) as on:
        await charged(on)
        on.provider.next = Played(200, {"code": "CancelDeadlineExpired", "message": "기한이 지났습니다"})
        assert await on.cancel() == Declined("CancelDeadlineExpired", "기한이 지났습니다")


async def test_naverpay_a_ref_that_is_none_is_not_sent() -> None:
    """It would be part of an address."""
    async with stage(FakeNaverPay) as on:
        assert isinstance(await on.approve(ref="../v1/cancel"), Declined)
        assert isinstance(await on.query(ref="../v1/cancel"), Unknown)
        assert not on.player.asked


async def test_naverpay_a_tax_split_that_does_not_add_up_is_a_doubt() -> None:
    """Even where the total is right."""
    async with stage(FakeNaverPay) as on:
        detail = {
            "merchantPayKey": events.ORDER,
            "totalPayAmount": 12_000,
            "taxScopeAmount": 12_000,
            "taxExScopeAmount": 1_000,
        }
        on.provider.next = Played(200, {"code": "Success", "body": {"detail": detail}})
        result = await on.approve()
        assert isinstance(result, Unknown)
        assert result.code == "tax_mismatch"


async def test_naverpay_tests_go_to_the_page_for_tests() -> None:
    """The page belongs to the host that reserves."""
    for host, page in (("dev-pay", "https://test-m.pay.naver.com/"), ("pay", "https://m.pay.naver.com/")):
        line = Line(f"https://{host}.paygate.naver.com/x", {})
        gateway = NaverPay(line, Links("https://shop.example"))
        assert gateway._pages.startswith(page)
        await gateway.aclose()


async def test_kakaopay_needs_the_page_that_it_made() -> None:
    """Without a `tid` there is nothing to approve, and nothing was."""
    async with stage(FakeKakaoPay) as on:
        assert isinstance(await on.approve(checkout=""), Declined)
        assert isinstance(await on.query(checkout=""), Unknown)
        assert not on.player.asked


async def test_kakaopay_another_rest_than_ours_is_for_a_person() -> None:
    """Somebody cancelled elsewhere: a repeat is not sent."""
    async with stage(FakeKakaoPay) as on:
        await charged(on)
        on.provider.cancels["elsewhere"] = 1_000
        result = await on.cancel(5_000, again=True)
        assert isinstance(result, Unknown)
        assert result.code == "rest_differs"
        assert on.provider.rest == 11_000


ALREADY = {
    "toss": httpx.Response(400, json={"code": "ALREADY_PROCESSED_PAYMENT"}),
    "naverpay": httpx.Response(200, json={"code": "AlreadyComplete"}),
    "kakaopay": httpx.Response(400, json={"error_code": -702}),
    "sandbox": httpx.Response(409, json={"code": "already_processed"}),
}


@pytest.mark.parametrize("method", list(ALREADY))
async def test_charged_already_and_then_away_is_a_doubt(
    method: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The question could not be asked; but the request before it was sent, so this is no certain no."""
    answers = [ALREADY[method]]

    def answer(request: httpx.Request) -> httpx.Response:
        if not answers:
            raise httpx.ConnectError("away", request=request)
        played = answers.pop()
        return httpx.Response(played.status_code, stream=httpx.ByteStream(played.content))

    line = Line("http://gateway.example", {}, transport=httpx.MockTransport(answer))
    links = Links("https://shop.example")
    gateway = {
        "toss": lambda: Toss(line, links),
        "naverpay": lambda: NaverPay(line, links),
        "kakaopay": lambda: KakaoPay(line, links, "TC0ONETIME"),
        "sandbox": lambda: SandboxGateway(line, links),
    }[method]()
    with trio.fail_after(60), pytest.raises(Lost):
        await gateway.approve(events.requested(method, checkout="T1"), events.STORE)
    await gateway.aclose()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"demo": True}, True),
        ({"demo": False}, False),
        ({"demo": True, "toss_secret_key": "x"}, False),
        ({"demo": True, "kakaopay_secret_key": "x", "kakaopay_cid": "c"}, False),
        ({"demo": True, "naverpay_client_id": "x", "naverpay_client_secret": "y"}, False),
        ({"demo": False, "sandbox": "on"}, True),
        ({"demo": True, "toss_secret_key": "x", "sandbox": "on"}, True),
        ({"demo": True, "sandbox": "off"}, False),
    ],
)
def test_nobody_pays_with_play_money_by_accident(settings: dict[str, Any], wanted: bool) -> None:
    """`auto` is on only for a demo without a real gateway."""
    assert wants_sandbox(Config(**settings)) is wanted
