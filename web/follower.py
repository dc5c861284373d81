"""One followed stream of the client: sync, stream, and long polls while there is no stream.

The rounds: sync from the cursor, then stream from there; when the stream ends, for whatever reason, poll
until it is time to try the stream again. Versions are counted all the way, so a hole is never shown, only
synced away. A stream that has gone silent (not even a ping) is left.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import trio

from web.exchange import ClientError, Pace, Refused, TryLater, field, parse
from web.mirror import Entities, Hole, Mirror
from web.sse import Item, Message, Moved, Parser, Retry, TooLarge

if TYPE_CHECKING:
    from web.client import Client

BYE_MOST_S = 60.0
"""Bound of the pause that a `bye` or `retry` may ask for."""


class Status(StrEnum):
    """How a followed stream is doing."""

    LIVE = "live"
    RECONNECTING = "reconnecting"
    POLLING = "polling"
    OFFLINE = "offline"


class Follower:
    """A stream's state, kept up to date. Made by `Client.follow`."""

    def __init__(
        self,
        client: Client,
        feed: str,
        after: str | None,
        pace: Pace,
        on_event: Callable[[dict[str, Any]], None] | None,
        on_snapshot: Callable[[dict[str, Any], str | None], None] | None,
    ) -> None:
        self.feed = feed
        self.status = Status.RECONNECTING
        self.writable = True
        """False while the server says that no commands are taken at the moment; then reads go on."""
        self.error: ClientError | None = None
        """Why the last round ended, when that was not in order; a `Refused` needs someone to look at it."""
        self._client = client
        self._pace = pace
        self._mirror = Mirror(after)
        self._on_event = on_event
        self._on_snapshot = on_snapshot
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self._retry_s = 0.0
        self._lived = False
        self._counts = dict.fromkeys(("streams", "polls", "events", "repeats", "holes", "resets"), 0)

    @property
    def state(self) -> Entities:
        """`{collection: {id: entity}}`, as of `cursor`. Do not change it."""
        return self._mirror.state

    @property
    def cursor(self) -> str | None:
        """Everything up to here has been taken in; None before the first answer."""
        return self._mirror.cursor

    @property
    def unsent(self) -> int:
        """Commands in the client's outbox that nobody has answered yet."""
        return self._client.unsent

    async def wait(self, ready: Callable[[Follower], bool]) -> None:
        """Wait until `ready(self)`; it is asked again after each change of state or status."""
        while not ready(self):
            await self._changed.wait()

    def close(self) -> None:
        """Stop following. Idempotent."""
        self._scope.cancel()

    def statistics(self) -> dict[str, int]:
        """Counts since the start: streams opened, polls, events, repeats left out, holes met, resets."""
        return dict(self._counts)

    async def run(self) -> None:
        """Keep the state up to date until closed."""
        with self._scope:
            tries = 0
            while True:
                self._lived = False
                pause_s = await self._round()
                tries = 0 if self._lived else tries + 1
                if self.status == Status.LIVE:
                    self._turn(Status.RECONNECTING)
                await self._pass(pause_s + self._pace.pause_s(tries))
        self._turn(Status.OFFLINE)

    async def _round(self) -> float:
        """Sync and stream until the stream ends; return what the server asked to wait, in seconds."""
        self.error = None
        try:
            await self._sync()
            return await self._stream()
        except Hole as hole:
            self._meet(hole)
        except TooLarge as large:
            self.error = TryLater(str(large))
        except TryLater as later:
            self.error = later
            return later.wait_s
        except Refused as refused:
            self.error = refused
        return self._retry_s

    def _meet(self, hole: Hole) -> None:
        self._counts["holes"] += 1
        self.error = TryLater(str(hole))

    async def _pass(self, pause_s: float) -> None:
        """Let a pause go by, polling meanwhile if that works."""
        until = trio.current_time() + pause_s
        while (left := until - trio.current_time()) > 0:
            if self.status == Status.OFFLINE or left < 1:
                await trio.sleep(left)
                return
            try:
                await self._sync(wait_s=min(self._pace.poll_s, int(left)))
            except (TryLater, Refused) as error:
                self.error = error
                continue
            except Hole as hole:
                self._meet(hole)
                await trio.sleep(until - trio.current_time())
                return
            self._counts["polls"] += 1
            self._turn(Status.POLLING)

    async def _sync(self, wait_s: int = 0) -> None:
        """Take in everything up to now (or, with `wait_s`, as soon as there is something)."""
        more = True
        while more:
            try:
                answer = await self._client.sync(self.feed, self.cursor, wait_s=wait_s)
            except (TryLater, Refused):
                self._turn(Status.OFFLINE)
                raise
            if self.status == Status.OFFLINE:
                self._turn(Status.RECONNECTING)
            self._take_answer(answer)
            more = bool(answer.get("more"))

    async def _stream(self) -> float:
        """Read one stream to its end; return the pause that it asked for."""
        parser = Parser(last_id=self.cursor or "")
        silence = trio.move_on_after(self._pace.answer_s)
        with silence:
            async with self._client.stream(self.feed, self.cursor) as receive:
                while chunk := await receive():
                    items = parser.feed(chunk)
                    if items or parser.unfinished:
                        silence.deadline = trio.current_time() + self._pace.silence_s
                    for item in items:
                        bye_s = self._take_item(item)
                        if bye_s is not None:
                            return bye_s
        if silence.cancelled_caught:
            raise TryLater("the stream went silent")
        return self._retry_s

    def _take_item(self, item: Item) -> float | None:
        """Take in what the stream says; return a pause in seconds when it says goodbye."""
        if isinstance(item, Retry):
            self._retry_s = min(item.ms / 1000, BYE_MOST_S)
            return None
        if not self._lived:
            self._note_writable(True)  # else the stream's first ping says so, at its beginning
        if isinstance(item, Moved):
            self._mirror.move(item.id)
        else:
            bye_s = self._take_message(item)
            if bye_s is not None:
                return bye_s
        if not self._lived:
            self._lived = True
            self._counts["streams"] += 1
            self._turn(Status.LIVE)
        return None

    def _take_message(self, message: Message) -> float | None:
        body = parse(message.data.encode())
        match message.event:
            case "message":
                self._take_event(body)
            case "snapshot" | "reset":
                self._take_snapshot(body, body.get("reason"))
            case "bye":
                self._lived = True  # it parted in good order: no reason to back off
                return min(field(body, "retry_ms", int) / 1000, BYE_MOST_S)
            case "ping":
                self._mirror.move(field(body, "cursor", str))  # a loss that nothing else would show
                self._note_writable(body.get("writable") is not False)
            case _:
                pass  # an event of a later version of the contract
        return None

    def _take_answer(self, answer: dict[str, Any]) -> None:
        if field(answer, "mode", str) == "snapshot":
            self._take_snapshot(answer, (answer.get("reset") or {}).get("reason"))
            return
        for envelope in field(answer, "events", list):
            self._take_event(envelope)
        self._mirror.move(field(answer, "cursor", str))

    def _take_snapshot(self, body: dict[str, Any], reason: str | None) -> None:
        state = field(body, "state", dict)
        self._mirror.replace(field(body, "cursor", str), state)
        self._counts["resets"] += reason is not None
        if self._on_snapshot is not None:
            self._on_snapshot(state, reason)
        self._wake()

    def _take_event(self, envelope: dict[str, Any]) -> None:
        field(envelope, "version", int)
        field(envelope, "cursor", str)
        if not self._mirror.take(envelope):
            self._counts["repeats"] += 1
            return
        self._counts["events"] += 1
        if self._on_event is not None:
            self._on_event(envelope)
        self._wake()

    def _note_writable(self, writable: bool) -> None:
        if writable != self.writable:
            self.writable = writable
            self._wake()

    def _turn(self, status: Status) -> None:
        if status != self.status:
            self.status = status
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
