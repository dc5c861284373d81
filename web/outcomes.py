"""What settles a command whose work goes on elsewhere: the wait for it, and what it makes of the answer.

The answer waits for the event that the command's `Outcome` names, from the answer's own cursor on. So the
first request, and a repeat with the same key an hour later, find the same event; and when the ring does not
reach back so far any more, the entity says what became of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import trio

from engine import Answer, Cursor, Frame
from engine.domain.contract import Outcome
from engine.errors import Lagging, Stopping
from engine.feed import Subscription
from web.site import Site

_COPIED = ("code", "message")
"""What of a settling event, beside its status, goes into the result."""


class _Settled(msgspec.Struct):
    data: dict[str, Any]


_decode_settled = msgspec.json.Decoder(_Settled).decode
_decode_state = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]]).decode


class Done(NamedTuple):
    """A command's answer. `settled`: the envelope that settled it; `pending`: none came in time, or only one
    that is not final; `status`: what of that goes into the result.
    """

    answer: Answer
    settled: bytes | None = None
    pending: bool = False
    status: dict[str, Any] | None = None

    @property
    def result(self) -> bytes:
        """The command's result as JSON, with what became of it."""
        if not self.status:
            return self.answer.result
        return msgspec.json.encode(msgspec.json.decode(self.answer.result) | self.status)

    def with_result(self, result: bytes, outcome: Outcome | None) -> Done:
        """Return the answer with what a newer `result` says about how it ended, if that says so."""
        found = msgspec.json.decode(result)
        if outcome is None or not _is_final(outcome, found.get("status")):
            return self
        return self._replace(pending=False, status=_status(found["status"], found))


class Refusal(Exception):
    """The work that a command started was refused elsewhere; `code` and `detail` are that event's."""

    def __init__(self, code: str, detail: str, replayed: bool) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.replayed = replayed


async def settle(site: Site, stream: str, answer: Answer, outcome: Outcome) -> Done:
    """Wait up to `Config.outcome_wait_s` for what settles the answer's command.

    Raises:
        Refusal: refused by what settles it.
    """
    result = msgspec.json.decode(answer.result)
    value = result.get(outcome.key)
    if value is None or _is_final(outcome, result.get("status")):
        return Done(answer)
    search = _Search(outcome, value)
    with trio.move_on_after(site.config.outcome_wait_s):
        with await site.node.subscribe(stream, after=Cursor.parse(answer.cursor)) as feed:
            await search.follow(feed)
    if search.frame is not None and search.frame.type == outcome.refused:
        data = search.data
        raise Refusal(data["code"], data["detail"], answer.replayed)
    settled = None if search.frame is None else search.frame.body
    if not outcome.statuses:
        return Done(answer, settled, pending=settled is None)
    status = search.status
    return Done(answer, settled, status["status"] == outcome.pending, status)


def _is_final(outcome: Outcome, status: object) -> bool:
    """Tell whether a result says already how it ended."""
    return status != outcome.pending and status in outcome.statuses.values()


class _Search:
    """Looks for what settles one command; `frame` is the newest event found, `data` its fields."""

    def __init__(self, outcome: Outcome, value: object) -> None:
        self.frame: Frame | None = None
        self.data: dict[str, Any] = {}
        self._outcome = outcome
        self._value = value
        self._entity: dict[str, Any] = {}
        self._types = {outcome.done, outcome.refused, *outcome.statuses}

    async def follow(self, feed: Subscription) -> None:
        """Read until there is an end; return early when there is nothing to wait for."""
        if feed.snapshot is not None:
            if not self._outcome.collection:
                return
            self._look_into(feed.snapshot.state)
            if _is_final(self._outcome, self._entity.get("status")):
                return
        try:
            while True:
                if self._read(feed.take()) or (self.frame is not None and not feed.behind):
                    return
                await feed.wait()
        except (Lagging, Stopping):
            return

    def _read(self, frames: list[Frame]) -> bool:
        """Look through frames; true at one that is final."""
        for frame in frames:
            if frame.type not in self._types:
                continue
            data = _decode_settled(frame.body).data
            if data.get(self._outcome.key) != self._value:
                continue
            self.frame, self.data = frame, data
            statuses = self._outcome.statuses
            if not statuses or frame.type == self._outcome.refused or _is_final(self._outcome, self._named):
                return True
        return False

    def _look_into(self, state: bytes) -> None:
        entities = _decode_state(state).get(self._outcome.collection, {})
        if entity := entities.get(str(self._value)):
            self._entity = msgspec.json.decode(entity)

    @property
    def _named(self) -> str | None:
        """The status that the event found stands for."""
        return None if self.frame is None else self._outcome.statuses.get(self.frame.type)

    @property
    def status(self) -> dict[str, Any]:
        """What goes into the result: from the event, else from the entity, else that it is pending."""
        if self.frame is not None:
            found, status = self.data, self._named
        else:
            found, status = self._entity | (self._entity.get("attempt") or {}), self._entity.get("status")
            if not _is_final(self._outcome, status):
                found, status = {}, self._outcome.pending
        return _status(status, found)


def _status(status: str | None, found: dict[str, Any]) -> dict[str, Any]:
    return {"status": status} | {name: found[name] for name in _COPIED if found.get(name)}
