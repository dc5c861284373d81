"""Looking back over HTTP: who may, in pages, by time and type; and what is said when there is no history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from engine.history.database import Database
from tests.history.evening import settled
from tests.web.site import Running, order, running, set_up


@asynccontextmanager
async def shop(tmp_path: Path) -> AsyncIterator[Running]:
    """A server with a history, a table, and orders of it, of a user and of the staff."""
    async with running(data=str(tmp_path), reserve_bytes=0, segment_bytes=1 << 20) as server:
        async with server.client("service") as client:
            await set_up(client, tables=("3",))
            for number in range(5):
                await order(client, order=f"o-{number}", user="u1", table="3")
        await settled(server.node)
        yield server


async def test_a_stream_is_read_in_pages_as_it_was_written(tmp_path: Path) -> None:
    """Page after page gives every envelope once, the bytes that the stream had."""
    async with shop(tmp_path) as server, server.client("owner:s1") as client:
        synced = (await client.get("/v1/stores/s1/sync")).json()["cursor"]
        seen, after = [], 0
        while after is not None:
            answer = await client.get("/v1/history/store:s1", params={"limit": 3, "after": after})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            assert page["stream"] == "store:s1"
            assert page["lag"] == 0
            assert len(page["events"]) <= 3
            seen += page["events"]
            after = page["next"]
        assert [event["version"] for event in seen] == list(range(1, len(seen) + 1))
        assert seen[-1]["cursor"] == synced
        whole = (await client.get("/v1/history/stores/s1")).json()
        assert whole["events"] == seen
        assert whole["next"] is None
        created = (await client.get("/v1/history/store:s1?type=OrderCreated")).json()["events"]
        assert [event["data"]["order"] for event in created] == [f"o-{number}" for number in range(5)]
        low, high = created[1]["time"], created[3]["time"]
        between = {event["id"] for event in seen if low <= event["time"] < high}
        span = (await client.get("/v1/history/store:s1", params={"from": low, "to": high})).json()["events"]
        assert {event["id"] for event in span} == between


async def test_a_page_is_not_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large envelopes make short pages, but none is empty before the end."""
    monkeypatch.setattr("engine.history.reading.BYTES_MAX", 10)
    async with shop(tmp_path) as server, server.client("service") as client:
        page = (await client.get("/v1/history/store:s1")).json()
        assert (len(page["events"]), page["next"]) == (1, 1)


async def test_streams_are_named_in_several_ways(tmp_path: Path) -> None:
    """As in envelopes, with the slash escaped or not, and as in paths."""
    async with shop(tmp_path) as server, server.client("service") as client:
        for name in (quote("table:s1/3", safe=""), "table:s1/3", "tables/s1/3", "users/u1", "user:u1"):
            answer = await client.get(f"/v1/history/{name}")
            assert answer.status_code == 200, answer.text
            assert answer.json()["events"], name
        for name in ("", "store", "store:", "store:s1/2", "table:s1", "thing:s1", "store:%00", "a/b/c/d"):
            assert (await client.get(f"/v1/history/{name}")).status_code == 404, name
        assert (await client.post("/v1/history/store:s1")).status_code == 405


@pytest.mark.parametrize(
    ("who", "stream", "status"),
    [
        ("service", "user:u1", 200),
        ("staff:s1", "store:s1", 200),
        ("staff:s1", "table:s1/3", 200),
        ("owner:s2", "store:s1", 403),
        ("owner:s1", "user:u1", 403),
        ("user:u1", "user:u1", 200),
        ("user:u1", "user:u2", 403),
        ("user:u1", "store:s1", 403),
        ("table:s1/3", "table:s1/3", 403),
        (None, "store:s1", 401),
    ],
)
async def test_who_may_look_back(tmp_path: Path, who: str | None, stream: str, status: int) -> None:
    """Shops at what is theirs, users at their own; a table's device would see the parties before."""
    async with shop(tmp_path) as server, server.client(who) as client:
        assert (await client.get(f"/v1/history/{stream}")).status_code == status


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "to=2026-11-20",
        "to=2026-W47-5T00:00:00Z",
        "limit=0",
        "limit=1001",
        "limit=x",
        "after=-1",
        "type=a,b",
        "type=",
    ],
)
async def test_bad_questions_are_told_what_is_wrong(tmp_path: Path, query: str) -> None:
    """400, with the name of the field."""
    async with shop(tmp_path) as server, server.client("service") as client:
        answer = await client.get(f"/v1/history/store:s1?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
        assert f"`{query.partition('=')[0]}`" in answer.json()["detail"]


async def test_without_a_history_it_says_so() -> None:
    """404 with a code of its own; also for the report."""
    async with running() as server, server.client("service") as client:
        await set_up(client)
        for path in ("history/store:s1", "stores/s1/report"):
            answer = await client.get(f"/v1/{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "history_off")


async def test_a_database_that_fails_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again later; the reason is in the log, not in the answer."""

    def gone(_: Database) -> None:
        raise OSError("a password")

    async with shop(tmp_path) as server, server.client("service") as client:
        monkeypatch.setattr(Database, "connect", gone)
        answer = await client.get("/v1/history/store:s1")
        assert (answer.status_code, answer.json()["code"]) == (503, "history_unavailable")
        assert answer.headers["retry-after"]
        assert "password" not in answer.text


async def test_the_report_is_for_the_owner(tmp_path: Path) -> None:
    """Of a day of the shop's; today when none is named."""
    async with shop(tmp_path) as server:
        for who, status in (("owner:s1", 200), ("service", 200), ("staff:s1", 403), ("owner:s2", 403)):
            async with server.client(who) as client:
                assert (await client.get("/v1/stores/s1/report")).status_code == status
        async with server.client("owner:s1") as client:
            today = (await client.get("/v1/stores/s1/report")).json()
            assert today["orders"]["placed"] == 5
            assert len(today["open_orders"]) == 5
            assert [table["table"] for table in today["open_tables"]] == ["3"]
            assert today["lag"] == 0
            same = (await client.get("/v1/stores/s1/report", params={"day": today["day"]})).json()
            assert same == today
            empty = (await client.get("/v1/stores/s1/report?day=2020-01-01")).json()
            assert empty["orders"]["placed"] == 0
            assert empty["open_orders"] == []
            for day in ("today", "2026-02-30", ""):
                answer = await client.get(f"/v1/stores/s1/report?day={day}")
                assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
        async with server.client("service") as client:
            assert (await client.get("/v1/stores/nobody/report")).status_code == 404


async def test_asking_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that hangs is given up, and the node ends all the same."""
    monkeypatch.setattr("engine.history.keeper.QUERY_S", 0.05)
    async with shop(tmp_path) as server, server.client("service") as client:
        assert server.node.history is not None
        async with server.node.history._thread:  # somebody else's turn, for too long
            answer = await client.get("/v1/history/store:s1")
        assert answer.status_code == 503
