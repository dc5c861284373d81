"""The WebSocket: several feeds and commands on one connection, with the same envelopes as everywhere else.

From the client (`after`, `types`, `key`, `body` and `ref` may be left out):

    {"op":"subscribe","feed":"stores/s1","after":C,"types":[…]}      {"op":"unsubscribe","feed":"stores/s1"}
    {"op":"command","path":"stores/s1/create-order","key":…,"body":{…},"ref":1}      {"op":"ping","ref":2}

From the server, per feed first one of

    {"op":"subscribed","feed","cursor"}  (the cursor was good)      {"op":"snapshot","feed","cursor","state"}
    {"op":"reset","feed","cursor","state","reason"}

then `{"op":"event","feed","event":<envelope>}`, and `{"op":"cursor","feed","cursor"}` where `types` left some
out; `{"op":"unsubscribed","feed"}`; for a command `{"op":"answer","ref","replayed","pending","body"}`, whose
body is that of the HTTP answer; for what fails `{"op":"error","ref","code","detail"}`; `{"op":"pong","ref"}`;
every 15 s, and at once when that changes, `{"op":"ping","time","node"}`, with `"writable":false` while no
commands are taken; and before the server closes `{"op":"bye","reason","retry_ms"}`.

Nothing is queued for a client: each feed is a cursor, and sending waits for the client under the transport's
deadline.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import structlog
import trio

from engine import Subscription
from engine.domain.times import to_text
from engine.errors import Crashed, Lagging, Malformed, OndaError, Stopping
from web import commands, wire
from web.ending import Ending, reason_of
from web.messages import Problem
from web.outcomes import Refusal
from web.reading import read_cursor
from web.site import Site, check_feed, parse_feed
from web.streaming import FEEDS_MAX
from web.tokens import Identity

MESSAGE_BYTES_MAX = (1 << 20) + 4096
"""A command's body and what is around it."""

COMMANDS_MAX = 8
"""Commands of one connection under way at once; a further one is not read before one of them is answered."""

CLOSE_CODES = {"shutdown": 1012, "redis": 1012, "lagging": 4008, "unauthorized": 4401}
"""Reason of a `bye` -> close code. After 1012 and 4008 return with the cursors, after 4401 with a token."""


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """What a client says."""

    op: Literal["subscribe", "unsubscribe", "command", "ping"]
    feed: str = ""
    after: str | None = None
    types: list[str] | None = None
    path: str = ""
    key: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"")
    ref: int | str | None = None


_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.encode
_log = structlog.get_logger("onda.web")


class Conversation:
    """One WebSocket, whatever transport carries it.

    Args:
        receive: waits for the next message; `None` when the client has gone.
        send: writes one text message; waits for the client, under the transport's deadline.
    """

    def __init__(
        self,
        site: Site,
        who: Identity,
        receive: Callable[[], Awaitable[str | bytes | None]],
        send: Callable[[str], Awaitable[None]],
    ) -> None:
        self._site = site
        self._who = who
        self._receive = receive
        self._transport_send = send
        self._sending = trio.Lock()
        self._running = trio.Semaphore(COMMANDS_MAX)
        self._feeds: dict[str, trio.CancelScope] = {}
        self._close_code = 0

    async def run(self) -> int:
        """Talk until one side ends it; returns the close code."""
        ending = Ending(self._site, self._who)
        self._site.streams["websocket"] += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, ending, nursery)
                while (message := await self._receive()) is not None:
                    await self._take(message, nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._site.streams["websocket"] -= 1
            ending.close()
        return self._close_code or 1000

    async def _watch(self, ending: Ending, nursery: trio.Nursery) -> None:
        """Ping, and end the conversation with the token."""
        ping_s = self._site.config.ping_s or math.inf
        node = self._site.node
        while (reason := ending.reason()) is None:
            if not ending.news:
                await ending.wait(trio.sleep_forever, trio.current_time() + ping_s)
            if ending.reason() is None:
                ending.news = False
                now, standing = to_text(node.clock.now_ms()), wire.standing(self._site.writable)
                await self._send(f'{{"op":"ping","time":"{now}","node":"{node.node_id}"{standing}}}')
        await self._bye(reason, nursery)

    async def _take(self, text: str | bytes, nursery: trio.Nursery) -> None:
        message = None
        try:
            message = _read(text)
            match message.op:
                case "ping":
                    await self._send(f'{{"op":"pong","ref":{_encode(message.ref).decode()}}}')
                case "subscribe":
                    await self._subscribe(message, nursery)
                case "unsubscribe":
                    await self._unsubscribe(message)
                case "command":
                    await self._running.acquire()
                    nursery.start_soon(self._command, message)
        except (Problem, OndaError) as error:
            await self._error(message.ref if message else None, error)

    async def _command(self, message: Message) -> None:
        try:
            parts = message.path.split("/")
            feed = parse_feed(parts[:-1])
            if feed is None:
                raise Problem("not_found", "`path` must be a feed's path, a slash, and a command")
            self._site.gate.check(self._who)
            done = await commands.run(
                self._site, self._who, feed, parts[-1], bytes(message.body), message.key
            )
        except (Problem, Refusal, OndaError) as error:
            await self._error(message.ref, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, this command alone must fail
            _log.error("command failed", path=message.path, exc_info=error)
            await self._error(message.ref, Crashed())
        else:
            head = {"op": "answer", "ref": message.ref}
            head |= {"replayed": done.answer.replayed, "pending": done.pending}
            body = commands.encode_answer(done).decode()
            await self._send(f'{_encode(head).decode()[:-1]},"body":{body}}}')
        finally:
            self._running.release()

    async def _subscribe(self, message: Message, nursery: trio.Nursery) -> None:
        feed = parse_feed(message.feed.split("/"))
        if feed is None:
            raise Problem("malformed", "`feed` must be stores/ID, tables/ID/ID or users/ID")
        if feed.path in self._feeds or len(self._feeds) >= FEEDS_MAX:
            raise Problem("malformed", f"each feed once, and at most {FEEDS_MAX} on one connection")
        after = read_cursor("after", message.after)
        await check_feed(self._site, self._who, feed)
        subscription = await self._site.node.subscribe(feed.stream, after=after)
        scope = self._feeds[feed.path] = trio.CancelScope()
        types = frozenset(message.types) if message.types is not None else None
        nursery.start_soon(self._follow, feed.path, subscription, types, scope, nursery)

    async def _unsubscribe(self, message: Message) -> None:
        scope = self._feeds.pop(message.feed, None)
        if scope is None:
            raise Problem("not_found", "this feed is not subscribed")
        scope.cancel()
        await self._send(f'{{"op":"unsubscribed","feed":{_encode(message.feed).decode()}}}')

    async def _follow(
        self,
        feed: str,
        subscription: Subscription,
        types: frozenset[str] | None,
        scope: trio.CancelScope,
        nursery: trio.Nursery,
    ) -> None:
        """Send what comes on one feed until it is unsubscribed."""
        with scope, subscription:
            try:
                await self._send(_opening(feed, subscription))
                while True:
                    passed = False
                    for frame in subscription.take():
                        passed = types is not None and frame.type not in types
                        if not passed:
                            body = frame.body.decode()
                            await self._send(f'{{"op":"event","feed":"{feed}","event":{body}}}')
                    if passed:
                        cursor = str(subscription.cursor)
                        await self._send(f'{{"op":"cursor","feed":"{feed}","cursor":"{cursor}"}}')
                    await subscription.wait()
            except Lagging:
                await self._bye("lagging", nursery)
            except Stopping as end:
                await self._bye(reason_of(type(end)), nursery)

    async def _send(self, text: str) -> None:
        async with self._sending:
            await self._transport_send(text)

    async def _error(self, ref: int | str | None, error: Problem | Refusal | OndaError) -> None:
        body = {"op": "error", "ref": ref, "code": error.code, "detail": error.detail}
        await self._send(_encode(body).decode())

    async def _bye(self, reason: str, nursery: trio.Nursery) -> None:
        if self._close_code:
            return  # another feed said it already
        self._close_code = CLOSE_CODES[reason]
        self._site.ends[reason] += 1
        await self._send(f'{{"op":"bye","reason":"{reason}","retry_ms":{wire.pick_retry_ms(reason)}}}')
        nursery.cancel_scope.cancel()


def _opening(feed: str, subscription: Subscription) -> str:
    snapshot = subscription.snapshot
    if snapshot is None:
        return f'{{"op":"subscribed","feed":"{feed}","cursor":"{subscription.cursor}"}}'
    op, tail = "snapshot", "}"
    if subscription.reset:
        op, tail = "reset", f',"reason":"{subscription.reset}"}}'
    state = snapshot.state.decode()
    return f'{{"op":"{op}","feed":"{feed}","cursor":"{snapshot.cursor}","state":{state}{tail}'


def _read(text: str | bytes) -> Message:
    """Read what a client says.

    Raises:
        Malformed: it is no message; the detail names the field.
    """
    if isinstance(text, bytes):
        raise Malformed("send text messages")
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"not a message: {error}") from None
