"""A shop that moves from its own log to nodes on a Redis, and back: nobody notices but by the address."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from engine import Answer, Committed, Node, Reaction, open_node
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.migrating import from_redis, to_redis
from engine.records import Cursor
from tests.engine.moved import SIZES
from tests.engine.shop import OWNER, STORE, ManualClock, config, make_shop, order, state_of, wait_until
from tests.engine.test_reactions import CREATED, Recorder, place, reaction
from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import RedisServer, redis_server

pytestmark = needs_redis

HOUR_MS = 3_600_000
OTHER = "store:s2"
SECRET = "a secret that the nodes have together"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", *ALWAYS) as server:
        yield server


async def bodies_after(node: Node, stream: str, cursor: Cursor) -> list[bytes]:
    """What somebody gets who comes back with a cursor; a snapshot is a failure."""
    with await node.subscribe(stream, cursor) as subscription:
        assert (subscription.reset, subscription.snapshot) == (None, None)
        return [frame.body for frame in subscription.take()]


class Left(NamedTuple):
    """A shop when it was left: a cursor from before its orders, the answer to the first of them, what a
    screen with that cursor gets, and the state.
    """

    start: Cursor
    first: Answer
    bodies: list[bytes]
    state: dict[str, Any]


async def run_and_leave(data: Path, recorder: Recorder, clock: ManualClock) -> Left:
    """Serve two shops until a reaction has done order a, given up on x, and has b and c to do."""
    recorder.fail["s2/x"] = 100

    async def held(record: Committed) -> None:
        if record.event.order in ("b", "c"):  # type: ignore[attr-defined]
            await trio.sleep_forever()
        await recorder(record)

    reactions = [Reaction("test", CREATED, held)]
    async with open_node(config(str(data)), reactions=reactions, clock=clock) as node:
        await make_shop(node)
        await make_shop(node, OTHER)
        start = Cursor.parse((await node.read(STORE)).cursor)
        first = await node.ask(STORE, order(order="a"), by=OWNER, id="key")
        await node.ask(STORE, MarkReady(order="a"), by=OWNER)
        await node.ask(STORE, MarkServed(order="a"), by=OWNER)
        await wait_until(lambda: "s1/a" in recorder.seen)
        await place(node, "b", "c")
        await place(node, "x", stream=OTHER)
        await wait_until(lambda: len(node.parked()) == 1)
        left = Left(start, first, await bodies_after(node, STORE, start), await state_of(node, STORE))
    recorder.seen.clear()
    recorder.fail.clear()
    return left


async def test_a_shop_goes_on_where_it_was_left(tmp_path: Path, redis: RedisServer) -> None:
    """Cursors, keys, deadlines, what reactions had left to do and what they had given up on: in the log in
    Redis, and in the folder after the way back.
    """
    clock, recorder = ManualClock(), Recorder()
    start, first, before, state = await run_and_leave(tmp_path / "old", recorder, clock)

    to_redis(str(tmp_path / "old"), redis.url, 2)
    new = config(str(tmp_path / "node"), log_url=redis.url, redis_partitions=2, secret=SECRET)
    async with open_node(new, reactions=reaction(recorder), clock=clock) as node:
        assert await bodies_after(node, STORE, start) == before
        assert await state_of(node, STORE) == state
        again = await node.ask(STORE, order(order="a"), by=OWNER, id="key")
        assert again == first._replace(replayed=True)
        await wait_until(lambda: recorder.seen == ["s1/b", "s1/c"])
        await wait_until(lambda: len(node.parked()) == 1)
        await node.replay_parked(node.parked()[0]["id"])
        assert recorder.seen[2:] == ["s2/x"]
        assert "a" in (await state_of(node, STORE))["orders"]
        clock.ms += HOUR_MS
        with trio.fail_after(10):
            while "a" in (await state_of(node, STORE))["orders"]:
                await trio.sleep(0.01)
        last = await node.ask(STORE, order(order="d"), by=OWNER, id="other key")
        await wait_until(lambda: "s1/d" in recorder.seen)
        after = await bodies_after(node, STORE, start)
        assert after[: len(before)] == before
        state = await state_of(node, STORE)
    recorder.seen.clear()

    report = from_redis(str(tmp_path / "back"), redis.url, SIZES._replace(segment_bytes=1 << 20))
    assert not report.fresh
    back = config(str(tmp_path / "back"))
    async with open_node(back, reactions=reaction(recorder), clock=clock) as node:
        assert await bodies_after(node, STORE, start) == after
        assert await state_of(node, STORE) == state
        for answer, id_ in ((first, "key"), (last, "other key")):
            name = "a" if answer is first else "d"
            again = await node.ask(STORE, order(order=name), by=OWNER, id=id_)
            assert again == answer._replace(replayed=True)
        await place(node, "e")
        await wait_until(lambda: "s1/e" in recorder.seen)
        assert not node.parked()


async def test_a_key_that_only_the_log_has(tmp_path: Path, redis: RedisServer) -> None:
    """Killed before any checkpoint: states and answers come out of the records, at the node in Redis too."""
    async with open_node(config(str(tmp_path / "old"), checkpoint_s=3600.0)) as node:
        await make_shop(node)
        first = await node.ask(STORE, order(order="a"), by=OWNER, id="key")
        shutil.copytree(tmp_path / "old", tmp_path / "killed")
    report = to_redis(str(tmp_path / "killed"), redis.url, 2)
    assert report.states == 0
    async with open_node(config(log_url=redis.url, redis_partitions=2, secret=SECRET)) as node:
        again = await node.ask(STORE, order(order="a"), by=OWNER, id="key")
        assert again == first._replace(replayed=True)
