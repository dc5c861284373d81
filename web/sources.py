"""Where a stream's blocks come from: one feed, or several on one connection.

With one feed the block of a frame is encoded once, kept in `frame.wire`, and written to every subscriber as
it is. With several the id differs per connection (a composite cursor), so blocks are put together from the
stored envelope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from engine import Cursor, Frame, Node, Subscription
from engine.errors import Lagging, Stopping
from web import wire

TAKE_MAX = 256
"""Frames taken in one round."""


class Source(Protocol):
    """What an event stream pulls its blocks from."""

    def opening(self) -> bytes:
        """Return what is written first: snapshots, resets, or an id-only block where the cursor was good."""

    def take(self) -> list[bytes]:
        """Return the blocks of what there is, `[]` when there is nothing.

        Raises:
            Lagging: too far behind; the client has to come back with its cursor.
            Stopping: the node is going down.
        """

    async def wait(self) -> None:
        """Wait until `take` has something to return or to raise."""

    @property
    def cursor(self) -> str:
        """The text of where a client that has read everything stands."""

    def close(self) -> None:
        """Leave the feeds; a second call has no effect."""


def _state(subscription: Subscription, name: str = "") -> bytes:
    """Return the data of a snapshot or reset, and let go of it; several feeds on one connection each say
    their name.
    """
    snapshot, subscription.snapshot = subscription.snapshot, None
    assert snapshot is not None
    feed = b'"feed":"%s",' % name.encode() if name else b""
    tail = b',"reason":"%s"}' % subscription.reset.encode() if subscription.reset else b"}"
    return b'{%s"cursor":"%s","state":%s%s' % (feed, snapshot.cursor.encode(), snapshot.state, tail)


def to_blocks(frames: Sequence[Frame], epoch: bytes, types: frozenset[str] | None) -> list[bytes]:
    """Return the blocks of one feed's frames. With `types`, frames of other types only move the cursor: the
    last of them, where nothing comes behind it, as an id-only block.
    """
    blocks = []
    passed = 0
    for frame in frames:
        if types is not None and frame.type not in types:
            passed = frame.version
            continue
        if frame.wire is None:
            frame.wire = wire.frame_block(b"%s-%d" % (epoch, frame.version), frame.body)
        blocks.append(frame.wire)
        passed = 0
    if passed:
        blocks.append(b"id: %s-%d\n\n" % (epoch, passed))
    return blocks


class OneFeed:
    """The blocks of one feed, of some types (`None`: all)."""

    __slots__ = ("subscription", "types")

    def __init__(self, subscription: Subscription, types: frozenset[str] | None) -> None:
        self.subscription = subscription
        self.types = types

    def opening(self) -> bytes:
        cursor = self.cursor
        if self.subscription.snapshot is None:
            return wire.id_block(cursor)
        event = "reset" if self.subscription.reset else "snapshot"
        return wire.block(_state(self.subscription), event=event, id=cursor)

    def take(self) -> list[bytes]:
        epoch = self.subscription.cursor.epoch.encode()
        return to_blocks(self.subscription.take(TAKE_MAX), epoch, self.types)

    async def wait(self) -> None:
        with suppress(Stopping, Lagging):  # `take` raises it again
            await self.subscription.wait()

    @property
    def cursor(self) -> str:
        return str(self.subscription.cursor)

    def close(self) -> None:
        self.subscription.close()


class ManyFeeds:
    """The blocks of several feeds, under composite ids; no order is promised between feeds.

    Snapshots and resets carry no id: until all of them have arrived a client that comes back must start where
    it started. The id-only block after them moves it on.
    """

    def __init__(self, subscriptions: Mapping[str, Subscription], types: frozenset[str] | None) -> None:
        self._names = sorted(subscriptions)
        self._subscriptions = [subscriptions[name] for name in self._names]
        self._cursors = [subscription.cursor for subscription in self._subscriptions]
        self._mark = wire.feeds_mark(self._names)
        self._types = types

    def opening(self) -> bytes:
        blocks = []
        for name, subscription in zip(self._names, self._subscriptions, strict=True):
            if subscription.snapshot is not None:
                event = "reset" if subscription.reset else "snapshot"
                blocks.append(wire.block(_state(subscription, name), event=event))
        return b"".join(blocks) + wire.id_block(self.cursor)

    def take(self) -> list[bytes]:
        blocks = []
        passed = False
        for index, subscription in enumerate(self._subscriptions):
            epoch = self._cursors[index].epoch
            for frame in subscription.take(TAKE_MAX):
                self._cursors[index] = Cursor(epoch, frame.version)
                passed = self._types is not None and frame.type not in self._types
                if not passed:
                    blocks.append(wire.frame_block(self.cursor.encode(), frame.body))
        if passed:
            blocks.append(wire.id_block(self.cursor))
        return blocks

    async def wait(self) -> None:
        async with trio.open_nursery() as nursery:
            for subscription in self._subscriptions:
                nursery.start_soon(self._wait_one, subscription, nursery.cancel_scope)

    async def _wait_one(self, subscription: Subscription, scope: trio.CancelScope) -> None:
        with suppress(Stopping, Lagging):  # `take` raises it again
            await subscription.wait()
        scope.cancel()

    @property
    def cursor(self) -> str:
        return wire.write_composite(self._mark, self._cursors)

    def close(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()


async def open_many(
    node: Node, streams: list[str], after: Mapping[str, Cursor], types: frozenset[str] | None
) -> ManyFeeds:
    """Subscribe to several streams, all or none."""
    subscriptions: dict[str, Subscription] = {}
    try:
        for stream in streams:
            subscriptions[stream] = await node.subscribe(stream, after=after.get(stream))
    except BaseException:
        for subscription in subscriptions.values():
            subscription.close()
        raise
    return ManyFeeds(subscriptions, types)
