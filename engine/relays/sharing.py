"""Messages that every node of a shared log hears, and one of them writes down.

The node that is on duty for the user's partition writes a message as soon as it hears it. The others keep it
until they see its record in the log. If none comes, as that node died or gave the partition away, whoever is
on duty next writes it. So a message is neither written twice nor left out when nodes change, also one without
an id, where two that are equal are two.

A record says which message it is of: its cause is the message's key, which is made of the message alone. The
log may be faster than the channel, so a record may be seen before the message is heard here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import trio

from engine.codec import decode_envelope
from engine.domain.user.messages import ReceiveEvent
from engine.partition import Partition
from engine.records import Entry

KEEP_S = 30.0
"""How long a message waits for somebody to write it, while the log takes anything: longer than any change
of nodes takes.
"""
EARLY_S = 10.0
"""How long a record waits for its message, also across a change of duty. Bounded, as an equal message
would be taken for one that was never heard here.
"""
WAITING_MAX = 4096
WAITING_BYTES_MAX = 32 << 20
"""Of messages whose records were not seen yet; beyond, those that are not ours to write are let go."""
LOOK_S = 0.25


class Taken(NamedTuple):
    """A message as it is written down. `key`: the cause of its record; `once`: a second one with this key is
    the same message.
    """

    stream: str
    command: ReceiveEvent
    key: str
    once: bool


class Heard:
    """A message that waits. `given`: it is being written here."""

    __slots__ = ("at_s", "given", "mine", "size", "taken")

    def __init__(self, taken: Taken, size: int, mine: bool) -> None:
        self.taken = taken
        self.size = size
        self.mine = mine
        self.given = False
        self.at_s = trio.current_time()


class Host(Protocol):
    """What is asked of the node."""

    def partition_of(self, stream: str) -> Partition: ...


class Sharing:
    """What one node has heard. `write` writes a message down, or calls `give_back`."""

    def __init__(self, host: Host, by: str, write: Callable[[Heard], Awaitable[None]]) -> None:
        self._host = host
        self._by = by
        self._mark = b'"by":%s' % msgspec.json.encode(by)
        self._write = write
        self._waiting: dict[Heard, None] = {}
        self._bytes = 0
        self._early: dict[str, deque[float]] = {}
        self._early_since: deque[tuple[float, str]] = deque()
        self._bell = trio.Event()
        self._moved = trio.Event()

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._waiting)

    async def hear(self, taken: Taken, size: int, since_s: float = 0.0) -> None:
        """Take a message of the channel, which has been listened to since then; waits while there are too
        many to write.
        """
        mine = self.is_mine(taken.stream)
        if self._came_early(taken.key, since_s):
            return
        while len(self._waiting) >= WAITING_MAX or self._bytes + size > WAITING_BYTES_MAX:
            oldest = next(iter(self._waiting))
            if not oldest.given and self.is_mine(oldest.taken.stream):
                await self._moved.wait()
            else:
                self.drop(oldest)
        self._waiting[heard := Heard(taken, size, mine)] = None
        self._bytes += heard.size
        self._bell.set()

    def see(self, stream: str, records: Sequence[tuple[int, Entry]]) -> None:
        """Take what was appended to a stream, by whichever node."""
        if not stream.startswith("user:"):
            return
        for _, entry in records:
            if self._mark not in entry.body:
                continue
            envelope = decode_envelope(entry.body)
            if envelope.by == self._by:
                self._confirm(envelope.cause, self.is_mine(stream))

    def _confirm(self, key: str, mine: bool) -> None:
        for heard in self._waiting:
            if heard.taken.key == key:
                self.drop(heard)
                return
        if mine:
            return  # this node wrote it, and had let go of the message
        now_s = trio.current_time()
        self._early.setdefault(key, deque()).append(now_s)
        self._early_since.append((now_s, key))

    def _came_early(self, key: str, since_s: float) -> bool:
        """Return whether a message's record was seen before it, and take that record as its own."""
        while times := self._early.get(key):
            seen_s = times.popleft()
            if not times:
                del self._early[key]
            if seen_s >= since_s:
                return True
            # else its message came, if it did, while nobody listened here
        return False

    def is_mine(self, stream: str) -> bool:
        """Return whether this node is the one that writes what comes for a stream."""
        return self._host.partition_of(stream).on_duty

    def give_back(self, heard: Heard) -> None:
        """Say that a message was not written: this node is not on duty for it any more."""
        heard.given = heard.mine = False

    def drop(self, heard: Heard) -> None:
        """Look after a message no more: it is written, or cannot be. A second call has no effect."""
        if heard in self._waiting:
            del self._waiting[heard]
            self._bytes -= heard.size
            self._go_on()

    def _go_on(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def run(self) -> None:
        """Write what is this node's to write, until cancelled."""
        looked_s = -LOOK_S
        while True:
            with trio.move_on_after(LOOK_S):
                await self._bell.wait()
            self._bell = trio.Event()
            if trio.current_time() - looked_s >= LOOK_S:
                looked_s = trio.current_time()
                self._let_go()
            for heard in list(self._waiting):
                if not heard.given and self._may_write(heard):
                    heard.given = True
                    await self._write(heard)
                    self._go_on()

    def _may_write(self, heard: Heard) -> bool:
        partition = self._host.partition_of(heard.taken.stream)
        if not partition.on_duty:
            heard.mine = False
            return False
        return heard.mine or partition.followed >= partition.log.head  # who was on duty may have written it

    def _let_go(self) -> None:
        now_s = trio.current_time()
        while self._early_since and self._early_since[0][0] < now_s - EARLY_S:
            seen_s, key = self._early_since.popleft()
            times = self._early.get(key)
            if times and times[0] <= seen_s:
                times.popleft()
            if times is not None and not times:
                del self._early[key]
        for heard in list(self._waiting):
            if not self._host.partition_of(heard.taken.stream).log.writable:
                heard.at_s = now_s
            elif heard.at_s < now_s - KEEP_S:
                self.drop(heard)  # it is refused, or was written before it was heard here
