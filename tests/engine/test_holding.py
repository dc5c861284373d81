"""Actors that are held down, broken turns, answers without events: nobody waits for ever."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from engine import Node, open_node
from engine.actor import Actor
from engine.checkpoint_sqlite import SqliteCheckpoint
from engine.domain import DOMAINS
from engine.domain.store.menu import SetSoldOut
from engine.errors import ConfigError, Crashed, Rejected, Unavailable
from engine.feed import Feed
from engine.mailbox import Ask, Look
from tests.engine.kept import Kept, kept
from tests.engine.shop import OWNER, STORE, config, make_shop, order, state_of, wait_until

__all__ = ["kept"]


async def hold_down(node: Node, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an actor crash until it is held down; its rules are in order again afterwards."""
    evolve = DOMAINS["store"].evolve

    def fail(state: Any, event: Any) -> None:
        if getattr(event, "order", "") == "bad":
            raise ZeroDivisionError
        evolve(state, event)

    with monkeypatch.context() as patch:
        patch.setattr(DOMAINS["store"], "evolve", fail)
        for _ in range(node.config.restarts_max + 1):
            with pytest.raises(Crashed):
                await node.ask(stream, order(order="bad"), by=OWNER)
        await wait_until(lambda: node.actors[stream].held_down)


async def test_a_look_at_an_actor_that_is_held_down_is_refused(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers learn it at once; other actors are still saved, and after a start nothing is missing."""
    async with open_node(config(restarts_max=1, restarts_window_s=3600.0)) as node:
        await make_shop(node)
        await make_shop(node, "store:s2")
        await hold_down(node, STORE, monkeypatch)
        with trio.fail_after(2):
            with pytest.raises(Unavailable):
                await node.read(STORE)
            with pytest.raises(Unavailable):
                await node.subscribe(STORE)
            await node.ask("store:s2", order(), by=OWNER)
            assert not await node.upkeep.take()
            assert node.actors["store:s2"].saved_version == node.actors["store:s2"].version
            assert node.checkpoint.position == 0
            await node.stop()
    async with open_node(config()) as node:
        assert len((await state_of(node, "store:s2"))["orders"]) == 1
        await node.ask(STORE, order(order="a"), by=OWNER)
        assert list((await state_of(node, STORE))["orders"]) == ["a"]
        assert await node.upkeep.take()


async def test_a_fault_between_commands_answers_the_whole_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks a turn, its commands are answered and its looks get their view after the rebuild."""
    async with open_node(config()) as node:
        await make_shop(node)
        actor = node.actors[STORE]
        ask, look = Ask(order(), OWNER, None, None), Look(actor.view)
        with monkeypatch.context() as patch, trio.fail_after(5):
            patch.setattr(Actor, "_deadline_ask", _raise)
            actor.ask(ask)
            actor._mailbox.append(look)
            actor.wake()
            with pytest.raises(Crashed):
                await ask.reply.wait()
            assert b'"orders":{}' in await look.reply.wait()
        await node.ask(STORE, order(), by=OWNER)


def _raise(*_: object) -> None:
    raise ZeroDivisionError


async def test_a_fault_while_an_old_answer_is_read_answers_everybody(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeat and the commands beside it in the turn get an answer, and then all goes on."""
    async with open_node(config()) as node:
        await make_shop(node)
        await node.ask(STORE, order(order="a"), by=OWNER, id="a")
        await node.upkeep.take()
        outcomes = []

        async def ask(name: str) -> None:
            try:
                await node.ask(STORE, order(order=name), by=OWNER, id=name)
                outcomes.append("ok")
            except Crashed:
                outcomes.append("crashed")

        async def fail(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch, trio.fail_after(5):
            patch.setattr(SqliteCheckpoint, "load_answer", fail)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "b")
                nursery.start_soon(ask, "a")
        assert "crashed" in outcomes
        assert len(outcomes) == 2
        assert (await node.ask(STORE, order(order="a"), by=OWNER, id="a")).replayed


async def test_an_answer_without_events_is_kept_too(kept: Kept) -> None:
    """It goes into the next checkpoint, so it survives the end, and its actor can leave memory."""
    async with open_node(config(idle_s=0.0, checkpoint_s=3600.0)) as node:
        await make_shop(node)
        await node.ask(STORE, SetSoldOut(product="ramen", sold_out=True), by=OWNER)
        await node.upkeep.take()
        nothing = await node.ask(STORE, SetSoldOut(product="ramen", sold_out=True), by=OWNER, id="k")
        assert nothing.events == []
        await node.upkeep.take()
        await node.upkeep._drop_idle()
        assert STORE not in node.actors
        await node.ask(STORE, SetSoldOut(product="ramen", sold_out=False), by=OWNER)
    async with open_node(config()) as node:
        repeat = await node.ask(STORE, SetSoldOut(product="ramen", sold_out=True), by=OWNER, id="k")
        assert repeat == nothing._replace(replayed=True)


async def test_a_refusal_of_what_follows_is_decided_anew() -> None:
    """A reaction that tries again, or is replayed, must not get the old refusal for ever."""
    async with open_node(config()) as node:
        await make_shop(node, stock=0)

        async def send() -> None:
            await node.ask_inside(STORE, order(order="a"), by=OWNER, id="record.0", cause="record")

        with pytest.raises(Rejected):
            await send()
        await make_shop(node, stock=5)
        await send()


async def test_a_new_store_is_known_after_a_crash(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first records are durable although the crash came before anybody was told."""
    publish = Feed.publish

    def fail_once(self: Feed, frames: Any) -> None:
        monkeypatch.setattr(Feed, "publish", publish)
        raise ZeroDivisionError

    async with open_node(config()) as node:
        monkeypatch.setattr(Feed, "publish", fail_once)
        with pytest.raises(Exception, match="not known"):
            await make_shop(node)
        await wait_until(lambda: node.actors[STORE].idle)
        assert await node.exists(STORE)


@pytest.mark.parametrize("name", ["checkpoint_s", "timer_tick_s", "reaction_backoff_ms"])
def test_a_sleep_of_nothing_is_no_setting(name: str) -> None:
    """It would be a loop that eats the processor."""
    with pytest.raises(ConfigError, match=name):
        config(**{name: 0})
