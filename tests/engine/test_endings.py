"""How a node ends: in order, cancelled, on a slow disk, on a failed one; and what the next start finds."""

from __future__ import annotations

import pytest
import trio

from engine import Node, open_node
from engine.errors import LogFailed, Stopping, UnknownOutcome
from tests.engine.kept import Kept, kept
from tests.engine.shop import OWNER, STORE, config, make_shop, order, state_of, wait_until

__all__ = ["kept"]


class Outcomes(dict[str, str]):
    """What became of orders that were sent by tasks outside the node."""

    async def ask(self, node: Node, name: str) -> None:
        try:
            await node.ask(STORE, order(order=name), by=OWNER, id=name)
            self[name] = "ok"
        except Exception as error:
            self[name] = type(error).__name__


async def test_a_failed_log_leaves_no_trace_in_the_checkpoint(kept: Kept) -> None:
    """What was decided but did not become durable is not saved: the next start stands where the log does."""
    outcomes = Outcomes()
    async with trio.open_nursery() as nursery:
        with pytest.raises(LogFailed, match="the test says so"):
            async with open_node(config()) as node:
                await make_shop(node)
                before = await node.read(STORE)
                kept.log.hold()
                nursery.start_soon(outcomes.ask, node, "a")
                await trio.testing.wait_all_tasks_blocked()
                kept.log.fail()
                await trio.sleep_forever()
    assert outcomes == {"a": "UnknownOutcome"}
    async with open_node(config()) as node:
        assert await node.read(STORE) == before
        await node.ask(STORE, order(order="a"), by=OWNER, id="a")
        assert "a" in (await state_of(node, STORE))["orders"]


async def test_a_failed_log_ends_the_node_at_once(kept: Kept) -> None:
    """Nobody waits for what can no longer happen, and everybody gets an answer."""
    outcomes = Outcomes()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10), pytest.raises(LogFailed):
            async with open_node(config(batch_max=1, shutdown_s=3600.0)) as node:
                await make_shop(node)
                kept.log.hold()
                for name in "abc":
                    nursery.start_soon(outcomes.ask, node, name)
                await trio.testing.wait_all_tasks_blocked()
                kept.log.fail()
                await trio.sleep_forever()
    assert set(outcomes) == set("abc")
    assert "ok" not in outcomes.values()


async def test_a_cancelled_program_still_drains(kept: Kept) -> None:
    """Cancelling what is around the node is an orderly end: mailboxes run empty, the last checkpoint is
    taken.
    """
    outcomes = Outcomes()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_node(config(batch_max=1)) as node:
                await make_shop(node)
                kept.log.hold()
                for name in "abc":
                    nursery.start_soon(outcomes.ask, node, name)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                nursery.start_soon(_release, kept)
                await trio.sleep_forever()
        assert scope.cancelled_caught
    assert outcomes == dict.fromkeys("abc", "ok")
    async with open_node(config()) as node:
        assert set((await state_of(node, STORE))["orders"]) == set("abc")
        assert node.checkpoint.position == node.log.head


async def _release(kept: Kept) -> None:
    await trio.testing.wait_all_tasks_blocked()
    kept.log.release()


async def test_an_end_on_a_hanging_disk_is_in_time(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """After `shutdown_s` every caller has an answer that is true, and the checkpoint holds nothing that the
    log does not.
    """
    outcomes = Outcomes()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            async with open_node(config(batch_max=1, shutdown_s=0.05)) as node:
                await make_shop(node)
                before = await node.read(STORE)
                kept.log.hold()
                nursery.start_soon(outcomes.ask, node, "a")
                await wait_until(lambda: node.actors[STORE].waiting == 0 and not node.actors[STORE].idle)
                nursery.start_soon(outcomes.ask, node, "b")
                await wait_until(lambda: node.actors[STORE].waiting == 1)
    assert outcomes == {"a": "UnknownOutcome", "b": "Stopping"}
    assert "stopped before everything" in caplog.text
    async with open_node(config()) as node:
        assert await node.read(STORE) == before


async def test_a_node_that_is_closed_says_so() -> None:
    """Commands, reads and subscriptions are refused, for streams in memory and others alike."""
    async with open_node(config()) as node:
        await make_shop(node)
    for stream in (STORE, "user:u1"):
        with trio.fail_after(1):
            with pytest.raises(Stopping):
                await node.ask(stream, order(), by=OWNER)
            for _ in range(2):
                with pytest.raises(Stopping):
                    await node.read(stream)
                with pytest.raises(Stopping):
                    await node.subscribe(stream)


async def test_stopping_twice_waits_for_the_first(kept: Kept) -> None:
    """Whoever stops a node that is stopping returns when it has stopped; one that is cancelled is made up
    for.
    """
    outcomes = Outcomes()
    async with open_node(config()) as node:
        await make_shop(node)
        kept.log.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcomes.ask, node, "a")
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0):
                await node.stop()
            nursery.start_soon(node.stop)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(_release, kept)
            await node.stop()
            assert node.checkpoint.position == node.log.head
        assert outcomes == {"a": "ok"}


async def test_the_logs_own_word_comes_out(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the process says what the disk said, not what an actor that waited for it heard."""
    with pytest.raises(LogFailed, match="the test says so") as failed:
        async with open_node(config()) as node:
            await make_shop(node)
            await make_shop(node, "store:s2")
            kept.log.hold()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ask_in_vain, node, STORE)
                nursery.start_soon(_ask_in_vain, node, "store:s2")
                await trio.testing.wait_all_tasks_blocked()
                kept.log.fail()
    assert not isinstance(failed.value.__cause__, UnknownOutcome)


async def _ask_in_vain(node: Node, stream: str) -> None:
    with pytest.raises(UnknownOutcome):
        await node.ask(stream, order(), by=OWNER)
