"""Several feeds on one connection, under a composite cursor."""

from __future__ import annotations

import pytest

from tests.web.site import Running, listening, order, running, set_up
from tests.web.test_commands import check_problem
from tests.web.test_stream import check_bye
from web.sse import Message, Moved

FEEDS = "/v1/stream?feed=stores/s1&feed=tables/s1/3&feed=users/u1"


async def test_snapshots_then_events_of_all(shop: Running) -> None:
    """Snapshots name their feed and carry no id; an id-only block then sets the composite cursor."""
    async with shop.client("service") as client, listening(client, FEEDS) as stream:
        snapshots = [await stream.message("snapshot") for _ in range(3)]
        assert {snapshot["feed"] for snapshot in snapshots} == {"store:s1", "table:s1/3", "user:u1"}
        head = stream.raw.partition(b"data:")[0]
        assert head == b"event: snapshot\n"
        moved = await stream.next()
        assert isinstance(moved, Moved)
        await order(client, user="u1")
        seen = [await stream.message() for _ in range(3)]
        assert {event["stream"] for event in seen} == {"store:s1", "user:u1"}


@pytest.mark.parametrize("how", ["header", "query", "reordered", "one each"])
async def test_going_on_from_a_cursor_misses_nothing(shop: Running, how: str) -> None:
    """The composite cursor works in header and query, whatever the order of feeds; so do single ones."""
    async with shop.client("service") as client:
        async with listening(client, FEEDS) as stream:
            while not isinstance(moved := await stream.next(), Moved):
                pass
        cursors = [
            (await client.get(f"/v1/{feed}/sync")).json()["cursor"]
            for feed in ("stores/s1", "tables/s1/3", "users/u1")
        ]
        first = await order(client, table="3")
        path, headers = FEEDS, {}
        if how == "header":
            headers = {"last-event-id": moved.id}
        elif how == "query":
            path += f"&after={moved.id}"
        elif how == "reordered":
            path = f"/v1/stream?feed=users/u1&feed=tables/s1/3&feed=stores/s1&after={moved.id}"
        else:
            path += "".join(f"&after={cursor}" for cursor in cursors)
        async with listening(client, path, headers=headers) as stream:
            assert await stream.next() == Moved(moved.id)
            events = []
            while len(events) < 2:
                events += [event for event in [await stream.message()] if event["stream"] == "store:s1"]
    assert events == first["events"]


async def test_ids_move_with_every_event(shop: Running) -> None:
    """Whoever breaks off after any event and goes on from its id gets all that follow, and none twice."""
    async with shop.client("service") as client:
        path = "/v1/stream?feed=stores/s1&feed=users/u1"
        async with listening(client, path) as stream:
            while not isinstance(moved := await stream.next(), Moved):
                pass
        for _ in range(3):
            await order(client)
        whole: list[Message] = []
        async with listening(client, path, headers={"last-event-id": moved.id}) as stream:
            while len(whole) < 6:
                item = await stream.next()
                whole += [item] if isinstance(item, Message) else []
        for number, broken in enumerate(whole[:-1]):
            async with listening(client, path, headers={"last-event-id": broken.id}) as stream:
                assert await stream.next() == Moved(broken.id)
                assert await stream.next() == whole[number + 1]


async def test_one_bad_cursor_resets_only_its_feed(shop: Running) -> None:
    """The others go on; nothing is given twice to them."""
    async with shop.client("service") as client:
        good = (await client.get("/v1/stores/s1/sync")).json()["cursor"]
        path = f"/v1/stream?feed=stores/s1&feed=users/u1&after={good}&after=other-1"
        async with listening(client, path) as stream:
            reset = await stream.message("reset")
            assert (reset["feed"], reset["reason"]) == ("user:u1", "epoch")
            assert isinstance(await stream.next(), Moved)


async def test_types_leaves_others_out(shop: Running) -> None:
    """As on one feed: the cursor moves past what is left out."""
    async with (
        shop.client("service") as client,
        listening(client, "/v1/stream?feed=stores/s1&feed=users/u1&types=OrderPlaced") as stream,
    ):
        while not isinstance(before := await stream.next(), Moved):
            pass
        await order(client)
        assert (await stream.message())["type"] == "OrderPlaced"
        await client.post("/v1/stores/s1/accept-order", json={"order": "o1"})
        moved = await stream.next()
        assert isinstance(moved, Moved)
        assert moved != before


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "malformed"),
        ("feed=stores/s1&feed=stores/s1", 400, "malformed"),
        ("feed=kitchens/s1", 400, "malformed"),
        ("feed=stores", 400, "malformed"),
        ("feed=stores/s1/3", 400, "malformed"),
        ("feed=stores/s1&after=x", 400, "malformed"),
        ("feed=stores/s1&feed=users/u1&after=memory-1", 400, "malformed"),
        ("feed=stores/s1&feed=users/u1&after=0123456789ab~memory-1~2", 400, "malformed"),
        ("&".join(f"feed=users/u{number}" for number in range(33)), 400, "malformed"),
        ("feed=stores/s1&feed=stores/nowhere", 404, "unknown_store"),
    ],
)
async def test_a_bad_list_of_feeds_is_refused(shop: Running, query: str, status: int, code: str) -> None:
    """None, too many, one twice, one that does not exist, or a cursor of others."""
    async with shop.client("service") as client:
        check_problem(await client.get(f"/v1/stream?{query}"), status, code)
    assert shop.node.statistics()["subscribers"] == 0


async def test_one_feed_that_is_not_allowed_refuses_all(shop: Running) -> None:
    """Nothing is opened for those who may not see all of it."""
    async with shop.client("table:s1/3") as client:
        check_problem(await client.get(FEEDS), 403, "forbidden")
        async with listening(client, "/v1/stream?feed=tables/s1/3") as stream:
            assert (await stream.message("snapshot"))["feed"] == "table:s1/3"


async def test_it_pings_rotates_and_lets_go() -> None:
    """As a stream of one feed does."""
    async with running(ping_s=0.05, rotate_s=0.3) as site, site.client("service") as client:
        await set_up(client)
        async with listening(client, "/v1/stream?feed=stores/s1&feed=users/u1") as stream:
            assert "~" in (await stream.message("ping"))["cursor"]
            check_bye(await stream.rest(), "rotate")
        assert site.node.statistics()["subscribers"] == 0


async def test_32_feeds_fit(shop: Running) -> None:
    """The bound itself is still good, and HEAD works."""
    path = "/v1/stream?" + "&".join(f"feed=users/u{number}" for number in range(32))
    async with shop.client("service") as client:
        assert (await client.head(path)).status_code == 200
        async with listening(client, path) as stream:
            while not isinstance(moved := await stream.next(), Moved):
                pass
            assert len(moved.id) < 256
