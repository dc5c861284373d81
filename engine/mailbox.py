"""What lies in an actor's mailbox, and what comes out of its turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from engine.answers import Answer, outcome_of
from engine.codec import Envelope, encode
from engine.domain.contract import Command, Domain, Event
from engine.errors import Unavailable
from engine.feed import Frame
from engine.records import Entry
from engine.waiting import Notice, Reply

Replies = Reply[Answer] | Notice
"""What takes the answer to a command: a task that waits, or a call."""


class Ask:
    """A command. `id` is what makes it idempotent (None: nobody can repeat it); `cause` stands in its
    envelopes; `reply` takes the answer.
    """

    __slots__ = ("by", "cause", "command", "id", "reply")

    def __init__(
        self,
        command: Command,
        by: str,
        id_: str | None,
        cause: str | None,
        reply: Replies | None = None,
    ) -> None:
        self.command = command
        self.by = by
        self.id = id_
        self.cause = cause
        self.reply: Replies = reply or Reply()

    @property
    def unwatched(self) -> bool:
        """It follows from a record, and nobody reads its answer: that it was done is all that is kept of it,
        and as nothing else has its id, there is nothing to compare when it comes again.
        """
        return type(self.reply) is Notice


class Look:
    """A wish to look at the durable state: `take` is called between two turns."""

    __slots__ = ("_take", "reply")

    def __init__(self, take: Callable[[], Any]) -> None:
        self._take: Callable[[], Any] | None = take
        self.reply: Reply[Any] = Reply()

    async def wait(self) -> Any:
        """Wait for what was seen; who gives up waiting leaves nothing behind (a subscription, say)."""
        try:
            return await self.reply.wait()
        except BaseException:
            self._take = None
            raise

    def settle(self) -> None:
        """Look now, if anybody still waits."""
        if self._take is None:
            return
        try:
            self.reply.set(self._take())
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who asked
            self.reply.fail(error)


class Wake:
    """A deadline may have come."""

    __slots__ = ()


class Committed(NamedTuple):
    """One durable record as reactions see it. `body` is its envelope."""

    position: int
    stream: str
    version: int
    id: str
    event: Event
    body: bytes


class Behind(Unavailable):
    """There are records that the state in memory does not have yet; they are on their way into it."""


class StateLost(Exception):
    """The state in memory is ahead of the log, or broken, and must be rebuilt.

    Args:
        crash: it was a fault (counts against the restart budget), not only a refused append.
    """

    def __init__(self, crash: bool) -> None:
        super().__init__("crash" if crash else "append refused")
        self.crash = crash


class Source(NamedTuple):
    """Where events come from: what their envelopes have in common. `version` is that before the first."""

    stream: str
    epoch: str
    version: int
    now: str
    by: str
    cause: str


class Turn:
    """What one batch has led to so far."""

    __slots__ = ("bytes", "deciding", "entries", "frames", "looks", "records", "settle")

    def __init__(self) -> None:
        self.deciding: Ask | None = None
        self.bytes = 0
        self.entries: list[Entry] = []
        self.frames: list[Frame] = []
        self.records: list[tuple[str, Event]] = []
        self.settle: list[tuple[Ask, Answer | Exception]] = []
        self.looks: list[Look] = []

    def take(
        self, domain: Domain, state: Any, events: list[Event], source: Source, new_id: Callable[[], str]
    ) -> list[bytes]:
        """Change the state by events and encode each once, for disk and for readers; return the bytes."""
        stream, epoch, version, now, by, cause = source
        bodies = []
        for event in events:
            domain.evolve(state, event)
            version += 1
            patch: dict[str, dict[str, Any]] = {}
            for collection, entity in domain.touched(event):
                patch.setdefault(collection, {})[entity] = getattr(state, collection).get(entity)
            id_ = new_id()
            type_ = type(event).__name__
            body = encode(
                Envelope(id_, f"{epoch}-{version}", stream, version, type_, now, by, cause, event, patch)
            )
            bodies.append(body)
            self.bytes += len(body)
            self.frames.append(Frame(version, type_, body))
            self.records.append((id_, event))
        return bodies

    def committed(self, stream: str, position: int) -> list[Committed]:
        """Return its records as reactions see them, when the last one has become durable at `position`."""
        return [
            Committed(at, stream, frame.version, id_, event, frame.body)
            for at, frame, (id_, event) in zip(
                range(position - len(self.entries) + 1, position + 1), self.frames, self.records, strict=True
            )
        ]

    def answer(self) -> dict[str, int]:
        """Hand over all answers, then let the looks look; return how many answers had which outcome."""
        counts: dict[str, int] = {}
        for ask, answer in self.settle:
            if isinstance(answer, Answer):
                ask.reply.set(answer)
                outcome = "replayed" if answer.replayed else "ok"
            else:
                ask.reply.fail(answer)
                outcome = outcome_of(answer)
            counts[outcome] = counts.get(outcome, 0) + 1
        for look in self.looks:
            look.settle()
        return counts

    def fail(self, error: Callable[[], Exception]) -> None:
        """Answer every command that has no answer yet with an error of its own."""
        for ask, _ in self.settle:
            ask.reply.fail(error())
        if self.deciding is not None:
            self.deciding.reply.fail(error())

    def take_back(self) -> list[Ask | Look]:
        """Return what was in it before the command that broke it: nothing was appended, decide it again."""
        items: list[Ask | Look] = [ask for ask, _ in self.settle]
        items += self.looks
        self.settle, self.looks = [], []
        return items
