"""A guest pays, from the order to the money in the sandbox's books, through everything that can go wrong."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio

from engine.payments.contract import order_id
from tests.payments.paying import KEY, Shop, paying, sandboxing, selling
from tests.web.site import wait_until
from web.sandbox.ledger import WINDOW_MS


def check_books(shop: Shop, paid: int) -> None:
    """The gateway has exactly what the shop counts as paid."""
    assert shop.ledger.balance() == paid


async def test_a_guest_pays_on_the_page_and_the_kitchen_starts() -> None:
    """Order, page, yes, approval; the books agree to the won; the same again is the same answer."""
    async with paying() as shop:
        made = await shop.prepare("milk")
        with trio.fail_after(5):
            while (payment := await shop.payment(made)).get("checkout") is None:
                await trio.sleep(0.01)
        url = payment["checkout"]["url"]
        async with httpx.AsyncClient(trust_env=False) as guest:
            back = await guest.post(url, data={"choice": "pay"})
        returned = httpx.URL(back.headers["location"])
        assert returned.path == f"/pay/s1/{made['payment']}"
        assert str(returned).startswith(shop.site.url)
        ref = returned.params["ref"]
        done = await shop.approve(made, ref)
        assert done["status"] == "PAID"
        assert (await shop.approve(made, ref))["status"] == "PAID"
        (charge,) = shop.ledger.charges()
        assert (charge.amount, charge.tax_free, charge.order_id) == (
            2000,
            2000,
            order_id("s1", made["payment"]),
        )
        assert charge.attempt == (await shop.payment(made))["attempt"]["attempt"]
        order = (await shop.state())["orders"][made["order"]]
        assert order["status"] in ("PLACED", "ACCEPTED")
        check_books(shop, 2000)


@pytest.mark.parametrize(
    ("ref", "status", "code"),
    [
        ("fine", "PAID", ""),
        ("slow-1", "PAID", ""),
        ("duplicate-1", "PAID", ""),
        ("late_webhook-1", "PAID", ""),
        ("duplicate_webhook-1", "PAID", ""),
        ("decline-1", "DECLINED", "declined"),
        ("wrong_amount-1", "DECLINED", "amount_mismatch"),
        ("drop_after_charging-1", "PAID", ""),  # the sandbox's own hint tells us to ask
        ("error_5xx-1", "UNKNOWN", "internal"),
    ],
)
async def test_every_fault_ends_as_it_should(ref: str, status: str, code: str) -> None:
    """Never a charge without an order, a void, or a doubt that is asked about."""
    async with paying() as shop:
        made = await shop.prepare()
        await shop.approve(made, ref)
        payment = await shop.wait_status(made, status)
        assert payment["attempt"].get("code", "") == code
        if status == "DECLINED":
            await wait_until(lambda: shop.ledger.balance() == 0)
        if status == "PAID":
            check_books(shop, 4500)


async def test_a_lost_answer_is_found_by_asking() -> None:
    """The connection was cut after the charge: a question settles it, and nothing is charged again."""
    async with paying() as shop:
        made = await shop.prepare()
        await shop.approve(made, "drop_after_charging-1")
        payment = await shop.wait_status(made, "UNKNOWN", "PAID")
        if payment["status"] == "UNKNOWN":
            await shop.do("query-payment", payment=made["payment"])
        await shop.wait_status(made, "PAID")
        assert len(shop.ledger.charges()) == 1
        check_books(shop, 4500)


async def test_a_charge_that_never_came_ends_by_itself() -> None:
    """Within the gateway's window nothing is certain; after it there was no charge, and that is final."""
    async with paying() as shop:
        made = await shop.prepare()
        await shop.approve(made, "error_5xx-1")
        await shop.wait_status(made, "UNKNOWN")
        await shop.do("query-payment", payment=made["payment"])
        with trio.fail_after(5):
            while (await shop.payment(made))["attempt"]["querying"]:
                await trio.sleep(0.01)
        assert (await shop.payment(made))["status"] == "UNKNOWN"
        shop.sandbox.clock.ahead_ms = WINDOW_MS  # type: ignore[attr-defined]
        await shop.do("query-payment", payment=made["payment"])
        payment = await shop.wait_status(made, "DECLINED")
        assert payment["attempt"]["code"] == "expired"
        check_books(shop, 0)
        made |= await shop.do(
            "prepare-payment", order=made["order"], amount=4500, payer="kim", method="sandbox"
        )
        assert (await shop.approve(made, "fine"))["status"] == "PAID"
        check_books(shop, 4500)


async def test_money_goes_back() -> None:
    """A refund in two parts, and the books agree after each."""
    async with paying() as shop:
        made = await shop.prepare()
        assert (await shop.approve(made, "fine"))["status"] == "PAID"
        await shop.do("refund-payment", payment=made["payment"], amount=1500, reason="늦음")
        await wait_until(lambda: shop.ledger.balance() == 3000)
        await shop.do("refund-payment", payment=made["payment"], amount=3000, reason="취소")
        await wait_until(lambda: shop.ledger.balance() == 0)
        with trio.fail_after(5):
            while any(back["status"] != "DONE" for back in (await shop.payment(made))["refunds"]):
                await trio.sleep(0.01)
        assert [back.amount for back in shop.ledger.cancels()] == [1500, 3000]


async def test_a_page_can_ask_which_methods_there_are() -> None:
    """Those that are configured, for everybody with a token."""
    async with paying(toss_secret_key="test_sk_1", toss_url="http://127.0.0.1:9") as shop:
        answer = await shop.http.get("/v1/payments/methods")
        assert answer.json() == {"methods": ["sandbox", "toss"]}
        async with shop.site.client() as nobody:
            assert (await nobody.get("/v1/payments/methods")).status_code == 401
    async with paying(sandbox="off") as shop:
        assert (await shop.http.get("/v1/payments/methods")).json() == {"methods": []}


async def test_a_method_that_is_not_there_is_declined() -> None:
    """At once, and with a code that a page can explain."""
    async with paying() as shop:
        made = await shop.prepare(method="naverpay")
        done = await shop.approve(made, "x")
        assert (done["status"], done["code"]) == ("DECLINED", "method_unavailable")


async def test_a_gateway_that_is_away_declines_and_the_guest_tries_again(tmp_path: Path) -> None:
    """Nothing was sent for certain. Another payment of the same order works once it is back."""
    async with paying(gateway_timeout_s=0.4, sandbox_url="http://127.0.0.1:9") as shop:
        made = await shop.prepare()
        await shop.approve(made, "x")
        payment = await shop.wait_status(made, "DECLINED")
        assert payment["attempt"]["code"] == "not_sent"


@pytest.mark.parametrize("finished", [True, False])
async def test_what_was_under_way_at_a_restart_is_found_out(tmp_path: Path, finished: bool) -> None:
    """The node ends while the gateway works, which may have charged or not by the next start: once it is."""
    data = str(tmp_path)
    async with sandboxing(slow_s=1.0) as sandbox:
        async with selling(sandbox, data=data) as shop:
            made = await shop.prepare()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shop.approve, made, "slow-1")
                await wait_until(lambda: sandbox._busy)
                nursery.cancel_scope.cancel()
        assert not sandbox.ledger.charges()
        if finished:
            await wait_until(sandbox.ledger.charges)
        async with selling(sandbox, data=data) as shop:
            await shop.wait_status(made, "PAID", "UNKNOWN")
            if (await shop.payment(made))["status"] == "UNKNOWN":  # it worked on both at the same time
                await wait_until(sandbox.ledger.charges)
                await shop.do("query-payment", payment=made["payment"])
            await shop.wait_status(made, "PAID")
            assert len(sandbox.ledger.charges()) == 1
            check_books(shop, 4500)


async def test_a_hint_makes_us_ask(caplog: pytest.LogCaptureFixture) -> None:
    """The sandbox's own webhook, after the connection was cut: the payment settles without anybody's help."""
    async with paying() as shop:
        made = await shop.prepare()
        await shop.http.put(
            f"{shop.sandbox.url}/v1/faults",
            json={"fault": "drop_after_charging", "ref": "r-1"},
            headers={"authorization": f"Bearer {KEY}"},
        )
        await shop.approve(made, "r-1")
        await shop.wait_status(made, "UNKNOWN", "PAID")
        hint = {"data": {"orderId": order_id("s1", made["payment"]), "status": "ABORTED"}}
        answer = await shop.http.post("/v1/payments/sandbox/webhook", json=hint)
        assert answer.status_code == 200
        await shop.wait_status(made, "PAID")
        check_books(shop, 4500)
