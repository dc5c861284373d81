"""Answers to commands, and the memory that gives the first answer again when a command comes twice.

A command is known by who sent it and its id. The memory of an actor keeps each key for the configured time (≥
24 h). The answer itself (result and envelopes) stays in memory until a checkpoint has written it to disk,
from where the rare repeat reads it. Refusals change nothing and are not in the log: the last ones are kept in
memory only, and after a restart such a command is decided anew.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from engine.codec import decode_meta, encode, stored_time
from engine.domain.contract import Command
from engine.domain.times import to_ms
from engine.errors import IdempotencyMismatch, Rejected, Unavailable, UnknownOutcome

REFUSALS_KEPT = 1024


class Answer(NamedTuple):
    """What a command led to.

    `cursor` and `version`: the stream after it; `events`: its envelopes (JSON), `[]` when there was nothing
    to do; `result`: a JSON object; `replayed`: this was given before.
    """

    cursor: str
    version: int
    events: list[bytes]
    result: bytes
    replayed: bool = False


class Known:
    """A command that was decided: its digest and when, and its answer or refusal while that is in memory.

    A refusal is kept as its code and detail: an exception that is raised again and again grows its traceback.
    """

    __slots__ = ("answer", "at_ms", "digest", "refusal")

    def __init__(
        self, at_ms: int, digest: str, answer: Answer | None, refusal: tuple[str, str] | None = None
    ) -> None:
        self.at_ms = at_ms
        self.digest = digest
        self.answer = answer
        self.refusal = refusal


def command_key(by: str, id_: str) -> str:
    """Return the key under which a command is remembered within its stream."""
    return f"{by}\n{id_}"


def command_digest(command: Command) -> str:
    """Return what tells two bodies apart: 16 hex digits over the command's name and fields."""
    name = type(command).__name__.encode()
    return blake2b(name + b"\n" + encode(command), digest_size=8).hexdigest()


class Stored(NamedTuple):
    """A command as the log has it: `meta` of its last record, which has this `version`, and `bodies` that end
    with those of the command.
    """

    version: int
    meta: bytes
    bodies: list[bytes]


class Memory:
    """The commands that one actor remembers.

    What a replay finds is only read (`add_stored`) when somebody asks for the first time: a start has other
    things to do.
    """

    def __init__(self, keep_ms: int) -> None:
        self._keep_ms = keep_ms
        self._known: dict[str, Known] = {}
        self._refused: dict[str, Known] = {}
        self._unsaved: dict[str, Known] = {}
        self._stored: list[tuple[str, list[Stored]]] = []

    def __len__(self) -> int:
        self._read_stored()
        return len(self._known)

    def find(self, key: str) -> Known | None:
        if self._stored:
            self._read_stored()
        return self._known.get(key) or self._refused.get(key)

    def add(self, key: str, known: Known) -> None:
        """Remember a command whose answer has still to be written to disk."""
        self._known[key] = known
        self._unsaved[key] = known

    def add_saved(self, key: str, known: Known) -> None:
        """Remember a command whose answer is on disk."""
        self._known[key] = known

    def add_stored(self, epoch: str, commands: list[Stored]) -> None:
        """Remember commands out of the log, in its order, whose answers have still to be saved."""
        self._stored.append((epoch, commands))

    def _read_stored(self) -> None:
        stored, self._stored = self._stored, []
        for epoch, commands in stored:
            for version, meta_bytes, bodies in commands:
                meta = decode_meta(meta_bytes)
                answer = Answer(f"{epoch}-{version}", version, bodies[-meta.count :], bytes(meta.result))
                known = Known(to_ms(stored_time(bodies[-1])), meta.digest, answer)
                self.add(command_key(meta.by, meta.id), known)

    def add_refused(self, key: str, known: Known) -> None:
        self._refused[key] = known
        if len(self._refused) > REFUSALS_KEPT:
            del self._refused[next(iter(self._refused))]

    def drop(self, key: str) -> None:
        """Forget a command that was decided on what is not going to be durable."""
        for memory in (self._known, self._unsaved, self._refused):
            memory.pop(key, None)

    def unsaved(self) -> dict[str, Known]:
        """Return the commands whose answers only memory (and the log) holds."""
        self._read_stored()
        return dict(self._unsaved)

    def mark_saved(self, key: str) -> None:
        """The answer is on disk now: forget its bytes."""
        known = self._unsaved.pop(key, None)
        if known is not None:
            known.answer = None

    def sweep(self, now_ms: int) -> None:
        """Drop what is older than the keeping time. Keys stand in the order of their time, near enough."""
        self._read_stored()
        horizon = now_ms - self._keep_ms
        expired = []
        for key, known in self._known.items():
            if known.at_ms >= horizon:
                break
            if key not in self._unsaved:
                expired.append(key)
        for key in expired:
            del self._known[key]


def outcome_of(error: Exception) -> str:
    """Return by which of `engine.metrics.OUTCOMES` an error is counted."""
    match error:
        case Rejected():
            return "rejected"
        case IdempotencyMismatch():
            return "mismatch"
        case Unavailable():
            return "unavailable"
        case UnknownOutcome():
            return "unknown"
        case _:
            return "crashed"
