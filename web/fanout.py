"""The hub: writes what is published on a feed to thousands of sockets, from one task.

A member is a small object, not a task. Members that are owed the same bytes (one feed, the same `types`) are
a group. Its frames go out in rounds: a round's bytes are made once and sent to each live member with one
system call. What is published meanwhile waits for the next round, so under load a round is larger, not later.

A live member stands at `group.version`, where the round under way leads. One whose socket is full is
no longer live: its subscription is its own cursor, it may hold the rest of one shared write, and is told of
room by the poller. It catches up from the feed's ring, and is live again once it stands where the group does.
One that the ring has moved past is told `bye` `lagging`; one that takes nothing for the send timeout is cut.

The loop gives way after each slice of sends, and dirty groups take turns. Between two rounds of a group the
members that stand aside have their turn: for a ping (its cursor must be right, and while a round is under way
nobody can say who has had it), or because they joined ahead of the group.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections import deque
from contextlib import suppress

import trio

from engine.errors import Lagging
from engine.feed import Feed
from web.connection import SEND_BYTES
from web.ending import reason_of
from web.http1 import LAST_CHUNK, chunk
from web.messages import Stream
from web.poller import UNWATCHED, Poller, make_poller
from web.rounds import GONE, Group, Member, Over
from web.site import Site
from web.sources import TAKE_MAX, OneFeed, to_blocks
from web.streaming import WRITE_BYTES_MAX, EventStream
from web.wheel import Wheel

SLICE_SENDS = 32
"""Sends between two checkpoints, about 0.2 ms; fewer when they are large. With 128 a command of another shop
took twice as long beside 10,000 watchers (`benchmarks/fairness.py`), and no more was delivered.
"""

SLICE_BYTES = 1 << 20
"""Bytes handed to the kernel between two checkpoints."""

WRITES_MAX = 8
"""Writes by which one member catches up before others have their turn."""


class Hub:
    """All subscribers of one server that are not tasks of their own."""

    def __init__(self, site: Site, wheel: Wheel) -> None:
        self.wheel = wheel
        self._site = site
        self._metrics = site.node.metrics
        self._groups: dict[tuple[Feed, frozenset[str] | None], Group] = {}
        self._members: set[Member] = set()
        self._busy: deque[Group] = deque()
        self._bell = trio.Event()
        self._poller: Poller[Member] = make_poller(self._gone, self._writable)

    def __len__(self) -> int:
        """Return how many members there are."""
        return len(self._members)

    @property
    def groups(self) -> list[Group]:
        return list(self._groups.values())

    @staticmethod
    def takes(stream: Stream | None) -> bool:
        """Return whether the hub can have a stream: one of one feed, as it stands there."""
        return isinstance(stream, EventStream) and isinstance(stream.source, OneFeed)

    def adopt(self, sock: socket.socket, stream: EventStream, head: bytes, over: Over) -> None:
        """Take over a connection until its stream has ended.

        Args:
            sock: not blocking; nobody else may use it until `over`.
            stream: one that `takes` says yes to, not pulled yet. It is closed before `over` is called.
            head: the response's head, still to be sent; the body will be chunked.
            over: called once, maybe before this returns, with the socket and whether the terminating chunk
                went out, so that the connection may serve another request; else the socket is closed already.
                It must not raise.
        """
        source = stream.source
        assert isinstance(source, OneFeed)
        group = self._group_of(source)
        member = Member(group, sock, stream, source.subscription, over)
        group.count += 1
        self._members.add(member)
        stream.ending.wake = member.hurry
        member.pending = memoryview(head + chunk(stream.take_opening()))
        try:
            self._poller.add(sock, member)
        except UNWATCHED:  # it broke already, or the system watches no more of them
            self._leave(member, alive=False)
        else:
            self._advance(member)

    def _group_of(self, source: OneFeed) -> Group:
        feed = source.subscription.feed
        group = self._groups.get((feed, source.types))
        if group is None:
            epoch = source.subscription.cursor.epoch.encode()
            group = self._groups[feed, source.types] = Group(self, feed, epoch, source.types)
            feed.listeners.append(group.wake)
        source.types = group.types  # one set for all
        return group

    async def run(self) -> None:
        """Serve the members; runs until cancelled, and cuts those who are left then."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._poller.run)
                while True:
                    if not self._busy:
                        self._bell = trio.Event()
                        await self._bell.wait()
                    self._work()
                    await trio.lowlevel.checkpoint()
        finally:
            self.abort()
            self._poller.close()

    def abort(self) -> None:
        """Cut every member."""
        for member in list(self._members):
            self._leave(member, alive=False, hard=True)

    # Rounds

    def wake(self, group: Group) -> None:
        self._busy.append(group)
        self._bell.set()

    def _work(self) -> None:
        """Do one slice of what there is to do, group by group."""
        left = SLICE_SENDS
        while self._busy and left > 0:
            group = self._busy.popleft()
            if group.targets:
                left -= self._send(group)
            elif group.settling:
                left -= self._settle(group)
            else:
                left -= 1
                group.begin()
            if group.busy:
                self._busy.append(group)

    def _send(self, group: Group) -> int:
        """Send the round to the next members; return how much of a slice that took."""
        data, size = group.chunk, len(group.chunk)
        many = max(1, min(SLICE_SENDS, SLICE_BYTES // size))
        targets = group.targets[-many:]
        del group.targets[-many:]
        served = len(targets)
        for member in targets:
            try:
                sent = member.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                served -= 1
                self._gone(member)
                continue
            if sent != size:
                served -= not sent
                self._fall_back(member, sent)
        self._metrics.deliveries.inc(served * len(group.frames))
        if not group.targets:
            self._metrics.delivery_lag_s.observe(time.monotonic() - group.frames[0].published_s)
        return SLICE_SENDS * len(targets) // many

    def _settle(self, group: Group) -> int:
        """Look after the next members that stood aside; return how much of a slice that took."""
        members = group.settling[-SLICE_SENDS:]
        del group.settling[-SLICE_SENDS:]
        for member in members:
            if member.sock is not GONE and member.cut_at == math.inf:
                self.attend(member)
        return len(members)

    # One member

    def hurry(self, member: Member) -> None:
        """Have a member attended to with the next tick."""
        member.due = -math.inf
        self.wheel.add(member)

    def attend(self, member: Member) -> None:
        """Do what is due for a member: a ping, its end; or, where its socket is full, cut it in time."""
        group = member.group
        if member.cut_at < math.inf:
            member.due = member.cut_at
            if trio.current_time() >= member.cut_at:
                self._leave(member, alive=False, hard=True)
        elif group.targets:
            self._put_aside(member)
        else:
            if member in group.live:
                group.live.discard(member)
                member.subscription.version = group.version
            self._advance(member)

    def _put_aside(self, member: Member) -> None:
        member.due = math.inf
        member.group.aside.append(member)
        member.group.wake()

    def _fall_back(self, member: Member, sent: int) -> None:
        """A live member's socket is full: from here it goes on by itself."""
        group = member.group
        group.live.discard(member)
        if sent:
            member.subscription.version = group.version
            member.pending = memoryview(group.chunk)[sent:]
        else:
            member.subscription.version = group.before
        self._block(member)

    def _writable(self, member: Member) -> None:
        if member.cut_at < math.inf:
            self._advance(member)

    def _advance(self, member: Member) -> None:
        """Write what a member that is not live is owed, as far as its socket takes it."""
        moved = False
        try:
            with suppress(BlockingIOError):
                for _ in range(WRITES_MAX):
                    if member.pending is None and not self._fill(member):
                        return
                    assert member.pending is not None
                    sent = member.sock.send(member.pending)
                    member.taken += sent
                    if sent < len(member.pending):
                        member.pending = member.pending[sent:]
                    else:
                        member.pending = None
                        moved = True
        except OSError:
            self._gone(member)
            return
        self._block(member, moved)

    def _fill(self, member: Member) -> bool:
        """Put the next write into `pending`; false when there is none: the member is live, aside or gone."""
        group, subscription, stream = member.group, member.subscription, member.stream
        if member.leaving:
            self._leave(member, alive=True)
            return False
        reason = stream.reason()
        if reason is None:
            if stream.wants_ping():
                member.pending = memoryview(chunk(stream.ping()))
                return True
            missing = group.version - subscription.version
            if missing < 0:
                self._unblock(member)
                self._put_aside(member)
                return False
            if missing:
                try:
                    frames = subscription.take(min(missing, TAKE_MAX), WRITE_BYTES_MAX)
                except Lagging:
                    reason = "lagging"
                else:
                    blocks = to_blocks(frames, group.epoch, group.types)
                    member.pending = memoryview(chunk(b"".join(blocks)))
                    return True
            elif group.feed.ended is not None and group.version == group.feed.head:
                reason = reason_of(group.feed.ended)
        if reason is None:
            self._unblock(member)
            group.live.add(member)
            self._arm(member, stream.due)
            return False
        member.leaving = True
        member.pending = memoryview(chunk(stream.bye(reason)) + LAST_CHUNK)
        return True

    def _block(self, member: Member, moved: bool = True) -> None:
        """Wait for room; begin to count its time anew when the client has taken something."""
        if member.cut_at == math.inf:
            self._poller.want_write(member.sock, True)
            moved = True
        if moved or member.taken >= SEND_BYTES:
            member.taken = 0
            member.cut_at = trio.current_time() + self._site.config.send_timeout_s
            self._arm(member, member.cut_at)

    def _unblock(self, member: Member) -> None:
        if member.cut_at < math.inf:
            member.cut_at = math.inf
            self._poller.want_write(member.sock, False)

    def _arm(self, member: Member, due: float) -> None:
        earlier = due < member.due
        member.due = due
        if earlier:
            self.wheel.add(member)

    def _gone(self, member: Member) -> None:
        """The client has left, or is found to have."""
        if member.sock is not GONE:
            self._leave(member, alive=False)

    def _leave(self, member: Member, *, alive: bool, hard: bool = False) -> None:
        """Let go of a member; with `hard` the client gets nothing more of what waits in the kernel."""
        group = member.group
        sock, member.sock = member.sock, GONE
        member.pending = None
        member.due = member.cut_at = math.inf
        self._poller.remove(sock)
        self._members.discard(member)
        group.live.discard(member)
        group.count -= 1
        if not group.count:
            group.feed.listeners.remove(group.wake)
            del self._groups[group.feed, group.types]
        member.stream.ending.wake = None
        member.stream.close()
        if not alive:
            if hard:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        member.over(sock, alive)
