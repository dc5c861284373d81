"""From disk back to memory: the start of a node, and the rebuild of one actor after a crash.

A start reads the log from a bounded stretch behind the checkpoint: records up to the checkpoint only refill
the rings, so that recent cursors still resume by events; later ones are also evolved into the saved states.
However long the tail is, rings get back only the newest of it: what feeds that nobody follows may keep.
Afterwards every stream with records behind the checkpoint is in memory, and every other one is complete in
the checkpoint.
"""

from __future__ import annotations

import gc
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, Protocol

import msgspec
import trio

from engine.actor import Actor
from engine.answers import Known, Stored
from engine.checkpoint import Checkpoint, SavedState
from engine.clock import Clock
from engine.codec import decode_envelope, decode_state, decode_stored, domain_of
from engine.config import Config
from engine.domain.contract import Event
from engine.errors import CursorUnusable, LogCorrupt
from engine.feed import UNKNOWN, Feed, Frame
from engine.log import Log, SharedLog
from engine.mailbox import StateLost
from engine.records import Entry
from engine.shared_actor import SharedActor

CHUNK_BYTES = 8 << 20
"""Read at once: the more records of one stream come together, the less each of them costs."""
FIRST_BYTES = 1 << 20
"""Records of a stream that come with its state: few enough for others to come in the same trip."""
EVENTS_PER_COMMAND_MAX = 1024


class Host(Protocol):
    """What a replay needs of its node."""

    config: Config
    clock: Clock
    epoch: str
    log: Log
    checkpoint: Checkpoint
    feeds: dict[str, Feed]
    actors: dict[str, Actor]

    def new_feed(self, stream: str) -> Feed: ...

    def new_actor(self, stream: str) -> Actor: ...


class SharedHost(Host, Protocol):
    """And when others append to the log, too."""

    log: SharedLog

    def renew_feed(self, actor: Actor) -> None: ...


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
    reader = Reader(host, host.config.feeds_bytes_max)
    with _collector_resting():
        while chunk := await host.log.read(after, CHUNK_BYTES):
            saved = max(0, floor - after)
            for stream, entries in _by_stream(chunk[:saved]).items():
                reader.refill(stream, entries)
            changed = _by_stream(chunk[saved:])
            await _open_actors(host, changed)
            for stream, entries in changed.items():
                reader.evolve(host.actors[stream], entries)
            evolved += len(chunk[saved:])
            after, last = chunk[-1]
            reader.end_chunk(last.stream)
    reader.publish()
    for actor in host.actors.values():
        actor.feed.prime(actor.version)
        _check(actor)
        actor.loaded = True
    return evolved


@contextmanager
def _collector_resting() -> Iterator[None]:
    """Keep Python from looking for garbage cycles: a replay makes none, and what it makes stays."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # to the oldest generation, without looking at each object
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def _by_stream(chunk: Sequence[tuple[int, Entry]]) -> dict[str, list[Entry]]:
    """Sort entries by their stream: the order counts within each stream only."""
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for _, entry in chunk:
        found[entry[0]].append(entry)
    return found


async def rebuild(host: Host, actor: Actor) -> None:
    """Load an actor that is not in memory, or that has lost its state, up to the stream's durable head."""
    while True:
        actor.forget()
        since = host.checkpoint.position
        saved = (await host.checkpoint.load_states([actor.stream])).get(actor.stream)
        if saved is not None:
            _restore(actor, saved, await host.checkpoint.load_known(actor.stream))
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


async def rebuild_shared(host: SharedHost, actor: SharedActor) -> None:
    """As `rebuild`, from a log that others append to meanwhile: the stream is read by itself. A new ring
    also gets what the saved state has already, as far as it is kept: cursors from before are still good.

    Raises:
        Unavailable: the log or the checkpoint is away.
    """
    actor.forget()
    kept = await host.checkpoint.load_stream(actor.stream, host.log, host.config.ring_frames_max, FIRST_BYTES)
    head, found = kept.head, kept.records
    if kept.saved is not None and kept.saved.version <= head.version:  # else it is of records that are lost
        _restore(actor, kept.saved, kept.known)
    since = actor.version
    if (found[0][1].version if found else head.version + 1) > since + 1:
        await _explain_gap(host, actor.stream, kept.saved)
    reader = Reader(host, host.config.ring_bytes_max)
    last = head.id if actor.version == head.version else ""
    while found:
        entries = [entry for _, entry in found]
        known = sum(entry.version <= since for entry in entries)
        if known:
            reader.refill(actor.stream, entries[:known])
        if entries[known:]:
            reader.evolve(actor, entries[known:])
        reader.end_chunk(actor.stream)
        last = decode_envelope(entries[-1].body).id
        if entries[-1].version == head.version:  # what came meanwhile is heard
            break
        try:
            head, found = await host.log.read_stream(actor.stream, entries[-1].version, CHUNK_BYTES)
        except CursorUnusable:
            raise StateLost(crash=False) from None
    if actor.feed.head != UNKNOWN and not since <= actor.feed.head <= actor.version:
        host.renew_feed(actor)  # what its ring has does not go on here
    reader.publish()
    actor.feed.prime(actor.version)
    _check(actor)
    actor.lost = False
    actor.loaded = True
    actor.settled(last)


async def _explain_gap(host: SharedHost, stream: str, saved: SavedState | None) -> NoReturn:
    """Say why the records of a stream begin later than its state ends."""
    if saved is None:  # unless it was saved, and trimmed, for the first time just now
        saved = (await host.checkpoint.load_states([stream])).get(stream)
    if saved is None:
        gone = f"{stream}: its first records are dropped, and there is no saved state of it"
        raise LogCorrupt("log", 0, gone)
    raise StateLost(crash=False)  # a checkpoint was taken meanwhile, and the log trimmed behind it


async def _catch_up(host: Host, actor: Actor, after: int) -> None:
    reader = Reader(host, host.config.ring_bytes_max)
    head = host.log.head  # this stream gets no records meanwhile
    while after < head and (chunk := await host.log.read(after, CHUNK_BYTES)):
        after, last = chunk[-1]
        entries = [entry for _, entry in chunk if entry.stream == actor.stream]
        if entries:
            reader.evolve(actor, entries)
        reader.end_chunk(last.stream)
    reader.publish()


class Reader:
    """Takes entries of the log back into states and memories of commands, and at the end, by `publish`, the
    newest of them into the rings.

    Entries come in the order of the log, chunk by chunk, sorted by stream within a chunk.

    Args:
        host: the node.
        rings_bytes_max: how many bytes of bodies all rings together get back.
    """

    def __init__(self, host: Host, rings_bytes_max: int) -> None:
        self._host = host
        self._rings_bytes_max = rings_bytes_max
        self._bytes = 0
        self._rings: deque[_Stretch] = deque()
        self._last: dict[str, int] = {}  # by stream: version of the entry that came last
        self._begun: dict[str, list[bytes]] = {}  # by stream: bodies behind the last command with an id

    def refill(self, stream: str, entries: Sequence[Entry]) -> None:
        """Take records that the checkpoint holds: they only go back into the ring."""
        kind = stream.partition(":")[0]
        fences = domain_of(kind).fences
        ring = self._follow(stream, entries)
        for entry in entries:
            event = _decode(kind, entry)
            ring.types.append(type(event).__name__)
            if fences(event):
                ring.fence = entry.version

    def evolve(self, actor: Actor, entries: Sequence[Entry]) -> None:
        """Take records into the state, unless the saved state has them already, and then into the ring."""
        ring = self._follow(actor.stream, entries)
        kind, state, evolve, fences = actor.kind, actor.state, actor.domain.evolve, actor.domain.fences
        saved = version = actor.version
        commands: list[Stored] = []
        begun = self._begun.pop(actor.stream, [])
        for entry in entries:
            event = _decode(kind, entry)
            ring.types.append(type(event).__name__)
            if fences(event):
                ring.fence = entry[1]
            if entry[1] > saved:
                version += 1
                if entry[1] != version:
                    raise _hole(entry, version - 1)
                evolve(state, event)
                begun.append(entry[3])
                if entry[2]:
                    commands.append(Stored(version, entry[2], begun[-EVENTS_PER_COMMAND_MAX:]))
                    begun = []
        actor.version = version
        self._begun[actor.stream] = begun[-EVENTS_PER_COMMAND_MAX:]
        if commands:
            actor.memory.add_stored(self._host.epoch, commands)

    def end_chunk(self, stream: str) -> None:
        """Take note of the `stream` of a chunk's last entry: the records of one command stand next to each
        other in the log, so those of no other stream can go on in the next chunk.
        """
        self._begun = {stream: self._begun[stream]} if stream in self._begun else {}

    def _follow(self, stream: str, entries: Sequence[Entry]) -> _Stretch:
        """Check that versions go on without a hole. Keep the bodies for the ring, and let go of the oldest
        ones beyond the bound.
        """
        last = self._last.get(stream)
        if last is None:
            last = entries[0].version - 1
        ring = _Stretch(stream, last + 1)
        for entry in entries:
            last += 1
            if entry[1] != last:
                raise _hole(entry, last - 1)
        self._last[stream] = last
        ring.bodies = [entry[3] for entry in entries]
        ring.bytes = sum(map(len, ring.bodies))
        self._bytes += ring.bytes
        self._rings.append(ring)
        while self._bytes > self._rings_bytes_max and len(self._rings) > 1:
            self._bytes -= self._rings.popleft().bytes
        return ring

    def publish(self) -> None:
        """Put what was kept into the rings, unless it is there already."""
        host = self._host
        while self._rings:
            ring = self._rings.popleft()
            feed = host.feeds.get(ring.stream)
            if feed is None:
                feed = host.new_feed(ring.stream)
            feed.prime(ring.first - 1)
            if ring.first > feed.head + 1:
                raise LogCorrupt("log", 0, f"{ring.stream}: version {ring.first} follows {feed.head}")
            known = feed.head + 1 - ring.first
            fresh = zip(ring.types[known:], ring.bodies[known:], strict=True)
            feed.publish([Frame(at, type_, body) for at, (type_, body) in enumerate(fresh, feed.head + 1)])
            if ring.fence > feed.low:
                feed.fence(ring.fence)


class _Stretch:
    """What one chunk of the log has for the ring of one stream: records from version `first` on; `fence` is
    the last one of them that is a fence, 0 when there is none.
    """

    __slots__ = ("bodies", "bytes", "fence", "first", "stream", "types")

    def __init__(self, stream: str, first: int) -> None:
        self.stream = stream
        self.first = first
        self.types: list[str] = []
        self.bodies: list[bytes] = []
        self.bytes = 0
        self.fence = 0


def _decode(kind: str, entry: Entry) -> Event:
    try:
        return decode_stored(kind, entry[3])
    except msgspec.DecodeError as error:
        raise LogCorrupt(
            "log", 0, f"{entry.stream} version {entry.version} cannot be read: {error}"
        ) from error


def _hole(entry: Entry, version: int) -> LogCorrupt:
    return LogCorrupt("log", 0, f"{entry.stream}: version {entry.version} follows {version}")


def _check(actor: Actor) -> None:
    if actor.feed.head != actor.version:
        ends = f"ends at version {actor.feed.head} in the log, its state is at {actor.version}"
        raise LogCorrupt("log", 0, f"{actor.stream} {ends}")


async def _open_actors(host: Host, streams: Iterable[str]) -> None:
    missing = sorted(stream for stream in streams if stream not in host.actors)
    if not missing:
        return
    saved = await host.checkpoint.load_states(missing)
    for stream in missing:
        actor = host.new_actor(stream)
        if stream in saved:
            _restore(actor, saved[stream], await host.checkpoint.load_known(stream))


def _restore(actor: Actor, saved: SavedState, known: Iterable[tuple[str, Known]]) -> None:
    """Put the checkpoint's state and memory of commands into an actor, and its version into a new feed."""
    try:
        actor.state = decode_state(actor.kind, saved.state)
    except msgspec.DecodeError as error:
        raise LogCorrupt("checkpoint.db", 0, f"the state of {actor.stream}: {error}") from error
    actor.version = actor.saved_version = saved.version
    for key, one in known:
        actor.memory.add_saved(key, one)
