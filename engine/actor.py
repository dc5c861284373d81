"""Actors: the single writer of one stream.

One turn of an actor takes everything that waits in its mailbox as one batch:

    decide -> evolve -> encode (once)   for each command, on the state in memory
    log.append                          one append for the batch; the log joins it with those of other actors
    feed.publish, reactions, timers     now the events exist for others
    answers                             and only now, also refusals: they too may rest on events of this batch

Between evolve and the end of the append the state is ahead of the disk, so reads wait for the end of the
turn. If the append does not happen, the state in memory is wrong: the actor forgets it and rebuilds from
checkpoint and log. A turn that does not come to its end stays the actor's until `lose` or `end`, so nobody,
a checkpoint least of all, can look at what it left behind.

`decide` only reads, so a fault in it costs its command and nothing else. A fault anywhere after it breaks the
state: its command is answered `internal`, the others of the batch wait again, and the supervisor rebuilds.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from outcome import Error, Outcome

from engine.answers import Answer, Known, Memory, command_digest, command_key, outcome_of
from engine.checkpoint import SavedState
from engine.codec import AnswerMeta, check_events, domain_of, encode, encode_state
from engine.domain.contract import Context, Event
from engine.domain.times import to_text
from engine.errors import (
    Crashed,
    IdempotencyMismatch,
    LogFailed,
    OndaError,
    Overloaded,
    ReadOnly,
    Rejected,
    Stopping,
    Unavailable,
    UnknownOutcome,
)
from engine.feed import Feed
from engine.host import Host
from engine.log import Basis
from engine.mailbox import Ask, Look, Source, StateLost, Turn, Wake
from engine.records import Entry
from engine.waiting import Bell

logger = logging.getLogger("onda.actor")

T = TypeVar("T")

APPEND_SHARE = 8
"""A turn takes no more commands once its records fill one part in so many of a segment."""


class Actor:
    """One stream's state, mailbox and feed. `version` is that of the state in memory, `feed.head` the
    durable one.
    """

    def __init__(self, stream: str, feed: Feed, host: Host) -> None:
        self.stream = stream
        self.kind = stream.partition(":")[0]
        self.domain = domain_of(self.kind)
        self.feed = feed
        self.state: Any = self.domain.State()
        self.version = 0
        self.saved_version = 0
        self.memory = Memory(int(host.config.idempotency_s * 1000))
        self.loaded = False
        self.lost = False
        self.used_s = time.monotonic()
        self._batch_max = host.config.batch_max
        self.bell = Bell()
        self._host = host
        self._mailbox: deque[Ask | Look | Wake] = deque()
        self._under_way: Turn | None = None
        self._fault: Exception | None = None
        self._refuse_with: Callable[[], Unavailable] | None = None
        self._view: tuple[int, bytes] | None = None

    # What others call

    def ask(self, ask: Ask) -> None:
        """Put a command into the mailbox.

        Raises:
            Overloaded: the mailbox is full.
            Unavailable: the actor crashed too often and is held down for a while, or has ended.
        """
        if self._refuse_with is not None:
            raise self._refuse_with()
        if len(self._mailbox) >= self._host.config.mailbox_max:
            raise Overloaded
        self._mailbox.append(ask)
        self.bell.ring()

    def wake(self) -> None:
        """Look at the deadline."""
        if self._refuse_with is None:
            self._mailbox.append(Wake())
            self.bell.ring()

    async def look(self, take: Callable[[], T]) -> T:
        """Return what `take` returns when called between two turns, where the state in memory is the
        durable one, and where everything that was in the mailbox before is done.

        Raises:
            Unavailable: as `ask`.
        """
        if self._refuse_with is not None:
            raise self._refuse_with()
        if self.idle:
            return take()
        look = Look(take)
        self._mailbox.append(look)
        self.bell.ring()
        result: T = await look.wait()
        return result

    def view(self) -> bytes:
        """Return the state that readers see, as JSON. Only between two turns (see `look`)."""
        if self._view is None or self._view[0] != self.version:
            collections = {name: getattr(self.state, name) for name in self.domain.COLLECTIONS}
            self._view = (self.version, encode(collections))
        return self._view[1]

    @property
    def epoch(self) -> str:
        """The log's, which stands in the stream's cursors."""
        return self._host.epoch

    @property
    def waiting(self) -> int:
        """Items in the mailbox."""
        return len(self._mailbox)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way, and the state is good."""
        return self.loaded and self._fault is None and self._under_way is None and not self._mailbox

    @property
    def held_down(self) -> bool:
        """Everything is refused for now."""
        return self._refuse_with is not None

    @property
    def due_ms(self) -> int | None:
        due = self.domain.deadline(self.state)
        return None if due is None else due[0]

    def saved_with_answers(self) -> tuple[SavedState, dict[str, Known]]:
        """Return the state for a checkpoint, and the answers to save with it. Only between two turns (see
        `look`).
        """
        state = encode_state(self.kind, self.state)
        return SavedState(self.stream, self.version, state, self.due_ms), self.memory.unsaved()

    def forget(self) -> None:
        """Go back to before the first record, keeping mailbox and feed."""
        self.state = self.domain.State()
        self.version = 0
        self.saved_version = 0
        self.memory = Memory(int(self._host.config.idempotency_s * 1000))
        self.loaded = False
        self._view = None

    def lose(self) -> None:
        """Forget the state because it cannot be trusted: what is durable has to be read from the log
        itself. Commands of a broken turn that are not answered yet are answered `internal`.
        """
        self.forget()
        self.lost = True
        self._fault = None
        turn, self._under_way = self._under_way, None
        if turn is not None:
            turn.fail(Crashed)
            self._mailbox.extendleft(reversed(turn.looks))

    def refuse(self, error: Callable[[], Unavailable]) -> None:
        """Answer what is in the mailbox, and what comes until `accept`, with `error`."""
        self._refuse_with = error
        while self._mailbox:
            item = self._mailbox.popleft()
            if isinstance(item, Ask | Look):
                item.reply.fail(error())

    def accept(self) -> None:
        """Take commands again."""
        self._refuse_with = None

    def end(self) -> None:
        """Answer everything that nobody will work on any more, now and later."""
        turn, self._under_way = self._under_way, None
        if turn is not None:
            turn.fail(UnknownOutcome)
            self._mailbox.extendleft(turn.looks)
        self.refuse(Stopping)

    def apply(self, event: Event) -> None:
        """Take over one stored event."""
        self.domain.evolve(self.state, event)
        self.version += 1

    # The loop

    async def run(self) -> None:
        """Load if need be, then handle the mailbox for ever.

        Raises:
            StateLost: rebuild and run again.
            LogFailed: the process has to end.
        """
        if not self.loaded:
            await self._host.rebuild(self)
            self._host.arm(self.stream, self.due_ms)
        while True:
            while self._under_way is not None or not self._mailbox:
                await self.bell.wait()
                if self._fault is not None:
                    raise self._fault
            await self._host.log.wait_room()
            self.used_s = time.monotonic()
            turn = self._under_way = Turn()
            await self._turn(turn)

    async def _turn(self, turn: Turn) -> None:
        now_ms = self._host.clock.now_ms()
        now = to_text(now_ms)
        mailbox = self._mailbox
        for _ in range(min(len(mailbox), self._batch_max)):
            if turn.bytes > self._host.config.segment_bytes // APPEND_SHARE:
                break
            item = mailbox.popleft()
            if isinstance(item, Ask):
                ask: Ask | None = item
            elif isinstance(item, Look):
                turn.looks.append(item)
                continue
            else:
                ask = self._deadline_ask(now_ms)
            if ask is not None:
                turn.deciding = ask
                await self._handle(turn, ask, now_ms, now)
        if turn.entries:
            self._append(turn)
        else:
            self._end_unwritten(turn)

    def _deadline_ask(self, now_ms: int) -> Ask | None:
        due = self.domain.deadline(self.state)
        return None if due is None or due[0] > now_ms else Ask(due[1], self.stream, None, None)

    async def _handle(self, turn: Turn, ask: Ask, now_ms: int, now: str) -> None:
        key = digest = None
        if ask.id is not None:
            key = command_key(ask.by, ask.id)
            digest = "" if ask.unwatched else command_digest(ask.command)
            known = self.memory.find(key)
            if known is not None:
                turn.settle.append((ask, await self._again(key, known, digest)))
                return
        if not self._host.log.writable:
            turn.settle.append((ask, self._refusal()))
            return
        context = Context(self.stream, ask.by, now_ms, now, self._host.clock.new_id)
        try:
            events = self.domain.decide(self.state, ask.command, context)
            check_events(self.kind, events)
        except Rejected as refusal:
            if key is not None and digest is not None and ask.cause is None:  # a reaction tries it anew
                self.memory.add_refused(key, Known(now_ms, digest, None, (refusal.code, refusal.detail)))
            turn.settle.append((ask, refusal))
            return
        except Exception:
            logger.exception("%s: deciding %s failed", self.stream, type(ask.command).__name__)
            turn.settle.append((ask, Crashed()))
            return
        try:
            answer = self._evolve(turn, ask, digest, events, context)
        except Exception:
            logger.exception("%s: evolving after %s failed", self.stream, type(ask.command).__name__)
            self._mailbox.extendleft(reversed(turn.take_back()))
            raise StateLost(crash=True) from None
        turn.settle.append((ask, answer))
        if key is not None and digest is not None:
            kept = answer._replace(events=[]) if ask.unwatched else answer
            self.memory.add(key, Known(now_ms, digest, kept))
            if not events:  # the answer is in no record: the next checkpoint has to save it
                self._host.appending(self.stream)

    async def _again(self, key: str, known: Known, digest: str) -> Answer | Exception:
        if digest and known.digest and known.digest != digest:
            return IdempotencyMismatch()
        if known.refusal is not None:
            return Rejected(*known.refusal)
        answer = known.answer or await self._host.saved_answer(self.stream, key)
        if answer is None:
            return UnknownOutcome("this was done before, but its answer is not kept any more")
        return answer._replace(replayed=True)

    def _evolve(
        self, turn: Turn, ask: Ask, digest: str | None, events: list[Event], context: Context
    ) -> Answer:
        """Change the state, and note what goes to disk and to readers."""
        host, stream, before = self._host, self.stream, self.version
        cause = ask.cause or ask.id or (host.clock.new_id() if events else "")
        source = Source(stream, host.epoch, before, context.now, ask.by, cause)
        bodies = turn.take(self.domain, self.state, events, source, host.clock.new_id)
        version = self.version = before + len(events)
        result = encode(self.domain.answer(self.state, ask.command, events))
        meta = b""
        if digest is not None and ask.id is not None:
            meta = encode(AnswerMeta(ask.id, ask.by, digest, len(events), msgspec.Raw(result)))
        for number, body in enumerate(bodies, before + 1):
            turn.entries.append(Entry(stream, number, meta if number == version else b"", body))
        return Answer(f"{host.epoch}-{version}", version, bodies, result)

    def _refusal(self) -> Unavailable:
        return ReadOnly()

    def _basis(self, turn: Turn) -> Basis | None:
        return None  # nobody else appends to this stream

    def _append(self, turn: Turn) -> None:
        self._host.appending(self.stream)
        try:
            done = partial(self._appended, turn, time.monotonic())
            self._host.log.submit(turn.entries, done, self._basis(turn))
        except Exception as error:  # noqa: BLE001 - raised again as what it means
            self._refused(turn, error)

    def _appended(self, turn: Turn, started_s: float, result: Outcome[int]) -> None:
        """The turn's records are durable, or are not going to be. What is wrong is raised in the task."""
        if self._under_way is not turn or self._fault is not None:
            return  # it was ended meanwhile, or is about to be
        try:
            if isinstance(result, Error):
                self._refused(turn, result.error)
            else:
                self._land(turn, result.unwrap(), time.monotonic() - started_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor judges it
            self._fault = error
            self.bell.ring()

    def _refused(self, turn: Turn, error: BaseException) -> None:
        if isinstance(error, UnknownOutcome | LogFailed):
            self._fail(turn, UnknownOutcome)
            raise LogFailed(str(error)) from error
        if isinstance(error, Unavailable):  # nothing was written: no space, too much waiting
            self._fail(turn, type(error))
            raise StateLost(crash=False) from error
        self._fail(turn, Crashed)
        raise error

    def _land(self, turn: Turn, position: int, took_s: float) -> None:
        self._host.metrics.appended(len(turn.entries), took_s)
        try:
            self._publish(turn, position)
        except Exception:  # it is durable: the same id gives the answer after the rebuild
            self._fail(turn, UnknownOutcome)
            raise
        self._end_turn(turn)

    def _end_turn(self, turn: Turn) -> None:
        self._host.metrics.answered(turn.answer())
        self._under_way = None
        if self._mailbox:
            self.bell.ring()

    def _end_unwritten(self, turn: Turn) -> None:
        self._end_turn(turn)

    def _publish(self, turn: Turn, position: int) -> None:
        self.feed.publish(turn.frames)
        fences = self.domain.fences
        records = turn.committed(self.stream, position)
        for record in records:
            if fences(record.event):
                self.feed.fence(record.version)
        self._host.committed(records, turn.bytes)
        self._host.arm(self.stream, self.due_ms)

    def _fail(self, turn: Turn, error: Callable[[], OndaError]) -> None:
        turn.fail(error)
        self._host.metrics.answered({outcome_of(error()): len(turn.settle)})
