"""Commands: from a request's bytes to the engine and back, and the wait for what settles them elsewhere."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
import trio

from engine import Answer, Cursor, Frame, Node, codec
from engine.domain.contract import Command, Outcome
from engine.errors import Lagging, Stopping, UnknownOutcome
from web.messages import Headers, Problem, Request, Response, json_response
from web.rights import check_send
from web.site import FeedPath, Site
from web.tokens import Identity

ASK_S_MAX = 10.0
"""How long a command may take before its caller is told that the outcome is unknown."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
_JSON = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?\Z', re.IGNORECASE)


class _Settled(msgspec.Struct):
    data: dict[str, Any]


_decode_settled = msgspec.json.Decoder(_Settled).decode


class Done(NamedTuple):
    """A command's answer. `settled` is the envelope that settled it; `pending`: none came in time."""

    answer: Answer
    settled: bytes | None = None
    pending: bool = False


class Refusal(Exception):
    """The work that a command started was refused elsewhere; `code` and `detail` are that event's."""

    def __init__(self, code: str, detail: str, replayed: bool) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.replayed = replayed


def find_command(kind: str, name: str) -> type[Command] | None:
    """Return the class of a command that may come from outside."""
    found = codec.command_type(kind, name)
    return found if found is not None and found.allowed else None


async def run(site: Site, who: Identity, feed: FeedPath, name: str, body: bytes, key: str | None) -> Done:
    """Check and carry out one command; what HTTP and WebSocket share.

    Raises:
        Problem: `unknown_command`, `forbidden`, or `malformed` (the key).
        Malformed: the body does not fit; the detail names the field.
        Refusal: refused by what settles it.
        OndaError: as `Node.ask`.
    """
    command = find_command(feed.kind, name)
    if command is None:
        raise Problem("unknown_command", f"{feed.kind} has no command {name}")
    check_send(who, feed.kind, feed.ids, command)
    if key is not None and not _KEY.match(key):
        raise Problem("malformed", "Idempotency-Key must be 1-255 visible ASCII characters")
    decoded = codec.decode_command(feed.kind, name, body)
    with trio.move_on_after(ASK_S_MAX) as scope:
        answer = await site.node.ask(feed.stream, decoded, by=who.by, id=key)
    if scope.cancelled_caught:
        raise UnknownOutcome
    if command.outcome is None:
        return Done(answer)
    return await _settle(site, feed.stream, answer, command.outcome)


async def _settle(site: Site, stream: str, answer: Answer, outcome: Outcome) -> Done:
    value = msgspec.json.decode(answer.result).get(outcome.key)
    if value is None:
        return Done(answer)
    frame = None
    with trio.move_on_after(site.config.outcome_wait_s):
        frame = await _wait_outcome(site.node, stream, Cursor.parse(answer.cursor), outcome, value)
    if frame is None:
        return Done(answer, pending=True)
    if frame.type == outcome.refused:
        data = _decode_settled(frame.body).data
        raise Refusal(data["code"], data["detail"], answer.replayed)
    return Done(answer, settled=frame.body)


async def _wait_outcome(
    node: Node, stream: str, after: Cursor, outcome: Outcome, value: object
) -> Frame | None:
    """Return the frame that settles the command; `None` when the feed does not reach back or on so far."""
    with await node.subscribe(stream, after=after) as feed:
        if feed.snapshot is not None:
            return None
        try:
            while True:
                for frame in feed.take():
                    if frame.type not in (outcome.done, outcome.refused):
                        continue
                    if _decode_settled(frame.body).data.get(outcome.key) == value:
                        return frame
                await feed.wait()
        except (Lagging, Stopping):
            return None


def encode_answer(done: Done) -> bytes:
    """Return the answer's JSON; the envelopes are the stored bytes."""
    answer = done.answer
    events = answer.events if done.settled is None else [*answer.events, done.settled]
    return b'{"cursor":"%s","events":[%s],"result":%s}' % (
        answer.cursor.encode(),
        b",".join(events),
        answer.result,
    )


async def command(site: Site, who: Identity, feed: FeedPath, name: str, request: Request) -> Response:
    """Answer one POST: 200, or 202 when what settles the command has not come in time.

    Raises:
        Problem: `unsupported_media_type`, and as `run`.
    """
    if request.body and not _JSON.match(request.headers.get("content-type", "")):
        raise Problem("unsupported_media_type", "send the body as application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "send the body without content-encoding")
    key = request.headers.get("idempotency-key")
    done = await run(site, who, feed, name, request.body, key)
    headers: Headers = [("cache-control", "no-store")]
    if done.answer.replayed:
        headers.append(("idempotent-replayed", "true"))
    if done.pending:
        headers.append(("location", f"/v1/{feed.path}/sync?after={done.answer.cursor}"))
    return json_response(encode_answer(done), 202 if done.pending else 200, headers)
