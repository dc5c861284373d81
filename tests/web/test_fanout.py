"""The hub: everything in order to everybody, whatever the others do."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest
import trio

from tests.web.fanned import SLOW, Reader, fanned, slow_read, until
from tests.web.site import wait_until
from web import fanout
from web.sse import Message, Moved

pytestmark = pytest.mark.one_node("the hub of one process")


async def test_everybody_gets_everything_in_order(watching: str) -> None:
    """The first thing is the opening, then each frame."""
    async with fanned() as fan:
        readers = [fan.join() for _ in range(300)]
        for _ in range(20):
            fan.publish(3)
            await trio.lowlevel.checkpoint()
        for reader in readers:
            await until(reader, lambda reader=reader: len(reader.versions) == 60)
            assert reader.versions == list(range(1, 61))
            assert reader.items[0] == Moved(f"{fan.node.epoch}-0")


async def test_what_gathers_goes_out_as_one_write() -> None:
    """Frames published while the loop does not run are one chunk."""
    async with fanned() as fan:
        reader = fan.join()
        await fan.settle()
        reader.read_all()
        for _ in range(10):
            fan.publish()
        await fan.settle()
        raw = reader.sock.recv(65_536)
        assert raw.count(b"id: ") == 10
        size, _, rest = raw.partition(b"\r\n")
        assert int(size, 16) == len(rest) - 2


@pytest.mark.parametrize("seed", range(8))
async def test_order_without_loss_under_slow_readers_who_come_and_go(seed: int, watching: str) -> None:
    """Readers join at any moment, behind or at the head, read in dribs and drabs, or just leave: who stays
    has every version after its start, once.
    """
    random_ = random.Random(seed)
    async with fanned(ping_s=0.05) as fan:
        staying: list[tuple[int, Reader]] = []
        for _ in range(120):
            if random_.random() < 0.3:
                start = random_.randint(fan.feed.low, fan.feed.head)
                buffer = random_.choice((0, SLOW))
                staying.append((start, fan.join(after=start, send_buffer=buffer, tcp=random_.random() < 0.2)))
            if random_.random() < 0.7:
                fan.publish(random_.randint(1, 40), random_.choice((0, 200, 2000)))
            if staying and random_.random() < 0.1:
                staying.pop(random_.randrange(len(staying)))[1].sock.close()
            slow_read([reader for _, reader in staying], random_)
            for _ in range(random_.randint(0, 3)):
                await trio.lowlevel.checkpoint()
        fan.publish()
        for start, reader in staying:
            await until(reader, lambda reader=reader: reader.versions[-1:] == [fan.feed.head])
            assert reader.versions == list(range(start + 1, fan.feed.head + 1))
            assert not reader.over
        assert len(fan.hub) == len(staying)
        check_pings([reader for _, reader in staying])


def check_pings(readers: list[Reader]) -> None:
    """A ping's cursor is that of what came before it."""
    seen = 0
    for reader in readers:
        cursor = ""
        for item in reader.items:
            if isinstance(item, Message) and item.event == "ping":
                assert f'"cursor":"{cursor}"' in item.data
                seen += 1
            elif isinstance(item, Moved | Message):
                cursor = item.id
    assert seen


async def test_a_laggard_costs_others_nothing_and_catches_up(watching: str) -> None:
    """One that reads nothing for a while is served from the ring later, and is live again then."""
    async with fanned() as fan:
        slow, quick = fan.join(send_buffer=SLOW), fan.join()
        for _ in range(40):
            fan.publish(5, 3000)
            await until(quick, lambda: quick.versions[-1:] == [fan.feed.head])
        assert not slow.over
        await until(slow, lambda: len(slow.versions) == 200)
        assert slow.versions == list(range(1, 201))
        fan.publish()
        await until(slow, lambda: slow.versions[-1] == 201)


async def test_who_falls_behind_the_ring_is_told_so(watching: str) -> None:
    """After what it was being sent comes `lagging`; the socket is given back."""
    async with fanned() as fan:
        feed = fan.new_feed("user:short", frames_max=8)
        reader = fan.join(feed=feed, send_buffer=SLOW)
        for _ in range(20):
            fan.publish(4, 3000, feed)
            await fan.settle(3)
        await until(reader, lambda: reader.ended)
        assert reader.bye == "lagging"
        assert reader.versions == list(range(1, len(reader.versions) + 1))
        assert len(reader.versions) < 80
        assert reader.over == [True]
        assert fan.site.ends == {"lagging": 1}


async def test_a_batch_that_is_larger_than_the_ring_ends_everybody() -> None:
    """Nobody can have what has left the ring already: no silent hole."""
    async with fanned() as fan:
        feed = fan.new_feed("user:short", frames_max=8)
        readers = [fan.join(feed=feed) for _ in range(3)]
        fan.publish(9, feed=feed)
        for reader in readers:
            await until(reader, lambda reader=reader: reader.ended)
            assert (reader.bye, reader.versions, reader.over) == ("lagging", [], [True])


async def test_a_fence_ends_those_who_are_behind_it() -> None:
    """What is before a fence is not served any more; who stands right before it goes on."""
    async with fanned() as fan:
        at_head, behind = fan.join(), fan.join(send_buffer=SLOW)
        for _ in range(30):
            fan.publish(1, 3000)
            await fan.settle(3)
        at_head.read_all()
        fan.publish()
        fan.feed.fence(fan.feed.head)
        await until(at_head, lambda: at_head.versions[-1] == 31)
        await until(behind, lambda: behind.ended)
        assert behind.bye == "lagging"
        assert 31 not in behind.versions


async def test_who_takes_nothing_is_cut(watching: str) -> None:
    """After the send timeout, hard; a slow one that goes on reading is not."""
    async with fanned(send_timeout_s=0.3) as fan:
        stalled, slow = fan.join(send_buffer=SLOW), fan.join(send_buffer=SLOW)
        for _ in range(50):
            fan.publish(1, 3000)
        began = trio.current_time()
        while trio.current_time() < began + 1.0 and slow.versions[-1:] != [50]:
            for _ in range(8):
                slow.read(4096)
            await trio.sleep(0.02)
        await wait_until(lambda: stalled.over)
        assert stalled.over == [False]
        await until(slow, lambda: slow.versions[-1:] == [50])
        assert not slow.over


async def test_a_trickle_is_not_enough() -> None:
    """One that takes a few bytes now and then does not hold its place for good."""
    async with fanned(send_timeout_s=0.3) as fan:
        reader = fan.join(send_buffer=SLOW)
        fan.publish(60, 3000)
        with trio.fail_after(2):  # all of it would take it four seconds
            while not reader.over:
                reader.read(400)
                await trio.sleep(0.01)
        assert reader.over == [False]


async def test_types_keeps_only_those_and_moves_the_cursor() -> None:
    """Groups of one feed differ; what is left out is an id-only block where nothing comes behind it."""
    async with fanned() as fan:
        all_, some = fan.join(), fan.join(types=frozenset({"Asked"}))
        for type_ in ("Asked", "Said", "Asked", "Said", "Said"):
            fan.publish(type_=type_)
        await until(some, lambda: some.items[-1:] == [Moved(f"{fan.node.epoch}-5")])
        assert some.versions == [1, 3]
        assert len(some.items) == 4  # with the opening
        await until(all_, lambda: len(all_.versions) == 5)


async def test_pings_while_nothing_happens() -> None:
    """Again and again, with the cursor that the client has."""
    async with fanned(ping_s=0.1) as fan:
        reader = fan.join()
        fan.publish()
        await until(reader, lambda: len(reader.events("ping")) == 3)
        assert f'"cursor":"{fan.node.epoch}-1"' in reader.items[-1].data  # type: ignore[union-attr]
        check_pings([reader])


async def test_a_crowd_leaves_others_their_turn() -> None:
    """While 2,000 members get a round, another task runs after each slice, and another feed's one member has
    its frame after one slice, not after the crowd.
    """
    async with fanned() as fan:
        crowd = [fan.join() for _ in range(1000)]
        other = fan.new_feed("user:other")
        alone = fan.join(feed=other)
        crowd += [fan.join() for _ in range(1000)]
        await fan.settle()
        for reader in (*crowd, alone):
            reader.read_all()
        fan.publish()
        fan.publish(feed=other)
        served, served_alone = [0], 0
        while served[-1] < len(crowd):
            await trio.lowlevel.checkpoint()
            for reader in (*crowd, alone):
                reader.read()
            served.append(sum(bool(reader.versions) for reader in crowd))
            served_alone += not alone.versions
        most = max(after - before for before, after in pairwise(served))
        assert most <= 2 * fanout.SLICE_SENDS  # trio lets tasks run in any order, so two may come in a row
        assert served_alone <= 4


async def test_who_joins_in_a_round_gets_what_is_after_its_cursor() -> None:
    """Not the round that is under way, if it has that already, but all of the next."""
    async with fanned() as fan:
        crowd = [fan.join() for _ in range(1000)]
        await fan.settle()
        fan.publish(3)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        behind, at_head = fan.join(after=1), fan.join()
        fan.publish(2)
        ahead = fan.join()
        fan.publish(2)
        for reader, start in ((behind, 1), (at_head, 3), (ahead, 5), (crowd[0], 0), (crowd[-1], 0)):
            await until(reader, lambda reader=reader: reader.versions[-1:] == [7])
            assert reader.versions == list(range(start + 1, 8))


async def test_deliveries_are_counted_once() -> None:
    """Frames times members, whoever was slow."""
    async with fanned() as fan:
        readers = [fan.join(send_buffer=SLOW if number % 2 else 0) for number in range(20)]
        for _ in range(60):
            fan.publish()
            await fan.settle(3)
        for reader in readers:
            await until(reader, lambda reader=reader: len(reader.versions) == 60)
        counted = re.search(rb"^onda_deliveries_total (\S+)$", fan.node.render_metrics(), re.MULTILINE)
        assert counted is not None
        assert float(counted[1]) == 20 * 60


async def test_what_is_due_in_a_round_waits_for_its_end() -> None:
    """A `bye` to one that the round has not come to yet would stand before frames of the round."""
    async with fanned() as fan:
        readers = [fan.join() for _ in range(1000)]
        await fan.settle()
        fan.publish()
        (group,) = fan.hub.groups
        while not group.targets:
            await trio.lowlevel.checkpoint()
        for member in list(group.live):
            member.stream.ending.at = 0.0
            fan.hub.attend(member)
        for reader in readers:
            await until(reader, lambda reader=reader: reader.ended)
            assert (reader.bye, reader.versions) == ("rotate", [1])
