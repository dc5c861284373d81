"""From disk back to memory: the start of a node, and the rebuild of one actor after a crash.

A start reads the log from a bounded stretch behind the checkpoint: records up to the checkpoint only refill
the rings, so that recent cursors still resume by events; later ones are also evolved into the saved states.
Afterwards every stream with records behind the checkpoint is in memory, and every other one is complete in
the checkpoint.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import msgspec
import trio

from engine.actor import Actor
from engine.answers import Answer, Known, command_key
from engine.checkpoint import Checkpoint, SavedState
from engine.clock import Clock
from engine.codec import StoredEnvelope, decode_envelope, decode_event, decode_meta, decode_state, domain_of
from engine.domain.contract import Event
from engine.domain.times import to_ms
from engine.errors import CursorUnusable, LogCorrupt
from engine.feed import Feed, Frame
from engine.log import Log
from engine.records import Entry

CHUNK_BYTES = 4 << 20
EVENTS_PER_COMMAND_MAX = 1024


class Host(Protocol):
    """What a replay needs of its node."""

    clock: Clock
    epoch: str
    log: Log
    checkpoint: Checkpoint
    feeds: dict[str, Feed]
    actors: dict[str, Actor]

    def new_feed(self, stream: str) -> Feed: ...

    def new_actor(self, stream: str) -> Actor: ...


async def replay(host: Host) -> int:
    """Bring rings and states up to the head of the log; return how many records were evolved.

    Raises:
        LogCorrupt: checkpoint and log do not fit together.
    """
    floor = host.checkpoint.position
    after = max(host.log.first - 1, min(host.checkpoint.refill, floor))
    if host.log.first - 1 > floor:
        raise LogCorrupt(
            "checkpoint.db", 0, f"it ends at position {floor}, but the log starts at {host.log.first}"
        )
    evolved = 0
    reader = Reader(host)
    while chunk := await host.log.read(after, CHUNK_BYTES):
        after = chunk[-1][0]
        await _open_actors(host, {entry.stream for position, entry in chunk if position > floor})
        for position, entry in chunk:
            if position <= floor:
                reader.refill(entry)
            else:
                reader.evolve(host.actors[entry.stream], entry)
                evolved += 1
    for actor in host.actors.values():
        _check(actor)
        actor.loaded = True
    return evolved


async def rebuild(host: Host, actor: Actor) -> None:
    """Load an actor that is not in memory, or that has lost its state, up to the stream's durable head."""
    while True:
        actor.forget()
        since = host.checkpoint.position
        saved = (await host.checkpoint.load_states([actor.stream])).get(actor.stream)
        await _restore(host, actor, saved)
        if not actor.lost and actor.feed.head <= actor.version:  # what is not in memory is in the checkpoint
            break
        try:
            await _catch_up(host, actor, since)
            break
        except CursorUnusable:  # a checkpoint was taken meanwhile and the log trimmed behind it
            await trio.lowlevel.checkpoint()
    actor.feed.prime(actor.version)
    _check(actor)
    actor.lost = False
    actor.loaded = True


async def _catch_up(host: Host, actor: Actor, after: int) -> None:
    reader = Reader(host)
    head = host.log.head  # this stream gets no records meanwhile
    while after < head and (chunk := await host.log.read(after, CHUNK_BYTES)):
        after = chunk[-1][0]
        for _, entry in chunk:
            if entry.stream == actor.stream:
                reader.evolve(actor, entry)


class Reader:
    """Takes entries of the log, in order, back into rings, states and memories of commands."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bodies: dict[str, deque[bytes]] = {}  # by stream: the last envelopes, for answers

    def refill(self, entry: Entry) -> None:
        """Put a record that the checkpoint holds back into its ring."""
        feed = self._host.feeds.get(entry.stream)
        if feed is None:
            feed = self._host.new_feed(entry.stream)
        kind, envelope, event = _decode(entry)
        self._publish(feed, entry, envelope.type, domain_of(kind).fences(event))

    def evolve(self, actor: Actor, entry: Entry) -> None:
        """Put a record into its ring, and take it into the state unless the saved state has it already."""
        kind, envelope, event = _decode(entry)
        if entry.version > actor.version:
            if entry.version != actor.version + 1:
                raise _hole(entry, actor.version)
            actor.apply(event)
            self._remember(actor, entry, envelope)
        self._publish(actor.feed, entry, envelope.type, domain_of(kind).fences(event))

    def _publish(self, feed: Feed, entry: Entry, type_: str, fences: bool) -> None:
        feed.prime(entry.version - 1)
        if entry.version > feed.head:
            if entry.version != feed.head + 1:
                raise _hole(entry, feed.head)
            feed.publish((Frame(entry.version, type_, entry.body),))
            if fences:
                feed.fence(entry.version)

    def _remember(self, actor: Actor, entry: Entry, envelope: StoredEnvelope) -> None:
        """Keep the answer to the command that ends with this record, if it came with an id."""
        bodies = self._bodies.setdefault(entry.stream, deque(maxlen=EVENTS_PER_COMMAND_MAX))
        bodies.append(entry.body)
        if entry.meta:
            meta = decode_meta(entry.meta)
            cursor = f"{self._host.epoch}-{entry.version}"
            answer = Answer(cursor, entry.version, list(bodies)[-meta.count :], bytes(meta.result))
            known = Known(to_ms(envelope.time), meta.digest, answer)
            actor.memory.add(command_key(meta.by, meta.id), known)
            bodies.clear()


def _decode(entry: Entry) -> tuple[str, StoredEnvelope, Event]:
    kind = entry.stream.partition(":")[0]
    domain_of(kind)  # says what is missing
    try:
        envelope = decode_envelope(entry.body)
        return kind, envelope, decode_event(kind, envelope.type, envelope.data)
    except (KeyError, msgspec.DecodeError) as error:
        raise LogCorrupt(
            "log", 0, f"{entry.stream} version {entry.version} cannot be read: {error}"
        ) from error


def _hole(entry: Entry, version: int) -> LogCorrupt:
    return LogCorrupt("log", 0, f"{entry.stream}: version {entry.version} follows {version}")


def _check(actor: Actor) -> None:
    if actor.feed.head != actor.version:
        ends = f"ends at version {actor.feed.head} in the log, its state is at {actor.version}"
        raise LogCorrupt("log", 0, f"{actor.stream} {ends}")


async def _open_actors(host: Host, streams: set[str]) -> None:
    missing = sorted(stream for stream in streams if stream not in host.actors)
    saved = await host.checkpoint.load_states(missing)
    for stream in missing:
        actor = host.new_actor(stream)
        await _restore(host, actor, saved.get(stream))


async def _restore(host: Host, actor: Actor, saved: SavedState | None) -> None:
    """Put the checkpoint's state and memory of commands into an actor, and its version into a new feed."""
    if saved is not None:
        try:
            actor.state = decode_state(actor.kind, saved.state)
        except msgspec.DecodeError as error:
            raise LogCorrupt("checkpoint.db", 0, f"the state of {actor.stream}: {error}") from error
        actor.version = actor.saved_version = saved.version
        for key, known in await host.checkpoint.load_known(actor.stream):
            actor.memory.add_saved(key, known)
