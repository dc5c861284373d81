"""What every domain file builds on: base classes of the structs, and the context of a decision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol, get_args

import msgspec

STAFF = frozenset({"owner", "staff"})
INSIDE: frozenset[str] = frozenset()
"""Roles of a command that only the engine itself sends (reactions and deadlines)."""


class Outcome(NamedTuple):
    """Which later event of the same stream settles a command whose work goes on elsewhere.

    The HTTP answer waits a little for the first event of type `done` or `refused` whose field `key` equals
    the same field of the command's result. A `refused` event has the fields `code` and `detail`.

    Where there is more than one good end, `statuses` says which type of event puts which `status` into the
    result (its `code` and `message` come along); `pending` is the status of those ends that are not final,
    and of an answer that does not wait any longer: such an answer is 202. `collection` is where the entity
    `key` shows its status when the event is out of reach.
    """

    done: str
    refused: str
    key: str
    statuses: Mapping[str, str] = {}
    pending: str = ""
    collection: str = ""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A wish, in the imperative. Its class name in kebab-case is its name on the wire."""

    allowed: ClassVar[frozenset[str]] = INSIDE
    """Roles that may send it (`service` always may)."""

    outcome: ClassVar[Outcome | None] = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A fact, in the past tense. Its class name is the storage format: never rename one.

    A field that is added later needs a default, which is not written: so old records stay as they are.
    """


class Context:
    """What a decision may know beside state and command.

    `now_ms`: the time; `now`: the same as text; `by`: who sent it (`owner:kim`, `staff:lee`, `table:s1/3`,
    `user:u1`, `service:pos`, or a stream's name for what follows from its record); `stream`: whose decision
    it is.
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
    """A command that follows from a record.

    A refusal of it counts as a failure of the reaction (and ends up parked). Where a refusal has a
    consequence, it must be an event of the refusing stream, so that it is durable and decided once: a cart
    reaches the store as the inside command `TakeCart`, whose refusal is the event `CartRefused`, from which
    `ReturnCart` follows. A fallback sent after a refusal that nobody wrote down could, after a crash, run
    beside a success.
    """

    stream: str
    command: Any


class Domain(Protocol):
    """The names of a domain's module; what each is for stands in the package's docstring."""

    Command: Any
    Event: Any
    State: Any
    COLLECTIONS: Any

    def decide(self, state: Any, command: Any, context: Context) -> list[Event]: ...

    def evolve(self, state: Any, event: Any) -> None: ...

    def touched(self, event: Any) -> list[tuple[str, str]]: ...

    def answer(self, state: Any, command: Any, events: list[Event]) -> dict[str, Any]: ...

    def deadline(self, state: Any) -> tuple[int, Any] | None: ...

    def fences(self, event: Any) -> bool: ...


def members(union: Any) -> tuple[type, ...]:
    """Return the classes of a union; a single class counts as a union of one."""
    return get_args(union) or (union,)


def by_type(files: Iterable[ModuleType], union: str, function: str) -> Mapping[type, Callable[..., Any]]:
    """Return which file's `function` is for which class: those in the file's `union` (`Command` or
    `Event`).
    """
    return {kind: getattr(file, function) for file in files for kind in members(getattr(file, union))}
