"""Pulling: a member that waits costs little, and the lag says what is left."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from engine import MEMORY, Config, Message, open_node
from engine.domain.group.members import Leave
from engine.domain.group.moving import Replay
from engine.domain.group.words import Ack, Park


async def test_a_record_that_waits_for_its_key_does_not_keep_the_server_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is due, but another of its key is under way: it comes as soon as that one is done."""
    async with open_node(Config(data=MEMORY)) as node:
        topics = node.topics
        await node.publish("news", [Message(number, "k", event_id=f"e{number}") for number in range(2)])
        await topics.join("news", "one", "m", lease_ms=30_000)
        [first] = await topics.pull("news", "one", "m")
        await topics.ask("news", "one", Park("m", (first.lease,)))
        [second] = await topics.pull("news", "one", "m")
        await topics.ask("news", "one", Replay())
        asked = 0
        ask = node.ask

        async def counted(*given: Any, **more: Any) -> Any:
            nonlocal asked
            asked += 1
            return await ask(*given, **more)

        monkeypatch.setattr(node, "ask", counted)
        got = []

        async def pull() -> None:
            got.extend(await topics.pull("news", "one", "m", wait_s=5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull)
            await trio.sleep(0.3)
            assert asked < 10
            with trio.fail_after(2):
                await topics.ask("news", "one", Ack("m", (second.lease,)))
                while not got:
                    await trio.sleep(0.01)
        assert [one.event_id for one in got] == ["e0"]


async def test_what_is_replayed_is_behind_again() -> None:
    """A record that was parked and comes again is not handled yet, however far the group is."""
    async with open_node(Config(data=MEMORY)) as node:
        topics = node.topics
        await node.publish("news", [Message(1, "k"), Message(2, "k")])
        await topics.join("news", "one", "m", lease_ms=30_000)

        async def lag() -> int:
            told: int = (await topics.lag("news", "one"))["lag"]
            assert topics.lag_known() == told
            return told

        [first] = await topics.pull("news", "one", "m")
        await topics.ask("news", "one", Park("m", (first.lease,)))
        assert await lag() == 1
        await topics.ask("news", "one", Replay())
        assert await lag() == 2
        for left in (1, 0):
            [one] = await topics.pull("news", "one", "m")
            assert await lag() == left + 1
            await topics.ask("news", "one", Ack("m", (one.lease,)))
            assert await lag() == left


async def test_a_group_that_nobody_works_in_is_still_behind() -> None:
    """Also when it and its topic have left memory: that is when somebody has to be told."""
    async with open_node(Config(data=MEMORY, idle_s=0.01)) as node:
        await node.publish("news", [Message(1, "k"), Message(2, "k")])
        await node.topics.join("news", "one", "m", lease_ms=30_000)
        await node.topics.ask("news", "one", Leave("m"))
        assert node.statistics()["topic_lag"] == 2
        with trio.fail_after(5):
            while any(stream in node.actors for stream in ("group:news/one", "topic:news/0")):
                await node.upkeep.take()
                await node.upkeep._drop_idle()
                await trio.sleep(0.02)
        node.feeds.clear()
        assert node.statistics()["topic_lag"] == 2
        await node.publish("news", [Message(3, "k")])
        assert node.statistics()["topic_lag"] == 3
