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
from engine.codec import decode_envelope, decode_event, decode_meta, decode_state, decode_type, domain_of
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
    while chunk := await host.log.read(after, CHUNK_BYTES):
        after = chunk[-1][0]
        await _open_actors(host, {entry.stream for position, entry in chunk if position > floor})
        for position, entry in chunk:
            if position <= floor:
                _refill(host, entry, decode_type(entry.body).type)
            else:
                _evolve(host, host.actors[entry.stream], entry)
                evolved += 1
    for actor in host.actors.values():
        _check(actor)
        actor.loaded = True
    return evolved


async def _open_actors(host: Host, streams: set[str]) -> None:
    missing = [stream for stream in streams if stream not in host.actors]
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


def _refill(host: Host, entry: Entry, type_: str) -> None:
    """Put a stored frame back into its ring."""
    feed = host.feeds.get(entry.stream)
    if feed is None:
        feed = host.new_feed(entry.stream)
    feed.prime(entry.version - 1)
    if entry.version <= feed.head:
        return
    if entry.version != feed.head + 1:
        raise LogCorrupt("log", 0, f"{entry.stream}: version {entry.version} follows {feed.head}")
    feed.publish((Frame(entry.version, type_, entry.body),))


def _evolve(host: Host, actor: Actor, entry: Entry) -> None:
    """Refill the ring, and take the event into the state unless the saved state has it already."""
    envelope = decode_envelope(entry.body)
    actor.feed.prime(entry.version - 1)
    event = None
    if entry.version > actor.version:
        if entry.version != actor.version + 1:
            raise LogCorrupt("log", 0, f"{entry.stream}: version {entry.version} follows {actor.version}")
        try:
            event = decode_event(actor.kind, envelope.type, envelope.data)
        except (KeyError, msgspec.DecodeError) as error:
            raise LogCorrupt(
                "log", 0, f"{entry.stream} version {entry.version}: {envelope.type} cannot be read: {error}"
            ) from error
        actor.apply(event)
        if entry.meta:
            _remember(host, actor, entry, to_ms(envelope.time))
    _refill(host, entry, envelope.type)
    if event is not None and domain_of(actor.kind).fences(event):
        actor.feed.fence(entry.version)


def _remember(host: Host, actor: Actor, entry: Entry, at_ms: int) -> None:
    """Take the answer to a command back into the memory; its envelopes end with this record."""
    meta = decode_meta(entry.meta)
    bodies = [
        frame.body for frame in actor.feed.after(max(actor.feed.low, entry.version - meta.count), meta.count)
    ]
    bodies = [*bodies[: meta.count - 1], entry.body]
    answer = Answer(f"{host.epoch}-{entry.version}", entry.version, bodies, bytes(meta.result))
    actor.memory.add(command_key(meta.by, meta.id), Known(at_ms, meta.digest, answer))


async def rebuild(host: Host, actor: Actor) -> None:
    """Load an actor that is not in memory, or that has lost its state, up to the stream's durable head."""
    while True:
        actor.forget()
        since = host.checkpoint.position
        saved = (await host.checkpoint.load_states([actor.stream])).get(actor.stream)
        await _restore(host, actor, saved)
        if actor.feed.head <= actor.version:  # everything durable is in the checkpoint
            break
        try:
            await _catch_up(host, actor, since)
            break
        except CursorUnusable:  # a checkpoint was taken meanwhile and the log trimmed behind it
            await trio.lowlevel.checkpoint()
    actor.feed.prime(actor.version)
    _check(actor)
    actor.loaded = True


def _check(actor: Actor) -> None:
    if actor.feed.head != actor.version:
        raise LogCorrupt(
            "log",
            0,
            f"{actor.stream} ends at version {actor.feed.head} in the log, its state is at {actor.version}",
        )


async def _catch_up(host: Host, actor: Actor, after: int) -> None:
    """Evolve what the log holds of one stream after a position."""
    recent: deque[bytes] = deque(maxlen=EVENTS_PER_COMMAND_MAX)
    while chunk := await host.log.read(after, CHUNK_BYTES):
        after = chunk[-1][0]
        for _, entry in chunk:
            if entry.stream != actor.stream or entry.version <= actor.version:
                continue
            envelope = decode_envelope(entry.body)
            actor.apply(decode_event(actor.kind, envelope.type, envelope.data))
            recent.append(entry.body)
            if entry.meta:
                meta = decode_meta(entry.meta)
                answer = Answer(
                    f"{host.epoch}-{entry.version}",
                    entry.version,
                    list(recent)[-meta.count :],
                    bytes(meta.result),
                )
                known = Known(to_ms(envelope.time), meta.digest, answer)
                actor.memory.add(command_key(meta.by, meta.id), known)
                recent.clear()
