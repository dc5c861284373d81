"""Watching sockets: ends and room are told, once removed a socket is silent; both ways do the same."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.lowlevel

from tests.web.site import wait_until
from web.poller import EpollPoller, Poller, TaskPoller, make_poller


class Watch:
    """A poller that runs, and what it has told."""

    def __init__(self, kind: Callable[..., Poller[str]]) -> None:
        self.ended: list[str] = []
        self.writable: list[str] = []
        self.sockets: list[socket.socket] = []
        self.poller = kind(self.ended.append, self.writable.append)

    def pair(self, name: str, *, tcp: bool = False) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets, the first of them watched."""
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                theirs = socket.create_connection(listener.getsockname())
                ours, _ = listener.accept()
        else:
            ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.sockets += [ours, theirs]
        self.poller.add(ours, name)
        return ours, theirs


@pytest.fixture(params=[EpollPoller, TaskPoller])
async def watch(request: pytest.FixtureRequest) -> AsyncIterator[Watch]:
    """A poller of either kind."""
    made = Watch(request.param)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.poller.run)
        yield made
        nursery.cancel_scope.cancel()
    made.poller.close()
    for sock in made.sockets:
        sock.close()


def fill(sock: socket.socket) -> None:
    """Send until there is no room."""
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(b"x" * 65_536)


async def settle() -> None:
    """Let what is due happen."""
    for _ in range(20):
        await trio.sleep(0.001)


def test_linux_has_epoll() -> None:
    """It is the one that is used here."""
    poller = make_poller(print, print)
    assert isinstance(poller, EpollPoller)
    poller.close()


@pytest.mark.parametrize("how", ["close", "half", "reset"])
async def test_an_end_is_told(watch: Watch, how: str) -> None:
    """Closed, half closed, or reset."""
    ours, theirs = watch.pair("a", tcp=True)
    watch.pair("b")
    await settle()
    assert not watch.ended
    if how == "half":
        theirs.shutdown(socket.SHUT_WR)
    else:
        if how == "reset":
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
    await wait_until(lambda: watch.ended)
    assert set(watch.ended) == {"a"}
    watch.poller.remove(ours)
    count = len(watch.ended)
    await settle()
    assert len(watch.ended) == count


async def test_what_a_client_sends_is_not_read(watch: Watch) -> None:
    """And costs no wake-up."""
    ours, theirs = watch.pair("a")
    theirs.send(b"next request")
    await settle()
    assert not watch.ended
    watch.poller.remove(ours)
    assert ours.recv(100) == b"next request"


async def test_room_is_told_while_it_is_wanted(watch: Watch) -> None:
    """Not before there is some, and not after."""
    ours, theirs = watch.pair("a")
    fill(ours)
    watch.poller.want_write(ours, True)
    await settle()
    assert not watch.writable
    while not watch.writable:
        theirs.recv(65_536)
        await trio.lowlevel.checkpoint()
    watch.poller.want_write(ours, False)
    count = len(watch.writable)
    await settle()
    assert len(watch.writable) <= count + 1
    watch.poller.want_write(ours, True)
    await wait_until(lambda: len(watch.writable) > count + 1)


async def test_an_end_is_told_to_one_that_waits_for_room(watch: Watch) -> None:
    """A laggard that leaves is not waited for."""
    ours, theirs = watch.pair("a", tcp=True)
    fill(ours)
    watch.poller.want_write(ours, True)
    theirs.close()
    await wait_until(lambda: watch.ended)


async def test_removing_may_happen_while_telling() -> None:
    """One end makes the owner forget another socket whose end is known by then, too."""
    told: list[str] = []
    pairs: dict[str, tuple[socket.socket, socket.socket]] = {}

    def ended(name: str) -> None:
        told.append(name)
        for ours, _ in pairs.values():
            poller.remove(ours)

    poller = EpollPoller[str](ended, print)
    for name in "abc":
        pairs[name] = socket.socketpair()
        poller.add(pairs[name][0], name)
        pairs[name][1].close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await settle()
        nursery.cancel_scope.cancel()
    assert len(told) == 1
    for ours, _ in pairs.values():
        ours.close()
    poller.close()


async def test_one_that_is_removed_can_be_watched_again(watch: Watch) -> None:
    """As a connection that serves one stream after another."""
    ours, theirs = watch.pair("a")
    watch.poller.remove(ours)
    watch.poller.remove(ours)
    watch.poller.add(ours, "again")
    await settle()
    theirs.close()
    await wait_until(lambda: watch.ended)
    assert set(watch.ended) == {"again"}
