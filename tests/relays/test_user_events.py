"""Users' events shared over a real Redis: in, out, and through its absences."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from engine.commands import SendEvent
from engine.errors import ConfigError
from engine.relays import redis as door
from engine.relays import user_events
from tests.relays.redis_server import RedisServer, find_server, redis_server, subscribed
from tests.web.site import Running, listening, running, wait_until

pytestmark = pytest.mark.skipif(find_server() is None, reason="no redis-server")


@pytest.fixture(autouse=True)
def _settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other node has to come back."""
    monkeypatch.setattr(user_events, "SETTLE_S", 0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def with_redis(server: RedisServer, **more):
    """A site on that Redis which tries again soon."""
    return running(
        **{"open": True, "redis_url": server.url, "reaction_backoff_ms": 20, "reaction_backoff_ms_max": 100}
        | more
    )


def received(site: Running, outcome: str) -> float:
    """How many messages came in with this outcome."""
    name, labels = "onda_redis_received_total", {"outcome": outcome}
    return site.node.metrics.registry.get_sample_value(name, labels) or 0.0


def message(number: int, user: object = "123", **more):
    """A message as others write it."""
    data = {"timestamp": "2025-08-26T03:44:57.420Z", "serverId": "backend-9", "n": number}
    return {"userId": user, "eventType": "test.event", "data": data, **more}


async def connected(site: Running) -> None:
    await wait_until(lambda: site.node.redis_up())


async def test_a_publish_from_outside_reaches_the_user(server: RedisServer) -> None:
    """What `redis-cli PUBLISH` sends comes out as it is, `eventType` first."""
    async with with_redis(server) as site, site.client() as http:
        await connected(site)
        assert (await http.get("/events/status")).json()["redisConnected"] is True
        async with listening(http, "/events/sse") as events:
            payload = msgspec.json.encode(message(1)).decode()
            command = ["redis-cli", "-p", str(server.port), "PUBLISH", "user-events", payload]
            if shutil.which("redis-cli"):
                done = await trio.run_process(command, capture_stdout=True)
                assert done.stdout == b"1\n"
            else:
                assert await server.publish(payload.encode()) == 1
            told = await events.message()
            assert list(told.items()) == [
                ("eventType", "test.event"),
                ("timestamp", "2025-08-26T03:44:57.420Z"),
                ("serverId", "backend-9"),
                ("n", 1),
            ]


async def test_a_plain_subscriber_sees_ours_and_we_do_not_see_them_twice(server: RedisServer) -> None:
    """The format is that of the channel, with an id; our own message comes back to us as nothing."""
    async with with_redis(server, node_id="backend-2") as site, site.client() as http:
        await connected(site)
        async with subscribed(server) as plain, listening(http, "/events/sse") as events:
            await site.node.ask("user:123", SendEvent("account.updated", {"accountId": 7}))
            seen = await plain.next()
            assert (seen["userId"], seen["eventType"]) == ("123", "account.updated")
            data = seen["data"]
            assert data == {"accountId": 7, "timestamp": data["timestamp"], "serverId": "backend-2"}
            assert seen["id"]
            await wait_until(lambda: received(site, "own") == 1)
            await server.publish(message(2))
            assert (await events.message())["accountId"] == 7
            assert (await events.message())["n"] == 2
        assert received(site, "taken") == 1
        state = await site.node.read("user:123")
        assert state.version == 2


async def test_what_came_from_outside_does_not_go_out_again(server: RedisServer) -> None:
    """Else two nodes would play ball for ever."""
    async with with_redis(server) as site:
        await connected(site)
        async with subscribed(server) as plain:
            await server.publish(message(1, id="a"))
            assert (await plain.next())["data"]["n"] == 1
            await wait_until(lambda: received(site, "taken") == 1)
            await site.node.ask("user:123", SendEvent("last", {}))
            assert (await plain.next())["eventType"] == "last"


async def test_an_id_that_comes_twice_is_one_event(server: RedisServer) -> None:
    """A publisher that did not get its answer may publish again."""
    async with with_redis(server) as site, site.client() as http:
        await connected(site)
        async with listening(http, "/events/sse") as events:
            for _ in range(3):
                await server.publish(message(1, id="a"))
            await server.publish(message(2, id="b"))
            await server.publish(message(3))
            for number in (4, 5):  # long ids that differ only at their end
                for _ in range(2):
                    await server.publish(message(number, id="x" * 300 + str(number)))
            assert [(await events.message())["n"] for _ in range(5)] == [1, 2, 3, 4, 5]
            await server.publish(message(6))
            assert (await events.message())["n"] == 6


BAD = [
    b"",
    b"hello",
    b"{",
    b"[]",
    b"null",
    b'{"userId":"123"}',
    b"\xff\xfe",
    b"[" * 100_000,
    msgspec.json.encode(message(1, "../etc")),
    msgspec.json.encode(message(1, "")),
    msgspec.json.encode(message(1) | {"data": [1]}),
    msgspec.json.encode(message(1) | {"eventType": "a b"}),
    msgspec.json.encode(message(1) | {"userId": {"$ne": 1}}),
]


async def test_malformed_messages_are_dropped_without_harm(server: RedisServer) -> None:
    """Each is counted and logged, and the next one gets through."""
    async with with_redis(server) as site, site.client() as http:
        await connected(site)
        async with listening(http, "/events/sse") as events:
            for bad in BAD:
                assert await server.publish(bad) == 1
            deep = b"[" * 900 + b"]" * 900
            await server.publish(b'{"userId":"123","eventType":"a","data":{"a":%s}}' % deep)
            await server.publish(message(2, 123))  # numbers are users, too
            assert (await events.message())["n"] == 2
        assert received(site, "malformed") == len(BAD)
        assert received(site, "refused") == 1


async def test_messages_of_more_than_a_megabyte_are_dropped_without_harm(server: RedisServer) -> None:
    """The largest that is allowed gets through; a byte more does not."""
    async with with_redis(server) as site, site.client() as http:
        await connected(site)
        async with listening(http, "/events/sse") as events:
            small = message(1)
            room = 1_000_000 - len(msgspec.json.encode(small["data"] | {"pad": ""}))
            await server.publish(message(0) | {"data": small["data"] | {"pad": "x" * (1 << 20)}})
            await server.publish(message(0) | {"data": small["data"] | {"pad": "x" * (room + 1)}})
            await server.publish(message(0) | {"data": small["data"] | {"pad": "x" * room}})
            await server.publish(message(2))
            assert [len((await events.message()).get("pad", "")) for _ in range(2)] == [room, 0]
        assert (received(site, "oversize"), received(site, "refused")) == (1, 1)


async def test_redis_is_restarted_in_the_middle(server: RedisServer) -> None:
    """The stream stays open, what was made meanwhile goes out in order once Redis is back, once each."""
    async with with_redis(server) as site, site.client() as http:
        await connected(site)
        async with listening(http, "/events/sse") as events:
            server.stop()
            await wait_until(lambda: not site.node.redis_up())
            for number in range(20):
                await site.node.ask("user:123", SendEvent("test.event", {"n": number}))
            assert [(await events.message())["n"] for _ in range(20)] == list(range(20))
            server.start()
            name, labels = "onda_relay_requests_total", {"relay": "redis", "outcome": "sent"}
            async with subscribed(server) as plain:
                await wait_until(lambda: site.node.metrics.registry.get_sample_value(name, labels) == 20)
                await server.publish(b'{"data":{"n":20}}')
                seen = [(await plain.next())["data"]["n"]]
                while seen[-1] < 20:
                    seen.append((await plain.next())["data"]["n"])
                assert seen == list(range(seen[0], 21))  # some may have gone before we subscribed
            await connected(site)
            await server.publish(message(99))
            assert (await events.message())["n"] == 99
        assert site.node.parked() == []


async def test_a_redis_that_hangs_is_found_out(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No goodbye comes over a cable that was pulled: pings of our own notice, both ways come back."""
    monkeypatch.setattr(door, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(door, "PING_S", 0.1)
    monkeypatch.setattr(door, "POLL_S", 0.05)
    async with with_redis(server) as site, site.client() as http:
        await connected(site)
        async with listening(http, "/events/sse") as events:
            server.hang()
            await wait_until(lambda: not site.node.redis_up())
            await site.node.ask("user:123", SendEvent("test.event", {"n": 1}))
            assert (await events.message())["n"] == 1
            server.go_on()
            await connected(site)
            await server.publish(message(2))
            assert (await events.message())["n"] == 2
        await wait_until(lambda: all(runner.position == site.node.log.head for runner in site.node.runners))


async def test_the_server_starts_and_ends_without_redis(server: RedisServer) -> None:
    """It is optional to the last: nobody waits for it."""
    server.stop()
    async with with_redis(server) as site, site.client() as http:
        async with listening(http, "/events/sse") as events:
            await site.node.ask("user:123", SendEvent("test.event", {"n": 1}))
            assert (await events.message())["n"] == 1
        assert (await http.get("/events/status")).json()["redisConnected"] is False


@pytest.mark.parametrize("publishing", [False, True])
async def test_a_redis_that_hangs_holds_up_no_end(server: RedisServer, publishing: bool) -> None:
    """Neither while a message waits to be taken nor while a connection waits for its first answer."""
    if not publishing:
        server.hang()
    async with with_redis(server) as site:
        if publishing:
            await connected(site)
            server.hang()
        await site.node.ask("user:123", SendEvent("test.event", {"n": 1}))
        await trio.sleep(0.3)  # the threads are inside redis-py
        ending = trio.current_time()
    assert trio.current_time() - ending < 1.5


async def test_events_that_waited_too_long_are_given_up(server: RedisServer) -> None:
    """`redis_patience_s` after they were made; the ones after them go out."""
    server.stop()
    async with with_redis(server, redis_patience_s=0.3) as site:
        await site.node.ask("user:123", SendEvent("test.event", {"n": 1}))
        name, labels = "onda_relay_requests_total", {"relay": "redis", "outcome": "failed"}
        await wait_until(lambda: site.node.metrics.registry.get_sample_value(name, labels) == 1)
        server.start()
        await connected(site)
        async with subscribed(server) as plain:
            await site.node.ask("user:123", SendEvent("test.event", {"n": 2}))
            assert (await plain.next())["data"]["n"] == 2


async def test_events_that_waited_go_out_after_a_restart_of_ours(server: RedisServer, tmp_path: Path) -> None:
    """The place in the log is durable."""
    server.stop()
    data = str(tmp_path / "data")
    async with with_redis(server, data=data) as site:
        await site.node.ask("user:123", SendEvent("test.event", {"n": 1}))
    server.start()
    async with subscribed(server) as plain, with_redis(server, data=data):
        assert (await plain.next())["data"]["n"] == 1


async def test_a_url_that_makes_no_sense() -> None:
    """It is said at the start."""
    with pytest.raises(ConfigError, match="redis_url"):
        async with running(redis_url="http://x"):
            pass
