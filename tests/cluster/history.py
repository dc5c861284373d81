"""What clients of several nodes did and were told: written down as it happens, judged afterwards.

All times are those of one monotonic clock, so that "returned before the other was called" means something.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, NamedTuple

Envelope = dict[str, Any]
State = dict[str, dict[str, Any]]


class Outcome(StrEnum):
    """What became of one attempt."""

    OK = "ok"
    REFUSED = "refused"
    """by the rules: it did not happen, and would not"""

    UNAVAILABLE = "unavailable"
    """503: it did not happen"""

    UNKNOWN = "unknown"
    """504, or no answer: it may have happened"""


class Call(NamedTuple):
    """One attempt of a command at one node, and its answer.

    `epoch`, `version`: the cursor of an answer; `events`: its envelopes; `code`: of what is none;
    `retry_after`: a 503 said when to come back.
    """

    client: int
    node: str
    stream: str
    command: str
    body: dict[str, Any]
    key: str
    called_ns: int
    returned_ns: int
    outcome: Outcome
    code: str = ""
    retry_after: bool = False
    replayed: bool = False
    epoch: str = ""
    version: int = 0
    events: tuple[Envelope, ...] = ()
    result: dict[str, Any] = {}


class Sight(NamedTuple):
    """What one reader was shown: `what` is `snapshot`, `reset`, `resumed`, `event` or `ping`."""

    reader: str
    node: str
    stream: str
    at_ns: int
    what: str
    epoch: str
    version: int
    envelope: Envelope | None = None
    state: State | None = None
    reason: str = ""


class Final(NamedTuple):
    """What a node says of a stream once everything has come to rest."""

    node: str
    stream: str
    epoch: str
    version: int
    state: State


class Loss(NamedTuple):
    """A record that was in the log in an epoch, and went without being let go of."""

    envelope: Envelope
    epoch: str


class Record(NamedTuple):
    """A record of the log as it is at the end: where, and what."""

    partition: int
    position: int
    envelope: Envelope


class History:
    """Everything that was seen from outside.

    Attributes:
        calls: in the order of their return.
        sights: in the order in which they were shown.
        records: what the log has, or had until it let go of it behind a checkpoint.
        lost: what was in it and went without being let go of.
        epochs: the epochs of each partition in turn.
        partitions: of each stream.
        finals: what nodes show at the end.
        said: what each node wrote.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.sights: list[Sight] = []
        self.records: list[Record] = []
        self.lost: list[Loss] = []
        self.epochs: dict[int, list[str]] = {}
        self.partitions: dict[str, int] = {}
        self.finals: list[Final] = []
        self.said: dict[str, list[str]] = {}

    def of(self, stream: str) -> list[Envelope]:
        """The records of one stream, in order."""
        return [record.envelope for record in self.records if record.envelope["stream"] == stream]

    def last_epoch(self, stream: str) -> str:
        """The epoch that holds at the end."""
        return self.epochs[self.partitions[stream]][-1]

    def count(self, which: Callable[[Call], bool]) -> int:
        """How many calls are such."""
        return sum(map(which, self.calls))


def now_ns() -> int:
    """The clock of histories."""
    return time.monotonic_ns()


def split(cursor: str) -> tuple[str, int]:
    """Read a cursor: its epoch and version."""
    epoch, _, version = cursor.rpartition("-")
    return epoch, int(version)


def by_key(calls: Iterable[Call]) -> dict[tuple[str, str], list[Call]]:
    """The attempts of each command, in the order in which they were made."""
    found: dict[tuple[str, str], list[Call]] = {}
    for call in sorted(calls, key=lambda call: call.called_ns):
        found.setdefault((call.stream, call.key), []).append(call)
    return found
