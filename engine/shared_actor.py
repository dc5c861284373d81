"""Actors of streams that other nodes append to, too.

Nobody owns a stream. A turn's append names the record that it was decided on (`engine.log.Basis`); when
another node was faster it is a conflict. The actor then goes back to the durable state (`undo.py`), takes
what the others appended, puts the unanswered commands of the turn back in front, and decides them again: a
command that another node has meanwhile decided under the same key gets that answer. Each conflict makes the
next batch smaller; after `TRIES_MAX` in a row the commands are told `Overloaded`.

So that a node whose way is longer, or that has less time, comes to append, too, nodes take turns
(`rivals.py`): the log tells who appended how many others wait. Before its next turn the actor lets so many
appends of others come in, for a while; its own commands gather meanwhile. Two nodes that are busy with one
stream then append in turn, each a whole batch, without conflicts.

What others append arrives between two turns, where the state in memory is the durable one. A hole is filled
by reading the stream. While the log is away, commands are refused, and reads go on from memory.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Sequence

import trio

from engine.actor import Actor
from engine.answers import Answer, Known, Stored, command_key
from engine.checkpoint import SavedState
from engine.codec import decode_envelope, decode_event
from engine.errors import (
    Conflict,
    CursorUnusable,
    Forked,
    LogAway,
    LogFailed,
    Overloaded,
    Rejected,
    Unavailable,
    UnknownOutcome,
)
from engine.feed import Feed, Frame
from engine.host import SharedHost
from engine.log import Basis
from engine.mailbox import Ask, Behind, Look, StateLost, Turn, Wake
from engine.records import Entry
from engine.rivals import Rivals
from engine.undo import Undo

TRIES_MAX = 8
LOOKED_S = 1.0
"""How long a lost actor waits for a look at the log: at the end of a node nobody may look any more."""
AWAY_S = 0.25
"""How long after the log did not answer it is asked again."""
EVENTS_PER_COMMAND_MAX = 1024


class SharedActor(Actor):
    """See `Actor`. `last_id`: of the record at `version`, `""` before the first."""

    def __init__(self, stream: str, feed: Feed, host: SharedHost) -> None:
        super().__init__(stream, feed, host)
        self._log = host.log
        self._note_asked = host.asked
        self.last_id = ""
        self._undo = Undo(self.kind)
        self._foreign: deque[tuple[int, Entry]] = deque()
        self._begun: list[bytes] = []  # bodies behind the last command with an id
        self._behind = False
        self._wanted = self._reached = 0  # how often somebody wanted to know all of it, and what was read for
        self._unread: Unavailable | None = None  # why that could not be done
        self._tries = 0
        self._rivals = Rivals(host.clock.new_id())
        self._epoch = host.epoch

    def forget(self) -> None:
        """See `Actor.forget`."""
        super().forget()
        self.last_id = ""
        self._behind, self._unread = False, None
        self._begun.clear()
        self._foreign.clear()  # what was heard before is read

    def settled(self, last_id: str) -> None:
        """Take note that state and version are those of the log, whose record at this version is
        `last_id`.
        """
        self.last_id = last_id
        self._undo.mark(self.state, self.version)

    def saved_with_answers(self) -> tuple[SavedState, dict[str, Known]]:
        """See `Actor.saved_with_answers`.

        Raises:
            Behind: there are records that the state does not have yet.
        """
        if self._foreign:
            self._take_heard()
        if self._behind or self._fault is not None:
            raise Behind(f"{self.stream} is behind")
        return super().saved_with_answers()

    def hear(self, records: Sequence[tuple[int, Entry]]) -> None:
        """Take records of this stream, in order, by whomever they were appended: at once between two turns,
        else after this one. Most are this actor's own, which it has already.
        """
        if records[-1][1].version <= self.feed.head and self.loaded:
            return
        self._foreign.extend(records)
        self._rivals.heard.ring()
        if self.loaded and self._under_way is None:
            self._take_heard()

    def doubt(self) -> None:
        """Forget everything and read it again: the log has lost records."""
        self._fault = StateLost(crash=False)
        self.bell.ring()
        self._rivals.heard.ring()

    def lose(self) -> None:
        """See `Actor.lose`. What is on its way to the log may still come to be there."""
        turn = self._under_way
        if turn is not None and turn.settle:
            self._fail(turn, UnknownOutcome)
            turn.settle, turn.deciding = [], None
        super().lose()

    def fall_behind(self) -> None:
        """Read the stream: records of it may not have been heard."""
        self._behind = True
        self._rivals.heard.ring()
        self.wake()

    async def catch_up(self) -> None:
        """Take everything that the log has of the stream now.

        Raises:
            Unavailable: the log is away.
        """
        self._wanted += 1
        mine = self._wanted
        while self._reached < mine:
            self.fall_behind()
            await self.look(lambda: None)
            if self._reached < mine and self._unread is not None:
                raise type(self._unread)(self._unread.detail)

    def _take_heard(self) -> None:
        if self._fault is not None:
            return
        try:
            heard, self._foreign = list(self._foreign), deque()
            self._take(heard)
        except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor judges it
            self._fault = error
            self.bell.ring()
        if self._behind:
            self.wake()

    def _take(self, records: Sequence[tuple[int, Entry]]) -> None:
        """Change the state by records that are not in it, and put them into the ring."""
        frames: list[Frame] = []
        commands: list[Stored] = []
        fence = 0
        for _, entry in records:
            if entry.version <= self.version:
                continue
            if entry.version != self.version + 1:
                self._behind = True
                break
            envelope = decode_envelope(entry.body)
            event = decode_event(self.kind, envelope.type, envelope.data)
            self.domain.evolve(self.state, event)
            self.version = entry.version
            self.last_id = envelope.id
            if self.domain.fences(event):
                fence = entry.version
            frames.append(Frame(entry.version, envelope.type, entry.body))
            self._begun.append(entry.body)
            if entry.meta:
                commands.append(Stored(entry.version, entry.meta, self._begun[-EVENTS_PER_COMMAND_MAX:]))
                self._begun = []
        if not frames:
            return
        self._rivals.came()
        del self._begun[:-EVENTS_PER_COMMAND_MAX]
        self.memory.add_stored(self._host.epoch, commands)
        self._undo.add([frame.body for frame in frames], self.state, self.version)
        self._view = None
        self.feed.publish(frames)
        if fence:
            self.feed.fence(fence)
        self._host.arm(self.stream, self.due_ms)

    # The loop

    async def run(self) -> None:
        """See `Actor.run`. While the log is away, nothing can be read from it either."""
        while not self.loaded:
            try:
                if self.lost:  # perhaps by the log, too: what is left of it is of another epoch
                    with trio.move_on_after(LOOKED_S):
                        await self._log.look()
                await self._host.rebuild(self)
            except Unavailable as error:
                self._refuse_waiting(error)
                await trio.sleep(random.uniform(0, AWAY_S))
        self._host.arm(self.stream, self.due_ms)
        if self._foreign:
            self._take_heard()
        await super().run()

    async def _turn(self, turn: Turn) -> None:
        if self._fault is not None:
            raise self._fault
        if self._rivals.ahead:
            await self._let_others_go_first()
        if self._foreign:
            self._take_heard()
        if self._behind:
            await self._catch_up()
        if self._fault is not None:
            raise self._fault
        self._batch_max = max(1, self._host.config.batch_max >> self._tries)
        self._epoch = self._host.epoch
        await super()._turn(turn)
        if self._under_way is turn and not turn.entries:
            await self._confirm(turn)

    async def _let_others_go_first(self) -> None:
        with self._rivals.patience() as patience:
            while self._rivals.ahead and not self._behind and self._fault is None:
                await self._rivals.heard.wait()
                self._take_heard()
        if patience.cancelled_caught:
            self._rivals.pass_over()

    def _end_unwritten(self, turn: Turn) -> None:
        if not any(_was_decided(answer) for _, answer in turn.settle):
            self._end_turn(turn)

    async def _confirm(self, turn: Turn) -> None:
        """End a turn that appends nothing: what it refuses has to be refused by what is in the log now, as an
        append is decided on that.
        """
        error: Conflict | Unavailable
        try:
            head, _ = await self._log.read_stream(self.stream, self.version, 1)
        except CursorUnusable as gone:
            error = Forked(gone.detail)
        except Unavailable as away:
            error = away
        else:
            if (head.version, head.id) == (self.version, self.last_id):
                self._tries = 0
                self._end_turn(turn)
                return
            kind = Forked if head.version == self.version else Conflict
            error = kind(f"{self.stream} is at version {head.version}", head.version, head.id)
        if self._fault is not None:
            raise self._fault
        self._refused(turn, error)

    def _end_turn(self, turn: Turn) -> None:
        if self._fault is not None:  # nobody may look at this state any more
            raise self._fault
        super()._end_turn(turn)
        if self._foreign:
            self._take_heard()

    async def _catch_up(self) -> None:
        """Take what the stream has after the state's version.

        Raises:
            StateLost: the log has less than the state, or not all of what comes after it.
        """
        while self._behind:
            self._behind = False  # whoever falls behind while this is asked asks again
            wanted = self._wanted
            try:
                head, found = await self._log.read_stream(self.stream, self.version)
            except CursorUnusable:
                raise StateLost(crash=False) from None
            except Unavailable as error:
                self._behind, self._unread = True, error
                self._refuse_waiting(error)
                await trio.sleep(random.uniform(0, AWAY_S))
                continue
            if self._fault is not None:  # another epoch began meanwhile
                raise self._fault
            self._take(found)
            self._behind = self._behind or self.version < head.version
            self._reached, self._unread = wanted, None

    def _refuse_waiting(self, error: Unavailable) -> None:
        """Answer what waits; whoever wants to look sees the last state that is known to be durable."""
        waiting, kept = list(self._mailbox), deque[Ask | Look | Wake]()
        self._mailbox.clear()
        for item in waiting:
            if isinstance(item, Ask):
                item.reply.fail(type(error)(error.detail))
            elif isinstance(item, Look) and self.loaded:
                item.settle()
            elif isinstance(item, Look):
                item.reply.fail(type(error)(error.detail))
            else:
                kept.append(item)
        self._mailbox.extend(list(kept)[:1])

    async def _again(self, key: str, known: Known, digest: str) -> Answer | Exception:
        try:
            return await super()._again(key, known, digest)
        except Unavailable as error:  # the answer is where the log is
            return error

    def _refusal(self) -> Unavailable:
        return self._log.refusal or LogAway()

    def _basis(self, turn: Turn) -> Basis:
        turns = self._rivals.turns(more=len(turn.settle) > 1 or bool(self._mailbox))
        return Basis(self._epoch, self.last_id, [id_ for id_, _ in turn.records], turns)

    def _publish(self, turn: Turn, position: int) -> None:
        self.last_id = turn.records[-1][0]
        self._tries = 0
        self._begun.clear()
        self._undo.add([frame.body for frame in turn.frames], self.state, self.version)
        self._note_asked(sum(ask.cause is None and ask.by != self.stream for ask, _ in turn.settle))
        super()._publish(turn, position)

    def _refused(self, turn: Turn, error: BaseException) -> None:
        if isinstance(error, LogFailed) or not isinstance(error, Conflict | Unavailable | UnknownOutcome):
            super()._refused(turn, error)
            return
        self._go_back(turn)
        if isinstance(error, Conflict):
            self._tries += 1
            self._host.metrics.conflicts.inc()
            self._host.counts["conflicts"] += 1
            if self._tries > TRIES_MAX:
                self._tries = 0
                self._host.counts["given_up"] += 1
                self._fail(turn, Overloaded)
            else:
                turn.deciding = None
                self._mailbox.extendleft(reversed([ask for ask, _ in turn.settle]))
                turn.settle = []
        elif isinstance(error, Unavailable):
            self._fail(turn, lambda: type(error)(error.detail))
        else:
            self._fail(turn, UnknownOutcome)
        self._under_way = None
        if isinstance(error, Forked):
            self._mailbox.extendleft(reversed(turn.looks))
            raise StateLost(crash=False) from error
        if self._foreign:
            self._take_heard()
        there = isinstance(error, Conflict) and (error.version, error.id) == (self.version, self.last_id)
        if not there and not isinstance(error, Unavailable):
            self.fall_behind()  # what it met, or what became of it, was not heard yet
        for look in turn.looks:
            look.settle()
        if self._mailbox:
            self.bell.ring()

    def _go_back(self, turn: Turn) -> None:
        """Make the state in memory the durable one again.

        Raises:
            StateLost: it has to be read from the log.
        """
        for ask, answer in turn.settle:
            if ask.id is not None and _was_decided(answer):
                self.memory.drop(command_key(ask.by, ask.id))
        before = self._undo.restore()
        if before is None:
            self._mailbox.extendleft(reversed(turn.take_back()))
            turn.deciding = None
            raise StateLost(crash=False)
        self.state, self.version = before
        self._view = None
        self.used_s = time.monotonic()


def _was_decided(answer: Answer | Exception) -> bool:
    """Whether an answer comes of the state, and is not one that was given before."""
    return isinstance(answer, Rejected) or (isinstance(answer, Answer) and not answer.replayed)
