"""Feeds: the live end of a stream, and subscribers that are only cursors into it.

A feed keeps the last frames of its stream in a ring that is bounded in count and in bytes. A frame is the
encoded envelope, made once; publishing appends to the ring and wakes whoever sleeps. A subscriber owns no
queue: it holds the version that it has seen and takes what comes after. One that falls behind the ring is
told `Lagging` and comes back with its cursor; it can neither miss a frame unnoticed nor make the feed grow.

`low` is the oldest version that can still be resumed *after*: versions `low + 1 … head` are in the ring. A
fence moves it up at once, so that what happened before is never served to those who come later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import trio

from engine.errors import CursorUnusable, Lagging, Stopping
from engine.metrics import Metrics
from engine.records import Cursor

UNKNOWN = -1


class Frame:
    """One encoded envelope. `wire` is a slot in which a transport may keep its own encoding of it."""

    __slots__ = ("body", "published_s", "type", "version", "wire")

    def __init__(self, version: int, type_: str, body: bytes) -> None:
        self.version = version
        self.type = type_
        self.body = body
        self.wire: bytes | None = None
        self.published_s = 0.0

    def __repr__(self) -> str:
        return f"<Frame {self.version} {self.type} {len(self.body)} B>"


class Feed:
    """The ring of one stream.

    `head` is the version of the stream's last durable record, `UNKNOWN` until `prime` says where the stream
    stands.

    `ended` is what subscriptions are told once it is closed.

    `listeners` are called, without a task switch, when something was published or the feed closes; they may
    only take note of it.

    Args:
        frames_max: frames kept.
        bytes_max: bytes of bodies kept; at least the last frame is kept whatever its size.
    """

    def __init__(self, stream: str, frames_max: int, bytes_max: int, metrics: Metrics) -> None:
        self.stream = stream
        self.head = UNKNOWN
        self.low = UNKNOWN
        self.bytes = 0
        self.used_s = time.monotonic()
        self.subscriptions: set[Subscription] = set()
        self.listeners: list[Callable[[], None]] = []
        self._frames: list[Frame] = []
        self._skip = 0  # frames at the front of the list that have left the ring
        self._frames_max = frames_max
        self._bytes_max = bytes_max
        self._changed: trio.Event | None = None
        self.ended: type[Stopping] | None = None
        self._metrics = metrics

    def prime(self, head: int) -> None:
        """Say that the stream stands at `head`; has no effect when that is known already."""
        if self.head == UNKNOWN:
            self.head = self.low = head

    def publish(self, frames: Sequence[Frame]) -> None:
        """Append durable frames, whose versions go on from `head`, and wake the subscribers."""
        now = time.monotonic()
        for frame in frames:
            assert frame.version == self.head + 1, f"{self.stream}: {frame.version} after {self.head}"
            self.head = frame.version
            frame.published_s = now
            self.bytes += len(frame.body)
            self._frames.append(frame)
        self.used_s = now
        while len(self) > 1 and (len(self) > self._frames_max or self.bytes > self._bytes_max):
            self._drop_first()
        self._wake()

    def fence(self, version: int) -> None:
        """Stop serving frames before `version` (which is in the ring): who has not seen that far starts
        afresh.
        """
        while self.low < version - 1:
            self._drop_first()

    def _drop_first(self) -> None:
        frame = self._frames[self._skip]
        self.bytes -= len(frame.body)
        self._skip += 1
        self.low = frame.version
        if self._skip > 64 and self._skip * 2 > len(self._frames):
            del self._frames[: self._skip]
            self._skip = 0

    def after(self, version: int, limit: int, bytes_max: float = math.inf) -> list[Frame]:
        """Return up to `limit` frames after `version`; of more than one the bodies have up to `bytes_max`.

        Raises:
            CursorUnusable: `version` is older than what is kept (`expired`) or newer than the head (`ahead`).
        """
        if version < self.low:
            raise CursorUnusable("expired")
        if version > self.head:
            raise CursorUnusable("ahead")
        start = self._skip + version - self.low
        frames = self._frames[start : start + limit]
        if bytes_max < math.inf:
            for index, frame in enumerate(frames):
                bytes_max -= len(frame.body)
                if bytes_max < 0 and index:
                    del frames[index:]
                    break
        return frames

    def reset_for(self, after: Cursor, epoch: str) -> str | None:
        """Return why nobody can go on after a cursor here, in this `epoch` of the log; None: one can."""
        if after.epoch != epoch:
            return "epoch"
        if after.version > self.head:
            return "ahead"
        return "expired" if after.version < self.low else None

    def clear(self) -> None:
        """Forget the frames (memory is short, nobody listens); a cursor at the head is still good."""
        self._frames.clear()
        self._skip = 0
        self.bytes = 0
        self.low = self.head

    def close(self, why: type[Stopping] = Stopping) -> None:
        """End every subscription; their next `take` or `wait` raises `why`."""
        self.ended = self.ended or why
        self._wake()

    @property
    def closed(self) -> bool:
        return self.ended is not None

    async def wait_changed(self) -> None:
        """Sleep until something is published or the feed closes."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
        for call in self.listeners:
            call()

    def __len__(self) -> int:
        return len(self._frames) - self._skip


class Snapshot(NamedTuple):
    """A stream's state at a cursor; `state` is JSON: `{collection: {id: entity}}`."""

    cursor: str
    version: int
    state: bytes


class Subscription:
    """A cursor into a feed. Use it as a context manager, or call `close`.

    `version`: that of the last frame taken (or of the snapshot); `snapshot`: where to start from, `None` when
    the cursor that was given is good; `reset`: why it was not (`expired`, `epoch`, `ahead`).
    """

    __slots__ = ("_epoch", "_feed", "_metrics", "reset", "snapshot", "version")

    def __init__(
        self,
        feed: Feed,
        epoch: str,
        version: int,
        snapshot: Snapshot | None,
        reset: str | None,
        metrics: Metrics,
    ) -> None:
        self._feed = feed
        self._epoch = epoch
        self._metrics = metrics
        self.version = version
        self.snapshot = snapshot
        self.reset = reset
        feed.subscriptions.add(self)

    @property
    def cursor(self) -> Cursor:
        """Where this subscriber stands."""
        return Cursor(self._epoch, self.version)

    @property
    def stream(self) -> str:
        return self._feed.stream

    @property
    def behind(self) -> int:
        """How many frames wait to be taken."""
        return self._feed.head - self.version

    @property
    def feed(self) -> Feed:
        return self._feed

    def take(self, limit: int = 256, bytes_max: float = math.inf) -> list[Frame]:
        """Return the next frames, bounded as by `Feed.after`, `[]` when there are none; never blocks.

        Raises:
            Lagging: the ring has moved past this subscriber.
            Stopping: the node is going down and everything published was taken.
            Renewed: the feed ends, and another begins in its place; everything published was taken.
        """
        feed = self._feed
        if self.version == feed.head:
            if feed.ended is not None:
                raise feed.ended
            return []
        if self.version < feed.low:
            self._metrics.lagging.inc()
            raise Lagging
        frames = feed.after(self.version, limit, bytes_max)
        self.version = frames[-1].version
        self._metrics.deliveries.inc(len(frames))
        self._metrics.delivery_lag_s.observe(time.monotonic() - frames[0].published_s)
        return frames

    async def wait(self) -> None:
        """Sleep until there is something to take; returns at once when there is.

        Raises:
            Stopping, Renewed: as `take`.
        """
        feed = self._feed
        while self.version == feed.head:
            if feed.ended is not None:
                raise feed.ended
            await feed.wait_changed()

    def close(self) -> None:
        """Leave the feed; a second call has no effect."""
        self._feed.subscriptions.discard(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
