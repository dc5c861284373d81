"""Sync: snapshots, deltas, resets, long polls and conditional requests."""

from __future__ import annotations

import time
from typing import Any

import httpx
import msgspec
import pytest
import trio

from tests.web.site import Running, order, running, set_up, token, wait_until
from tests.web.test_commands import check_problem

SYNC = "/v1/stores/s1/sync"


async def sync(client: httpx.AsyncClient, path: str = SYNC, **params: Any) -> dict[str, Any]:
    """Ask, and return the answer's JSON."""
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_without_a_cursor_it_is_a_snapshot(shop: Running) -> None:
    """The snapshot is the node's state, and its cursor the tag."""
    async with shop.client("owner:s1") as client:
        answer = await client.get(SYNC)
    snapshot = await shop.node.read("store:s1")
    body = answer.json()
    assert list(body) == ["feed", "mode", "cursor", "state"]
    assert (body["feed"], body["mode"], body["cursor"]) == ("store:s1", "snapshot", snapshot.cursor)
    assert body["state"] == msgspec.json.decode(snapshot.state)
    assert answer.headers["etag"] == f'"{snapshot.cursor}"'
    assert answer.headers["cache-control"] == "private, no-cache"


async def test_with_a_cursor_it_is_everything_after_it(shop: Running) -> None:
    """Each event once and in order, as the stored bytes; nothing when up to date."""
    async with shop.client("owner:s1") as client:
        start = (await sync(client))["cursor"]
        done = [await order(client), await order(client)]
        delta = await sync(client, after=start)
        assert delta == {
            "feed": "store:s1",
            "mode": "delta",
            "cursor": done[-1]["cursor"],
            "events": done[0]["events"] + done[1]["events"],
            "more": False,
        }
        upto = await sync(client, after=delta["cursor"])
    assert (upto["events"], upto["cursor"], upto["more"]) == ([], delta["cursor"], False)


async def test_limit_pages_through(shop: Running) -> None:
    """`more` says that there is more; going on from the cursor misses nothing."""
    async with shop.client("owner:s1") as client:
        cursor = (await sync(client))["cursor"]
        for _ in range(3):
            await order(client)
        versions = []
        more = True
        while more:
            page = await sync(client, after=cursor, limit=4)
            versions += [event["version"] for event in page["events"]]
            cursor, more = page["cursor"], page["more"]
    assert versions == list(range(versions[0], versions[0] + 6))


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [("9999", "ahead"), ("other-3", "epoch"), ("99999999999999999", "ahead")],
)
async def test_a_cursor_that_cannot_be_used_is_a_reset(shop: Running, cursor: str, reason: str) -> None:
    """All or nothing: a whole snapshot, with why."""
    async with shop.client("owner:s1") as client:
        epoch = (await sync(client))["cursor"].partition("-")[0]
        body = await sync(client, after=cursor if "-" in cursor else f"{epoch}-{cursor}")
    assert body["mode"] == "snapshot"
    assert body["reset"] == {"reason": reason}
    assert body["state"]["shop"]


async def test_a_cursor_older_than_what_is_kept_is_a_reset() -> None:
    """What left the ring is not made up for by a part of it."""
    async with running(ring_frames_max=3) as site:
        async with site.client("service") as client:
            await set_up(client)
            start = (await sync(client))["cursor"]
            for _ in range(3):
                await order(client)
            body = await sync(client, after=start)
    assert body["reset"] == {"reason": "expired"}


async def test_a_long_poll_answers_as_soon_as_there_is_something(shop: Running) -> None:
    """It waits for the next event and no longer."""
    async with shop.client("owner:s1") as client, shop.client("owner:s1") as poller:
        cursor = (await sync(client))["cursor"]
        answers: list[dict[str, Any]] = []

        async def poll() -> None:
            answers.append(await sync(poller, after=cursor, wait=20))

        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await wait_until(lambda: any(one.node.statistics()["subscribers"] for one in shop.serving))
            assert answers == []
            done = await order(client)
    assert answers[0]["events"][0] == done["events"][0]
    assert time.monotonic() - began < 5


async def test_a_long_poll_ends_after_the_wait(shop: Running) -> None:
    """With nothing new the answer is empty, and 304 for those who name the tag."""
    async with shop.client("owner:s1") as client:
        cursor = (await sync(client))["cursor"]
        began = time.monotonic()
        assert (await sync(client, after=cursor, wait=0.1))["events"] == []
        assert time.monotonic() - began >= 0.1
        known = {"if-none-match": f'"{cursor}"'}
        answer = await client.get(SYNC, params={"after": cursor, "wait": "0.05"}, headers=known)
    assert (answer.status_code, answer.content) == (304, b"")


async def test_a_long_poll_ends_when_the_table_is_closed_behind_it(shop: Running) -> None:
    """A fence that goes past the cursor while we wait is a reset, not an error."""
    path = "/v1/tables/s1/3/sync"
    async with shop.client("owner:s1") as client, shop.client("table:s1/3") as table:
        first = await sync(table, path)
        await client.post("/v1/tables/s1/3/call-staff", json={"kind": "water"})
        body: dict[str, Any] = {}
        closed = await client.post("/v1/tables/s1/3/close-table")
        assert closed.status_code == 200, closed.text
        body = await sync(table, path, after=first["cursor"], wait=1)
    assert body["mode"] == "snapshot"
    assert body["reset"] == {"reason": "expired"}


async def test_if_none_match_is_304_while_nothing_changed(shop: Running) -> None:
    """For snapshots, for deltas, for HEAD; weak tags and lists count too."""
    async with shop.client("owner:s1") as client:
        tag = (await client.get(SYNC)).headers["etag"]
        for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            answer = await client.get(SYNC, headers={"if-none-match": given})
            assert (answer.status_code, answer.content) == (304, b""), given
            assert answer.headers["etag"] == tag
        assert (await client.head(SYNC, headers={"if-none-match": tag})).status_code == 304
        await order(client)
        assert (await client.get(SYNC, headers={"if-none-match": tag})).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "after=", "after=x", "after=e-01", "after=e-1.5", "after=e--1", "after=%00-1", "after=e-1&after=e-2",
        "wait=-1", "wait=31", "wait=x", "wait=1e1", "wait=nan", "wait=", "wait=٣", "wait=1&wait=1",
        "limit=0", "limit=1001", "limit=1.5", "limit=x", "limit=", "after=%ff",
        "&".join(f"f{number}=1" for number in range(200)),
    ],
)  # fmt: skip
async def test_a_parameter_that_cannot_be_read_is_400(shop: Running, query: str) -> None:
    """The answer names the parameter."""
    async with shop.client("owner:s1") as client:
        answer = await client.get(f"{SYNC}?{query}")
    check_problem(answer, 400, "malformed")
    if not query.startswith(("f0", "after=%ff")):
        assert f"`{query.partition('=')[0]}`" in answer.json()["detail"]


async def test_a_long_poll_ends_with_its_token(shop: Running) -> None:
    """It does not outlive the token, and tells nothing to who may not know it any more."""
    async with httpx.AsyncClient(base_url=shop.url, timeout=10) as client:
        headers = {"authorization": f"Bearer {token('owner:s1', ttl_s=1.2)}"}
        cursor = (await client.get(SYNC, headers=headers)).json()["cursor"]
        with trio.fail_after(3):
            answer = await client.get(SYNC, params={"after": cursor, "wait": 30}, headers=headers)
    check_problem(answer, 401, "unauthorized")


async def test_a_table_that_nobody_opened_and_an_unknown_user_can_be_read(shop: Running) -> None:
    """A table exists once its store does, and a user's stream for every id."""
    async with shop.client("service") as client:
        assert (await sync(client, "/v1/tables/s1/99/sync"))["state"]["cart"] == {}
        nobody = (await sync(client, "/v1/users/nobody/sync"))["state"]
        assert nobody.keys() >= {"notices", "orders", "coupons", "tasks"}
        assert not any(nobody.values())
