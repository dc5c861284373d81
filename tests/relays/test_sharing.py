"""Users' events over Redis with several nodes on one log: a message is one event, an event one message."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from engine import Node
from engine.commands import SendEvent
from engine.domain.user.messages import ReceiveEvent
from engine.records import Entry
from engine.relays import sharing, user_events
from engine.relays.sharing import Heard, Sharing, Taken
from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import RedisServer, redis_server, subscribed
from tests.web.process import serving
from tests.web.site import Running, listening, running, wait_until

pytestmark = needs_redis

USERS = ("u1", "u2", "u3", "u4", "u5")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, *ALWAYS) as server:
        yield server


@asynccontextmanager
async def two_nodes(server: RedisServer) -> AsyncIterator[tuple[Running, Running]]:
    """Both hear the channel, and each is on duty for half of the partitions."""
    async with AsyncExitStack() as stack:
        a, b = [
            await stack.enter_async_context(
                running(open=True, node_id=name, log_url=server.url, redis_url=server.url, redis_partitions=4)
            )
            for name in ("a", "b")
        ]
        for site in (a, b):
            await wait_until(
                lambda site=site: (
                    site.node.redis_up() and sum(one.on_duty for one in site.node.partitions) == 2
                ),
                30,
            )
        yield a, b


def message(n: int, user: str, **more: Any) -> dict[str, Any]:
    return {"userId": user, "eventType": "test.event", "data": {"n": n}, **more}


async def numbers(node: Node, user: str) -> list[int]:
    """Return the numbers of the events that a user's stream has, as this node follows it."""
    with await node.subscribe(f"user:{user}") as feed:
        ring = feed.feed
        frames = ring.after(ring.low, 10_000)
    return [msgspec.json.decode(frame.body)["data"]["data"]["n"] for frame in frames]


async def shown(site: Running, user: str, expected: list[int]) -> None:
    """Wait until a user's stream has these events at this node, and then for one more round."""
    with trio.fail_after(10):
        while sorted(await numbers(site.node, user)) != sorted(expected):
            await trio.sleep(0.02)


async def test_each_message_from_outside_is_one_event(server: RedisServer) -> None:
    """With an id however often it is published, without one each time; every screen sees it once."""
    async with two_nodes(server) as (a, b), a.client() as at_a, b.client() as at_b:
        async with (
            listening(at_a, "/events/sse?userId=u1") as one,
            listening(at_b, "/events/sse?userId=u1") as other,
        ):
            for user in USERS:
                for _ in range(3):
                    await server.publish(message(1, user, id="m1"))
                for _ in range(2):
                    await server.publish(message(2, user))
                await server.publish(message(3, user))
            for site in (a, b):
                for user in USERS:
                    await shown(site, user, [1, 2, 2, 3])
                    assert await numbers(site.node, user) == [1, 2, 2, 3]
            for events in (one, other):
                assert [(await events.message())["n"] for _ in range(4)] == [1, 2, 2, 3]
        for client, name in ((at_a, "a"), (at_b, "b")):
            status = (await client.get("/events/status")).json()
            assert (status["serverId"], status["redisConnected"]) == (name, True)


async def test_each_event_that_is_made_here_is_one_message(server: RedisServer) -> None:
    """At whichever node it was made; and no node takes it for another's."""
    async with two_nodes(server) as (a, b), subscribed(server) as plain:
        for n, user in enumerate(USERS):
            for number, site in enumerate((a, b)):
                await site.node.ask(f"user:{user}", SendEvent("made.here", {"n": 2 * n + number}))
        came = [await plain.next() for _ in range(2 * len(USERS))]
        await server.publish(message(99, "u1"))
        assert (await plain.next())["data"]["n"] == 99  # so there is nothing in between
        assert Counter(one["data"]["n"] for one in came) == Counter(range(2 * len(USERS)))
        assert len({one["id"] for one in came}) == 2 * len(USERS)
        assert len({one["origin"] for one in came}) == 1
        for site in (a, b):
            await shown(site, "u1", [0, 1, 99])


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_when_the_node_on_duty_dies(tmp_path: Path, server: RedisServer) -> None:
    """What is published between its death and the take-over, also twice the same without an id, is there
    once each, as the other node heard it, too.
    """
    options = ("--open", "--no-demo", "--log", server.url, "--redis", server.url)
    with (
        serving(tmp_path / "a", "--node-id", "a", *options) as a,
        serving(tmp_path / "b", "--node-id", "b", *options) as b,
    ):
        wait_for(lambda: all(len(duties(url)) == 8 for url in (a.url, b.url)), 30)
        starts = {
            user: httpx.get(f"{b.url}/v1/users/{user}/sync", timeout=10).json()["cursor"] for user in USERS
        }
        publish(server, 5)
        wait_for(lambda: all(len(events(b.url, user, starts[user])) == 10 for user in USERS), 10)
        a.stop(signal.SIGKILL, 10)
        publish(server, 10)
        wait_for(lambda: len(duties(b.url)) == 16, 30)
        wait_for(lambda: all(len(events(b.url, user, starts[user])) >= 30 for user in USERS), 10)
        time.sleep(1.0)  # for what should not come: there is nothing to wait for
        for user in USERS:
            seen = events(b.url, user, starts[user])
            assert Counter(seen) == Counter(dict.fromkeys(range(5), 4) | dict.fromkeys(range(5, 10), 2))
        assert httpx.get(f"{b.url}/events/status", timeout=10).json()["redisConnected"] is True


def publish(server: RedisServer, count: int) -> None:
    """Publish each number twice to each user, without ids."""

    async def run() -> None:
        for user in USERS:
            for n in range(count):
                for _ in range(2):
                    assert await server.publish(message(n, user)) >= 1

    trio.run(run)


def events(url: str, user: str, start: str) -> list[int]:
    answer = httpx.get(f"{url}/v1/users/{user}/sync?after={start}&limit=500", timeout=10).json()
    assert answer["mode"] == "delta", answer
    return [one["data"]["data"]["n"] for one in answer["events"]]


def duties(url: str) -> list[int]:
    text = httpx.get(f"{url}/metrics", timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith("onda_partition_on_duty{")]
    return [number for number, line in enumerate(lines) if line.endswith(" 1.0")]


def wait_for(condition: Any, within_s: float) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# One node's part of it


class Place:
    """A partition as far as it is asked."""

    def __init__(self) -> None:
        self.on_duty = False
        self.followed = 0
        self.log = self
        self.head = 0
        self.writable = True

    def partition_of(self, _: str) -> Place:
        return self


def taken(key: str, user: str = "u1") -> Taken:
    return Taken(f"user:{user}", ReceiveEvent("t", {}, "outside"), key, once=False)


def record(key: str, by: str = user_events.BY) -> tuple[int, Entry]:
    envelope = {
        "id": "i", "cursor": "e-1", "stream": "user:u1", "version": 1, "type": "EventSent", "time": "t",
        "by": by, "cause": key, "data": {}, "patch": {},
    }  # fmt: skip
    return 1, Entry("user:u1", 1, b"", json.dumps(envelope, separators=(",", ":")).encode())


@asynccontextmanager
async def a_sharing() -> AsyncIterator[tuple[Place, Sharing, list[str]]]:
    place, written = Place(), list[str]()

    async def write(heard: Heard) -> None:
        await trio.lowlevel.checkpoint()
        written.append(heard.taken.key)

    shared = Sharing(place, user_events.BY, write)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shared.run)
        yield place, shared, written
        nursery.cancel_scope.cancel()


async def test_who_takes_over_writes_what_was_not_seen_in_the_log(autojump_clock: Any) -> None:
    """In order; but only once everything in the log was seen."""
    async with a_sharing() as (place, shared, written):
        for key in ("m1", "m1", "m2", "m3"):
            await shared.hear(taken(key), 10)
        shared.see("user:u1", [record("m1"), record("m2"), record("m3", by="service:other")])
        shared.see("store:s1", [record("m3")])
        place.on_duty, place.head = True, 5
        await trio.sleep(1)
        assert written == []
        place.followed = 5
        await trio.sleep(1)
        assert written == ["m1", "m3"]
        shared.see("user:u1", [record("m1"), record("m3")])
        assert len(shared) == 0
        await shared.hear(taken("m1"), 10)
        await trio.sleep(0.01)
        assert written == ["m1", "m3", "m1"]


async def test_a_record_that_comes_before_its_message_counts(autojump_clock: Any) -> None:
    """For that one, and for a while; not where this node is the one that wrote it."""
    async with a_sharing() as (place, shared, written):
        shared.see("user:u1", [record("m1")])
        await shared.hear(taken("m1"), 10)
        assert len(shared) == 0
        await shared.hear(taken("m1"), 10)
        assert len(shared) == 1
        shared.see("user:u1", [record("m1"), record("m2"), record("m3")])
        await trio.sleep(sharing.EARLY_S + 1)
        await shared.hear(taken("m2"), 10)
        assert len(shared) == 1
        place.on_duty = True
        shared.see("user:u1", [record("m4")])
        await shared.hear(taken("m4"), 10)
        await trio.sleep(0.01)
        assert written == ["m2", "m4"]


async def test_a_record_that_comes_before_its_message_counts_over_a_change_of_duty(
    autojump_clock: Any,
) -> None:
    """Who was on duty wrote it; an equal message after it is another one. Each record counts as long."""
    async with a_sharing() as (place, shared, written):
        shared.see("user:u1", [record("m1")])
        await shared.hear(taken("m1"), 10)
        await trio.sleep(sharing.EARLY_S - 1)
        shared.see("user:u1", [record("m1"), record("m2")])
        await trio.sleep(2)
        place.on_duty = True
        for key in ("m1", "m1", "m2"):
            await shared.hear(taken(key), 10)
        await trio.sleep(0.01)
        assert written == ["m1"]


async def test_a_record_whose_message_could_not_be_heard_counts_for_no_other(autojump_clock: Any) -> None:
    """An equal message that comes once the channel is listened to again is another one."""
    async with a_sharing() as (place, shared, written):
        shared.see("user:u1", [record("m1")])
        await trio.sleep(1)
        since_s = trio.current_time()
        place.on_duty = True
        await shared.hear(taken("m1"), 10, since_s)
        await trio.sleep(0.01)
        assert written == ["m1"]


async def test_what_waits_is_bounded_and_kept_while_the_log_is_away(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is another's to write is let go in the end; what is ours has the channel wait."""
    monkeypatch.setattr(sharing, "WAITING_MAX", 3)
    async with a_sharing() as (place, shared, written):
        for n in range(5):
            await shared.hear(taken(f"m{n}"), 10)
        assert len(shared) == 3
        place.writable = False
        await trio.sleep(5 * sharing.KEEP_S)
        assert len(shared) == 3
        place.writable = True
        await trio.sleep(sharing.KEEP_S / 2)
        assert len(shared) == 3
        await trio.sleep(sharing.KEEP_S)
        assert len(shared) == 0
        place.on_duty = True
        for n in range(9):
            await shared.hear(taken(f"o{n}"), 10)
        await trio.sleep(0.01)
        assert written == [f"o{n}" for n in range(9)]


async def test_what_is_given_back_is_written_by_who_is_on_duty_then(autojump_clock: Any) -> None:
    """This node, too, if it is that one again."""
    async with a_sharing() as (place, shared, written):
        place.on_duty = True
        await shared.hear(taken("m1"), 10)
        await trio.sleep(0.01)
        assert written == ["m1"]
        place.on_duty = False
        (heard,) = shared._waiting
        shared.give_back(heard)
        await trio.sleep(1)
        assert written == ["m1"]
        place.on_duty = True
        await trio.sleep(1)
        assert written == ["m1", "m1"]
