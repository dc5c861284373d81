"""How a subscriber of the hub ends: it leaves, it breaks, its time or its token is over, the node stops."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
import trio

from tests.web.fanned import SLOW, fanned, somebody, until
from tests.web.site import wait_until
from web import revoked
from web.fanout import Hub

pytestmark = pytest.mark.one_node("the hub of one process")


@pytest.mark.parametrize("how", ["close", "half", "reset", "loud"])
async def test_who_leaves_is_let_go(how: str, watching: str) -> None:
    """While nothing is being sent, too; and also when the end stands behind what the client sent before."""
    async with fanned() as fan:
        reader, other = fan.join(tcp=True), fan.join()
        await fan.settle()
        if how == "loud":
            reader.sock.send(b"x" * 1000)
            await fan.settle()
            assert not reader.over
        if how == "half":
            reader.sock.shutdown(socket.SHUT_WR)
        else:
            if how == "reset":
                reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reader.sock.close()
        if how == "loud" and watching == "tasks":
            fan.publish(5)  # only now it can be noticed
            await fan.settle()
            fan.publish(5)
        await wait_until(lambda: reader.over == [False])
        assert len(fan.hub) == 1
        fan.publish()
        await until(other, lambda: other.versions[-1:] == [fan.feed.head])


async def test_one_that_breaks_in_a_round_costs_only_itself() -> None:
    """The reset is found by the send, before anybody was told of it."""
    async with fanned() as fan:
        readers = [fan.join(tcp=True) for _ in range(20)]
        await fan.settle()
        for reader in readers[::2]:
            reader.read_all()
            reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reader.sock.close()
        fan.publish()
        for reader in readers[1::2]:
            await until(reader, lambda reader=reader: reader.versions == [1])
        await wait_until(lambda: len(fan.hub) == 10)
        assert [reader.over for reader in readers[::2]] == [[False]] * 10


async def test_thousands_leave_at_once() -> None:
    """In the middle of a round; the group goes with the last one."""
    async with fanned() as fan:
        readers = [fan.join() for _ in range(400)]
        fan.publish()
        await trio.lowlevel.checkpoint()
        for reader in readers:
            reader.sock.close()
        fan.publish()
        await wait_until(lambda: not len(fan.hub))
        assert not fan.feed.listeners
        assert not fan.feed.subscriptions
        again = fan.join()
        fan.publish()
        await until(again, lambda: again.versions == [3])


async def test_rotation_of_many_at_once() -> None:
    """All are told, and their connections are given back for another request."""
    async with fanned(rotate_s=0.3) as fan:
        readers = [fan.join() for _ in range(300)]
        fan.publish()
        for reader in readers:
            await until(reader, lambda reader=reader: reader.ended and reader.over)
            assert (reader.bye, reader.versions, reader.over) == ("rotate", [1], [True])
        assert fan.site.ends == {"rotate": 300}
        sock = readers[0].given_back
        assert sock is not None
        sock.send(b"next")
        assert readers[0].sock.recv(10) == b"next"


async def test_rotation_under_load_leaves_no_hole() -> None:
    """The `bye` never stands before a frame that the round under way still has for the client."""
    async with fanned(rotate_s=0.2) as fan:
        readers = [fan.join() for _ in range(300)]
        while not all(reader.over for reader in readers):
            fan.publish(2, 100)
            await trio.lowlevel.checkpoint()
            for reader in readers:
                reader.read()
        for reader in readers:
            reader.read_all()
            assert reader.bye == "rotate"
            assert reader.versions == list(range(1, len(reader.versions) + 1))


async def test_the_token_ends() -> None:
    """With `unauthorized`, as the clock says."""
    async with fanned() as fan:
        ends = somebody(expires_ms=fan.node.clock.now_ms() + 200)
        reader = fan.join(who=ends)
        await until(reader, lambda: reader.ended)
        assert (reader.bye, reader.over) == ("unauthorized", [True])


async def test_a_revoked_token_ends_its_streams_only(tmp_path, monkeypatch) -> None:
    """Within a second, counted from when it is on the list, also under load."""
    monkeypatch.setattr(revoked, "POLL_S", 0.5)
    async with fanned() as fan, trio.open_nursery() as nursery:
        fan.site.gate.revoked = revoked.Revoked(tmp_path / "revoked")
        nursery.start_soon(fan.site.gate.revoked.follow)
        mine = [fan.join(who=somebody("t1")) for _ in range(50)]
        other = fan.join(who=somebody("t2"))
        now_ms = fan.node.clock.now_ms()
        revoked.add_revoked(tmp_path / "revoked", "t1", now_ms + 60_000, now_ms)
        with trio.fail_after(1):
            while not all(reader.ended for reader in mine):
                fan.publish()
                await trio.sleep(0.001)
                for reader in (*mine, other):
                    reader.read_all()
        assert {reader.bye for reader in mine} == {"unauthorized"}
        assert other.bye is None
        nursery.cancel_scope.cancel()


async def test_a_stopping_node_says_bye_after_everything(watching: str) -> None:
    """Also to one that has to catch up first; who joins after it is told at once."""
    async with fanned() as fan:
        quick, slow = fan.join(), fan.join(send_buffer=SLOW)
        fan.publish(30, 3000)
        await fan.settle(2)
        fan.publish(5, 3000)
        await fan.node.stop()
        for reader in (quick, slow):
            await until(reader, lambda reader=reader: reader.ended)
            assert (reader.bye, reader.versions) == ("shutdown", list(range(1, 36)))
        late = fan.join(after=30)
        await until(late, lambda: late.ended)
        assert (late.bye, late.versions) == ("shutdown", list(range(31, 36)))
        assert len(fan.hub) == 0
        assert fan.site.ends == {"shutdown": 3}


async def test_the_end_waits_for_nobody() -> None:
    """Who does not take its `bye` is cut when the server has waited long enough."""
    async with fanned() as fan:
        stalled = fan.join(send_buffer=SLOW)
        fan.publish(30, 3000)
        await fan.settle()
        await fan.node.stop()
        assert len(fan.hub) == 1
        fan.hub.abort()
        assert stalled.over == [False]


async def test_a_token_revoked_while_its_stream_was_being_opened(tmp_path: Path) -> None:
    """After the check and before there was a stream to call back: it ends with its first word."""
    async with fanned() as fan:
        fan.site.gate.revoked = revoked.Revoked(tmp_path / "revoked")
        now_ms = fan.node.clock.now_ms()
        revoked.add_revoked(tmp_path / "revoked", "t1", now_ms + 60_000, now_ms)
        fan.site.gate.revoked.load()
        reader = fan.join(who=somebody("t1"))
        await until(reader, lambda: reader.ended)
        assert (reader.bye, fan.site.ends) == ("unauthorized", {"unauthorized": 1})


async def test_who_joins_when_nobody_watches_any_more_is_over_at_once(watching: str) -> None:
    """The end of everything may come between an answer and its stream."""
    async with fanned() as fan:
        fan.hub = Hub(fan.site, fan.wheel)
        fan.hub._poller.close()
        reader = fan.join()
        assert reader.over == [False]
