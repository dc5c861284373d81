"""Crashes of one actor, of the disk, and of the whole node."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from engine import Cursor, open_node
from engine.domain import DOMAINS
from engine.domain.table.calls import CallStaff
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.errors import Crashed, LogCorrupt, LogFailed, LogLocked, Overloaded, ReadOnly, UnknownOutcome
from engine.feed import Feed
from engine.log.memory import MemoryLog
from tests.engine.shop import OWNER, STORE, config, make_shop, order, state_of, wait_until


async def test_a_fault_in_decide_costs_only_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is answered `internal`; the state stays, nothing is rebuilt."""
    async with open_node(config()) as node:
        await make_shop(node)
        with monkeypatch.context() as patch:
            patch.setattr(DOMAINS["store"], "decide", _raise)
            with pytest.raises(Crashed):
                await node.ask(STORE, order(), by=OWNER)
        await node.ask(STORE, order(), by=OWNER)
        assert node.metrics.registry.get_sample_value("onda_actor_restarts_total") == 0


async def test_a_fault_in_evolve_rebuilds_the_actor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The culprit is answered `internal`, the state comes back from checkpoint and log, and subscribers
    stay.
    """
    async with open_node(config(str(tmp_path))) as node:
        await make_shop(node)
        await node.ask(STORE, order(order="a"), by=OWNER, id="ka")
        await node.upkeep.take()
        await node.ask(STORE, order(order="b"), by=OWNER, id="kb")
        before = await state_of(node, STORE)
        subscription = await node.subscribe(STORE)
        evolve = node.actors[STORE].domain.evolve

        def half(state: Any, event: Any) -> None:
            evolve(state, event)
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(DOMAINS["store"], "evolve", half)
            with pytest.raises(Crashed):
                await node.ask(STORE, order(order="c"), by=OWNER)
        assert await state_of(node, STORE) == before
        assert (await node.ask(STORE, order(order="a"), by=OWNER, id="ka")).replayed
        assert (await node.ask(STORE, order(order="b"), by=OWNER, id="kb")).replayed
        await node.ask(STORE, order(order="d"), by=OWNER)
        assert [frame.type for frame in subscription.take()] == ["OrderCreated", "OrderPlaced"]
        assert node.metrics.registry.get_sample_value("onda_actor_restarts_total") == 1


async def test_an_actor_that_keeps_crashing_is_held_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the budget its commands are refused at once, and other actors go on."""
    async with open_node(config(restarts_max=2, restarts_window_s=30.0)) as node:
        await make_shop(node)
        await make_shop(node, "store:s2")
        evolve = DOMAINS["store"].evolve

        def fail_first(state: Any, event: Any) -> None:
            if getattr(event, "order", "") == "bad":
                raise ZeroDivisionError
            evolve(state, event)

        monkeypatch.setattr(DOMAINS["store"], "evolve", fail_first)
        for _ in range(3):
            with pytest.raises(Crashed):
                await node.ask(STORE, order(order="bad"), by=OWNER)
        await wait_until(lambda: node.actors[STORE].held_down)
        with pytest.raises(Exception, match="held down"):
            await node.ask(STORE, order(), by=OWNER)
        await node.ask("store:s2", order(), by=OWNER)


async def test_a_refused_append_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the log takes nothing, the commands fail and the state is as before; later ones work."""
    async with open_node(config()) as node:
        await make_shop(node)
        before = await node.read(STORE)
        for error in (ReadOnly, Overloaded):

            def refuse(
                self: object, entries: object, done: object, basis: object, error: type[Exception] = error
            ) -> None:
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(MemoryLog, "submit", refuse)
                with pytest.raises(error):
                    await node.ask(STORE, order(), by=OWNER, id="k")
            assert await node.read(STORE) == before
        assert not (await node.ask(STORE, order(), by=OWNER, id="k")).replayed


async def test_a_failed_log_ends_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting command's outcome is unknown, and the error comes out of the `async with`."""

    def fail(self: object, entries: object, done: object, basis: object) -> None:
        raise UnknownOutcome

    with pytest.raises(LogFailed):
        async with open_node(config()) as node:
            await make_shop(node)
            monkeypatch.setattr(MemoryLog, "submit", fail)
            with pytest.raises(UnknownOutcome):
                await node.ask(STORE, order(), by=OWNER)
            await trio.sleep_forever()


async def test_one_folder_one_node(tmp_path: Path) -> None:
    """A second node on the same folder is refused."""
    async with open_node(config(str(tmp_path))):
        with pytest.raises(LogLocked):
            async with open_node(config(str(tmp_path))):
                pass


async def test_a_missing_checkpoint_is_noticed(tmp_path: Path) -> None:
    """When the log's beginning is gone and the checkpoint with it, the node refuses to start."""
    settings = config(str(tmp_path), segment_bytes=1 << 16, refill_bytes=0)
    async with open_node(settings) as node:
        await make_shop(node)
        for _ in range(6):
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(_ask, node)
            await node.upkeep.take()
        assert node.log.first > 1
    (tmp_path / "checkpoint.db").unlink()
    with pytest.raises(LogCorrupt, match=r"checkpoint\.db"):
        async with open_node(settings):
            pass


async def test_a_lost_end_of_the_log_is_noticed(tmp_path: Path) -> None:
    """A log that ends before the checkpoint has lost acknowledged records: refuse, change nothing."""
    async with open_node(config(str(tmp_path))) as node:
        await make_shop(node)
    for file in tmp_path.iterdir():
        if file.suffix not in (".db", ".db-wal", ".db-shm"):
            file.unlink() if file.is_file() else _remove(file)
    with pytest.raises(LogCorrupt):
        async with open_node(config(str(tmp_path))):
            pass


@pytest.mark.parametrize("take_checkpoints", [True, False])
async def test_replay_gives_the_live_state(tmp_path: Path, take_checkpoints: bool) -> None:
    """State after a start equals the state before the end, with checkpoints in between or without."""
    settings = config(str(tmp_path), checkpoint_s=0.01 if take_checkpoints else 3600.0)
    async with open_node(settings) as node:
        for stream in ("store:s1", "store:s2", "store:s3"):
            await make_shop(node, stream)
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(_ask, node, f"store:s{number % 3 + 1}")
        live = {stream: await node.read(stream) for stream in list(node.actors)}
        if not take_checkpoints:
            node.upkeep.take = _nothing  # type: ignore[method-assign]
    async with open_node(settings) as node:
        assert {stream: await node.read(stream) for stream in live} == live


async def test_a_cursor_from_before_the_checkpoint_resumes_after_a_crash(tmp_path: Path) -> None:
    """The rings are whole again: what the checkpoint holds and what came after it, in one ring."""
    async with open_node(config(str(tmp_path / "a"))) as node:
        await make_shop(node)
        await node.ask(STORE, order(), by=OWNER)
        await node.upkeep.take()
        await node.ask(STORE, order(), by=OWNER)
        head = (await node.read(STORE)).version
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    async with open_node(config(str(tmp_path / "b"))) as node:
        with await node.subscribe(STORE, after=Cursor(node.epoch, 1)) as subscription:
            assert subscription.reset is None
            assert [frame.version for frame in subscription.take()] == list(range(2, head + 1))


async def test_idle_actors_leave_memory_and_come_back(tmp_path: Path) -> None:
    """Written out, dropped, loaded again on the next use, answers included; a cursor still resumes by
    events.
    """
    settings = config(str(tmp_path), idle_s=0.0, checkpoint_s=0.01)
    async with open_node(settings) as node:
        await make_shop(node)
        start = Cursor.parse((await node.read(STORE)).cursor)
        first = await node.ask(STORE, order(), by=OWNER, id="k")
        await wait_until(lambda: STORE not in node.actors)
        with await node.subscribe(STORE, start) as subscription:
            assert [frame.body for frame in subscription.take()] == first.events
            assert (await node.ask(STORE, order(), by=OWNER, id="k")) == first._replace(replayed=True)
            assert STORE in node.actors  # somebody follows it


async def _ask(node: Any, stream: str = STORE) -> None:
    await node.ask(stream, order(), by=OWNER)


async def _nothing() -> bool:
    return True


def _raise(*_: object) -> None:
    raise ZeroDivisionError


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


async def test_a_crash_after_the_append_reads_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What became durable before a fault is part of the rebuilt state, and its readers get it."""
    async with open_node(config(str(tmp_path))) as node:
        await make_shop(node)
        subscription = await node.subscribe(STORE)
        publish = Feed.publish

        def fail_once(self: Feed, frames: Any) -> None:
            monkeypatch.setattr(Feed, "publish", publish)
            raise ZeroDivisionError

        monkeypatch.setattr(Feed, "publish", fail_once)
        with pytest.raises(UnknownOutcome):
            await node.ask(STORE, order(order="a"), by=OWNER, id="k")
        assert "a" in (await state_of(node, STORE))["orders"]
        assert [frame.type for frame in subscription.take()] == ["OrderCreated", "OrderPlaced"]
        assert (await node.ask(STORE, order(order="a"), by=OWNER, id="k")).replayed
        await node.ask(STORE, order(order="b"), by=OWNER)
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0, seconds=10)


async def test_a_fence_holds_after_a_restart(tmp_path: Path) -> None:
    """The next party at a table cannot resume into the time of the one before, whatever is read back from
    disk.
    """
    settings = config(str(tmp_path))
    table = "table:s1/3"
    async with open_node(settings) as node:
        await make_shop(node)
        await node.ask(table, OpenTable(guests=2), by=table)
        cursor = Cursor.parse((await node.read(table)).cursor)
        await node.ask(table, CallStaff(kind="water"), by=table)
        await node.ask(table, CloseTable(), by=OWNER)
        await node.ask(table, OpenTable(guests=4), by=table)
        with await node.subscribe(table, cursor) as subscription:
            assert subscription.reset == "expired"
    async with open_node(settings) as node:
        with await node.subscribe(table, cursor) as subscription:
            assert subscription.reset == "expired"
