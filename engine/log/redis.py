"""One partition of the log in Redis: an `engine.log.SharedLog` that several nodes append to.

Theory of operation. An append goes to the `Writer`, which takes those of all actors and partitions to Redis
in one trip; there a script compares what it was decided on with what is there (`redis_scripts.py`). What
others append is heard from the partition's channel and taken in order (`redis_tail.py`): `seen` is the last
record that came in without a hole, `witness` the last one that is known to have been acknowledged to anybody
here. Looking (`look`) compares both with what Redis says. A witness that is not there any more is a fork: a
new epoch begins, `wait_epoch` returns, and what was built on the log has to be built again.

Where servers are is the route's affair (`redis_route.py`), threads and tasks are `redis_shared.py`'s. All
state here belongs to trio's thread; the listener's looks at some of it (`awaits`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import trio
from outcome import Outcome, capture

from engine.errors import CursorUnusable, Forked, LogAway, LogFailed, Unavailable, UnknownOutcome
from engine.log import Basis, Head, frames
from engine.log.appending import append_to
from engine.log.redis_asking import Asking, Meta, Record, Witness, read_message, read_message_head
from engine.log.redis_lines import Command
from engine.log.redis_packing import judge_append, pack_append
from engine.log.redis_scripts import READ_STREAM, Keys, Script
from engine.log.redis_trips import SMALL_BYTES
from engine.log.redis_writer import Append, Writer
from engine.records import Entry

logger = logging.getLogger("onda.log")

APPEND_BYTES_MAX = 4 << 20
"""How large the entries of one append may be together: one script, and one message."""
KEPT_MAX = 8192
KEPT_BYTES_MAX = 16 << 20
"""Records of the tail that are kept for `follow`, in count and in bytes; older ones are read from Redis."""
OWN_MAX = 4096
"""Appends of ours whose messages are passed over; of more, the messages are read."""

T = TypeVar("T")


class Host(Protocol):
    """What a partition needs of the log that it is part of."""

    writer: Writer
    asking: Asking
    publish: str
    away: dict[int, str]

    async def ask(self, question: Callable[[], T]) -> T: ...

    async def query(self, partition: int, command: Command, *, large: bool = False) -> Any: ...

    def poke(self) -> None: ...

    async def look_anew(self) -> None: ...

    def gone(self, partition: int, what: str) -> LogFailed: ...

    @property
    def failure(self) -> LogFailed | None: ...

    async def wait_failed(self) -> LogFailed: ...


class RedisPartition:
    """See `engine.log.Log` and `engine.log.SharedLog` for the contract.

    Attributes:
        epoch: the partition's.
        head: position of the last record that is known to be there.
        first: position of the oldest one that is kept, as far as is known.
        seen: everything up to this position came in, in order.
        missed: a message came that does not follow what was seen.
        healed: how many records were read because no message of them had come.
        answered_s: when Redis last said something of this partition (trio's time).
    """

    def __init__(self, number: int, meta: Meta, host: Host) -> None:
        self.number = number
        self.keys = Keys.of(number)
        self.append_bytes_max = APPEND_BYTES_MAX
        self.first = meta.first
        self.missed = False
        self.healed = 0
        self.answered_s = trio.current_time()
        self._host = host
        self._kept: list[Record] = []
        self._kept_bytes = 0
        self._own: dict[int, None] = {}  # first positions of appends of ours, to be heard yet
        self.attended = True
        self._changed = trio.Event()
        self._epoch_changed = trio.Event()
        self._start(meta)

    def _start(self, meta: Meta) -> None:
        self.epoch = meta.epoch
        self.head = self.seen = meta.head
        self._seen_id = meta.last
        self.witness = Witness(meta.head, meta.last)
        self._kept.clear()
        self._kept_bytes = 0
        self._own.clear()

    @property
    def writable(self) -> bool:
        """Whether appends are taken just now."""
        return self.refusal is None and self._host.failure is None

    @property
    def refusal(self) -> Unavailable | None:
        """See `engine.log.SharedLog.refusal`."""
        refusal = self._host.writer.refusal(self.number)
        if refusal is None and self.number in self._host.away:
            return LogAway(self._host.away[self.number])
        return refusal

    # Appending

    async def append(self, entries: Sequence[Entry], basis: Basis | None = None) -> int:
        """See `engine.log.Log.append`."""
        return await append_to(self, entries, basis)

    def submit(
        self, entries: Sequence[Entry], done: Callable[[Outcome[int]], None], basis: Basis | None = None
    ) -> None:
        """See `engine.log.Log.submit`. Without a `basis` only versions are compared."""
        if self._host.failure is not None:
            raise UnknownOutcome
        if refusal := self.refusal:
            raise refusal
        about = (self.epoch, self._host.publish, self.keys.channel)
        streams, arguments, size = pack_append(entries, basis, *about, self.append_bytes_max)
        keys = [self.keys.meta, self.keys.log, self.keys.heads, *(self.keys.at + name for name in streams)]
        if basis is not None and basis.turns is not None:
            keys.append(self.keys.waits + streams[0])
        ids = arguments[-3 * len(entries) + 1 :: 3]
        judge = partial(self._judge, streams=streams, expected=entries[0].version - 1, basis=basis)

        def settle(answer: Outcome[Any]) -> None:
            done(capture(lambda: judge(answer.unwrap())))

        taken = partial(self._taken, arguments[0], entries, ids)
        self._host.writer.submit(Append(self.number, keys, arguments, len(entries), size, taken, settle))

    def _taken(self, epoch: str, entries: Sequence[Entry], ids: Sequence[str], answer: list[Any]) -> None:
        """Take note of an answer, whether or not its caller still waits."""
        self.answered_s = trio.current_time()
        word = answer[0]
        if word == b"gone":
            self._host.gone(self.number, answer[1].decode())
        elif word == b"epoch":
            self._host.poke()
        elif word in (b"ok", b"same") and epoch == self.epoch:
            if answer[1] > self.witness.position:
                self.witness = Witness(answer[1], ids[-1])
                self.head = max(self.head, answer[1])
            if word == b"ok":
                self._take_own(answer[1], answer[2].decode(), entries, ids)

    def _take_own(self, last: int, previous: str, entries: Sequence[Entry], ids: Sequence[str]) -> None:
        """Take what was just appended here, up to position `last` and behind the record `previous`, if that
        is the one that was seen last: its message is passed over.
        """
        first = last - len(entries) + 1
        if (self.seen, self._seen_id) == (first - 1, previous):
            before = (previous, *ids)
            self.take([Record(first + n, ids[n], before[n], entry) for n, entry in enumerate(entries)])
            self._own[first] = None
            if len(self._own) > OWN_MAX:
                del self._own[next(iter(self._own))]

    def _judge(self, answer: list[Any], streams: list[str], expected: int, basis: Basis | None) -> int:
        try:
            position = judge_append(answer, streams, expected, basis)
        except Forked:
            self._host.poke()
            raise
        if basis is not None and basis.turns is not None and answer[0] == b"ok":
            basis.turns.ahead(answer[3])
        return position

    async def wait_room(self) -> None:
        """See `engine.log.Log.wait_room`."""
        await self._host.writer.wait_room()

    # Reading

    async def read(self, after: int, bytes_max: int = 1 << 20) -> list[tuple[int, Entry]]:
        """See `engine.log.Log.read`.

        Raises:
            CursorUnusable: as there.
            LogAway: Redis does not answer.
            LogFailed: records are missing.
        """
        if after >= self.head:
            await trio.lowlevel.checkpoint()
            return []
        question = partial(self._host.asking.read, self.number, after, bytes_max)
        records, meta = await self._host.ask(question)
        self.first = max(self.first, meta.first)
        if (records and records[0].position != after + 1) or (not records and meta.head > after):
            if meta.first > after + 1:
                raise CursorUnusable("expired")
            raise self._host.gone(self.number, f"the record at position {after + 1}")
        return [(record.position, record.entry) for record in records]

    async def read_stream(
        self, stream: str, after: int, bytes_max: int = 1 << 20, *, oldest: bool = False
    ) -> tuple[Head, list[tuple[int, Entry]]]:
        """See `engine.log.SharedLog.read_stream`."""
        words = (stream, after, max(1, bytes_max), int(oldest))
        _, head, entries = await self.find(READ_STREAM, stream, words, large=bytes_max > SMALL_BYTES)
        return head, entries

    async def find(
        self, text: Script, stream: str, words: Sequence[Any], *, large: bool = False
    ) -> tuple[list[Any], Head, list[tuple[int, Entry]]]:
        """Run a script that looks into a stream; its answer ends as that of `READ_STREAM`. Return what it has
        before that, the stream's head, and its records with their positions; raises as `read_stream`.
        """
        keys = (self.keys.meta, self.keys.log, self.keys.heads, self.keys.at + stream)
        epoch = self.epoch
        answer = await self._host.query(self.number, (text, len(keys), *keys, *words), large=large)
        if answer[0] == b"gone":
            raise self._host.gone(self.number, answer[1].decode())
        if answer[0] != b"ok":
            raise CursorUnusable(answer[0].decode())
        *before, version, last, found = answer[1:]
        entries = [(found[n], frames.unpack_entry(found[n + 1])[0]) for n in range(0, len(found), 2)]
        head = Head(version, last.decode())
        ends = bool(entries) and entries[-1][1].version == version and epoch == self.epoch
        if ends and entries[-1][0] > self.witness.position:
            self.witness = Witness(entries[-1][0], head.id)
        return before, head, entries

    async def follow(self, after: int, timeout_s: float) -> list[tuple[int, Entry]]:
        """See `engine.log.SharedLog.follow`."""
        epoch = self.epoch
        with trio.move_on_after(timeout_s):
            while self.seen <= after and self.epoch == epoch:
                await self._changed.wait()
        if self.seen <= after or self.epoch != epoch:
            return []
        if self._kept and self._kept[0].position <= after + 1:
            kept = self._kept[after + 1 - self._kept[0].position :]
            await trio.lowlevel.checkpoint()
            return [(record.position, record.entry) for record in kept]
        return [pair for pair in await self.read(after) if pair[0] <= self.seen]

    async def look(self) -> None:
        """See `engine.log.SharedLog.look`."""
        await self._host.look_anew()
        if self.number in self._host.away:
            raise LogAway(self._host.away[self.number])

    async def wait_epoch(self, epoch: str) -> str:
        """See `engine.log.SharedLog.wait_epoch`."""
        while self.epoch == epoch:
            await self._epoch_changed.wait()
        return self.epoch

    async def epochs(self) -> list[tuple[str, int]]:
        """See `engine.log.SharedLog.epochs`."""
        return await self._host.ask(partial(self._host.asking.epochs, self.number))

    async def trim(self, upto: int) -> None:
        """See `engine.log.Log.trim`."""
        upto = min(upto, self.seen)
        if upto >= self.first:
            asking = self._host.asking
            trim = partial(asking.trim, self.number, upto, self.epoch, self.witness)
            first = await self._host.ask(trim)
            self.first = max(self.first, first)

    async def wait_failed(self) -> LogFailed:
        """Wait until the log has failed for good, and return why: the process has to end."""
        return await self._host.wait_failed()

    def statistics(self) -> dict[str, Any]:
        """Numbers for operators."""
        return {
            "head": self.head,
            "first": self.first,
            "seen": self.seen,
            "writable": self.writable,
            "away": isinstance(self.refusal, LogAway),
            "healed": self.healed,
            "in_doubt": self._host.writer.doubts[self.number],
            "silent_s": trio.current_time() - self.answered_s,
            "failed": self._host.failure is not None,
        }

    # What the log in Redis tells its partitions

    def hear(self, message: bytes) -> None:
        """Take one message of the channel, if it follows."""
        try:
            epoch, first = read_message_head(message)
            if epoch == self.epoch and first in self._own:
                del self._own[first]  # it was taken when it was answered
                return
            epoch, records = read_message(message)
        except ValueError:
            logger.warning("%s: somebody published what is no record", self.keys.channel)
            return
        if epoch != self.epoch or not self.take(records):
            self.missed = True
            self._host.poke()

    def awaits(self, message: bytes) -> bool:
        """Return whether anybody here waits for a message of the channel; in whichever thread."""
        try:
            return self.attended and read_message_head(message)[1] not in self._own
        except ValueError:
            return True  # `hear` says so

    @property
    def last_seen(self) -> Witness:
        """The last record that came in, in order."""
        return Witness(self.seen, self._seen_id)

    async def wait_seen(self, position: int) -> None:
        """Wait until everything up to a position came in, or a new epoch begins."""
        epoch = self.epoch
        while self.seen < position and self.epoch == epoch and not self.missed:
            await self._changed.wait()

    def take(self, records: Sequence[Record]) -> bool:
        """Take records that stand next to each other; return False when they do not follow what was taken."""
        fresh = [record for record in records if record.position > self.seen]
        if not fresh:
            return True
        if fresh[0].position != self.seen + 1 or fresh[0].previous != self._seen_id:
            return False
        self._kept.extend(fresh)
        self._kept_bytes += sum(frames.entry_bytes(record.entry) for record in fresh)
        if len(self._kept) > 2 * KEPT_MAX or self._kept_bytes > 2 * KEPT_BYTES_MAX:
            self._forget_old()
        self.seen, self._seen_id = fresh[-1].position, fresh[-1].id
        self.head = max(self.head, self.seen)
        if self.seen >= self.witness.position:
            self.witness = Witness(self.seen, self._seen_id)
        self._wake()
        return True

    def skip(self, record: Record) -> None:
        """Go on before `record`: what lies between was trimmed away before it could be read."""
        self._kept.clear()
        self._kept_bytes = 0
        self.seen, self._seen_id = record.position - 1, record.previous
        self._wake()

    def _forget_old(self) -> None:
        gone = 0
        while len(self._kept) - gone > KEPT_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            self._kept_bytes -= frames.entry_bytes(self._kept[gone].entry)
            gone += 1
        del self._kept[:gone]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def suspects(self, meta: Meta) -> bool:
        """Return whether what the partition says cannot be, unless something was lost; of another epoch only
        the script can say.
        """
        witness = self.witness
        if meta.epoch != self.epoch:
            return True
        return meta.head < witness.position or (meta.head == witness.position and meta.last != witness.id)

    def compare(self, meta: Meta) -> None:
        """Take over what the partition says of itself; a new epoch starts everything afresh."""
        self.answered_s = trio.current_time()
        self.first = max(self.first, meta.first)
        if meta.epoch == self.epoch:
            self.head = max(self.head, meta.head)
            return
        lost = self.witness.position - meta.head
        logger.error(
            "partition %d: epoch %s begins after position %d%s",
            self.number,
            meta.epoch,
            meta.head,
            f": {lost} acknowledged records or more are lost" if lost > 0 else "",
        )
        self.first = meta.first
        self._start(meta)
        self._wake()
        self._epoch_changed.set()
        self._epoch_changed = trio.Event()
