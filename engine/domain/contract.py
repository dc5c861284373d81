"""What every domain file builds on: the structs' base classes, the context of a decision, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import msgspec

STAFF = frozenset({"owner", "staff"})
INSIDE: frozenset[str] = frozenset()
"""Roles of a command that only the engine itself sends (reactions and deadlines)."""


class Outcome(NamedTuple):
    """Which later event of the same stream settles a command whose work goes on elsewhere.

    The HTTP answer waits a little for the first event of type `done` or `refused` whose field `key` equals the
    same field of the command's result. A `refused` event has the fields `code` and `detail`.
    """

    done: str
    refused: str
    key: str


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wish, in the imperative. Its class name in kebab-case is its name on the wire."""

    allowed: ClassVar[frozenset[str]] = INSIDE
    """Roles that may send it (`service` always may)."""

    outcome: ClassVar[Outcome | None] = None


class Event(msgspec.Struct, frozen=True):
    """A fact, in the past tense. Its class name is the storage format: never rename one."""


class Context:
    """What a decision may know beside state and command.

    `now_ms`: the time; `now`: the same as text; `by`: who sent it (`owner:kim`, `staff:lee`, `table:s1/3`,
    `user:u1`, `service:pos`, or a stream's name for what follows from its record); `stream`: whose decision it is.
    """

    __slots__ = ("_new_id", "by", "now", "now_ms", "stream")

    def __init__(self, stream: str, by: str, now_ms: int, now: str, new_id: Callable[[], str]) -> None:
        self.stream = stream
        self.by = by
        self.now_ms = now_ms
        self.now = now
        self._new_id = new_id

    @property
    def new_id(self) -> str:
        """A fresh UUIDv7, another one at each use."""
        return self._new_id()

    @property
    def role(self) -> str:
        """`owner`, `staff`, `table`, `user`, `service`; `store` … for what follows from a record."""
        return self.by.partition(":")[0]


class Send(NamedTuple):
    """A command that follows from a record, and what to send where if the rules there refuse it."""

    stream: str
    command: Any
    on_refusal: Callable[[str, str], Send] | None = None
    """Called with the refusal's code and detail. Without it a refusal counts as a failure of the reaction."""
