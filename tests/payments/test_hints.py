"""Webhooks of gateways: only ever a hint to ask, whoever sends it and whatever it says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from engine.payments.contract import order_id
from tests.payments.paying import Shop, paying
from tests.web.site import running, set_up
from web.hints import BODY_BYTES_MAX
from web.throttle import AGAIN_MS, BURST, PER_SECOND, Throttle

NOBODY = "0190a000-0000-7000-8000-00000000dead"


async def in_doubt(shop: Shop) -> dict[str, Any]:
    """A payment that nobody can tell about."""
    made = await shop.prepare()
    await shop.approve(made, "error_5xx-1")
    await shop.wait_status(made, "UNKNOWN")
    return {**made, "cursor": (await shop.http.get("/v1/stores/s1/sync")).json()["cursor"]}


async def questions(shop: Shop, made: dict[str, Any]) -> int:
    """How often the gateway was asked about a payment since it is in doubt."""
    news = (await shop.http.get("/v1/stores/s1/sync", params={"after": made["cursor"]})).json()["events"]
    return sum(event["type"] == "QueryRequested" for event in news)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("sandbox/webhook/s1/{payment}", {}),
        ("sandbox/webhook/s1/{payment}", {"order": "nonsense"}),
        ("sandbox/webhook", {"order": "{order}"}),
        (
            "toss/webhook",
            {"eventType": "PAYMENT_STATUS_CHANGED", "data": {"orderId": "{order}", "status": "DONE"}},
        ),
        ("toss/webhook/s1", {"orderId": "{payment}"}),
        ("kakaopay/webhook", {"partner_order_id": "{order}"}),
        ("naverpay/webhook", {"merchantPayKey": "{order}"}),
    ],
)
async def test_a_hint_is_a_question_and_nothing_else(path: str, body: dict[str, Any]) -> None:
    """By its address or by the order id within; what it says of the status is not looked at."""
    async with paying() as shop:
        made = await in_doubt(shop)
        before = await questions(shop, made)
        named = {"payment": made["payment"], "order": order_id("s1", made["payment"])}

        def fill(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: fill(inner) for key, inner in value.items()}
            return value.format(**named)

        async with httpx.AsyncClient(base_url=shop.site.url, trust_env=False) as anyone:
            answer = await anyone.post(f"/v1/payments/{path.format(**named)}", json=fill(body))
            assert (answer.status_code, answer.content) == (200, b"{}")
            assert await questions(shop, made) == before + 1
            again = await anyone.post(f"/v1/payments/{path.format(**named)}", json=fill(body))
            assert (again.status_code, again.content) == (200, b"{}")
            assert await questions(shop, made) == before + 1  # nothing can have changed so soon
        assert (await shop.payment(made))["status"] == "UNKNOWN"


async def test_a_form_is_read_too() -> None:
    """Some gateways send those."""
    async with paying() as shop:
        made = await in_doubt(shop)
        form = {"orderId": order_id("s1", made["payment"])}
        async with httpx.AsyncClient(base_url=shop.site.url, trust_env=False) as anyone:
            assert (await anyone.post("/v1/payments/toss/webhook", data=form)).status_code == 200
        assert await questions(shop, made) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"sandbox/webhook/s1/{NOBODY}", "{}"),
        (f"sandbox/webhook/nowhere/{NOBODY}", "{}"),
        ("sandbox/webhook/s1/not-an-id-of-ours", "{}"),
        ("toss/webhook", "{}"),
        ("toss/webhook", ""),
        ("toss/webhook", '{"data": {"orderId": 7}}'),
        ("toss/webhook", f'{{"data": {{"orderId": "{NOBODY}_s1"}}}}'),
        ("toss/webhook", f'{{"data": {{"orderId": "{NOBODY}"}}}}'),
        ("toss/webhook/s1", '{"orderId": "o1"}'),
    ],
)
async def test_what_nobody_knows_is_answered_like_everything_else(path: str, body: str) -> None:
    """200 and nothing done, so that a stranger learns nothing and a gateway does not repeat it."""
    async with running() as site:
        async with site.client("service") as client:
            await set_up(client)
            before = (await client.get("/v1/stores/s1/sync")).json()["cursor"]
            answer = await client.post(f"/v1/payments/{path}", content=body)
            assert (answer.status_code, answer.content) == (200, b"{}")
            assert (await client.get("/v1/stores/s1/sync")).json()["cursor"] == before


async def test_what_is_no_hint_at_all_is_refused() -> None:
    """Another method, another gateway, too many parts, too large, not readable."""
    async with running() as site:
        async with site.client() as client:
            assert (await client.get("/v1/payments/toss/webhook")).status_code == 405
            assert (await client.options("/v1/payments/toss/webhook")).status_code == 204
            for path in ("paypal/webhook", "toss/webhook/a/b/c", "toss/webhook/..", "toss/hook", "toss"):
                assert (await client.post(f"/v1/payments/{path}")).status_code == 404, path
            large = b"{" + b" " * BODY_BYTES_MAX + b"}"
            assert (await client.post("/v1/payments/toss/webhook", content=large)).status_code == 413
            for content in (b"[]", b"{", b"\xff"):
                answer = await client.post("/v1/payments/toss/webhook", content=content)
                assert answer.status_code == 400, content


async def test_a_flood_is_turned_away() -> None:
    """So many, then 429 with when to come back."""
    async with running() as site:
        site.site.hints = Throttle(lambda: 0)
        async with site.client() as client:
            for _ in range(BURST):
                assert (await client.post("/v1/payments/toss/webhook")).status_code == 200
            answer = await client.post("/v1/payments/toss/webhook")
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 0


def test_the_bounds_fill_up_with_time() -> None:
    """Also when the clock steps back."""
    now = [1_000_000]
    throttle = Throttle(lambda: now[0])
    assert [throttle.admit() for _ in range(BURST + 1)] == [True] * BURST + [False]
    now[0] += 1000
    assert [throttle.admit() for _ in range(int(PER_SECOND) + 1)] == [True] * int(PER_SECOND) + [False]
    now[0] -= 500_000
    assert not throttle.admit()
    assert throttle.is_new("s1", "p1")
    assert not throttle.is_new("s1", "p1")
    assert throttle.is_new("s1", "p2")
    assert throttle.is_new("s2", "p1")
    now[0] += AGAIN_MS
    assert throttle.is_new("s1", "p1")
