"""Open streams are told when no commands are taken, and when they are again; and why they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import RedisServer, redis_server
from tests.web.fanned import fanned, until
from tests.web.site import Listener, Running, listening, order, running, set_up, wait_until
from tests.web.test_websocket import talking
from web.standing import SLICE, keep_told

EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")
"""After a restart nobody can say that nothing was lost: a new epoch begins."""


@pytest.fixture
def redis(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with redis_server(tmp_path, *getattr(request, "param", ALWAYS)) as server:
        yield server


@asynccontextmanager
async def shop_on(redis: RedisServer) -> AsyncIterator[Running]:
    """A server on this Redis, with the shop `s1`."""
    async with running(log_url=redis.url, redis_partitions=2, ping_s=600.0, rotate_s=0.0) as site:
        async with site.client("owner:s1") as client:
            await set_up(client)
        yield site


async def told(events: Listener) -> Any:
    """Return what the next ping says, and the cursor in it."""
    ping = await events.message("ping")
    return ping.get("writable", True)


@needs_redis
async def test_every_stream_is_told_while_redis_is_away(redis: RedisServer) -> None:
    """Those of the hub, of several feeds, for events of one user, and the WebSocket; one that is opened
    meanwhile begins with it. No ping would have been due for minutes.
    """
    async with shop_on(redis) as site, site.client("service") as client:
        async with (
            listening(client, "/v1/stores/s1/stream") as one,
            listening(client, "/v1/stream?feed=stores/s1&feed=users/u1") as many,
            listening(client, "/events/sse?userId=u1") as user,
            talking(site) as talk,
        ):
            redis.stop()
            assert await told(one) is False
            assert await told(many) is False
            assert (await user.message())["writable"] is False
            assert (await talk.hear("ping"))["writable"] is False
            answer = await client.get("/v1/stores/s1/sync")
            assert answer.status_code == 200
            async with listening(client, "/v1/stores/s1/stream") as late, talking(site) as later:
                assert await told(late) is False
                assert (await later.hear("ping"))["writable"] is False
                redis.start()
                for events in (one, many, late):
                    assert await told(events) is True
                assert "writable" not in await user.message()
                for socket in (talk, later):
                    assert "writable" not in await socket.hear("ping")
            with trio.fail_after(10):
                await order(client)
            shown = await one.message()
            assert shown["type"] == "OrderCreated"


@needs_redis
@pytest.mark.parametrize("redis", [EVERYSEC], indirect=True)
async def test_streams_of_an_epoch_that_is_over_end_for_redis(redis: RedisServer) -> None:
    """Its restart may have lost something: `bye` says `redis`, and who comes back starts afresh."""
    async with shop_on(redis) as site, site.client("service") as client:
        async with (
            listening(client, "/v1/stores/s1/stream") as one,
            listening(client, "/v1/stream?feed=stores/s1&feed=users/u1") as many,
            talking(site) as talk,
        ):
            assert (await talk.ask(op="subscribe", feed="stores/s1"))["op"] == "snapshot"
            redis.stop()
            redis.start()
            byes = [await one.message("bye"), await many.message("bye"), await talk.hear("bye")]
            assert [bye["reason"] for bye in byes] == ["redis"] * 3
            assert all(500 <= bye["retry_ms"] <= 3000 for bye in byes)
            assert await talk.wait_closed() == 1012
        assert sum(one.site.ends["redis"] for one in site.serving) == 3
        assert not any(one.site.ends["shutdown"] for one in site.serving)
        await wait_until(lambda: not any(one.site.endings for one in site.serving))


@pytest.mark.one_node("the hub of one process")
async def test_thousands_are_told_beside_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """In slices, also one whose socket is full; once each, and their usual pings stay where they were."""
    async with fanned(ping_s=600.0) as fan, trio.open_nursery() as nursery:
        readers = [fan.join() for _ in range(4 * SLICE)]
        slow = fan.join(send_buffer=2048)
        await fan.settle()
        fan.publish(40, 1000)
        await wait_until(lambda: slow.stream.source.subscription.version < fan.feed.head)  # type: ignore[attr-defined]
        dues = [reader.stream.due for reader in readers]
        nursery.start_soon(keep_told, fan.site)
        for count, writable in enumerate((False, True), 1):
            monkeypatch.setattr(type(fan.node), "writable", writable)
            for number, reader in enumerate([*readers, slow]):
                await until(reader, lambda reader=reader, count=count: len(reader.events("ping")) == count)
                if number % 64 == 0:
                    fan.publish()
        for reader in (*readers, slow):
            await until(reader, lambda reader=reader: reader.versions[-1:] == [fan.feed.head])
            said = [msgspec.json.decode(ping.data).get("writable", True) for ping in reader.events("ping")]
            assert said == [False, True]
            assert reader.versions == list(range(1, fan.feed.head + 1))
        assert [reader.stream.due for reader in readers] == dues
        nursery.cancel_scope.cancel()


@pytest.mark.one_node("the hub of one process")
async def test_a_log_that_is_refused_again_and_again_does_not_blink(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told once that nothing is taken, however often one append goes through in between."""
    async with fanned(ping_s=600.0) as fan, trio.open_nursery() as nursery:
        reader = fan.join()
        states = iter([False, True, True, False, True, True, True, False, True] + [True] * 100)
        looked = 0

        def look(_: object) -> bool:
            nonlocal looked
            looked += 1
            return next(states)

        monkeypatch.setattr(type(fan.node), "writable", property(look))
        nursery.start_soon(keep_told, fan.site)
        await until(reader, lambda: len(reader.events("ping")) == 2)
        assert looked >= 9
        nursery.cancel_scope.cancel()


@needs_redis
async def test_readiness_while_redis_is_away(redis: RedisServer) -> None:
    """Not ready for commands, and ready for reads: a balancer that routes by the latter keeps the screens."""
    async with shop_on(redis) as site, site.client() as client:
        redis.stop()
        await wait_until(lambda: not any(one.node.writable for one in site.serving))
        assert (await client.get("/healthz")).status_code == 200
        refused = await client.get("/readyz")
        assert (refused.status_code, refused.json()["reasons"]) == (503, ["log not writable"])
        reads = await client.get("/readyz?for=reads")
        assert (reads.status_code, reads.json()["writable"]) == (200, False)
        redis.start()
        await wait_until(lambda: all(one.node.writable for one in site.serving))
        assert (await client.get("/readyz")).status_code == 200
