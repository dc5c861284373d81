"""given / when / then for the domains, and a small world in which they run together.

Every step checks what holds for all domains, so that each row of a test is also a test of these: `decide`
only reads, events survive their way through JSON, and a reader who merges the patches sees the state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from types import ModuleType
from typing import Any

import msgspec
import pytest

from engine.domain import DOMAINS, group, store, table, topic, user, visits
from engine.domain.contract import Context, members
from engine.domain.reactions import FOLLOWED, react
from engine.domain.times import to_text
from engine.errors import Rejected

NOW_MS = 1_800_000_000_000
NOW = to_text(NOW_MS)

_STREAMS = {
    store: "store:s1",
    table: "table:s1/3",
    user: "user:u1",
    topic: "topic:news/0",
    group: "group:news/readers",
    visits: "visits:news",
}
STREAM_OF = {name.partition(":")[0]: name for name in _STREAMS.values()}
"""A stream of each kind."""
_encode = msgspec.json.Encoder().encode


class Stream:
    """One stream of a domain: its state, its records, and what a reader who follows it sees."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.domain: Any = DOMAINS[name.partition(":")[0]]
        self.state = self.domain.State()
        self.events: list[Any] = []
        self.view: dict[str, dict[str, Any]] = {name: {} for name in self.domain.COLLECTIONS}
        self._ids = count(1)

    def decide(self, command: Any, by: str, now_ms: int = NOW_MS) -> list[Any]:
        """Return the events of a command; the state is still the same, byte for byte.

        Raises:
            Rejected: the rules forbid it.
        """
        before = _encode(self.state)
        new_id = lambda: f"id-{next(self._ids)}"  # noqa: E731
        context = Context(self.name, by, now_ms, to_text(now_ms), new_id)
        try:
            return self.domain.decide(self.state, command, context)
        finally:
            assert _encode(self.state) == before, f"decide changed the state: {command}"

    def evolve(self, event: Any) -> None:
        """Add one record, and show its patch to the reader."""
        again = through_json(event)
        assert again == event, "encode and decode changed the event"
        self.domain.evolve(self.state, event)
        self.events.append(event)
        for collection, entity in self.domain.touched(event):
            value = getattr(self.state, collection).get(entity)
            if value is None:
                self.view[collection].pop(entity, None)
            else:
                self.view[collection][entity] = plain(value)

    def do(self, command: Any, by: str = "owner:kim", now_ms: int = NOW_MS) -> list[Any]:
        """Decide, evolve, and look at everything from outside."""
        events = self.decide(command, by, now_ms)
        for event in events:
            self.evolve(event)
        self.check()
        _encode(self.domain.answer(self.state, command, events))
        return events

    def answer(self, command: Any, by: str = "owner:kim", now_ms: int = NOW_MS) -> dict[str, Any]:
        """Return the result of a command, like `do`."""
        return self.domain.answer(self.state, command, self.do(command, by, now_ms))

    def check(self) -> None:
        """Compare what the reader sees with the state."""
        assert self.view == self.visible(), "snapshot and patches differ from the state"

    def visible(self) -> dict[str, Any]:
        """Return what a snapshot would hold."""
        return {name: plain(getattr(self.state, name)) for name in self.domain.COLLECTIONS}


class World:
    """All streams and the reactions between them, delivered in order per stream and at least once.

    `again` says of each delivery whether it is made twice; ids make the second one have no effect.
    """

    def __init__(self, again: Callable[[], bool] = lambda: False) -> None:
        self.streams: dict[str, Stream] = {}
        self.now_ms = NOW_MS
        self._again = again
        self._done: dict[tuple[str, str], list[Any] | Rejected] = {}
        self._to_react: dict[str, deque[tuple[str, Any]]] = {}
        self._records = count(1)

    def __getitem__(self, name: str) -> Stream:
        if name not in self.streams:
            self.streams[name] = Stream(name)
        return self.streams[name]

    def ask(self, stream: str, command: Any, by: str = "owner:kim", id: str | None = None) -> list[Any]:
        """Do a command, once per id.

        Raises:
            Rejected: the rules forbid it.
        """
        key = (stream, id or f"own-{next(self._records)}")
        if key not in self._done:
            try:
                self._done[key] = self[stream].do(command, by, self.now_ms)
            except Rejected as refusal:
                self._done[key] = refusal
            else:
                waiting = self._to_react.setdefault(stream, deque())
                waiting.extend((f"r{next(self._records)}", event) for event in self._done[key])
        done = self._done[key]
        if isinstance(done, Rejected):
            raise done
        return done

    def result(self, stream: str, command: Any, by: str = "owner:kim") -> dict[str, Any]:
        """Like `ask`, but return the command's result."""
        events = self.ask(stream, command, by)
        return self[stream].domain.answer(self[stream].state, command, events)

    def waiting(self) -> list[str]:
        """Return the streams whose records have not been reacted to yet."""
        return sorted(stream for stream, records in self._to_react.items() if records)

    def step(self, stream: str) -> None:
        """React to the oldest such record of one stream; a refusal is a failure here."""
        record, event = self._to_react[stream].popleft()
        sends = react(stream, event, record)
        assert (type(event).__name__ in FOLLOWED) or not sends
        for _ in range(2 if self._again() else 1):
            for number, send in enumerate(sends):
                self.ask(send.stream, send.command, by=stream, id=f"{record}.{number}")

    def settle(self) -> None:
        """React until nothing is left."""
        while waiting := self.waiting():
            self.step(waiting[0])


def check(
    domain: ModuleType,
    given: Iterable[Any],
    when: Any,
    then: list[Any] | None = None,
    *,
    rejected: str | None = None,
    by: str = "owner:kim",
    now_ms: int = NOW_MS,
) -> Stream:
    """Given events, when a command comes, then these events follow or this refusal; return the stream.

    With neither `then` nor `rejected` the command only has to be accepted.
    """
    stream = Stream(_STREAMS[domain])
    for event in given:
        stream.evolve(event)
    stream.check()
    if rejected is not None:
        with pytest.raises(Rejected) as refusal:
            stream.decide(when, by, now_ms)
        assert refusal.value.code == rejected
        assert len(refusal.value.detail.split()) >= 2, "a refusal says what to do"
    else:
        events = stream.do(when, by, now_ms)
        assert then is None or events == then
    return stream


def plain(value: Any) -> Any:
    """Return a value as JSON readers get it."""
    return msgspec.json.decode(_encode(value))


def through_json(value: Any) -> Any:
    """Return a struct as it comes back from disk."""
    return msgspec.json.decode(_encode(value), type=type(value))


def check_replay(stream: Stream, at: int) -> None:
    """Replay twice and from a checkpoint after `at` records: all come to the same state."""
    live = _encode(stream.state)
    for start in (0, at):
        state = stream.domain.State()
        for event in stream.events[:start]:
            stream.domain.evolve(state, event)
        state = through_json(state)
        for event in stream.events[start:]:
            stream.domain.evolve(state, through_json(event))
        assert _encode(state) == live
    assert through_json(stream.state) == stream.state


def event_types() -> dict[str, type]:
    """Return every type of event as `<kind>.<Type>`."""
    return {
        f"{kind}.{event.__name__}": event
        for kind, domain in DOMAINS.items()
        for event in members(domain.Event)
    }
