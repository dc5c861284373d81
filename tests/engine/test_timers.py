"""Deadlines: never early, once, also for streams that are not in memory and after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from engine import open_node
from engine.domain.store import campaigns
from engine.domain.store.campaigns import ScheduleCampaign
from engine.domain.store.following import FollowStore
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.domain.times import to_text
from engine.timers import Timers
from tests.engine.shop import OWNER, STORE, ManualClock, config, make_shop, order, state_of, wait_until

HOUR_MS = 3_600_000


async def test_streams_are_woken_when_due_and_not_before() -> None:
    """Arming anew replaces, arming with None disarms, and an earlier time cuts the sleep short."""
    clock = ManualClock(1000)
    woken: list[str] = []
    timers = Timers(clock, woken.append, tick_s=0.001)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        timers.arm("a", 2000)
        timers.arm("b", 3000)
        timers.arm("c", 1500)
        timers.arm("c", None)
        timers.arm("b", 2500)
        clock.ms = 1999
        await trio.sleep(0.01)
        assert woken == []
        clock.ms = 2000
        await wait_until(lambda: woken == ["a"])
        timers.arm("a", None)
        clock.ms = 2500
        await wait_until(lambda: woken == ["a", "b"])
        nursery.cancel_scope.cancel()


async def test_a_served_order_leaves_the_board_by_its_deadline(tmp_path: Path) -> None:
    """It stays until then, through a restart, and goes once, with its actor not in memory at the time."""
    clock = ManualClock()
    settings = config(str(tmp_path), idle_s=0.0, checkpoint_s=0.01)
    async with open_node(settings, clock=clock) as node:
        await make_shop(node)
        await node.ask(STORE, order(order="a"), by=OWNER)
        await node.ask(STORE, MarkReady(order="a"), by=OWNER)
        await node.ask(STORE, MarkServed(order="a"), by=OWNER)
    async with open_node(settings, clock=clock) as node:
        assert "a" in (await state_of(node, STORE))["orders"]
        await wait_until(lambda: STORE not in node.actors)
        clock.ms += HOUR_MS
        await wait_until(lambda: node.log.head > 0 and STORE in node.actors)
        with trio.fail_after(5):
            while "a" in (await state_of(node, STORE))["orders"]:
                await trio.sleep(0.001)
        head = node.log.head
        clock.ms += HOUR_MS
        await trio.sleep(0.05)
        assert node.log.head == head


async def test_what_is_due_at_once_again_waits_for_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign tells 30 followers one by one, each in a turn of its own, long before the next tick."""
    monkeypatch.setattr(campaigns, "CHUNK", 1)
    monkeypatch.setattr(campaigns, "CHUNKS_PER_TURN", 1)
    clock = ManualClock()
    async with open_node(config(timer_tick_s=60.0), clock=clock) as node:
        await make_shop(node)
        users = [f"u{number}" for number in range(30)]
        for user in users:
            await node.ask(STORE, FollowStore(), by=f"user:{user}")
        await node.ask(STORE, ScheduleCampaign("now", "지금만", to_text(clock.ms)), by=OWNER)
        with trio.fail_after(10):
            for user in users:
                while not (await state_of(node, f"user:{user}"))["notices"]:
                    await trio.sleep(0.001)
        await trio.sleep(0.02)
        for user in users:
            assert len((await state_of(node, f"user:{user}"))["notices"]) == 1
