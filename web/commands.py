"""Commands: from a request's bytes to the engine and back."""

from __future__ import annotations

import re

import trio

from engine import codec
from engine.domain.contract import Command
from engine.errors import Rejected, UnknownOutcome
from web.messages import Headers, Problem, Request, Response, json_response
from web.outcomes import Done, settle
from web.rights import check_send
from web.site import FeedPath, Site
from web.tokens import Identity

ASK_S_MAX = 10.0
"""How long a command may take before its caller is told that the outcome is unknown."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
_JSON = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?\Z', re.IGNORECASE)


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
    done = await settle(site, feed.stream, answer, command.outcome)
    if done.pending and answer.replayed and command.outcome.collection:
        return await _look_again(site, who, feed, decoded, done)
    return done


async def _look_again(site: Site, who: Identity, feed: FeedPath, command: Command, done: Done) -> Done:
    """Ask anew what became of a repeated command whose event and entity are both out of reach.

    A command that names a collection for its outcome has no effect a second time.
    """
    try:
        fresh = await site.node.ask(feed.stream, command, by=who.by)
    except Rejected:  # it was accepted before, and nobody knows how it ended: stay with that
        return done
    return done.with_result(fresh.result, command.outcome)


def encode_answer(done: Done) -> bytes:
    """Return the answer's JSON; the envelopes are the stored bytes."""
    answer = done.answer
    events = answer.events if done.settled is None else [*answer.events, done.settled]
    return b'{"cursor":"%s","events":[%s],"result":%s}' % (
        answer.cursor.encode(),
        b",".join(events),
        done.result,
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
