"""Events of any type for one user over SSE, and who is connected."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine import Cursor
from engine.commands import Notify, SendEvent
from tests.web.site import Running, listening, running, wait_until
from web.sse import Message

SNAPSHOTS = "snapshots.generated"


async def send(site: Running, number: int, type_: str = SNAPSHOTS, user: str = "123") -> None:
    """Send a user a small event."""
    await site.node.ask(f"user:{user}", SendEvent(type_, {"n": number}))


async def test_plain_curl_on_an_open_server() -> None:
    """`curl -N /events/sse`: data without a name, `eventType` beside the data's own fields."""
    async with running(open=True) as site, site.first.client() as http:
        for path in ("/events/sse", "/api/events/sse"):
            async with listening(http, path) as events:
                assert events.status == 200
                await send(site, 1)
                data = await events.message()
                assert data == {
                    "eventType": SNAPSHOTS,
                    "n": 1,
                    "timestamp": data["timestamp"],
                    "serverId": "onda-1",
                }


async def test_pings_are_data() -> None:
    """`{"type":"ping","serverId","timestamp"}` with ms, without an event name."""
    async with running(open=True, ping_s=0.02) as site, site.first.client() as http:
        async with listening(http, "/events/sse") as events:
            for _ in range(2):
                ping = await events.message()
                assert ping == {"type": "ping", "serverId": "onda-1", "timestamp": ping["timestamp"]}
                assert abs(ping["timestamp"] - site.node.clock.now_ms()) < 60_000


async def test_types_are_filtered_on_the_server() -> None:
    """Only what was asked for goes out; other events of the user never do."""
    async with running(open=True) as site, site.client() as http:
        async with listening(http, "/events/sse?types=a.b,c") as events:
            await site.node.ask("user:123", Notify("안녕"))
            await send(site, 1)
            await send(site, 2, "c")
            await send(site, 3, "other")
            await send(site, 4, "a.b")
            assert [(await events.message())["n"] for _ in range(2)] == [2, 4]


async def test_data_cannot_pass_for_another_type() -> None:
    """Who asked for some types gets no other, whatever a publisher writes into the data."""
    async with running(open=True) as site, site.client() as http:
        async with listening(http, "/events/sse?types=a.b") as events:
            await site.node.ask("user:123", SendEvent("a.b", {"eventType": "account.closed", "n": 1}))
            told = await events.message()
            assert (told["eventType"], told["n"]) == ("a.b", 1)


async def test_each_user_has_their_own() -> None:
    """Nobody sees what is another's."""
    async with running(open=True) as site, site.client() as http:
        async with listening(http, "/events/sse?userId=u1") as events:
            await send(site, 1, user="u2")
            await send(site, 2, user="u1")
            assert (await events.message())["n"] == 2


async def test_who_comes_back_has_missed_nothing() -> None:
    """Last-Event-ID goes on after the last event, out of the feed."""
    async with running(open=True) as site, site.client() as http:
        async with listening(http, "/events/sse") as events:
            await send(site, 1)
            item = await events.next()
            while not isinstance(item, Message):
                item = await events.next()
        await send(site, 2)
        await send(site, 3)
        async with listening(http, "/events/sse", headers={"last-event-id": item.id}) as events:
            await send(site, 4)
            assert [(await events.message())["n"] for _ in range(3)] == [2, 3, 4]


@pytest.mark.one_node("nodes of the tests have no history; of several: tests/history/test_shared.py")
async def test_who_comes_back_late_gets_the_rest_from_the_history(tmp_path) -> None:
    """What has left the feed is in the history: each once, in order, then what comes."""
    async with running(open=True, ring_frames_max=2, data=str(tmp_path)) as site, site.client() as http:
        for number in range(1, 9):
            await send(site, number)
        await wait_until(lambda: site.node.history.lag == 0)
        start = str(Cursor(site.node.epoch, 2))
        async with listening(http, "/events/sse", headers={"last-event-id": start}) as events:
            await send(site, 9)
            assert [(await events.message())["n"] for _ in range(7)] == [3, 4, 5, 6, 7, 8, 9]


async def test_what_nobody_has_any_more_is_said() -> None:
    """Without a history, a cursor that is too old is answered with a `reset`."""
    async with running(open=True, ring_frames_max=2) as site, site.client() as http:
        for number in range(1, 9):
            await send(site, number)
        start = str(Cursor(site.node.epoch, 2))
        async with listening(http, "/events/sse", headers={"last-event-id": start}) as events:
            assert await events.message("reset") == {"reason": "expired"}
            await send(site, 9)
            assert (await events.message())["n"] == 9


async def test_a_token_says_whose_events_they_are() -> None:
    """A user id in the query is no key: the token must be for that user."""
    async with running() as site:
        async with site.client() as http:
            assert (await http.get("/events/sse?userId=123")).status_code == 401
            assert (await http.get("/events/status")).status_code == 401
        async with site.client("user:u1") as http:
            assert (await http.get("/events/sse?userId=u2")).status_code == 403
            assert (await http.get("/events/status")).status_code == 403
            async with listening(http, "/events/sse") as events:
                await send(site, 1, user="u1")
                assert (await events.message())["n"] == 1
        async with site.client("service") as http:
            assert (await http.get("/events/sse")).status_code == 400
            async with listening(http, "/events/sse?userId=u2") as events:
                assert events.status == 200


async def test_what_does_not_fit_is_refused() -> None:
    """Bad ids, types, cursors and methods have their answers."""
    async with running(open=True) as site, site.client() as http:
        for query in ("userId=a/b", "types=a%20b", "types=", "userId="):
            answer = await http.get(f"/events/sse?{query}")
            assert answer.status_code == 400, query
        assert (await http.get("/events/sse", headers={"last-event-id": "x"})).status_code == 400
        assert (await http.post("/events/sse")).status_code == 405
        assert (await http.get("/events/other")).status_code == 404


async def test_status_says_who_is_connected() -> None:
    """Users with open streams, how many streams, which server, and whether Redis is there."""
    async with running(open=True) as site, site.first.client() as http:

        async def status() -> dict[str, object]:
            return msgspec.json.decode((await http.get("/events/status")).content)

        async with listening(http, "/events/sse"), listening(http, "/events/sse"):
            async with listening(http, "/events/sse?userId=u2"):
                assert await status() == {
                    "connectedUsers": ["123", "u2"],
                    "activeStreams": 3,
                    "serverId": "onda-1",
                    "redisConnected": False,
                }
        await wait_until(lambda: not site.site.listeners)
        assert (await status())["connectedUsers"] == []


async def test_such_a_stream_stays_open() -> None:
    """It does not rotate, as plain curl does not come back."""
    async with running(open=True, rotate_s=0.01, ping_s=0.02) as site, site.client() as http:
        async with listening(http, "/events/sse") as events:
            for _ in range(5):
                assert (await events.message())["type"] == "ping"


async def test_programs_send_events_over_http() -> None:
    """`send-event` is a command like others: with a key it happens once."""
    async with running() as site, site.client("service") as http, site.client("user:u1") as own:
        async with listening(own, "/events/sse") as events:
            body = {"event_type": "account.updated", "data": {"accountId": 1}}
            for _ in range(2):
                answer = await http.post(
                    "/v1/users/u1/send-event", json=body, headers={"idempotency-key": "k1"}
                )
                assert answer.status_code == 200
            await send(site, 2, user="u1")
            assert (await events.message())["accountId"] == 1
            assert (await events.message())["n"] == 2
        assert (await own.post("/v1/users/u1/send-event", json=body)).status_code == 403


async def test_no_event_keeps_the_server_from_starting(tmp_path: Path) -> None:
    """What is nested so deeply that only some readers could take it is refused before it is written."""
    codes = set()
    async with running(open=True, data=str(tmp_path)) as site, site.client() as http:
        for depth in range(40, 1000, 20):
            body = b'{"event_type":"deep","data":{"a":%s%s}}' % (b"[" * depth, b"]" * depth)
            answer = await http.post(
                "/v1/users/u1/send-event", content=body, headers={"content-type": "application/json"}
            )
            codes.add((depth > 60, answer.status_code))
    assert codes == {(False, 200), (True, 400)}
    async with running(open=True, data=str(tmp_path)) as site:
        assert (await site.node.read("user:u1")).version == 2
