"""What goes on at one node in the very moment in which an epoch begins, or others append."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.errors import LogAway
from engine.shared_partition import SharedPartition
from tests.engine.cluster import Cluster, memory_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order, wait_until

__all__ = ["memory_cluster"]


async def test_a_checkpoint_passes_over_nothing_as_an_epoch_begins(
    memory_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is due in that moment is not taken: what another node appended is not known yet."""
    async with memory_cluster.open("a", checkpoint_s=3600) as (a,):
        part, log = a.partition_of(STORE), memory_cluster.log_of(STORE)
        await make_shop(a)
        await a.ask(STORE, order(), by=OWNER)
        await wait_until(lambda: part.on_duty, 20)
        (_, entry) = (await log.read(log.head - 1))[0]
        log.lose(1, "lost")
        await wait_until(lambda: part.epoch == "lost" and part.on_duty, 20)
        await wait_until(lambda: a.loaded_version(STORE) == entry.version - 1, 20)
        assert await part.upkeep.take()
        begin = SharedPartition._begin_epoch

        def begin_with_a_checkpoint(self: SharedPartition) -> None:
            begin(self)
            assert a.nursery is not None
            a.nursery.start_soon(self.upkeep.take)

        monkeypatch.setattr(SharedPartition, "_begin_epoch", begin_with_a_checkpoint)
        log.lose(0, "later")
        log.submit([entry], lambda _: None)  # by another node, before this one has noticed
        await wait_until(lambda: part.epoch == "later" and part.on_duty, 20)
        await wait_until(lambda: a.loaded_version(STORE) == entry.version, 20)
        assert await part.upkeep.take()
        assert (await part.checkpoint.load_states([STORE]))[STORE].version == entry.version


async def test_readers_who_come_during_an_append_are_told_no_lie(memory_cluster: Cluster) -> None:
    """The log is there: all of them get what they came for."""
    async with memory_cluster.open("a") as (a,):
        await make_shop(a)
        log = memory_cluster.log_of(STORE)
        log.hold()
        async with trio.open_nursery() as nursery:

            async def take_order() -> None:
                await a.ask(STORE, order(), by=OWNER)

            nursery.start_soon(take_order)
            await wait_until(lambda: log._waiting)
            for _ in range(3):
                nursery.start_soon(a.catch_up, STORE)
                await trio.testing.wait_all_tasks_blocked()
            log.release()


async def test_readers_are_told_when_the_log_is_away(
    memory_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows then what it has."""
    async with memory_cluster.open("a") as (a,):
        await make_shop(a)

        async def away(*_: object, **__: object) -> None:
            raise LogAway("it does not answer")

        monkeypatch.setattr(memory_cluster.log_of(STORE), "read_stream", away)
        with pytest.raises(LogAway, match="does not answer"), trio.fail_after(5):
            await a.catch_up(STORE)
