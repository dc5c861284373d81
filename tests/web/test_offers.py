"""Coupons and campaigns over HTTP: who gets what for whom, in what form, and a crowd at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
import pytest
import trio

from tests.web.site import Running

COUPON = {"coupon": "welcome", "name": "첫 주문 할인", "discount": 1000, "stock": 7}
ISSUE = "/v1/stores/s1/issue-coupon"


async def offer(shop: Running, **fields: Any) -> None:
    """Create the coupon `welcome`."""
    async with shop.client("owner:s1") as owner:
        answer = await owner.post("/v1/stores/s1/create-coupon", json=COUPON | fields)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("who", "body", "status", "holder"),
    [
        ("user:u1", {}, 200, {"user": "u1", "table": None}),
        ("user:u1", {"user": "u1"}, 200, {"user": "u1", "table": None}),
        ("user:u1", {"user": "u2"}, 403, None),
        ("user:u1", {"table": "3"}, 403, None),
        ("table:s1/3", {}, 200, {"user": None, "table": "3"}),
        ("table:s1/3", {"table": "3"}, 200, {"user": None, "table": "3"}),
        ("table:s1/3", {"user": "u1"}, 403, None),
        ("staff:s1", {"user": "u2"}, 200, {"user": "u2", "table": None}),
        ("staff:s1", {}, 422, None),
    ],
)
async def test_whose_coupon_it_is(
    shop: Running, who: str, body: dict[str, Any], status: int, holder: dict[str, Any] | None
) -> None:
    """Guests get coupons for themselves; `user` and `table` can be left out then."""
    await offer(shop)
    async with shop.client(who) as client:
        answer = await client.post(ISSUE, json={"coupon": "welcome"} | body)
    assert answer.status_code == status
    if holder is None:
        assert answer.json()["code"] in ("forbidden", "holder_missing")
    else:
        assert answer.json()["result"] == {"coupon": "welcome", "sequence": 1, "remaining": 6} | holder


async def test_a_crowd_gets_what_there_is(shop: Running) -> None:
    """30 users ask twice each, at once, with one key: as many as there are get one, each the same answer."""
    await offer(shop)
    answers: dict[str, list[httpx.Response]] = {f"u{number}": [] for number in range(30)}

    async def ask(user: str) -> None:
        headers = {"idempotency-key": f"key-of-{user}"}
        async with shop.client(f"user:{user}") as client:
            answers[user].append(await client.post(ISSUE, json={"coupon": "welcome"}, headers=headers))

    async with trio.open_nursery() as nursery:
        for user in [*answers, *answers]:
            nursery.start_soon(ask, user)
    assert all(len({answer.content for answer in both}) == 1 for both in answers.values())
    first = [both[0] for both in answers.values()]
    assert Counter(answer.status_code for answer in first) == {200: 7, 422: 23}
    won = [answer.json()["result"]["sequence"] for answer in first if answer.status_code == 200]
    assert sorted(won) == list(range(1, 8))
    assert {answer.json()["code"] for answer in first if answer.status_code == 422} == {"coupon_exhausted"}
    async with shop.client("staff:s1") as staff:
        synced = (await staff.get("/v1/stores/s1/sync")).json()
    shown = synced["state"]["coupons"]["welcome"]
    assert (shown["issued"], shown["remaining"]) == (7, 0)
    assert "u1" not in str(synced["state"]["coupons"])


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"discount": {"percent": 10, "cap": 3000, "minimum": 10_000}}, 200, ""),
        ({"discount": {"percent": 101}}, 400, "malformed"),
        ({"discount": "10%"}, 400, "malformed"),
        ({"discount": {}}, 422, "discount_invalid"),
        ({"stock": 0}, 400, "malformed"),
        ({"expires_at": "2031-02-30T00:00:00Z"}, 422, "time_invalid"),
        ({"expires_at": "2031-01-01T00:00:00+09:00"}, 400, "malformed"),
    ],
)
async def test_the_form_of_a_coupon(shop: Running, fields: dict[str, Any], status: int, code: str) -> None:
    """What is no coupon is refused before anything happens, and says which field it is."""
    async with shop.client("owner:s1") as owner:
        answer = await owner.post("/v1/stores/s1/create-coupon", json=COUPON | fields)
    assert answer.status_code == status, answer.text
    assert answer.json().get("code", "") == code


async def on_menu(table: httpx.AsyncClient) -> dict[str, Any]:
    """Return how the table sees `ramen`."""
    ramen: dict[str, Any] = (await table.get("/v1/tables/s1/3/sync")).json()["state"]["menu"]["ramen"]
    return ramen


async def test_a_campaign_from_the_owner_to_the_table_and_the_user(shop: Running) -> None:
    """Scheduled for now it opens at once: the table has its price, and who follows the shop a notice."""
    async with shop.client("user:u1") as user, shop.client("owner:s1") as owner:
        followed = await user.post("/v1/stores/s1/follow-store", json={})
        assert followed.json()["result"] == {"following": True}
        assert (await user.post("/v1/stores/s1/follow-store", json={"user": "u2"})).status_code == 403
        opens_at = followed.json()["events"][0]["time"]
        prices = [{"product": "ramen", "price": 1000}]
        body = {"campaign": "now", "name": "지금만", "opens_at": opens_at, "prices": prices}
        answer = await owner.post("/v1/stores/s1/schedule-campaign", json=body)
        assert answer.json()["result"] == {"campaign": "now", "status": "SCHEDULED"}
        with trio.fail_after(10):
            while not (notices := (await user.get("/v1/users/u1/sync")).json()["state"]["notices"]):
                await trio.sleep(0.02)
        assert [notice["title"] for notice in notices.values()] == ["지금만"]
        async with shop.client("table:s1/3") as table:
            with trio.fail_after(10):
                while (ramen := await on_menu(table))["price"] != 1000:
                    await trio.sleep(0.02)
            assert ramen["was"] == 4500
            lines = [{"product": "ramen", "quantity": 2}]
            ordered = await table.post("/v1/stores/s1/create-order", json={"lines": lines})
            assert ordered.json()["result"]["total"] == 2000
        gone = await owner.post("/v1/stores/s1/cancel-campaign", json={"campaign": "now"})
        assert gone.json()["result"] == {"campaign": "now", "status": "CLOSED"}
