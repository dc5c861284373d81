"""Event streams over real sockets: where they start, what comes, and how they end."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
import trio

from engine.clock import SystemClock
from tests.web.site import (
    SECRET,
    Listener,
    Running,
    listening,
    order,
    running,
    set_up,
    token,
    wait_until,
)
from tests.web.test_commands import check_problem
from web.revoked import add_revoked
from web.sse import Message, Moved, Retry
from web.tokens import make_token, read_token

STREAM = "/v1/stores/s1/stream"
SYNC = "/v1/stores/s1/sync"
REVOKED_S = 1.0
"""Until a node has read it in its folder; and as long again until the others have heard of it."""


async def cursor_of(client: httpx.AsyncClient) -> str:
    """Where the shop's feed stands."""
    return str((await client.get(SYNC)).json()["cursor"])


async def test_the_headers_are_those_of_an_event_stream(shop: Running) -> None:
    """Nothing on the way may keep, change or hold back the stream; it has no length."""
    async with shop.client("owner:s1") as client, listening(client, STREAM) as stream:
        headers = stream.headers
        assert stream.status == 200
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert "content-length" not in headers
        assert "content-encoding" not in headers


async def test_head_has_the_headers_and_opens_nothing(shop: Running) -> None:
    """HEAD ends at once."""
    async with shop.client("owner:s1") as client:
        answer = await client.head(STREAM)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert shop.node.statistics()["subscribers"] == 0


async def test_without_a_cursor_it_starts_with_a_snapshot(shop: Running) -> None:
    """Then come live envelopes, each with its cursor as the id, without an event field."""
    async with shop.client("owner:s1") as client, listening(client, STREAM) as stream:
        first = await stream.next()
        snapshot = (await client.get(SYNC)).json()
        assert isinstance(first, Message)
        assert (first.event, first.id) == ("snapshot", snapshot["cursor"])
        assert stream.raw.startswith(b"event: snapshot\nid: ")
        done = await order(client)
        assert [await stream.message() for _ in range(2)] == done["events"]
    body = stream.raw[stream.raw.index(b"\n\n") + 2 :]
    blocks = re.findall(rb"id: ([^\n]+)\ndata: [^\n]+\n\n", body)
    assert blocks == [event["cursor"].encode() for event in done["events"]]
    assert b"event:" not in body


@pytest.mark.parametrize("how", ["header", "query", "both"])
async def test_a_good_cursor_is_primed_and_what_was_missed_follows(shop: Running, how: str) -> None:
    """An id-only block first, then each missed envelope; the header counts before the query."""
    async with shop.client("owner:s1") as client:
        start = await cursor_of(client)
        missed = await order(client)
        newer = await cursor_of(client)
        options = {
            "header": {"headers": {"last-event-id": start}},
            "query": {"params": {"after": start}},
            "both": {"headers": {"last-event-id": start}, "params": {"after": newer}},
        }[how]
        async with listening(client, STREAM, **options) as stream:
            assert await stream.next() == Moved(start)
            assert stream.raw.startswith(f"id: {start}\n\n".encode())
            assert [await stream.message() for _ in range(2)] == missed["events"]
            live = await order(client)
            assert [await stream.message() for _ in range(2)] == live["events"]


async def test_an_empty_last_event_id_is_none(shop: Running) -> None:
    """A client that has seen nothing starts with a snapshot."""
    async with (
        shop.client("owner:s1") as client,
        listening(client, STREAM, headers={"last-event-id": ""}) as stream,
    ):
        assert (await stream.next()).event == "snapshot"  # type: ignore[union-attr]


@pytest.mark.parametrize(("cursor", "reason"), [("9999", "ahead"), ("other-3", "epoch")])
async def test_a_cursor_that_cannot_be_used_starts_with_a_reset(
    shop: Running, cursor: str, reason: str
) -> None:
    """It has all that a snapshot has, and why."""
    async with shop.client("owner:s1") as client:
        epoch = (await cursor_of(client)).partition("-")[0]
        after = cursor if "-" in cursor else f"{epoch}-{cursor}"
        async with listening(client, STREAM, params={"after": after}) as stream:
            reset = await stream.message("reset")
            assert reset["reason"] == reason
            assert reset["cursor"] == await cursor_of(client)
            assert reset["state"] == (await client.get(SYNC)).json()["state"]


async def test_what_is_no_cursor_is_400(shop: Running) -> None:
    """In the header as in the query."""
    async with shop.client("owner:s1") as client:
        check_problem(await client.get(STREAM, params={"after": "x"}), 400, "malformed")
        check_problem(await client.get(STREAM, headers={"last-event-id": "x"}), 400, "malformed")
        check_problem(await client.get(STREAM, params={"types": "a b"}), 400, "malformed")


async def test_types_keeps_only_those_and_moves_the_cursor_past_others(shop: Running) -> None:
    """What is left out still moves the cursor, so that a client that comes back does not get it again."""
    async with (
        shop.client("owner:s1") as client,
        listening(client, STREAM, params={"types": "OrderPlaced,OrderReady"}) as stream,
    ):
        await stream.message("snapshot")
        done = await order(client)
        assert (await stream.message())["type"] == "OrderPlaced"
        accepted = (await client.post("/v1/stores/s1/accept-order", json={"order": "o1"})).json()
        moved = await stream.next()
        while moved != Moved(accepted["cursor"]):
            assert isinstance(moved, Moved)
            moved = await stream.next()
        assert done["events"][0]["type"] == "OrderCreated"


async def test_each_frame_is_encoded_once_for_all(shop: Running) -> None:
    """Every subscriber gets the very same bytes."""
    shop = shop.first
    async with shop.client("owner:s1") as client, trio.open_nursery() as nursery:
        start = await cursor_of(client)
        streams: list[Listener] = []
        done = trio.Event()

        async def follow() -> None:
            async with listening(client, STREAM, params={"after": start}) as stream:
                streams.append(stream)
                await stream.message()
                await stream.message()
                await done.wait()

        for _ in range(3):
            nursery.start_soon(follow)
        await wait_until(lambda: len(streams) == 3)
        await order(client)
        subscription = await shop.node.subscribe("store:s1", after=None)
        feed = shop.node.feeds["store:s1"]
        await wait_until(lambda: all(len(stream.raw) > 200 for stream in streams))
        frames = feed.after(subscription.version - 2, 10)
        assert all(frame.wire and frame.wire in stream.raw for frame in frames for stream in streams)
        subscription.close()
        done.set()


async def test_pings_come_with_time_node_and_cursor() -> None:
    """As an event that a browser can see."""
    async with running(ping_s=0.05) as site, site.first.client("service") as client:
        await set_up(client)
        async with listening(client, STREAM) as stream:
            start = await cursor_of(client)
            for _ in range(2):
                ping = await stream.message("ping")
                assert list(ping) == ["time", "node", "cursor"]
                assert (ping["node"], ping["cursor"]) == (site.node.node_id, start)
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ping["time"])
            cursor = (await order(client))["cursor"]
            while (await stream.message("ping"))["cursor"] != cursor:
                pass


def check_bye(items: list[Message | Moved | Retry], reason: str) -> None:
    """The last thing is a bye with its retry, and nothing comes behind it."""
    *_, retry, bye = items
    assert isinstance(retry, Retry)
    assert isinstance(bye, Message)
    assert bye.event == "bye"
    assert bye.data == f'{{"reason":"{reason}","retry_ms":{retry.ms}}}'


async def test_a_stream_rotates_with_a_bye() -> None:
    """After its time it ends by itself, and the connection can be used again."""
    async with running(rotate_s=0.2) as site, site.client("service") as client:
        await set_up(client)
        async with listening(client, STREAM) as stream:
            check_bye(await stream.rest(), "rotate")
            request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
            await stream.stream.send_all(request)
            assert (await stream.stream.receive_some(65_536)).startswith(b"HTTP/1.1 200")
        assert site.site.ends == {"rotate": 1}
        assert site.node.statistics()["subscribers"] == 0


async def test_a_stream_ends_with_its_token() -> None:
    """Within a second of its end there is a bye."""
    async with running() as site:
        async with site.client("service") as client:
            await set_up(client)
        headers = {"authorization": f"Bearer {token('owner:s1', ttl_s=1.5)}"}
        async with site.client() as client, listening(client, STREAM, headers=headers) as stream:
            with trio.fail_after(3):
                check_bye(await stream.rest(), "unauthorized")


async def test_a_stream_ends_when_its_token_is_revoked(tmp_path: Path) -> None:
    """Within a second of `onda token --revoke`, of several nodes at each; other tokens go on."""
    clock = SystemClock()
    mine, other = (
        make_token(SECRET, role="owner", sub="kim", store="s1", ttl_s=600, now_ms=clock.now_ms())
        for _ in "ab"
    )
    async with running(data=str(tmp_path)) as run, run.client("service") as client, run.client() as bare:
        await set_up(client)
        async with (
            listening(bare, STREAM, params={"token": mine}) as stream,
            listening(bare, STREAM, params={"token": mine}) as again,
            listening(bare, STREAM, params={"token": other}) as going_on,
        ):
            await stream.message("snapshot")
            who = read_token(mine, SECRET)
            assert who.expires_ms is not None
            add_revoked(tmp_path / "revoked", who.token_id, who.expires_ms, clock.now_ms())
            with trio.fail_after(REVOKED_S * len(run.serving)):
                check_bye(await stream.rest(), "unauthorized")
                check_bye(await again.rest(), "unauthorized")
            for _ in run.serving:
                check_problem(await bare.get(STREAM, params={"token": mine}), 401, "unauthorized")
            await order(client)
            assert (await going_on.message())["type"] == "OrderCreated"


@pytest.mark.first_node
async def test_a_stopping_node_says_bye() -> None:
    """Streams end with `shutdown` after everything that was durable."""
    async with running() as site, site.client("service") as client:
        await set_up(client)
        async with listening(client, STREAM) as stream, trio.open_nursery() as nursery:
            await stream.message("snapshot")
            done = await order(client)
            nursery.start_soon(site.server.stop)
            items = await stream.rest()
            check_bye(items, "shutdown")
            assert [item.id for item in items if isinstance(item, Message) and item.event == "message"] == [
                event["cursor"] for event in done["events"]
            ]


async def test_a_stream_while_stopping_is_503(shop: Running) -> None:
    """Who comes now is told to come back."""
    await shop.node.stop()
    async with shop.first.client("owner:s1") as client:
        answer = await client.get(STREAM)
        check_problem(answer, 503, "log_unavailable")
        check_problem(await client.post("/v1/stores/s1/close-store"), 503, "log_unavailable")
    assert answer.headers["retry-after"]


async def test_a_client_that_leaves_lets_go_of_its_subscription(shop: Running) -> None:
    """The server notices, also while nothing is being sent."""
    async with shop.first.client("owner:s1") as client:
        async with listening(client, STREAM) as stream:
            await stream.message("snapshot")
            assert shop.node.statistics()["subscribers"] == 1
        await wait_until(lambda: not shop.node.statistics()["subscribers"] and not shop.site.streams["sse"])


async def test_a_stream_that_falls_behind_is_told_so() -> None:
    """When the ring has moved past it the stream ends with `lagging`, and the cursor then gets a reset."""
    async with running(ring_frames_max=1) as site, site.client("service") as client:
        await set_up(client)
        async with listening(client, STREAM) as stream:
            await stream.message("snapshot")
            before = await cursor_of(client)
            await order(client)  # two events at once, of which the ring keeps one
            check_bye(await stream.rest(), "lagging")
        async with listening(client, STREAM, headers={"last-event-id": before}) as again:
            assert (await again.message("reset"))["reason"] == "expired"
