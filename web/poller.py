"""Thousands of idle sockets watched by one task: who has left, and who can be written to again.

Where there is epoll the sockets are in an epoll of our own, and one trio task waits for that one to become
readable; elsewhere each socket has a task. Both only tell; what follows is up to their owner.

Nothing is read here. What a client sends while nobody expects it waits in the kernel, whose window closes
once its buffer is full: it costs us neither a wake-up nor memory, and a request that was sent ahead is still
there when the connection is read again.
"""

from __future__ import annotations

import math
import select
import socket
import sys
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import trio

EVENTS_MAX = 64
"""Taken between two checkpoints; each may cost a few system calls."""

UNWATCHED = (OSError, ValueError, trio.ClosedResourceError)
"""What `Poller.add` raises; the last two: the socket or the poller is closed."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Poller(Protocol[T_contra]):
    """Watches sockets, each for an item that its owner knows it by."""

    def add(self, sock: socket.socket, item: T_contra) -> None:
        """Watch for the end of a socket: its peer has closed, or half closed, or the connection broke.

        Raises:
            UNWATCHED: it cannot be watched.
        """

    def want_write(self, sock: socket.socket, wanted: bool) -> None:
        """Watch, or watch no more, for room to write; told again and again while there is some."""

    def remove(self, sock: socket.socket) -> None:
        """Forget a socket, before it is closed or given to somebody else; no effect on one that is not
        watched.
        """

    async def run(self) -> None:
        """Tell what happens; runs until cancelled."""

    def close(self) -> None:
        """Give back what the poller itself holds."""


def make_poller(ended: Callable[[T], None], writable: Callable[[T], None]) -> Poller[T]:
    """Return the best poller that the system has. The two functions must not raise."""
    if sys.platform == "linux":
        return EpollPoller(ended, writable)
    return TaskPoller(ended, writable)


if sys.platform == "linux":
    _END = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

    class EpollPoller(Generic[T]):
        """One epoll for all sockets, and one task that waits for it."""

        def __init__(self, ended: Callable[[T], None], writable: Callable[[T], None]) -> None:
            self._ended = ended
            self._writable = writable
            self._epoll = select.epoll()
            self._items: dict[int, T] = {}

        def add(self, sock: socket.socket, item: T) -> None:
            self._epoll.register(sock, select.EPOLLRDHUP)
            self._items[sock.fileno()] = item

        def want_write(self, sock: socket.socket, wanted: bool) -> None:
            also = select.EPOLLOUT if wanted else 0
            self._epoll.modify(sock, select.EPOLLRDHUP | also)

        def remove(self, sock: socket.socket) -> None:
            if self._items.pop(sock.fileno(), None) is not None:
                self._epoll.unregister(sock)

        async def run(self) -> None:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for number, events in self._epoll.poll(0, EVENTS_MAX):
                    item = self._items.get(number)
                    if item is None:
                        continue  # removed because of an event before this one
                    if events & _END:
                        self._ended(item)
                    else:
                        self._writable(item)

        def close(self) -> None:
            self._epoll.close()


class _Watched(Generic[T]):
    """A socket of `TaskPoller`: the scopes of its tasks, and what wakes the writing one."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.scope = trio.CancelScope()
        self.wanted = trio.Event()


class TaskPoller(Generic[T]):
    """Two tasks for each socket. An end behind bytes that nobody reads is seen only when a send fails."""

    def __init__(self, ended: Callable[[T], None], writable: Callable[[T], None]) -> None:
        self._ended = ended
        self._writable = writable
        self._watched: dict[socket.socket, _Watched[T]] = {}
        self._start, self._starting = trio.open_memory_channel[tuple[socket.socket, _Watched[T]]](math.inf)

    def add(self, sock: socket.socket, item: T) -> None:
        watched = self._watched[sock] = _Watched(item)
        self._start.send_nowait((sock, watched))

    def want_write(self, sock: socket.socket, wanted: bool) -> None:
        watched = self._watched[sock]
        if wanted:
            watched.wanted.set()
        elif watched.wanted.is_set():
            watched.wanted = trio.Event()

    def remove(self, sock: socket.socket) -> None:
        watched = self._watched.pop(sock, None)
        if watched is not None:
            watched.scope.cancel()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            async for sock, watched in self._starting:
                nursery.start_soon(self._watch, sock, watched)

    async def _watch(self, sock: socket.socket, watched: _Watched[T]) -> None:
        with watched.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait_end, sock, watched)
                while True:
                    await watched.wanted.wait()
                    await trio.lowlevel.checkpoint_if_cancelled()  # the socket may be closed by now
                    await trio.lowlevel.wait_writable(sock)
                    if watched.wanted.is_set():
                        self._writable(watched.item)

    async def _wait_end(self, sock: socket.socket, watched: _Watched[T]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        await trio.lowlevel.wait_readable(sock)
        try:
            gone = not sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        if gone:
            self._ended(watched.item)

    def close(self) -> None:
        self._start.close()
