"""Topics and groups over HTTP: what goes in, what members get, and what is turned down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from tests.web.site import Running, running

EVENT = {"event_id": "e1", "key": "cust123", "type": "Sold", "data": {"n": 1}}
GROUP = "/v1/topics/news/groups/readers"


@pytest.fixture
async def site() -> AsyncIterator[Running]:
    async with running() as one:
        yield one


async def post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def records(*names: str, key: str | None = None) -> dict[str, Any]:
    return {"records": [{"event_id": name, "key": key, "data": name} for name in names]}


async def test_a_record_is_taken_once(site: Running) -> None:
    """Alone or among others; its repeat says where it is."""
    async with site.client("service") as client:
        first = await post(client, "/v1/topics/news", EVENT)
        [placed] = first["records"]
        assert placed == {"event_id": "e1", "partition": 1, "offset": 1, "duplicate": False}
        again = await post(client, "/v1/topics/news", {"records": [{**EVENT, "event_id": "e2"}, EVENT]})
        assert [one["duplicate"] for one in again["records"]] == [False, True]
        assert again["records"][1] == {**placed, "duplicate": True}
        told = (await client.get("/v1/topics/news")).json()
        assert [one["head"] for one in told["partitions"]] == [0, 2, 0]
        without = await post(client, "/v1/topics/news", {"data": None})
        assert len(without["records"][0]["event_id"]) == 36


async def test_a_member_gets_records_and_says_what_became_of_them(site: Running) -> None:
    """Handled, again later, put aside and back; the lag tells it all."""
    async with site.client("service") as client:
        await post(client, "/v1/topics/news", records("a", "b", "c", key="k"))
        member = (await post(client, f"{GROUP}/join", {}))["member"]
        [one] = (await post(client, f"{GROUP}/pull", {"member": member}))["records"]
        assert (one["event_id"], one["data"], one["attempt"], one["key"]) == ("a", "a", 1, "k")
        word = {"member": member, "leases": [one["lease"]]}
        assert await post(client, f"{GROUP}/renew", word) == {
            "member": member,
            "partitions": [0, 1, 2],
            "generation": 1,
            "lease_ms": 30_000,
            "late": [],
        }
        assert await post(client, f"{GROUP}/nack", {**word, "delay_s": 0}) == {"counted": 1, "late": []}
        assert (await post(client, f"{GROUP}/ack", word))["late"] == word["leases"]
        [again] = (await post(client, f"{GROUP}/pull", {"member": member}))["records"]
        assert (again["event_id"], again["attempt"]) == ("a", 2)
        await post(client, f"{GROUP}/ack", {"member": member, "leases": [again["lease"]]})
        [two] = (await post(client, f"{GROUP}/pull", {"member": member}))["records"]
        await post(client, f"{GROUP}/park", {"member": member, "leases": [two["lease"]], "reason": "no"})
        lag = (await client.get(f"{GROUP}/lag")).json()
        assert (lag["lag"], [one["reason"] for one in lag["parked"]]) == (1, ["no"])
        await post(client, f"{GROUP}/replay", {})
        given = (await post(client, f"{GROUP}/pull", {"member": member}))["records"]
        assert [one["event_id"] for one in given] == ["b"]
        await post(client, f"{GROUP}/leave", {"member": member})
        gone = await client.post(f"{GROUP}/pull", json={"member": member})
        assert (gone.status_code, gone.json()["code"]) == (422, "unknown_member")


async def test_a_pull_waits_for_records(site: Running) -> None:
    """It is answered as soon as one is there, and by `[]` when the time is over."""
    async with site.client("service") as client:
        await post(client, f"{GROUP}/join", {"member": "m"})
        assert (await post(client, f"{GROUP}/pull", {"member": "m", "wait_s": 0.05}))["records"] == []
        got: list[Any] = []

        async def pull() -> None:
            got.extend((await post(client, f"{GROUP}/pull", {"member": "m", "wait_s": 5}))["records"])

        with trio.fail_after(4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pull)
                await trio.testing.wait_all_tasks_blocked(0.05)
                await post(client, "/v1/topics/news", EVENT)
        assert [one["event_id"] for one in got] == ["e1"]


async def test_a_group_goes_to_a_time_or_an_offset(site: Running) -> None:
    """Back and ahead, each partition for itself."""
    async with site.client("service") as client:
        await post(client, "/v1/topics/news", records("a", "b", key="k"))
        between = site.node.clock.now_ms() + 1
        while site.node.clock.now_ms() <= between:
            await trio.sleep(0.001)
        await post(client, "/v1/topics/news", records("c", key="k"))
        await post(client, f"{GROUP}/join", {"member": "m", "start": "last"})
        assert (await client.get(f"{GROUP}/lag")).json()["lag"] == 0
        from engine.domain.times import to_text

        told = await post(client, f"{GROUP}/seek", {"time": to_text(between)})
        assert sorted(told["after"].values()) == [0, 0, 2]
        [one] = (await post(client, f"{GROUP}/pull", {"member": "m"}))["records"]
        assert one["event_id"] == "c"
        told = await post(client, f"{GROUP}/seek", {"after": {str(one["partition"]): 1}})
        [one] = (await post(client, f"{GROUP}/pull", {"member": "m"}))["records"]
        assert one["event_id"] == "b"


@pytest.mark.parametrize(
    ("who", "path", "body", "status", "code"),
    [
        (None, "/v1/topics/news", EVENT, 401, "unauthorized"),
        ("owner:s1", "/v1/topics/news", EVENT, 403, "forbidden"),
        ("user:u1", f"{GROUP}/join", {}, 403, "forbidden"),
        ("service", "/v1/topics/new%20s", EVENT, 404, "not_found"),
        ("service", f"{GROUP}/steal", {}, 404, "not_found"),
        ("service", "/v1/topics/news", {}, 400, "malformed"),
        ("service", "/v1/topics/news", [], 400, "malformed"),
        ("service", "/v1/topics/news", {**EVENT, "colour": 1}, 400, "malformed"),
        ("service", "/v1/topics/news", {**EVENT, "event_id": "a b"}, 400, "malformed"),
        ("service", "/v1/topics/news", {**EVENT, "key": "k" * 201}, 400, "malformed"),
        ("service", "/v1/topics/news", {**EVENT, "data": "x" * 65_536}, 400, "malformed"),
        ("service", "/v1/topics/news", {**EVENT, "time": "2026-02-30T18:15:30Z"}, 422, "time_invalid"),
        ("service", "/v1/topics/news", {"records": []}, 400, "malformed"),
        ("service", "/v1/topics/news", {"records": [EVENT] * 501}, 400, "malformed"),
        ("service", f"{GROUP}/join", {"lease_s": 0.1}, 400, "malformed"),
        ("service", f"{GROUP}/pull", {"member": "m", "limit": 201}, 400, "malformed"),
        ("service", f"{GROUP}/pull", {"member": "m"}, 422, "unknown_member"),
        ("service", f"{GROUP}/ack", {"member": "m", "leases": []}, 400, "malformed"),
        ("service", f"{GROUP}/ack", {"member": "m", "leases": ["x"]}, 422, "lease_invalid"),
        ("service", f"{GROUP}/seek", {}, 422, "seek_invalid"),
        ("service", f"{GROUP}/seek", {"after": {"0": 1}}, 422, "unknown_group"),
        ("service", f"{GROUP}/replay", {}, 422, "unknown_group"),
    ],
)
async def test_refusals(site: Running, who: str | None, path: str, body: Any, status: int, code: str) -> None:
    """Nothing of it happens, and each says why."""
    async with site.client(who) as client:
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


async def test_numbers_stay_as_they_are(site: Running) -> None:
    """Also those that no float can hold: an id of 20 digits is still that id for every member."""
    large = [2**63, 2**64 + 1, -(2**70), 12345678901234567890123, 0.1]
    async with site.client("service") as client:
        await post(client, "/v1/topics/news", {"data": {"ids": large}})
        await post(client, f"{GROUP}/join", {"member": "m"})
        [one] = (await post(client, f"{GROUP}/pull", {"member": "m"}))["records"]
        assert one["data"] == {"ids": large}


async def test_what_is_not_there(site: Running) -> None:
    """Reading makes no topic and no group."""
    async with site.client("service") as client:
        assert (await client.get("/v1/topics/news")).json()["code"] == "unknown_topic"
        assert (await client.get(f"{GROUP}/lag")).json()["code"] == "unknown_group"
        assert (await client.put("/v1/topics/news")).status_code == 405
        assert (await client.get("/v1/topics/news")).status_code == 404


async def test_metrics_tell_of_topics(site: Running) -> None:
    """What was published, how long it took, what comes again, and the lag."""
    async with site.first.client("service") as client:
        await post(client, "/v1/topics/news", records("a", "b", key="k"))
        await post(client, "/v1/topics/news", records("a", key="k"))
        await post(client, f"{GROUP}/join", {"member": "m"})
        text = (await client.get("/metrics")).text
        assert 'onda_topic_published_total{outcome="accepted"} 2.0' in text
        assert 'onda_topic_published_total{outcome="duplicate"} 1.0' in text
        assert "onda_topic_publish_seconds_count 2.0" in text
        assert "onda_topic_lag 2.0" in text
        [one] = (await post(client, f"{GROUP}/pull", {"member": "m"}))["records"]
        word = {"member": "m", "leases": [one["lease"]]}
        await post(client, f"{GROUP}/nack", {**word, "delay_s": 0})
        await post(client, f"{GROUP}/pull", {"member": "m"})
        text = (await client.get("/metrics")).text
        assert "onda_topic_redelivered_total 1.0" in text
        assert "onda_topic_consumed_total 2.0" in text
