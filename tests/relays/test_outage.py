"""Receivers that are away for long, in virtual time: nothing is dropped, nobody is pestered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine import Config, Node, open_node
from engine.metrics import Metrics
from engine.relays.webhook import open_webhooks
from tests.engine.shop import OWNER, ManualClock, config, make_shop, order
from tests.relays.receiver import SECRET

EPOCH_MS = 1_800_000_000_000
STORES = ("store:s1", "store:s2")
HOUR_S = 3600.0


class VirtualClock(ManualClock):
    """The wall clock of the virtual world."""

    def now_ms(self) -> int:
        return EPOCH_MS + int(trio.current_time() * 1000)


class World(httpx.AsyncBaseTransport):
    """Receivers behind a network that answers as told. `tries`: when which order was sent."""

    def __init__(self) -> None:
        self.answer: Callable[[str], httpx.Response] = lambda _: said(204)
        self.tries: list[tuple[float, str]] = []
        self.taken: dict[str, list[str]] = {stream: [] for stream in STORES}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(0.01)
        sent = msgspec.json.decode(b"".join([part async for part in request.stream]))
        name = sent["data"]["order"]
        self.tries.append((trio.current_time(), name))
        response = self.answer(name)
        if response.is_success:
            self.taken[sent["stream"]].append(name)
        return response


def said(status: int, retry_after: str = "") -> httpx.Response:
    """An answer as it comes from a network."""
    headers = {"retry-after": retry_after} if retry_after else {}
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(b"ok"))


def away(_: str) -> httpx.Response:
    """Nobody listens."""
    raise httpx.ConnectError("connection refused")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A network, for tests in virtual time. Blocking work is done in place: a thread does not know that
    time.
    """

    async def inline(work: Any, *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    return World()


@asynccontextmanager
async def relayed(world: World, **changes: Any) -> AsyncIterator[Node]:
    """Shops whose webhooks go into the world."""
    pace = {"timer_tick_s": 60.0, "reaction_backoff_ms": 100, "reaction_backoff_ms_max": 30_000}
    settings: Config = config(
        **pace,
        webhook_url="https://receiver.example/",
        webhook_secret=SECRET,
        webhook_types="OrderPlaced",
        **changes,
    )
    clock, metrics = VirtualClock(), Metrics()
    async with (
        open_webhooks(settings, metrics, clock, transport=world) as hooks,
        open_node(config(**pace), reactions=hooks, clock=clock) as node,
    ):
        for stream in STORES:
            await make_shop(node, stream)
        yield node


async def place(node: Node, stream: str, *names: str) -> None:
    for name in names:
        await node.ask(stream, order(order=name), by=OWNER)


async def test_an_hour_of_outage_costs_nothing(world: World, autojump_clock: MockClock) -> None:
    """Orders of an hour wait, are tried with growing, random waits, and arrive in order and once."""
    names = [f"o-{number}" for number in range(120)]
    async with relayed(world) as node:
        world.answer = away
        for name in names:
            for stream in STORES:
                await place(node, stream, name)
            await trio.sleep(HOUR_S / len(names))
        assert not node.parked()
        assert world.taken == {stream: [] for stream in STORES}
        times = [at for at, _ in world.tries]
        assert {name for _, name in world.tries} == {names[0]}
        world.answer = lambda _: said(204)
        began = trio.current_time()
        while node.statistics()["reaction_lag"]:
            await trio.sleep(0.1)
        assert trio.current_time() - began < 30 + 120 * 0.1
        assert world.taken == dict.fromkeys(STORES, names)
        assert not node.parked()
    waits = [later - earlier for earlier, later in zip(times, times[2:], strict=False)]
    assert max(times) > HOUR_S - 60, "it has given up"
    assert 2 * HOUR_S / 30 < len(times) < 2 * HOUR_S / 10, "the bound of a wait is 30 s, its mean 15 s"
    assert len({round(wait) for wait in waits}) > 10, "no jitter"


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_leaves_the_whole_receiver_alone(
    world: World, autojump_clock: MockClock, as_date: bool
) -> None:
    """No stream tries before the time that the receiver has asked for, and all go on after it."""

    def busy(_: str) -> httpx.Response:
        world.answer = lambda _: said(204)
        until = formatdate(VirtualClock().now_ms() / 1000 + 121, usegmt=True)
        return said(429, until if as_date else "120")

    async with relayed(world) as node:
        world.answer = busy
        await place(node, "store:s1", "a", "b")
        await trio.sleep(1)
        await place(node, "store:s2", "c")
        await trio.sleep(200)
        assert world.taken == {"store:s1": ["a", "b"], "store:s2": ["c"]}
        assert not node.parked()
    first, *others = [at for at, _ in world.tries]
    assert min(others) >= first + 119
    assert len(others) == 3


async def test_retry_after_is_capped_and_what_it_cannot_mean_is_ignored(
    world: World, autojump_clock: MockClock
) -> None:
    """A receiver cannot stop its webhooks for a year."""
    odd = iter(["31536000", "99999999999999999999", "-5", "soon", "Wed, 99 Foo"])

    def busy(_: str) -> httpx.Response:
        if (text := next(odd, None)) is None:
            return said(204)
        return said(503, text)

    async with relayed(world) as node:
        world.answer = busy
        await place(node, "store:s1", "a")
        await trio.sleep(2 * (300 + 60) + 5 * 60)
        assert world.taken["store:s1"] == ["a"]


async def test_after_a_long_time_a_record_that_never_gets_through_is_parked(
    world: World, autojump_clock: MockClock
) -> None:
    """A receiver that fails at one record only does not hold the log for ever; nothing is dropped."""
    async with relayed(world, webhook_patience_s=HOUR_S, webhook_retries=1) as node:
        world.answer = lambda name: said(500 if name == "bad" else 204)
        await place(node, "store:s1", "a", "bad", "b")
        await place(node, "store:s2", "c")
        await trio.sleep(HOUR_S - 60)
        assert not node.parked()
        await trio.sleep(200)
        bad, behind = node.parked()
        assert "waited out for 36" in bad["error"]
        assert bad["attempts"] == 2
        assert world.taken == {"store:s1": ["a"], "store:s2": ["c"]}
        world.answer = lambda _: said(204)
        await node.replay_parked(bad["id"])
        assert world.taken["store:s1"] == ["a", "bad", "b"]
        assert behind["version"] > bad["version"]
