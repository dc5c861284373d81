"""The channel `user-events` of a Redis, in and out: users' events shared with other nodes and programs.

    {"userId": "u1", "eventType": "account.updated", "data": {"timestamp": …, "serverId": …, …},
     "id": …, "origin": …}

`id` and `origin` are ours: by the first a message that comes twice is one event, by the second a node knows
its own. Who publishes from outside may leave both out.

Out is a reaction: each event that was made here, in order per user. While Redis is away events wait, up to
`redis_patience_s` from when they were made, then they are given up, as they are for those who watch just now;
the log has them anyway. When it is back they wait a little longer, until the other nodes listen again, too.

In, each message becomes an event in its user's stream, so it is durable, and a client that was away gets it,
too. Pub/sub itself keeps nothing: what others publish while this node has no connection does not reach it. Of
several nodes on a shared log all hear a message, and one writes it (`sharing.py`).
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import trio

from engine.answers import Answer
from engine.clock import Clock
from engine.codec import encode
from engine.config import Config
from engine.domain.contract import Command
from engine.domain.times import to_ms
from engine.domain.user.messages import EventSent, ReceiveEvent, shown_data
from engine.errors import (
    ConfigError,
    LogCorrupt,
    LogFailed,
    OndaError,
    Unavailable,
    UnknownOutcome,
    Unreachable,
)
from engine.mailbox import Committed
from engine.metrics import Metrics
from engine.node import Overhear
from engine.parking import backoff_s
from engine.partition import Partition
from engine.reactions import Reaction
from engine.records import stream_name
from engine.relays.redis import TIMEOUT_S, Away, Door
from engine.relays.sharing import Heard, Sharing, Taken

if TYPE_CHECKING:
    from engine.cluster_redis import Cluster

NAME = "redis"
CHANNEL = "user-events"
MESSAGE_BYTES_MAX = 1 << 20
"""Of a message, in and out; a larger one is dropped."""

ID_CHARS_MAX = 255

LANES = 16
"""Messages that are written down side by side; those of one user keep their order."""
WAITING_MAX = 64
"""Messages that wait in a lane; then Redis has to keep the next ones."""

AGAIN_S_MAX = 1.0
"""The longest wait before the next try to listen."""
SETTLE_S = TIMEOUT_S + AGAIN_S_MAX + 0.5
"""After a connection was lost: how long every node needs to listen again, before anything is published."""

BY = "service:redis"

logger = logging.getLogger("onda.redis")


class Incoming(msgspec.Struct, gc=False):
    """A message as it is read; unknown fields are passed over."""

    userId: str | int
    eventType: str
    data: dict[str, Any]
    id: str = ""
    origin: str = ""


class Outgoing(msgspec.Struct, gc=False):
    """A message as it is written."""

    userId: str
    eventType: str
    data: dict[str, Any]
    id: str
    origin: str


_decode = msgspec.json.Decoder(Incoming).decode


class Host(Protocol):
    """What the relay needs of its node."""

    node_id: str
    config: Config
    clock: Clock
    metrics: Metrics
    redis_up: Callable[[], bool]
    cluster: Cluster | None
    overheard: list[Overhear]

    @property
    def epoch(self) -> str: ...

    def partition_of(self, stream: str) -> Partition: ...

    async def ask_inside(
        self, stream: str, command: Command, *, by: str, id: str | None, cause: str | None
    ) -> Answer: ...


class UserEvents:
    """Both ways of one node."""

    def __init__(self, door: Door, config: Config, metrics: Metrics, clock: Clock) -> None:
        self._door = door
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._host: Host | None = None
        self._away = False
        self._lost = False  # it was, at least once
        self._lanes: list[trio.MemorySendChannel[Heard]] = []
        self._sharing: Sharing | None = None
        self.reaction = Reaction(NAME, frozenset({EventSent.__name__}), self.publish, _made_here)

    def join(self, host: Host) -> None:
        """Become a node's; before its reactions run."""
        self._host = host
        host.redis_up = lambda: self._door.listening_since is not None
        if host.cluster is not None:
            self._sharing = Sharing(host, BY, self._give)
            host.overheard.append(self._sharing.see)

    # Out

    async def publish(self, record: Committed) -> None:
        """Publish an event.

        Raises:
            Unreachable: not now; try again later.
        """
        host, event = self._host, record.event
        assert host is not None
        assert isinstance(event, EventSent)
        if self._clock.now_ms() - to_ms(event.at) > self._config.redis_patience_s * 1000:
            self._count("failed")
            logger.warning("%s %d: Redis was away too long to publish it", record.stream, record.version)
            return
        user, data = record.stream.partition(":")[2], shown_data(event, host.node_id)
        message = encode(Outgoing(user, event.event_type, data, record.id, self.origin))
        if len(message) > MESSAGE_BYTES_MAX:
            self._count("failed")
            size = len(message)
            logger.error("%s %d: %d bytes are too many to publish", record.stream, record.version, size)
            return
        began = trio.current_time()
        try:
            self._check_settled()
            await self._door.publish(CHANNEL, message)
        except Away as error:
            self._count("retried")
            self._note(str(error))
            raise Unreachable(str(error)) from error
        self._note("")
        self._count("sent")
        self._metrics.relay_s.labels(NAME).observe(trio.current_time() - began)

    def _check_settled(self) -> None:
        """Raise `Away` until the others have had time to come back, too, if the connection was ever lost."""
        since = self._door.listening_since
        if self._lost and (since is None or trio.current_time() < since + SETTLE_S):
            raise Away("the connection was lost; all have to listen again first")

    @property
    def origin(self) -> str:
        """What names this node in messages: its log's epoch too, as names of nodes may be given twice. Nodes
        that share a log are one: each has what another of them took in.
        """
        assert self._host is not None
        if self._host.cluster is not None:
            return self._host.cluster.name
        return f"{self._host.epoch}.{self._host.node_id}"

    def _count(self, outcome: str) -> None:
        self._metrics.relay_requests.labels(NAME, outcome).inc()

    def _note(self, away: str) -> None:
        """Log when Redis goes away (`away` says why), and when it is back."""
        if bool(away) == self._away:
            return
        self._away = bool(away)
        if away:
            logger.warning("Redis takes no events, they wait: %s", away)
        else:
            logger.info("Redis takes events again")

    # In

    async def run(self) -> None:
        """Listen for ever, connecting again whenever the connection is lost."""
        async with trio.open_nursery() as nursery:
            for _ in range(LANES):
                lane, messages = trio.open_memory_channel[Heard](WAITING_MAX)
                self._lanes.append(lane)
                nursery.start_soon(self._write_down, messages)
            if self._sharing is not None:
                nursery.start_soon(self._sharing.run)
            failures = 0
            while True:
                began = trio.current_time()
                try:
                    await self._door.listen(CHANNEL, self._take)
                except Away as error:
                    self._lost = True
                    failures = 0 if trio.current_time() - began > 2 * TIMEOUT_S else failures + 1
                    level = logging.WARNING if failures < 2 else logging.DEBUG
                    logger.log(level, "no events from Redis, connecting again: %s", error)
                await trio.sleep(min(backoff_s(min(failures, 8), self._config), AGAIN_S_MAX))

    async def _take(self, message: bytes) -> None:
        """Look at a message and hand it to its user's lane."""
        outcome = "malformed"
        if len(message) > MESSAGE_BYTES_MAX:
            outcome = "oversize"
            logger.warning("a message of %d bytes on %s is too large: dropped", len(message), CHANNEL)
        else:
            try:
                read = _read(message, self.origin)
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
                logger.warning("a message on %s cannot be read: %s: %.200r", CHANNEL, error, message)
            else:
                outcome = "own" if read is None else "taken"
                if read is not None and self._sharing is not None:
                    await self._sharing.hear(read, len(message), self._door.listening_since or 0.0)
                elif read is not None:
                    await self._give(Heard(read, len(message), mine=True))
        self._metrics.redis_received.labels(outcome).inc()

    async def _give(self, heard: Heard) -> None:
        await self._lanes[zlib.crc32(heard.taken.stream.encode()) % LANES].send(heard)

    async def _write_down(self, messages: trio.MemoryReceiveChannel[Heard]) -> None:
        assert self._host is not None
        sharing = self._sharing
        async for heard in messages:
            stream, command, key, once = heard.taken
            waited = 0
            while True:
                if sharing is not None and not sharing.is_mine(stream):
                    sharing.give_back(heard)
                    break
                try:
                    id_, cause = (key, None) if once else (None, key if sharing is not None else None)
                    await self._host.ask_inside(stream, command, by=BY, id=id_, cause=cause)
                except Unavailable:
                    await trio.sleep(backoff_s(waited, self._config))
                    waited = min(waited + 1, 8)
                    continue
                except (LogFailed, LogCorrupt, UnknownOutcome):
                    raise
                except OndaError as error:
                    self._metrics.redis_received.labels("refused").inc()
                    logger.warning("an event from Redis for %s is dropped: %s", stream, error)
                    if sharing is not None:
                        sharing.drop(heard)
                break


def _made_here(record: Committed) -> bool:
    return isinstance(record.event, EventSent) and not record.event.origin


def _read(message: bytes, own: str) -> Taken | None:
    """Return what is to be written of a message; `None` for one of our own.

    Raises:
        ValueError: it cannot be read.
    """
    read = _decode(message)
    if read.origin == own:
        return None
    stream = stream_name("user", str(read.userId))
    origin = (read.origin or str(read.data.get("serverId", "")) or "outside")[:200]
    fields = {"event_type": read.eventType, "data": read.data, "origin": origin}
    command = msgspec.convert(fields, ReceiveEvent)
    if read.id:
        return Taken(stream, command, _once(f"{origin}/{read.id}"), once=True)
    return Taken(stream, command, f"{CHANNEL}.{hashlib.sha256(message).hexdigest()}", once=False)


def _once(name: str) -> str:
    """Return what a message is known by; a long name by its digest, as its end may be what differs."""
    return name if len(name) <= ID_CHARS_MAX else hashlib.sha256(name.encode()).hexdigest()


@asynccontextmanager
async def open_redis(config: Config, metrics: Metrics, clock: Clock) -> AsyncIterator[UserEvents]:
    """Give both ways to the Redis of the settings; connections close at the end.

    Raises:
        ConfigError: the URL makes no sense.
    """
    try:
        door = Door(config.redis_url)
    except ValueError as error:
        raise ConfigError(f"redis_url: {error}") from None
    try:
        yield UserEvents(door, config, metrics, clock)
    finally:
        door.close()
