"""Several nodes that are busy with one shop let each other append: a slow one is served as a quick one is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine import Node, rivals
from engine.errors import Conflict, Overloaded
from engine.log import WAITS_S, Basis, Turns
from engine.records import Entry
from engine.shared_actor import SharedActor
from tests.engine.cluster import Cluster, RedisCluster, memory_cluster, redis_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order
from tests.engine.test_cluster import conflicts, same
from tests.log.redis_site import needs_redis

__all__ = ["memory_cluster", "redis_cluster"]

LONG_S = 60.0
"""A bound that no test waits for."""


async def be_too_late(cluster: Cluster) -> None:
    """Meet a conflict at the shop's stream, as another node's actor."""
    log = cluster.log_of(STORE)
    turns = Turns("rival", False, lambda _: None)
    with pytest.raises(Conflict):
        await log.append([Entry(STORE, 1, b"", b"{}")], Basis(log.epoch, "", ["late"], turns))


async def test_who_was_too_late_goes_first(memory_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that is told of it lets the other append before its next turn; its commands gather meanwhile,
    and then go in one append.
    """
    monkeypatch.setattr(rivals, "YIELD_S", LONG_S)
    done: list[int] = []

    async def ask(node: Node) -> None:
        done.append((await node.ask(STORE, order(), by=OWNER)).version)

    async with memory_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        await be_too_late(memory_cluster)
        await ask(a)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(ask, a)
                for _ in range(100):
                    await trio.testing.wait_all_tasks_blocked()
                assert len(done) == 1
                other = await b.ask(STORE, order(), by=OWNER)
        assert done[0] < other.version < min(done[1:])
        assert conflicts(a) + conflicts(b) == 0


async def test_how_long_they_are_let_go_first(autojump_clock: MockClock) -> None:
    """Longer once it was not enough, then twice as long as they took, and never longer than is remembered."""
    found = rivals.Rivals("me")
    told = found.turns(more=True).ahead

    async def wait(ahead: int, comes_after_s: float) -> float:
        told(ahead)
        began_s = trio.current_time()
        with found.patience() as patience:
            while found.ahead:
                await trio.sleep(comes_after_s)
                found.came()
        if patience.cancelled_caught:
            found.pass_over()
        assert found.ahead == 0
        return trio.current_time() - began_s

    assert await wait(1, 9) == pytest.approx(0.25)
    assert await wait(1, 9) == pytest.approx(0.5)
    assert await wait(1, 0.4) == pytest.approx(0.4)
    assert await wait(2, 9) == pytest.approx(1.6)
    assert await wait(1, 9) == pytest.approx(WAITS_S)
    assert await wait(3, 0.01) == pytest.approx(0.03)
    assert await wait(2, 9) == pytest.approx(0.5)


async def test_who_does_not_come_is_not_waited_for(memory_cluster: Cluster) -> None:
    """For a moment only: once, by a node that is busy itself, and until the log has forgotten it, by one that
    is not.
    """
    async with memory_cluster.open("a") as (a,):
        await make_shop(a)

        async def ask(at_once: int) -> float:
            began_s = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(at_once):
                    nursery.start_soon(partial(a.ask, STORE, order(), by=OWNER))
            return trio.current_time() - began_s

        moment_s = rivals.YIELD_S / 2
        with trio.fail_after(10):
            await be_too_late(memory_cluster)
            await ask(2)
            actor = a.actors[STORE]
            assert isinstance(actor, SharedActor)
            assert await ask(1) > moment_s
            assert actor._rivals.ahead == 0
            await be_too_late(memory_cluster)
            await ask(1)
            assert await ask(1) > moment_s
            while await ask(1) > moment_s:
                pass


def slow_down(node: Node, by_s: float) -> None:
    """Let each trip of a node to Redis take longer."""
    writer: Any = node.partition_of(STORE).log._host.writer  # type: ignore[attr-defined]
    send = writer._send

    def send_late(batch: Sequence[Any]) -> list[Any]:
        time.sleep(by_s)
        found: list[Any] = send(batch)
        return found

    writer._send = send_late


async def order_everywhere(nodes: Iterable[Node], guests: int, enough: int) -> Counter[str]:
    """Let as many guests order at each node, again and again, until `enough` orders are taken in all; return
    how many each node took.
    """
    taken: Counter[str] = Counter()

    async def guest(node: Node, scope: trio.CancelScope) -> None:
        while taken.total() < enough:
            try:
                await node.ask(STORE, order(), by=OWNER)
            except Overloaded:
                taken[f"refused at {node.node_id}"] += 1
            else:
                taken[node.node_id] += 1
        scope.cancel()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                for _ in range(guests):
                    nursery.start_soon(guest, node, nursery.cancel_scope)
    return taken


@needs_redis
@pytest.mark.parametrize("names", [("quick", "slow"), ("quick", "quick.too", "slow")], ids=["two", "three"])
async def test_a_slow_node_takes_orders_of_a_hot_shop(
    redis_cluster: RedisCluster, names: Sequence[str]
) -> None:
    """Each of its trips takes longer than the turns of the others: still it takes about as many, as each
    guest's next order waits for the answer to the one before, and refuses none.
    """
    async with redis_cluster.open(*names) as nodes:
        await make_shop(nodes[0])
        for node in nodes[1:]:
            await same(nodes[0], node, STORE)
        slow_down(nodes[-1], 0.03)
        taken = await order_everywhere(nodes, guests=16, enough=1500)
    assert not any(name.startswith("refused") for name in taken), taken
    assert 2 * min(taken[name] for name in names) > max(taken[name] for name in names), taken
