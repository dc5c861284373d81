"""The sandbox on a socket: its books, its faults, its page, and the hints that it sends."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.payments.direct import seeded
from tests.payments.player import Asked, Played, playing
from tests.web.site import wait_until
from web.sandbox.handlers import FAULTS, Sandbox
from web.sandbox.ledger import WINDOW_MS, Ledger
from web.sandbox.server import open_sandbox

KEY = "sandbox-key-1"
SHOP = "http://shop.example"


class Clock:
    """A clock that stands until it is moved."""

    ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms


class Bench:
    """A sandbox and a client with its key."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient, clock: Clock) -> None:
        self.sandbox = sandbox
        self.ledger = sandbox.ledger
        self.http = http
        self.clock = clock

    async def charge(self, ref: str, attempt: str = "a-1", **more: Any) -> httpx.Response:
        body = {"ref": ref, "order": "o-1", "amount": 5000, "tax_free": 500} | more
        return await self.http.post("/v1/charges", json=body, headers={"idempotency-key": attempt})

    async def cancel(self, charge: str, amount: int, refund: str = "r-1", **more: Any) -> httpx.Response:
        body = {"charge": charge, "amount": amount} | more
        return await self.http.post("/v1/cancels", json=body, headers={"idempotency-key": refund})

    async def find(self, **params: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get("/v1/charges", params=params)).json()
        return found

    async def checkout(self, **more: Any) -> httpx.Response:
        body = {"order": "o-1", "amount": 5000, "name": "<b>떡볶이</b>", "return": f"{SHOP}/pay/s1/p1"} | more
        return await self.http.post("/v1/checkouts", json=body, headers={"idempotency-key": "c-1"})


@asynccontextmanager
async def bench(file: str | None = None, **options: Any) -> AsyncIterator[Bench]:
    """Run a sandbox on a free port."""
    clock = Clock()
    ledger = Ledger(file, clock.now_ms)
    sandbox = Sandbox(ledger, KEY, **({"slow_s": 0.02, "late_s": 0.05} | options))
    async with open_sandbox(sandbox) as serving:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=serving.url, headers=headers, trust_env=False) as http:
            with trio.fail_after(10):
                yield Bench(sandbox, http, clock)
    ledger.close()


async def test_an_attempt_is_charged_once() -> None:
    """The same key gives the same answer; with another body it is refused; a ref is good for one charge."""
    async with bench() as on:
        first = await on.charge("any-ref")
        assert first.status_code == 200
        assert (await on.charge("any-ref")).json() == first.json()
        assert (await on.charge("any-ref", amount=6000)).json()["code"] == "idempotency_mismatch"
        second = await on.charge("any-ref", "a-2")
        assert (second.status_code, second.json()["code"]) == (409, "already_processed")
        assert [charge.amount for charge in on.ledger.charges()] == [5000]


async def test_a_cancel_is_booked_once_and_never_too_much() -> None:
    """Parts add up; what is left is told."""
    async with bench() as on:
        charge = (await on.charge("ref")).json()["charge"]
        assert (await on.cancel(charge, 2000, expected_rest=3000)).json()["rest"] == 3000
        assert (await on.cancel(charge, 2000, expected_rest=3000)).json()["rest"] == 3000
        assert (await on.cancel(charge, 1000, "r-2", expected_rest=3000)).json()["code"] == "rest_differs"
        assert (await on.cancel(charge, 4000, "r-2")).json()["code"] == "over_remaining"
        assert (await on.cancel(charge, 3000, "r-3")).json()["rest"] == 0
        assert (await on.cancel(charge, 1000, "r-4")).json()["code"] == "already_cancelled"
        assert (await on.cancel("ch_no", 1000, "r-5")).status_code == 404
        assert on.ledger.balance() == 0
        assert [back.amount for back in on.ledger.cancels()] == [2000, 3000]
        assert (await on.find(attempt="a-1"))["status"] == "cancelled"


async def test_a_yes_counts_for_ten_minutes_and_then_certainly_not() -> None:
    """What a question has called expired can never be charged."""
    async with bench() as on:
        assert (await on.find(ref="late"))["status"] == "authorised"
        on.clock.ms += WINDOW_MS - 1
        assert (await on.find(ref="late"))["status"] == "authorised"
        on.clock.ms += 1
        assert (await on.find(ref="late"))["status"] == "expired"
        on.clock.ms -= WINDOW_MS
        refused = await on.charge("late")
        assert (refused.status_code, refused.json()["code"]) == (402, "expired")


async def test_the_key_is_needed() -> None:
    """Everything below /v1; the page and its look are for guests."""
    async with bench() as on:
        asked = (("POST", "charges"), ("GET", "ledger"), ("PUT", "faults"), ("GET", "nothing"))
        for key in ("Basic x", "Bearer wrong", f"Bearer {KEY}x", "Bearer ключ", KEY):
            headers = {"authorization": key.encode()}
            for method, path in asked:
                assert (await on.http.request(method, f"/v1/{path}", headers=headers)).status_code == 401
        assert (await on.http.get("/style.css", headers={"authorization": ""})).status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b'{"ref":1}', b'{"ref":"x","order":"o","amount":-5}', b"\xff"])
async def test_nonsense_is_refused(body: bytes) -> None:
    """With 400, and nothing is booked."""
    async with bench() as on:
        answer = await on.http.post("/v1/charges", content=body, headers={"idempotency-key": "k"})
        assert answer.status_code == 400
        assert not on.ledger.charges()
        assert (await on.http.post("/v1/charges", json={})).json()["code"] == "no_idempotency_key"


@pytest.mark.parametrize("by", ["name", "ref", "everything", "start"])
@pytest.mark.parametrize("fault", FAULTS[:6])
async def test_each_fault_does_what_it_says(fault: str, by: str) -> None:
    """Switched by the ref's name, for one ref, for everything, or from the start."""
    async with bench(fault=fault if by == "start" else "") as on:
        ref = f"{fault}-1" if by == "name" else "plain"
        if by in ("ref", "everything"):
            wish = {"fault": fault, "ref": "plain" if by == "ref" else ""}
            assert (await on.http.put("/v1/faults", json=wish)).status_code == 200
        code, charged = "", 5000
        try:
            answer = await on.charge(ref)
            code = answer.json().get("code", "")
        except httpx.RemoteProtocolError:
            code = "cut"
        expected = {
            "decline": ("declined", 0),
            "slow": ("", charged),
            "drop_after_charging": ("cut", charged),
            "error_5xx": ("internal", 0),
            "wrong_amount": ("", charged + 100),
            "duplicate": ("already_processed", charged),
        }
        assert (code, on.ledger.balance()) == expected[fault]
        if fault == "drop_after_charging":  # what was answered for good is answered so again, and arrives
            assert (await on.charge(ref)).json()["amount"] == charged
        if by == "ref":
            assert (await on.charge("other", "a-9")).status_code == 200
        await on.http.delete("/v1/faults")
        assert (await on.charge("after", "a-10")).status_code == 200


async def test_flaky_is_another_fault_each_time_and_repeats_by_seed() -> None:
    """Some go well, some do not; the same dice give the same story."""

    async def story(seed: int) -> list[str]:
        told = []
        async with bench(fault="flaky", dice=seeded(seed), slow_s=0) as on:
            for number in range(24):
                try:
                    told.append(str((await on.charge(f"r-{number}", f"a-{number}")).status_code))
                except httpx.RemoteProtocolError:
                    told.append("cut")
        return told

    first = await story(1)
    assert {"200", "500", "cut"} <= set(first)
    assert await story(1) == first


async def test_work_goes_on_when_the_shop_hangs_up() -> None:
    """As at real gateways: a timeout says nothing about the charge. The same key is told to wait."""
    async with bench(slow_s=0.3) as on:
        with pytest.raises(httpx.ReadTimeout):
            await on.http.post(
                "/v1/charges",
                json={"ref": "slow-1", "order": "o-1", "amount": 5000, "tax_free": 500},
                headers={"idempotency-key": "a-1"},
                timeout=0.1,
            )
        assert (await on.charge("slow-1")).json()["code"] == "in_progress"
        await wait_until(lambda: on.ledger.charges())
        assert (await on.charge("slow-1")).status_code == 200


async def test_hints_are_sent_once_late_or_twice() -> None:
    """To the address that the charge came with."""
    for fault, times in (("", 1), ("late_webhook-", 1), ("duplicate_webhook-", 2)):
        hints: list[Asked] = []

        def take(asked: Asked, hints: list[Asked] = hints) -> Played:
            hints.append(asked)
            return Played(200 if len(hints) > 1 else 503, {})

        async with playing(take) as shop, bench() as on:
            answer = await on.charge(f"{fault}x", webhook=f"{shop.url}/v1/payments/sandbox/webhook/s1/p1")
            charge = answer.json()["charge"]
            await wait_until(lambda: len(hints) == times + 1, within_s=4)  # noqa: B023 - the first got a 503
            assert {hint.json["charge"] for hint in hints} == {charge}
            assert hints[0].path == "/v1/payments/sandbox/webhook/s1/p1"


async def test_the_page_takes_a_yes_and_sends_the_guest_back() -> None:
    """To the shop, with a ref that is worth exactly this order and amount, once."""
    async with bench() as on:
        url = (await on.checkout()).json()["url"]
        page = await on.http.get(url)
        assert "₩5,000" in page.text
        assert "&lt;b&gt;떡볶이&lt;/b&gt;" in page.text
        assert f"form-action 'self' {SHOP};" in page.headers["content-security-policy"]
        assert "<script" not in page.text
        assert page.headers["cache-control"] == "no-store"
        back = await on.http.post(url, data={"choice": "pay"})
        assert back.status_code == 303
        match = re.fullmatch(
            rf"{SHOP}/pay/s1/p1\?result=success&ref=(ref_[0-9a-f]+)", back.headers["location"]
        )
        assert match is not None
        again = await on.http.post(url, data={"choice": "decline"})
        assert again.headers["location"] == back.headers["location"]
        assert match[1] in (await on.http.get(url)).text
        ref = match[1]
        assert (await on.charge(ref, "a-1", amount=4000)).json()["code"] == "amount_mismatch"
        assert (await on.charge(ref, "a-2", order="o-2")).json()["code"] == "order_mismatch"
        assert (await on.charge(ref, "a-3")).status_code == 200


@pytest.mark.parametrize(
    ("choice", "query"), [("decline", "result=fail&code=declined"), ("cancel", "result=cancel")]
)
async def test_the_page_takes_a_no(choice: str, query: str) -> None:
    """Declined and cancelled come back as such, and nothing can be charged."""
    async with bench() as on:
        url = (await on.checkout()).json()["url"]
        back = await on.http.post(url, data={"choice": choice})
        assert back.headers["location"] == f"{SHOP}/pay/s1/p1?{query}"
        assert (await on.http.post(url, data={"choice": "steal"})).status_code == 400
        assert (await on.http.get("/pay/co_no")).status_code == 404


@pytest.mark.parametrize(
    "back",
    [
        "http://evil.example/pay",
        "http://shop.example@evil.example/",
        "http://shop.example.evil.example/",
        "https://shop.example/",
        "javascript:alert(1)",
        "//evil.example",
        "http://shop.example:x/",
    ],
)
async def test_nobody_is_sent_anywhere_else(back: str) -> None:
    """The way back is the shop's own, by scheme, host and port; so is the address for hints."""
    async with bench(shop=SHOP) as on:
        assert (await on.checkout(**{"return": back})).status_code == 422
        assert (await on.checkout(webhook=back)).status_code == 422
        assert (await on.checkout()).status_code == 200


async def test_the_books_are_there_after_a_restart(tmp_path: Path) -> None:
    """Charges, cancels, and the answers to keys."""
    file = str(tmp_path / "ledger.db")
    async with bench(file) as on:
        first = (await on.charge("ref")).json()
        await on.cancel(first["charge"], 2000)
        assert (await on.http.get("/v1/ledger")).json()["balance"] == 3000
    async with bench(file) as on:
        assert (await on.charge("ref")).json() == first
        assert on.ledger.balance() == 3000
