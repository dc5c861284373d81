"""Members in the process: what they have goes back when nobody is there to handle it any more."""

from __future__ import annotations

import trio

from engine import MEMORY, Config, Delivery, Message, Node, open_node
from engine.consuming import Consuming
from engine.domain.group.members import Leave
from engine.domain.group.words import Ack

LEASE_MS = 500


def messages(*keys: str) -> list[Message]:
    """One record for each key, numbered."""
    return [Message(number, key, event_id=f"e{number}") for number, key in enumerate(keys)]


async def goes_to_another(node: Node) -> None:
    """A record that somebody had is given to another member, before long."""
    await node.topics.join("news", "one", "other", lease_ms=30_000)
    with trio.fail_after(5):
        while not (got := await node.topics.pull("news", "one", "other", wait_s=1)):
            pass
    assert [(one.event_id, one.attempt) for one in got] == [("e0", 2)]


async def test_a_loop_that_is_left_gives_its_record_back_when_the_lease_ends() -> None:
    """Also without `async with`: nobody renews for a member that is gone."""
    async with open_node(Config(data=MEMORY)) as node:
        await node.publish("news", messages("k"))
        async for _record in Consuming(node, "news", "one", "left", LEASE_MS):
            break
        await goes_to_another(node)


async def test_a_handler_that_is_cancelled_leaves() -> None:
    """At once, however long the lease is."""
    async with open_node(Config(data=MEMORY)) as node:
        await node.publish("news", messages("k"))
        begun = trio.Event()

        async def handle(_: Delivery) -> None:
            begun.set()
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.consume("news", "one").handle, handle)
            await begun.wait()
            nursery.cancel_scope.cancel()
        assert (await node.topics.lag("news", "one"))["members"] == {}
        await goes_to_another(node)


async def test_a_loop_fetches_some_records_at_once() -> None:
    """And each is acknowledged by itself; what was not looked at goes back at once."""
    async with open_node(Config(data=MEMORY)) as node:
        await node.publish("news", messages(*"abcdefghij"))
        seen = []
        async with node.consume("news", "one") as records:
            async for record in records:
                told = await node.topics.lag("news", "one")
                assert told["lag"] == 10 - len(seen), "the one before is acknowledged"
                seen.append(record.event_id)
                if len(seen) == 3:
                    break
        told = await node.topics.lag("news", "one")
        assert (told["lag"], told["members"]) == (7, {})
        pulls = told["partitions"]
        assert sum(one["under_way"] for one in pulls) == 0
        assert sum(one["waiting"] for one in pulls) == 5


async def test_a_loop_that_lost_its_leases_begins_afresh() -> None:
    """What it had fetched ahead may be handled by others meanwhile: it does not go on with that."""
    async with open_node(Config(data=MEMORY)) as node:
        await node.publish("news", messages("a", "b", "c"))
        async with node.consume("news", "one", "me") as records:
            first = await records.__anext__()
            await node.topics.join("news", "one", "other", lease_ms=30_000)
            await node.topics.ask("news", "one", Leave("me"))
            others = await node.topics.pull("news", "one", "other")
            assert len(others) == 3
            with trio.move_on_after(0.2):
                await records.__anext__()
                raise AssertionError("another member has all of them")
            assert first.attempt == 1
            leases = tuple(one.lease for one in others)
            await node.topics.ask("news", "one", Ack("other", leases))
        assert (await node.topics.lag("news", "one"))["lag"] == 0


async def test_a_word_that_was_cut_off_is_said_again() -> None:
    """Else its record would be in hand, and be renewed, for ever."""
    async with open_node(Config(data=MEMORY)) as node:
        await node.publish("news", messages("k"))
        async with node.consume("news", "one") as records:
            await records.__anext__()
            with trio.CancelScope() as scope:
                scope.cancel()
                await records.__anext__()
            with trio.move_on_after(0.2):
                await records.__anext__()
            assert (await node.topics.lag("news", "one"))["lag"] == 0
