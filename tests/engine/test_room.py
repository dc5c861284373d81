"""Many actors on a slow disk: they wait for room in the log's queue before they decide, not after."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from engine import open_node
from engine.errors import UnknownOutcome
from engine.log import memory
from engine.log.memory import MemoryLog
from engine.log.wal import open_wal
from engine.records import Entry
from tests.engine.shop import OWNER, config, make_shop, order, wait_until
from tests.simulation.worker import InlineWorker


async def test_a_full_queue_makes_actors_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is slow more than fits is asked; all of it is answered well and no state is lost."""
    monkeypatch.setattr(memory, "QUEUE_ENTRIES_MAX", 8)
    done = 0

    async def ask(stream: str) -> None:
        nonlocal done
        await node.ask(stream, order(), by=OWNER)
        done += 1

    async with open_node(config(restarts_max=100)) as node:
        log = node.log
        assert isinstance(log, MemoryLog)
        streams = [f"store:s{number}" for number in range(12)]
        for stream in streams:
            await make_shop(node, stream)
        states = {stream: node.actors[stream].state for stream in streams}
        async with trio.open_nursery() as nursery:
            log.hold()
            for stream in streams:
                nursery.start_soon(ask, stream)
            while done < len(streams):
                await trio.testing.wait_all_tasks_blocked()
                log.release()
                log.hold()
            log.release()
        assert all(node.actors[stream].state is states[stream] for stream in streams)


async def test_room_comes_with_each_batch_and_with_a_failure(tmp_path: Path) -> None:
    """Waiting ends when the queue is less than half full, or when nothing is taken any more."""
    worker = InlineWorker()
    async with open_wal(str(tmp_path), worker=worker, queue_entries_max=8, reserve_bytes=0) as log:
        await wait_until(lambda: log.writable)
        entry = Entry("user:u1", 1, b"", b"x")
        await log.wait_room()
        for last in (False, True):
            worker.hold()
            async with trio.open_nursery() as nursery:
                # the first is under way, four wait behind it
                for number in range(5):
                    nursery.start_soon(_append, log, entry._replace(stream=f"user:{last}{number}"))
                    await wait_until(lambda: worker.waiting > 0)
                    await trio.testing.wait_all_tasks_blocked()
                with trio.move_on_after(0.01) as scope:
                    await log.wait_room()
                assert scope.cancelled_caught
                nursery.start_soon(log.wait_room)
                await trio.testing.wait_all_tasks_blocked()
                if last:
                    log._commit.fail(OSError("no"))
                worker.release()


async def _append(log: object, entry: Entry) -> None:
    with suppress(UnknownOutcome):
        await log.append([entry])  # type: ignore[attr-defined]
