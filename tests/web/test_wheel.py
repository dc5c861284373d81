"""The timing wheel: nothing expires early, nothing is forgotten, and moving a deadline later is free."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import trio
import trio.lowlevel
import trio.testing

from web import wheel as wheel_module
from web.wheel import Wheel

TICK_S = 0.25


class Item:
    """Takes note of when it expired; `again` is what it then waits."""

    def __init__(self, due: float, again: float = math.inf) -> None:
        self.due = due
        self.again = again
        self.at: list[float] = []

    def expire(self, now: float) -> None:
        assert now >= self.due, "too early"
        self.at.append(now)
        self.due = now + self.again


@pytest.fixture
async def wheel(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> Wheel:
    """A wheel that is 16 ticks round."""
    made = Wheel(TICK_S, slots=16)
    nursery.start_soon(made.run)
    return made


async def test_each_expires_within_a_tick(wheel: Wheel, autojump_clock) -> None:
    """Also what is due further ahead than the wheel is round."""
    start = trio.current_time()
    random_ = random.Random(1)
    items = [Item(start + random_.uniform(0, 30)) for _ in range(500)]
    due = [item.due for item in items]
    for item in items:
        wheel.add(item)
    await trio.sleep(31)
    for item, was_due in zip(items, due, strict=True):
        assert len(item.at) == 1
        assert was_due <= item.at[0] <= was_due + TICK_S + 1e-9
    assert len(wheel) == 0


async def test_what_is_due_already_comes_with_the_next_tick(wheel: Wheel, autojump_clock) -> None:
    """Minus infinity too; plus infinity never."""
    items = [Item(due) for due in (-math.inf, 0, trio.current_time() - 5, trio.current_time())]
    never = Item(math.inf)
    for item in (*items, never):
        wheel.add(item)
    await trio.sleep(TICK_S * 2)
    assert [len(item.at) for item in items] == [1] * 4
    await trio.sleep(100)
    assert not never.at
    assert len(wheel) == 0


async def test_later_needs_nothing(wheel: Wheel, autojump_clock) -> None:
    """Whoever is moved on again and again expires when that ends."""
    item = Item(trio.current_time() + 1)
    wheel.add(item)
    for _ in range(100):
        await trio.sleep(0.5)
        item.due = trio.current_time() + 1
    due = item.due
    await trio.sleep(3)
    assert len(item.at) == 1
    assert due <= item.at[0] <= due + TICK_S + 1e-9


async def test_earlier_needs_add_and_leaves_one_entry(wheel: Wheel, autojump_clock) -> None:
    """However often that happens: entries of one item become one."""
    item = Item(trio.current_time() + 3.5, again=1.0)
    wheel.add(item)
    for _ in range(50):
        item.due = trio.current_time() + 0.3
        wheel.add(item)
        await trio.sleep(0.05)
        item.due += 3
    assert len(wheel) <= 16
    await trio.sleep(10)
    assert len(wheel) == 1
    assert 6 <= len(item.at) <= 10


async def test_who_has_no_deadline_any_more_is_dropped(wheel: Wheel, autojump_clock) -> None:
    """When its slot comes."""
    item = Item(trio.current_time() + 1)
    wheel.add(item)
    item.due = math.inf
    await trio.sleep(2)
    assert not item.at
    assert len(wheel) == 0


async def test_a_crowd_in_one_tick_leaves_others_their_turn(wheel: Wheel, autojump_clock) -> None:
    """There is a checkpoint after each slice."""
    due = trio.current_time() + 1
    items = [Item(due) for _ in range(10 * wheel_module.SLICE)]
    for item in items:
        wheel.add(item)
    await trio.sleep(1)
    seen = [sum(bool(item.at) for item in items)]
    while seen[-1] < len(items):
        await trio.lowlevel.checkpoint()
        seen.append(sum(bool(item.at) for item in items))
    most = max(after - before for before, after in pairwise(seen))
    assert most <= 2 * wheel_module.SLICE  # trio lets tasks run in any order, so two may come in a row


async def test_time_that_jumps_is_caught_up_with(autojump_clock: trio.testing.MockClock) -> None:
    """After the machine slept for longer than the wheel is round."""
    wheel = Wheel(TICK_S, slots=16)
    items = [Item(trio.current_time() + ahead, again=2) for ahead in range(20)]
    for item in items:
        wheel.add(item)
    autojump_clock.jump(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wheel.run)
        await trio.sleep(TICK_S * 2)
        assert all(item.at for item in items)
        nursery.cancel_scope.cancel()
