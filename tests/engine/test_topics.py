"""Topics in a node: what is published is there, once, for every group, wherever it is kept by then."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from engine import MEMORY, Config, Delivery, Message, Node, open_node
from engine.consuming import Consuming
from engine.domain.customer import TOPIC
from engine.errors import Malformed

COUNT = 300


def messages(first: int = 0, count: int = COUNT) -> list[Message]:
    """Numbered records of seven keys."""
    numbers = range(first, first + count)
    return [Message(number, f"k{number % 7}", event_id=f"e{number}") for number in numbers]


async def drain(node: Node, group: str, count: int) -> list[Delivery]:
    """Take part in a group until so many records came."""
    found: list[Delivery] = []
    with trio.fail_after(20):
        async with node.consume("news", group) as records:
            async for record in records:
                found.append(record)
                if len(found) == count:
                    break
    return found


def check(found: list[Delivery], count: int = COUNT) -> None:
    """Every record is there, in order per key."""
    numbers = [msgspec.json.decode(one.data) for one in found]
    assert sorted(numbers) == list(range(count))
    for key in range(7):
        mine = [number for number in numbers if number % 7 == key]
        assert mine == sorted(mine)


async def lag(node: Node, group: str) -> int:
    told = await node.topics.lag("news", group)
    number: int = told["lag"]
    return number


async def test_every_group_gets_every_record() -> None:
    """Each for itself, from the first one on."""
    async with open_node(Config(data=MEMORY)) as node:
        placed = await node.publish("news", messages())
        assert not any(one.duplicate for one in placed)
        for group in ("one", "two"):
            check(await drain(node, group, COUNT))
            assert await lag(node, group) == 0


@pytest.mark.parametrize("db", ["", "none"])
async def test_old_records_are_read_from_where_they_are(tmp_path: Path, db: str) -> None:
    """The ring is short, and after a restart even shorter: out of the history, or the log where there is
    none; what is published again is known.
    """
    config = Config(data=str(tmp_path), db=db, ring_frames_max=8, checkpoint_s=0.1)
    async with open_node(config) as node:
        placed = await node.publish("news", messages())
        check(await drain(node, "one", COUNT))
    async with open_node(config) as node:
        again = await node.publish("news", messages())
        assert all(one.duplicate for one in again)
        assert [one[:3] for one in again] == [one[:3] for one in placed]
        await node.publish("news", messages(COUNT, 50))
        check(await drain(node, "two", COUNT + 50), COUNT + 50)
        assert await lag(node, "one") == 50


async def test_old_records_leave_the_log_when_the_history_has_them(tmp_path: Path) -> None:
    """A group that comes late gets them all the same."""
    config = Config(data=str(tmp_path), ring_frames_max=8, refill_bytes=0, segment_bytes=65_536)
    async with open_node(config) as node:
        for first in range(0, 2000, 20):
            await node.publish("news", messages(first, 20))
        with trio.fail_after(10):
            while node.history is None or node.history.lag:
                await trio.sleep(0.02)
        await node.upkeep.take()
        await node.publish("news", messages(2000, 1))
        assert node.log.first > 100, "nothing was dropped from the log: this test tests nothing"
        check(await drain(node, "late", 2001), 2001)


async def test_what_is_kept_nowhere_is_passed_over_and_counted(tmp_path: Path) -> None:
    """Without a history, the log goes on without waiting for groups."""
    config = Config(data=str(tmp_path), db="none", ring_frames_max=8, refill_bytes=0, segment_bytes=65_536)
    async with open_node(config) as node:
        await node.consume("news", "late").__aenter__()
        for first in range(0, 2000, 20):
            await node.publish("news", messages(first, 20))
        await node.upkeep.take()
        assert node.log.first > 100
        node.topics.shelf._kept.clear()
        await node.topics.join("news", "late", "m", lease_ms=30_000)
        with trio.fail_after(10):
            while not await node.topics.pull("news", "late", "m"):
                pass
        told = await node.topics.lag("news", "late")
        assert told["missed"] > 0
        assert told["missed"] + told["lag"] <= 2000


async def test_an_exception_gives_the_record_back() -> None:
    """Another member gets it; a block that ends well has acknowledged its record."""
    async with open_node(Config(data=MEMORY)) as node:
        await node.publish("news", [Message(1, "k"), Message(2, "k")])
        with pytest.raises(ZeroDivisionError):
            async with node.consume("news", "one") as records:
                async for _record in records:
                    raise ZeroDivisionError
        told = await node.topics.lag("news", "one")
        assert (told["lag"], told["members"]) == (2, {})
        assert sum(one["waiting"] for one in told["partitions"]) == 1
        found = await drain(node, "one", 2)
        assert [(one.attempt, bytes(one.data)) for one in found] == [(2, b"1"), (1, b"2")]
        assert await lag(node, "one") == 0


async def test_a_lease_is_renewed_while_a_record_is_handled() -> None:
    """However long it takes, nobody else gets it."""
    async with open_node(Config(data=MEMORY)) as node:
        await node.publish("news", [Message(1, "k")])
        async with Consuming(node, "news", "one", "slow", lease_ms=500) as records:
            await records.__anext__()
            await node.topics.join("news", "one", "other", lease_ms=30_000)
            got = await node.topics.pull("news", "one", "other", wait_s=1.5)
            assert got == []
        told = await node.topics.lag("news", "one")
        assert (told["lag"], list(told["members"])) == (0, ["other"])


async def test_a_handler_gets_records_of_different_keys_side_by_side() -> None:
    """One that fails comes again, and its key waits for it; the others go on."""
    async with open_node(Config(data=MEMORY)) as node:
        await node.publish("news", messages(0, 70))
        seen: list[int] = []
        failed: list[int] = []
        together, most = 0, 0
        done = trio.Event()

        async def handle(record: Delivery) -> None:
            nonlocal together, most
            together += 1
            most = max(most, together)
            await trio.sleep(0.001)
            together -= 1
            number = msgspec.json.decode(record.data)
            if number == 7 and not failed:
                failed.append(number)
                raise ValueError("not now")
            seen.append(number)
            if len(seen) == 70:
                done.set()

        async with trio.open_nursery() as nursery:
            member = node.consume("news", "one")
            nursery.start_soon(member.handle, handle)
            with trio.fail_after(10):
                await done.wait()
            nursery.cancel_scope.cancel()
        assert most > 1
        assert failed == [7]
        mine = [number for number in seen if number % 7 == 0]
        assert mine == sorted(mine), "what is behind it in its key waits"


async def test_partitions_stay_as_they_were_made(tmp_path: Path) -> None:
    """A setting that is changed later is for later topics."""
    async with open_node(Config(data=str(tmp_path), topic_partitions=2)) as node:
        first = await node.publish("news", messages(0, 20))
    async with open_node(Config(data=str(tmp_path), topic_partitions=5)) as node:
        assert [one[:3] for one in await node.publish("news", messages(0, 20))] == [one[:3] for one in first]
        assert await node.topics.partitions("news") == 2
        await node.publish("other", messages(0, 1))
        assert await node.topics.partitions("other") == 5


async def test_what_cannot_be_published() -> None:
    """Too many, too large, too deep, not JSON, or no name."""
    deep: object = []
    for _ in range(64):
        deep = [deep]
    async with open_node(Config(data=MEMORY)) as node:
        for topic, bad in [
            ("news", []),
            ("news", messages(0, 501)),
            ("news", [Message("x" * 65_536)]),
            ("news", [Message(object())]),
            ("news", [Message(deep)]),
            ("new s", messages(0, 1)),
        ]:
            with pytest.raises(Malformed):
                await node.publish(topic, bad)
        assert await node.topics.partitions("news") == 0


async def test_groups_of_customers_wait_until_there_is_a_topic(tmp_path: Path) -> None:
    """A shop that recognizes nobody has none of their records; after a restart they go on by themselves."""
    async with open_node(Config(data=str(tmp_path))) as node:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert node.log.head == 0
        event = {"customer_id": "A", "location": "Entrance", "confidence": 1, "detected_at": "2027-01-01T00"}
        body = {"event_id": "e1", "timestamp": "", "data": event}
        await node.publish(TOPIC, [Message(body, "A", "CustomerIdentified", "e1")])
        await wait_told(node, 1)
    async with open_node(Config(data=str(tmp_path))) as node:
        with trio.fail_after(5):
            while f"group:{TOPIC}/analytics" not in node.actors:
                await trio.sleep(0.01)
        await node.publish(TOPIC, [Message({**body, "event_id": "e2"}, "A", "CustomerIdentified", "e2")])
        await wait_told(node, 2)


async def wait_told(node: Node, count: int) -> None:
    """The customer was told so often."""
    with trio.fail_after(5):
        while await node.examine("user:A", lambda state, _: len(state.notices)) < count:
            await trio.sleep(0.01)
