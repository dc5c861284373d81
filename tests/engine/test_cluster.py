"""Several nodes on one log: any node takes the order, every screen shows it, and nothing happens twice."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
import trio

from engine import Answer, Cursor, Node
from engine.domain.store.coupons import CreateCoupon, IssueCoupon
from engine.errors import IdempotencyMismatch, ReadOnly, Rejected, Unavailable, UnknownOutcome
from engine.shared_partition import SharedPartition
from engine.upkeep import ANSWERS_MAX, Upkeep
from tests.engine.cluster import Cluster, RedisCluster, cluster, memory_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order, state_of, wait_until

__all__ = ["cluster", "memory_cluster"]


def conflicts(node: Node) -> float:
    """How many appends of a node had to be decided again."""
    return float(node.metrics.conflicts._value.get())


async def same(one: Node, other: Node, stream: str) -> None:
    """Wait until both nodes have the same of a stream."""
    with trio.fail_after(5):
        while True:
            with suppress(Rejected):  # one has not heard of the store yet
                if await one.read(stream) == await other.read(stream):
                    return
            await trio.sleep(0.001)


async def test_a_shop_that_one_node_made_takes_orders_at_another(cluster: Cluster | RedisCluster) -> None:
    """Either node decides on what the other has done, and both show the same."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await wait_until(lambda: STORE in b.stores)
        await b.ask(STORE, order(), by=OWNER)
        await a.ask(STORE, order(), by=OWNER)
        await b.ask(STORE, order(), by=OWNER)
        await same(a, b, STORE)
        assert len((await state_of(a, STORE))["orders"]) == 3


async def test_a_screen_at_one_node_shows_what_the_other_takes(cluster: Cluster | RedisCluster) -> None:
    """Frames are the same bytes, in order, each once; a cursor of one node is good at the other."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await wait_until(lambda: STORE in b.stores)
        with await b.subscribe(STORE) as screen:
            assert screen.snapshot is not None
            answers: list[Answer] = [await a.ask(STORE, order(), by=OWNER) for _ in range(20)]
            sent = [body for answer in answers for body in answer.events]
            shown: list[bytes] = []
            with trio.fail_after(5):
                while len(shown) < len(sent):
                    await screen.wait()
                    shown += [frame.body for frame in screen.take()]
            assert shown == sent
        after = Cursor.parse(answers[4].cursor)
        with await b.subscribe(STORE, after) as again:
            assert again.reset is None
            assert len(again.take()) == answers[-1].version - answers[4].version


async def test_two_nodes_at_one_coupon(cluster: Cluster | RedisCluster) -> None:
    """Five hundred coupons, a thousand guests at two nodes: each coupon goes to one guest."""
    async with cluster.open("a", "b", mailbox_max=2000) as (a, b):
        await make_shop(a)
        await a.ask(STORE, CreateCoupon(coupon="c", name="C", discount=100, stock=500), by=OWNER)
        await same(a, b, STORE)
        given: list[int] = []
        refused: list[str] = []

        async def take(node: Node, user: str) -> None:
            while True:
                try:
                    answer = await node.ask(
                        STORE, IssueCoupon(coupon="c", user=user), by=f"user:{user}", id="1"
                    )
                except Rejected as error:
                    refused.append(error.code)
                except Unavailable:
                    continue
                else:
                    given.append(msgspec.json.decode(answer.result)["sequence"])
                return

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(1000):
                    nursery.start_soon(take, (a, b)[number % 2], f"u{number}")
        assert sorted(given) == list(range(1, 501))
        assert refused == ["coupon_exhausted"] * 500
        assert conflicts(a) + conflicts(b) > 0
        await same(a, b, STORE)


async def test_one_key_at_two_nodes_is_one_order(cluster: Cluster | RedisCluster) -> None:
    """Whoever is faster: both get the same answer, and there is one effect."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        got: dict[str, list[Answer]] = {}

        async def ask(node: Node, key: str) -> None:
            got.setdefault(key, []).append(await node.ask(STORE, order(), by=OWNER, id=key))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, a, f"k{number}")
                nursery.start_soon(ask, b, f"k{number}")
        for one, other in got.values():
            assert one._replace(replayed=False) == other._replace(replayed=False)
            assert one.replayed != other.replayed
        await same(a, b, STORE)
        assert len((await state_of(a, STORE))["orders"]) == 100
        with pytest.raises(IdempotencyMismatch):
            await b.ask(STORE, order(quantity=2), by=OWNER, id="k1")


async def test_answers_that_another_node_saved_leave_the_memory(cluster: Cluster | RedisCluster) -> None:
    """A node that is not on duty keeps no more of them than a few, and still gives each of them again."""
    async with cluster.open("a", "b", checkpoint_s=0.05) as (a, b):
        await make_shop(a)
        await wait_until(lambda: a.partition_of(STORE).on_duty or b.partition_of(STORE).on_duty, 20)
        (other,) = [node for node in (a, b) if not node.partition_of(STORE).on_duty]
        answers = [await other.ask(STORE, order(), by=OWNER, id=f"k{number}") for number in range(200)]
        memory = other.actors[STORE].memory
        await wait_until(lambda: len(memory.unsaved()) <= ANSWERS_MAX, 20)
        assert len(memory) >= 200
        for number in (0, 100, 199):
            again = await other.ask(STORE, order(), by=OWNER, id=f"k{number}")
            assert again == answers[number]._replace(replayed=True)


async def test_a_busy_stream_does_not_hold_up_the_checkpoint(cluster: Cluster | RedisCluster) -> None:
    """While both nodes append to a stream as fast as they can, each checkpoint has it."""
    async with cluster.open("a", "b", checkpoint_s=3600, mailbox_max=2000) as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        await wait_until(lambda: a.partition_of(STORE).on_duty or b.partition_of(STORE).on_duty, 20)
        (keeper,) = [node for node in (a, b) if node.partition_of(STORE).on_duty]
        part = keeper.partition_of(STORE)
        at = part.checkpoint.position

        async def hammer(node: Node) -> None:
            while True:
                with suppress(Unavailable):
                    await node.ask(STORE, order(), by=OWNER)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(hammer, (a, b)[number % 2])
            for _ in range(10):
                await trio.sleep(0.02)
                assert await part.upkeep.take()
                assert part.checkpoint.position > at
                at = part.checkpoint.position
            nursery.cancel_scope.cancel()
        assert conflicts(a) + conflicts(b) > 0


async def test_what_follows_from_a_record_happens_once(cluster: Cluster | RedisCluster) -> None:
    """Each partition has one node that runs reactions, whichever node the record was made at."""
    async with cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        for number in range(10):
            await (a, b)[number % 2].ask(STORE, order(user=f"u{number}"), by=f"user:u{number}")
        for number in range(10):
            with trio.fail_after(10):
                while not (await state_of(a, f"user:u{number}"))["orders"]:
                    await trio.sleep(0.01)
            await same(a, b, f"user:u{number}")
        held = [[one.on_duty for one in node.partitions] for node in (a, b)]
        assert [sum(pair) for pair in zip(*held, strict=True)] == [1, 1]


async def test_another_node_takes_over(cluster: Cluster | RedisCluster) -> None:
    """When a node ends, the other goes on with its reactions and deadlines, from the checkpoint on."""
    async with cluster.open("b") as (b,):
        async with cluster.open("a") as (a,):
            await make_shop(a)
            await same(a, b, STORE)
            await a.ask(STORE, order(user="u1"), by="user:u1")
        await b.ask(STORE, order(user="u2"), by="user:u2")
        for user in ("u1", "u2"):
            with trio.fail_after(10):
                while not (await state_of(b, f"user:{user}"))["orders"]:
                    await trio.sleep(0.01)
        await wait_until(lambda: all(one.on_duty for one in b.partitions), 10)


async def test_what_a_start_finds_is_what_was_there(cluster: Cluster | RedisCluster) -> None:
    """A node that comes later reads the checkpoint and what came after it."""
    async with cluster.open("a", checkpoint_s=0.05) as (a,):
        await make_shop(a)
        await wait_until(lambda: all(one.on_duty for one in a.partitions), 10)
        answers = [await a.ask(STORE, order(), by=OWNER, id=f"k{number}") for number in range(50)]
        await trio.sleep(0.2)
        async with cluster.open("b") as (b,):
            await same(a, b, STORE)
            again = await b.ask(STORE, order(), by=OWNER, id="k3")
            assert again == answers[3]._replace(replayed=True)
            assert len((await state_of(b, STORE))["orders"]) == 50


async def test_cursors_are_good_after_a_start(cluster: Cluster | RedisCluster) -> None:
    """Also those from before the last checkpoint, as long as the log keeps what came after them."""
    async with cluster.open("a", checkpoint_s=3600) as (a,):
        await make_shop(a)
        await wait_until(lambda: all(one.on_duty for one in a.partitions), 10)
        answers = [await a.ask(STORE, order(), by=OWNER) for _ in range(10)]
    async with cluster.open("b", ring_frames_max=8) as (b,):
        assert await b.checkpoint.load_states([STORE]) or await b.partitions[1].checkpoint.load_states(
            [STORE]
        )
        for answer, reset in ((answers[0], "expired"), (answers[6], None), (answers[9], None)):
            with await b.subscribe(STORE, Cursor.parse(answer.cursor)) as screen:
                assert screen.reset == reset
                if reset is None:
                    assert len(screen.take()) == answers[-1].version - answer.version
        await b.ask(STORE, order(), by=OWNER)


async def test_while_the_log_takes_nothing_commands_are_refused(memory_cluster: Cluster) -> None:
    """Reads go on, and so does everything once it takes appends again."""
    async with memory_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        before = await a.read(STORE)
        for log in memory_cluster.logs:
            log.set_writable(False)
        for node in (a, b):
            with pytest.raises(ReadOnly):
                await node.ask(STORE, order(), by=OWNER)
            assert await node.read(STORE) == before
        for log in memory_cluster.logs:
            log.set_writable(True)
        await b.ask(STORE, order(), by=OWNER)
        await same(a, b, STORE)


async def test_a_new_epoch_starts_everything_afresh(memory_cluster: Cluster) -> None:
    """When the log lost acknowledged records, states are those of the log, and old cursors are told."""
    async with memory_cluster.open("a", "b") as (a, b):
        await make_shop(a)
        kept = await a.ask(STORE, order(), by=OWNER)
        await a.ask(STORE, order(), by=OWNER)
        await same(a, b, STORE)
        epoch = a.partition_of(STORE).epoch
        lost = (await a.read(STORE)).version - kept.version
        memory_cluster.log_of(STORE).lose(lost, "later")
        for node in (a, b):
            with trio.fail_after(5):
                while (snapshot := await node.read(STORE)).cursor.startswith(epoch):
                    await trio.lowlevel.checkpoint()
            assert snapshot.version == kept.version, "what is lost is shown in the new epoch"
            with await node.subscribe(STORE, Cursor.parse(kept.cursor)) as screen:
                assert screen.reset == "epoch"
        await b.ask(STORE, order(), by=OWNER)
        await same(a, b, STORE)


async def test_what_is_under_way_when_an_epoch_begins_has_an_unknown_outcome(memory_cluster: Cluster) -> None:
    """Its append may still come to be there: nobody may be told that nothing happened."""
    async with memory_cluster.open("a") as (a,):
        await make_shop(a)
        log = memory_cluster.log_of(STORE)
        log.hold()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(UnknownOutcome), trio.fail_after(5):
                    await a.ask(STORE, order(), by=OWNER, id="k")

            nursery.start_soon(ask)
            await wait_until(lambda: log._waiting > 0)
            log.lose(1, "later")


async def test_a_checkpoint_while_a_partition_is_taken_over(
    memory_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is about to be on duty does not know yet what changed: a checkpoint that comes due
    meanwhile may not pass over it, or records would be dropped that are in no saved state.
    """

    async def take_none(_upkeep: Upkeep) -> bool:
        return False  # it is killed: there is no last checkpoint

    with monkeypatch.context() as ends:
        ends.setattr(Upkeep, "take", take_none)
        async with memory_cluster.open("a", checkpoint_s=1000) as (a,):
            await make_shop(a)
    look = SharedPartition._changed_since

    async def look_slowly(part: SharedPartition, position: int) -> set[str]:
        await part.upkeep.take()
        return await look(part, position)

    monkeypatch.setattr(SharedPartition, "_changed_since", look_slowly)
    async with memory_cluster.open("b", checkpoint_s=1000) as (b,):
        part = b.partition_of(STORE)
        await wait_until(lambda: part.on_duty, 10)
        assert part.checkpoint.position == 0
        assert await part.upkeep.take()
        assert STORE in await part.checkpoint.load_states([STORE])
