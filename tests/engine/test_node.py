"""The node as a library: commands, answers, reading, following, and the end."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from engine import Cursor, open_node
from engine.domain.store.orders import CreateOrder
from engine.domain.store.shop import ConfigureStore
from engine.domain.table.sitting import OpenTable
from engine.domain.user.notices import Notify
from engine.errors import IdempotencyMismatch, Malformed, Rejected, Stopping
from engine.log.memory import MemoryLog
from tests.engine.shop import OWNER, STORE, config, envelopes, make_shop, order, state_of, wait_until


async def test_an_order_is_answered_with_its_events_and_result() -> None:
    """The answer holds the cursor after the command, its envelopes in order, and the domain's result."""
    async with open_node(config()) as node:
        await make_shop(node)
        answer = await node.ask(STORE, order(2), by=OWNER)
        created, placed = envelopes(answer)
        assert [created["type"], placed["type"]] == ["OrderCreated", "OrderPlaced"]
        assert placed["version"] == created["version"] + 1 == answer.version
        assert placed["cursor"] == answer.cursor == str(Cursor(node.epoch, answer.version))
        assert created["by"] == OWNER
        assert created["stream"] == STORE
        assert created["patch"]["orders"]["o1"]["total"] == 10_000
        assert msgspec.json.decode(answer.result)["total"] == 10_000


async def test_the_view_is_the_sum_of_the_patches() -> None:
    """Snapshot at a cursor plus the patches after it equals the snapshot at the later cursor."""
    async with open_node(config()) as node:
        await make_shop(node)
        with await node.subscribe(STORE) as subscription:
            assert subscription.snapshot is not None
            state = msgspec.json.decode(subscription.snapshot.state)
            for _ in range(5):
                await node.ask(STORE, order(), by=OWNER)
            for frame in subscription.take():
                for collection, entities in msgspec.json.decode(frame.body)["patch"].items():
                    for name, entity in entities.items():
                        if entity is None:
                            state[collection].pop(name, None)
                        else:
                            state[collection][name] = entity
            assert state == await state_of(node, STORE)
            assert str(subscription.cursor) == (await node.read(STORE)).cursor


async def test_the_same_id_gives_the_first_answer_again(tmp_path: Path) -> None:
    """A repeat has no effect, in the same run, after a checkpoint, and after a restart from log or
    checkpoint.
    """
    settings = config(str(tmp_path))
    async with open_node(settings) as node:
        await make_shop(node)
        first = await node.ask(STORE, order(), by=OWNER, id="k1")
        assert (await node.ask(STORE, order(), by=OWNER, id="k1")) == first._replace(replayed=True)
        await node.upkeep.take()
        assert (await node.ask(STORE, order(), by=OWNER, id="k1")) == first._replace(replayed=True)
        second = await node.ask(STORE, order(), by=OWNER, id="k2")
    async with open_node(settings) as node:
        for key, answer in (("k1", first), ("k2", second)):
            assert (await node.ask(STORE, order(), by=OWNER, id=key)) == answer._replace(replayed=True)
        assert len((await state_of(node, STORE))["orders"]) == 2


async def test_a_repeat_within_one_batch_has_one_effect() -> None:
    """Twenty callers with the same id at once get one order and one answer."""
    async with open_node(config()) as node:
        await make_shop(node)
        answers = []

        async def ask() -> None:
            answers.append(await node.ask(STORE, order(), by=OWNER, id="same"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert len({answer.cursor for answer in answers}) == 1
        assert sum(answer.replayed for answer in answers) == 19
        assert len((await state_of(node, STORE))["orders"]) == 1


async def test_the_same_id_with_another_body_is_refused() -> None:
    """A key belongs to one body; another sender's key is another key."""
    async with open_node(config()) as node:
        await make_shop(node)
        await node.ask(STORE, order(1), by=OWNER, id="k")
        with pytest.raises(IdempotencyMismatch):
            await node.ask(STORE, order(2), by=OWNER, id="k")
        assert not (await node.ask(STORE, order(2), by="staff:lee", id="k")).replayed


async def test_a_refusal_is_remembered_too() -> None:
    """The same id gets the same refusal although the command would be accepted by now."""
    async with open_node(config()) as node:
        await make_shop(node, stock=0)
        for _ in range(2):
            with pytest.raises(Rejected) as refused:
                await node.ask(STORE, order(), by=OWNER, id="k")
            assert refused.value.code == "sold_out"
            await make_shop(node, stock=5)


async def test_what_does_not_exist_is_said() -> None:
    """No store, no table of it; a command of another kind of stream is malformed."""
    async with open_node(config()) as node:
        with pytest.raises(Rejected) as refused:
            await node.ask(STORE, order(), by=OWNER)
        assert refused.value.code == "unknown_store"
        with pytest.raises(Rejected):
            await node.ask("table:s1/3", OpenTable(), by="table:s1/3")
        with pytest.raises(Rejected):
            await node.read(STORE)
        with pytest.raises(Malformed):
            await node.ask("user:u1", order(), by=OWNER)
        assert not await node.exists(STORE)
        assert await node.exists("user:u1")


async def test_a_cancelled_caller_does_not_cancel_the_command() -> None:
    """The command of a client that hung up happens, whole."""
    async with open_node(config()) as node:
        await make_shop(node)
        with trio.CancelScope() as scope:
            scope.cancel()
            await node.ask(STORE, order(), by=OWNER)
        actor = node.actors[STORE]
        await wait_until(lambda: actor.idle)
        assert len((await state_of(node, STORE))["orders"]) == 1


async def test_resuming_from_a_cursor_after_a_restart(tmp_path: Path) -> None:
    """A recent cursor resumes by events although the state has moved on and was checkpointed."""
    settings = config(str(tmp_path))
    async with open_node(settings) as node:
        await make_shop(node)
        start = Cursor.parse((await node.read(STORE)).cursor)
        bodies = [body for _ in range(3) for body in (await node.ask(STORE, order(), by=OWNER)).events]
    async with open_node(settings) as node:
        with await node.subscribe(STORE, start) as subscription:
            assert subscription.snapshot is None
            assert [frame.body for frame in subscription.take()] == bodies


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [(Cursor("other", 1), "epoch"), (Cursor("", 99), "ahead"), (Cursor("", 0), "expired")],
)
async def test_a_cursor_that_cannot_be_used_is_reset(cursor: Cursor, reason: str) -> None:
    """Each reason comes with a snapshot to go on from."""
    async with open_node(config(ring_frames_max=2)) as node:
        await make_shop(node)
        with await node.subscribe(STORE, Cursor(cursor.epoch or node.epoch, cursor.version)) as subscription:
            assert subscription.reset == reason
            assert subscription.snapshot == await node.read(STORE)


async def test_stopping_tells_subscribers_after_the_last_frame() -> None:
    """A subscriber takes what was published, then learns that the node is going down; new commands are
    refused.
    """
    async with open_node(config()) as node:
        await make_shop(node)
        subscription = await node.subscribe(STORE)
        await node.ask(STORE, order(), by=OWNER)
        await node.stop()
        assert len(subscription.take()) == 2
        with pytest.raises(Stopping):
            await subscription.wait()
        with pytest.raises(Stopping):
            await node.ask(STORE, order(), by=OWNER)


async def test_commands_under_way_are_finished_at_the_end(tmp_path: Path) -> None:
    """What is in a mailbox when the node stops is answered, and is there after a restart."""
    settings = config(str(tmp_path), batch_max=10)
    answered = 0

    async def ask(node: object, number: int) -> None:
        nonlocal answered
        await node.ask(STORE, order(order=f"n{number}"), by=OWNER)  # type: ignore[attr-defined]
        answered += 1

    async with trio.open_nursery() as nursery:
        async with open_node(settings) as node:
            await make_shop(node)
            for number in range(100):
                nursery.start_soon(ask, node, number)
            await wait_until(lambda: node.actors[STORE].waiting > 0)
    assert answered == 100
    async with open_node(settings) as node:
        assert len((await state_of(node, STORE))["orders"]) == 100
        assert node.checkpoint.position == node.log.head  # a clean end leaves nothing to replay


async def test_overload_is_refused_at_once() -> None:
    """A full mailbox refuses the next command, and nothing of it happens."""
    async with open_node(config(mailbox_max=4)) as node:
        await make_shop(node)
        outcomes: list[str] = []

        async def ask() -> None:
            try:
                await node.ask(STORE, order(), by=OWNER)
                outcomes.append("ok")
            except Exception as error:
                outcomes.append(error.code)  # type: ignore[attr-defined]

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert outcomes.count("overloaded") == 6
        assert len((await state_of(node, STORE))["orders"]) == 4


async def test_three_lines_in_any_trio_program(tmp_path: Path) -> None:
    """The engine is a library: open, ask, read."""
    async with open_node(config(str(tmp_path))) as node:
        await node.ask("store:s9", ConfigureStore(name="Nine", payment_mode="postpay"), by=OWNER)
        assert b"Nine" in (await node.read("store:s9")).state


def test_commands_have_one_class_per_name() -> None:
    """The name on the wire leads to the class."""
    from engine import codec

    assert codec.command_type("store", "create-order") is CreateOrder
    assert codec.command_type("store", "nonsense") is None


async def test_who_gives_up_while_subscribing_leaves_nothing_behind() -> None:
    """The actor is busy with an append, and the reader goes before its turn comes."""
    async with open_node(config()) as node:
        await node.ask("user:u1", Notify(title="x"))
        assert isinstance(node.log, MemoryLog)
        node.log.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.ask, "user:u1", Notify(title="y"))
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0) as scope:
                await node.subscribe("user:u1")
            assert scope.cancelled_caught
            node.log.release()
        await trio.testing.wait_all_tasks_blocked()
        assert not node.feeds["user:u1"].subscriptions
