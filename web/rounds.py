"""What the hub knows of its subscribers: members, and groups of those that are owed the same bytes.

A group's frames go out in rounds. A live member stands at `Group.version`, where the round under way leads;
every other one stands where its own subscription does.

A member is live (in `Group.live`); or blocked: its socket is full, and `cut_at` is when it is cut; or aside,
until the round is over: `due` is infinite; or gone: its socket is `GONE`. One whose `bye` is written, or is
in `pending`, is `leaving`.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Protocol

from engine import Frame, Subscription
from engine.feed import Feed
from web.http1 import chunk
from web.sources import TAKE_MAX, to_blocks
from web.streaming import WRITE_BYTES_MAX, EventStream

Over = Callable[[socket.socket, bool], None]

GONE = socket.socket()
"""Takes the place of a socket that is no longer a member's; a send on it fails."""
GONE.close()


class Care(Protocol):
    """The hub, for its members and groups."""

    def attend(self, member: Member) -> None:
        """Do what is due for a member."""

    def hurry(self, member: Member) -> None:
        """Have a member attended to with the next tick."""

    def wake(self, group: Group) -> None:
        """Give a group its turn."""


class Member:
    """One subscriber. `Timed`, for the wheel.

    `subscription`: where it stands, unless it is live; `pending`: what is left of a write; `taken`: bytes
    that went out since `cut_at` was set.
    """

    __slots__ = (
        "cut_at",
        "due",
        "group",
        "leaving",
        "over",
        "pending",
        "sock",
        "stream",
        "subscription",
        "taken",
    )

    def __init__(
        self, group: Group, sock: socket.socket, stream: EventStream, subscription: Subscription, over: Over
    ) -> None:
        self.group = group
        self.sock = sock
        self.stream = stream
        self.subscription = subscription
        self.over = over
        self.pending: memoryview | None = None
        self.taken = 0
        self.cut_at = math.inf
        self.due = math.inf
        self.leaving = False

    def expire(self, _now: float) -> None:
        self.group.hub.attend(self)

    def hurry(self) -> None:
        """Its end has come."""
        self.group.hub.hurry(self)


class Group:
    """The members that get the same bytes. `version` is where live members stand after the round under way,
    `before` where they stood before it; `targets` have not had it yet.
    """

    __slots__ = (
        "aside",
        "before",
        "busy",
        "chunk",
        "count",
        "epoch",
        "feed",
        "frames",
        "hub",
        "live",
        "settling",
        "targets",
        "types",
        "version",
    )

    def __init__(self, hub: Care, feed: Feed, epoch: bytes, types: frozenset[str] | None) -> None:
        self.hub = hub
        self.feed = feed
        self.epoch = epoch
        self.types = types
        self.version = self.before = feed.head
        self.count = 0
        self.live: set[Member] = set()
        self.targets: list[Member] = []
        self.chunk = b""
        self.frames: list[Frame] = []
        self.aside: list[Member] = []
        self.settling: list[Member] = []
        self.busy = False

    def wake(self) -> None:
        """Take note that there is something to do."""
        if not self.busy:
            self.busy = True
            self.hub.wake(self)

    def begin(self) -> None:
        """Begin the next round, or rest when there is none. Who stands aside has its turn after it."""
        feed = self.feed
        self.settling, self.aside = self.aside, []
        self.before = self.version
        if self.version == feed.head:
            self.chunk, self.frames = b"", []
            if feed.closed:
                self.settling += self.live  # to be told why
            self.busy = bool(self.settling)
        elif not self.live:
            self.version = feed.head
        elif self.version < feed.low:
            for member in self.live:
                member.subscription.version = self.version
            self.settling += self.live  # to be told `lagging`
            self.live.clear()
            self.version = feed.head
        else:
            self.frames = feed.after(self.version, TAKE_MAX, WRITE_BYTES_MAX)
            self.version = self.frames[-1].version
            self.chunk = chunk(b"".join(to_blocks(self.frames, self.epoch, self.types)))
            self.targets = list(self.live)
