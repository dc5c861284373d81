"""`/api/v2/progress/…` over real sockets: fields, recovery, rights, and queries as people type them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio
import trio.testing

from engine.domain.times import to_ms
from tests.web.site import Listener, Running, listening, running, wait_until
from web.demo import make_demo
from web.sse import Message

API = "/api/v2/progress"
LAPTOP = f"productName={quote('노트북')}&quantity=1"
EVENT = {
    *("eventId", "taskId", "userId", "currentStep", "totalSteps"),
    *("percentage", "stepName", "eventType", "timestamp"),
}
STATUS = {
    *("taskId", "userId", "currentStep", "totalSteps", "percentage", "stepName"),
    *("status", "startedAt", "updatedAt", "eventCount"),
}
STEPS = [
    ("STARTED", 0, "시작"),
    ("PROGRESS", 25, "주문 검증"),
    ("PROGRESS", 50, "재고 확인"),
    ("PROGRESS", 75, "결제 처리"),
    ("COMPLETED", 100, "완료"),
]


@asynccontextmanager
async def demo() -> AsyncIterator[Running]:
    """The demo shop without tokens."""
    async with running(open=True) as site:
        await make_demo(site.node)
        yield site


def steps(events: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    return [(event["eventType"], event["percentage"], event["stepName"]) for event in events]


async def heard(listener: Listener, until: str = "COMPLETED") -> list[tuple[str, dict[str, Any]]]:
    """Read progress up to an event of this type; return (name, data)."""
    found: list[tuple[str, dict[str, Any]]] = []
    while not found or found[-1][1]["eventType"] != until:
        item = await listener.next()
        if isinstance(item, Message) and item.event in ("progress", "recovery"):
            found.append((item.event, httpx.Response(200, content=item.data).json()))
    return found


class Jobs:
    """Somebody who works for user u1 and says how far it is."""

    def __init__(self, client: httpx.AsyncClient, user: str = "u1") -> None:
        self._client, self._user = client, user

    async def do(self, name: str, **fields: Any) -> dict[str, Any]:
        answer = await self._client.post(f"/v1/users/{self._user}/{name}", json=fields)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result

    async def start(self, task: str) -> None:
        await self.do("start-task", task=task, total_steps=4)

    async def advance(self, task: str, step: int) -> None:
        await self.do("advance-task", task=task, step=step, step_name=STEPS[step][2])


async def test_an_order_from_the_first_word_to_the_last() -> None:
    """What is heard live is what status, history and the user's list say afterwards."""
    async with demo() as site, site.client() as client:
        async with listening(client, f"{API}/subscribe?userId=user123") as listener:
            assert listener.headers["content-type"].startswith("text/event-stream")
            answer = await client.post(f"{API}/orders?userId=user123&{LAPTOP}")
            assert answer.status_code == 202
            task = answer.json()["taskId"]
            live = await heard(listener)
        assert steps([event for _, event in live]) == STEPS
        assert {name for name, _ in live} == {"progress"}
        assert all(set(event) == EVENT for _, event in live)
        assert b"event:progress\ndata:{" in listener.raw
        status = (await client.get(f"{API}/status/{task}")).json()
        assert set(status) == STATUS
        assert (status["status"], status["percentage"], status["eventCount"]) == ("COMPLETED", 100, 5)
        assert (status["currentStep"], status["totalSteps"], status["userId"]) == (4, 4, "user123")
        assert to_ms(status["startedAt"]) <= to_ms(status["updatedAt"])
        history = (await client.get(f"{API}/history/{task}")).json()
        assert history == [event for _, event in live]
        assert (await client.get(f"{API}/user/user123")).json() == history


async def test_status_is_known_at_once() -> None:
    """The answer to an order comes after its task has begun."""
    async with demo() as site, site.client() as client:
        for _ in range(10):
            task = (await client.post(f"{API}/orders?userId=u1&{LAPTOP}")).json()["taskId"]
            assert (await client.get(f"{API}/status/{task}")).status_code == 200
            assert steps((await client.get(f"{API}/history/{task}")).json())[0] == STEPS[0]


async def test_the_sixth_laptop_fails_with_a_reason() -> None:
    async with demo() as site, site.client() as client:
        ends = []
        for _ in range(6):
            async with listening(client, f"{API}/subscribe?userId=u1") as listener:
                answer = await client.post(f"{API}/orders?userId=u1&{LAPTOP}")
                task = answer.json()["taskId"]
                while not ends or ends[-1]["taskId"] != task or ends[-1]["percentage"] not in (100, 25):
                    ends.append(await listener.message("progress"))
                    if ends[-1]["eventType"] == "FAILED":
                        break
                    if ends[-1]["percentage"] == 25:
                        ends.append({"taskId": "", "percentage": 0})
        failed = (await client.get(f"{API}/status/{task}")).json()
        assert set(failed) == STATUS | {"reason"}
        assert (failed["status"], failed["percentage"]) == ("FAILED", 25)
        assert failed["stepName"] == failed["reason"] == "재고가 부족합니다: 노트북"


async def test_recovery_comes_first_and_nothing_twice() -> None:
    """A client learns where each task is, then each event once; what it has seen it is not told again."""
    async with demo() as site, site.client() as client:
        jobs = Jobs(client)
        for task in ("done", "half", "new"):
            await jobs.start(task)
        await jobs.do("complete-task", task="done")
        await jobs.advance("half", 1)
        await jobs.advance("half", 2)
        async with listening(client, f"{API}/subscribe?userId=u1") as listener:
            first = [await listener.message("recovery") for _ in range(3)]
            assert [(event["taskId"], event["percentage"]) for event in first] == [
                ("new", 0),
                ("done", 100),
                ("half", 50),
            ]
            await jobs.advance("half", 3)
            assert steps([await listener.message("progress")]) == [STEPS[3]]
        seen = {"last-event-id": first[1]["eventId"]}
        await jobs.do("fail-task", task="new", reason="품절")
        async with listening(client, f"{API}/subscribe?userId=u1", headers=seen) as listener:
            again = [await listener.message("recovery") for _ in range(2)]
            assert [(event["taskId"], event["eventType"]) for event in again] == [
                ("half", "PROGRESS"),
                ("new", "FAILED"),
            ]
            await jobs.do("complete-task", task="half")
            assert [name for name, _ in await heard(listener)] == ["progress"]
            ids = [line for line in listener.raw.splitlines() if line.startswith(b"id:")]
            assert len(ids) == len(set(ids)) == 3


@pytest.mark.first_node
async def test_an_end_is_recovered_though_the_clock_went_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a battery wakes up an hour ago: what came later still comes later."""
    settings = {"open": True, "data": str(tmp_path)}
    async with running(**settings) as site, site.client() as client:
        await Jobs(client).start("a")
        await Jobs(client).advance("a", 1)
        seen = {"last-event-id": (await client.get(f"{API}/history/a")).json()[-1]["eventId"]}
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - 3_600 * 10**9)
    async with running(**settings) as site, site.client() as client:
        await Jobs(client).start("b")
        await Jobs(client).do("complete-task", task="a")
        async with listening(client, f"{API}/subscribe?userId=u1", headers=seen) as listener:
            told = [await listener.message("recovery") for _ in range(2)]
        assert [(event["taskId"], event["percentage"]) for event in told] == [("b", 0), ("a", 100)]
        every = (await client.get(f"{API}/user/u1")).json()
        assert [(event["taskId"], event["percentage"]) for event in every] == [
            ("a", 0),
            ("a", 25),
            ("b", 0),
            ("a", 100),
        ]


async def test_events_under_way_while_it_opens_come_once() -> None:
    """Many clients open while a task moves: each sees it rise without a gap after its recovery."""
    async with running(open=True) as site, site.client() as client:
        jobs = Jobs(client)
        await jobs.do("start-task", task="a", total_steps=100)
        seen: list[list[int]] = []

        async def watch() -> None:
            async with listening(client, f"{API}/subscribe?userId=u1") as listener:
                seen.append([event["percentage"] for _, event in await heard(listener)])

        async with trio.open_nursery() as nursery:
            for step in range(1, 100):
                if step % 10 == 1:
                    nursery.start_soon(watch)
                await jobs.do("advance-task", task="a", step=step, step_name=f"{step}")
            await wait_until(
                lambda: sum(one.site.watchers["u1"] for one in site.serving) == 10 or len(seen) == 10
            )
            await jobs.do("complete-task", task="a")
        assert len(seen) == 10
        assert all(found == list(range(found[0], 101)) for found in seen)
        await wait_until(lambda: not site.site.watchers)


async def test_one_task_only() -> None:
    """Events of others, before and after, pass by; its own end is told also to who comes later."""
    async with running(open=True) as site, site.client() as client:
        jobs = Jobs(client)
        await jobs.start("a")
        await jobs.start("b")
        async with listening(client, f"{API}/subscribe/a?userId=u1") as listener:
            await jobs.advance("b", 1)
            await jobs.advance("a", 1)
            await jobs.do("complete-task", task="b")
            await jobs.do("complete-task", task="a")
            found = await heard(listener)
        assert [(name, event["taskId"], event["percentage"]) for name, event in found] == [
            ("recovery", "a", 0),
            ("progress", "a", 25),
            ("progress", "a", 100),
        ]
        async with listening(client, f"{API}/subscribe/a?userId=u1") as listener:
            assert (await listener.message("recovery"))["percentage"] == 100


async def test_a_stream_says_goodbye_and_comes_back_to_where_it_was() -> None:
    """Rotation ends it with `bye`; no unfinished task means nothing to recover."""
    async with running(open=True, rotate_s=0.05) as site, site.client() as client:
        jobs = Jobs(client)
        await jobs.start("a")
        async with listening(client, f"{API}/subscribe?userId=u1") as listener:
            names = [item.event for item in await listener.rest() if isinstance(item, Message)]
        assert names == ["recovery", "bye"]


async def test_who_may_read_and_order() -> None:
    """With tokens: the user's own, by header, address or cookie; nobody else's."""
    async with running() as site:
        await make_demo(site.node)
        async with site.client("service") as service:
            await Jobs(service).start("a")
        paths = ["subscribe?userId=u1", "subscribe/a?userId=u1", "status/a", "history/a", "user/u1"]
        async with site.client() as nobody, site.client("user:u2") as other, site.client("user:u1") as own:
            for path in paths:
                assert (await nobody.head(f"{API}/{path}")).status_code == 401
                assert (await other.head(f"{API}/{path}")).status_code == 403
                assert (await own.head(f"{API}/{path}")).status_code == 200
            order = f"{API}/orders?userId=u1&{LAPTOP}"
            assert (await nobody.post(order)).status_code == 401
            assert (await other.post(order)).status_code == 403
            assert (await own.post(order)).status_code == 202
            assert (await own.get(f"{API}/monitor")).status_code == 403
        async with site.client() as client:
            cookie = {"cookie": f"onda_token={own.headers['authorization'].split()[1]}"}
            assert (await client.post(order, headers=cookie)).status_code == 202
            foreign = cookie | {"origin": "https://elsewhere.example"}
            assert (await client.post(order, headers=foreign)).status_code == 403


async def test_no_guest_is_served_for_nothing() -> None:
    """Where guests pay afterwards the order would be settled at the till: services may ask for that."""
    async with running() as site, site.client("service") as service, site.client("user:u1") as guest:
        for store, mode in (("after", "postpay"), ("before", "prepay")):
            body = {"name": store, "payment_mode": mode}
            assert (await service.post(f"/v1/stores/{store}/configure-store", json=body)).status_code == 200
        order = f"{API}/orders?userId=u1&{LAPTOP}&storeId"
        refused = await guest.post(f"{order}=after", headers={"idempotency-key": "k"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await guest.get(f"{API}/user/u1")).json() == []
        for client, store in ((guest, "before"), (guest, "nowhere"), (service, "after")):
            assert (await client.post(f"{order}={store}")).status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "subscribe", 400, "malformed"),
        ("GET", "subscribe?userId=a%20b", 400, "malformed"),
        ("GET", "subscribe/a/b?userId=u1", 404, "not_found"),
        ("GET", "subscribe/a%20b?userId=u1", 400, "malformed"),
        ("GET", "status/none", 404, "unknown_task"),
        ("GET", "history/none", 404, "unknown_task"),
        ("GET", "status/%ED%95%9C", 404, "unknown_task"),
        ("GET", "nothing", 404, "not_found"),
        ("GET", "", 404, "not_found"),
        ("GET", "orders?userId=u1", 405, "method_not_allowed"),
        ("POST", "status/a", 405, "method_not_allowed"),
        ("POST", f"orders?{LAPTOP}", 400, "malformed"),
        ("POST", "orders?userId=u1&quantity=1", 400, "malformed"),
        ("POST", "orders?userId=u1&productName=a&quantity=0", 400, "malformed"),
        ("POST", "orders?userId=u1&productName=a&quantity=1000", 400, "malformed"),
        ("POST", "orders?userId=u1&productName=a&quantity=-1", 400, "malformed"),
        ("POST", "orders?userId=u1&productName=a&quantity=" + "9" * 5000, 400, "malformed"),
        ("POST", "orders?userId=u1&productName=a&storeId=a%2Fb", 400, "malformed"),
    ],
)
async def test_what_does_not_fit(method: str, path: str, status: int, code: str) -> None:
    async with running(open=True) as site, site.client() as client:
        answer = await client.request(method, f"{API}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_the_same_key_is_the_same_order() -> None:
    async with demo() as site, site.client() as client:
        key = {"idempotency-key": "k-1"}
        tasks = {
            (await client.post(f"{API}/orders?userId=u1&{LAPTOP}", headers=key)).json()["taskId"]
            for _ in range(3)
        }
        assert len(tasks) == 1
        async with listening(client, f"{API}/subscribe?userId=u1") as listener:
            await heard(listener)
        shop = (await client.get("/v1/stores/demo/sync")).json()["state"]
        assert list(shop["orders"]) == list(tasks)
        other = await client.post(f"{API}/orders?userId=u1&productName=a", headers=key)
        assert other.json()["code"] == "idempotency_mismatch"
        bad = await client.post(f"{API}/orders?userId=u1&{LAPTOP}", headers={"idempotency-key": "a" * 256})
        assert bad.status_code == 400


@pytest.mark.parametrize("cut", [5, 60, 75, 80, 10_000])
async def test_a_query_as_curl_sends_it(cut: int) -> None:
    """Raw UTF-8, in one piece or in two, on a connection that is used again; other bytes are refused."""
    async with demo() as site:
        target = f"{API}/orders?userId=u1&productName=노트북&quantity=1".encode()
        request = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" % target
        async with await site.connect() as stream:
            for _ in range(2):
                await stream.send_all(request[:cut])
                await trio.testing.wait_all_tasks_blocked(0.01)
                await stream.send_all(request[cut:])
                answer = b""
                while b"}" not in answer:
                    piece = await stream.receive_some()
                    assert piece, answer
                    answer += piece
                assert answer.startswith(b"HTTP/1.1 202"), answer
                assert "노트북".encode() in answer
            await stream.send_all(request.replace("노".encode(), b"\xff"))
            assert b"400" in await stream.receive_some()


async def test_the_monitor_counts() -> None:
    async with demo() as site, site.first.client() as client:
        await Jobs(client).start("a")
        await site.node.tasks.user_of("a")
        async with listening(client, f"{API}/subscribe?userId=u1") as one:
            await one.message("recovery")
            async with listening(client, f"{API}/subscribe?userId=u1") as two:
                await two.message("recovery")
                monitor = (await client.get(f"{API}/monitor")).json()
        assert (monitor["status"], monitor["activeConnections"], monitor["connectedUsers"]) == ("UP", 2, 1)
        assert (monitor["tasks"], monitor["topic"]) == (1, "order-events-v2")
        assert monitor["consumer"]["reaction"] == "progress"
