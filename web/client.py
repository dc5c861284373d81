"""The Python client, on trio: commands are sent until they are answered, streams heal by themselves.

    async with open_client("http://127.0.0.1:8080", token) as client:
        feed = client.follow("stores/s1")
        await feed.wait(lambda feed: feed.status == "live")
        reply = await client.send("stores/s1/create-order", {"lines": [{"product": "ramen", "quantity": 1}]})

`send` repeats a command with the same idempotency key until it is answered, so it happens once however often
the connection breaks. `enqueue` is for a till that must go on without a network: a bounded queue, on disk if
given a file.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import trio

from web.exchange import (
    ClientError,
    Pace,
    Refused,
    Reply,
    RequestBody,
    TryLater,
    Unanswered,
    bearer,
    judge,
    parse,
)
from web.follower import Follower
from web.listening import open_stream
from web.outbox import Outbox, QueueFull

__all__ = ["Client", "ClientError", "Pace", "QueueFull", "Refused", "Reply", "Unanswered", "open_client"]

CONNECTIONS_MAX = 100
"""Bound of one client's open connections for requests; each followed stream has one more of its own."""


class Client:
    """One connection pool, its followed streams and its outbox. Made by `open_client`."""

    def __init__(
        self,
        base: str,
        http: httpx.AsyncClient,
        token: str | Callable[[], str],
        pace: Pace,
        nursery: trio.Nursery,
        outbox: Outbox,
    ) -> None:
        self._base = base
        self._http = http
        self._token = token
        self._pace = pace
        self._nursery = nursery
        self._outbox = outbox

    async def send(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        within_s: float = 30.0,
    ) -> Reply:
        """Send one command, again and again with the same key, until it is answered.

        Args:
            path: `stores/s1/create-order`, `tables/s1/3/submit-cart` …
            body: the command's fields.
            key: the idempotency key; a fresh one when not given. Give your own to go on after `Unanswered`.
            within_s: how long to go on trying.

        Raises:
            Refused: a definite no, with its code; nothing happened.
            Unanswered: no answer came in time; it may or may not have happened.
        """
        key = key or uuid.uuid4().hex
        content = msgspec.json.encode(body or {})
        with trio.move_on_after(within_s):
            return await self._send_on(path, content, key)
        raise Unanswered(key)

    async def enqueue(
        self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> str:
        """Put a command into the outbox, which sends it as soon as it can, in order; return its key.

        When the client was opened with a file, the command is on disk when this returns.

        Raises:
            QueueFull: the outbox holds as many as it may.
        """
        key = key or uuid.uuid4().hex
        await self._outbox.put(key, path, msgspec.json.encode(body or {}))
        return key

    @property
    def unsent(self) -> int:
        """Commands in the outbox that nobody has answered yet."""
        return len(self._outbox)

    async def wait_sent(self) -> None:
        """Wait until the outbox is empty."""
        await self._outbox.wait_empty()

    def follow(
        self,
        feed: str,
        after: str | None = None,
        *,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        on_snapshot: Callable[[dict[str, Any], str | None], None] | None = None,
    ) -> Follower:
        """Follow a stream from a cursor, or from a snapshot, until the client or the follower is closed.

        Args:
            feed: `stores/s1`, `tables/s1/3`, `users/u1`.
            after: the cursor to go on from. The state then holds only what changed since.
            on_event: called with each envelope, in order, each once.
            on_snapshot: called with a state that replaced the one before, and why (`None` for the first one).
        """
        follower = Follower(self, feed, after, self._pace, on_event, on_snapshot)
        self._nursery.start_soon(follower.run)
        return follower

    async def sync(
        self, feed: str, after: str | None = None, *, wait_s: int = 0, limit: int | None = None
    ) -> dict[str, Any]:
        """Ask once what a stream holds after a cursor: the `sync` answer as it comes, snapshot or delta.

        Raises:
            Refused: a definite no, with its code.
            TryLater: no answer now.
        """
        asked = {"after": after, "wait": wait_s or None, "limit": limit}
        params = {name: str(value) for name, value in asked.items() if value is not None}
        timeout = self._pace.answer_s + wait_s
        return parse((await self._ask("GET", f"/v1/{feed}/sync", params=params, timeout=timeout)).content)

    def stream(
        self, feed: str, after: str | None
    ) -> AbstractAsyncContextManager[Callable[[], Awaitable[bytes]]]:
        """Open a stream's SSE response, see `open_stream`."""
        query = f"?after={quote(after)}" if after else ""
        return open_stream(self._base, f"/v1/{feed}/stream{query}", bearer(self._token))

    async def _send_on(self, path: str, content: bytes, key: str) -> Reply:
        """Send until there is an answer, however long that takes."""
        tries = 0
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        while True:
            try:
                response = await self._ask("POST", f"/v1/{path}", content=content, headers=headers)
                return Reply.read(response)
            except TryLater as later:
                await trio.sleep(self._pace.pause_s(tries, later.wait_s))
                tries += 1

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Make one request; what comes back is a good answer.

        Raises:
            Refused, TryLater: see `judge`.
        """
        headers = {**(headers or {}), **bearer(self._token)}
        request = self._http.build_request(method, path, params=params, content=content, headers=headers)
        request.stream = RequestBody(content or b"")
        response = None
        with trio.move_on_after(timeout or self._pace.answer_s):
            try:
                response = await self._http.send(request)
            except httpx.RequestError as error:
                raise TryLater(f"{type(error).__name__}: {error}") from error
        if response is None:
            raise TryLater("no answer in time")
        judge(response)
        return response


@asynccontextmanager
async def open_client(
    base: str,
    token: str | Callable[[], str] = "",
    *,
    pace: Pace | None = None,
    outbox: Path | None = None,
    on_settled: Callable[[str, Reply | Refused], None] | None = None,
) -> AsyncIterator[Client]:
    """Open a client; leaving the block closes its streams and connections.

    Args:
        base: `http://HOST:PORT`.
        token: the bearer token, or a function that returns a fresh one.
        pace: how patient and how eager it is.
        outbox: a file that keeps enqueued commands over restarts of this program; else they are in memory.
        on_settled: called with the key and the answer (or refusal) of each enqueued command; after a crash
            between the two it may be called for the same key again.
    """
    pace = pace or Pace()
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
    timeout = httpx.Timeout(pace.answer_s, read=None)  # `_ask` bounds the whole request
    queue = Outbox(outbox)
    failure: Exception | None = None
    async with (
        httpx.AsyncClient(base_url=base, limits=limits, timeout=timeout, trust_env=False) as http,
        trio.open_nursery() as nursery,
    ):
        client = Client(base, http, token, pace, nursery, queue)
        nursery.start_soon(queue.run, client._send_on, on_settled)
        try:
            yield client
        except Exception as error:  # noqa: BLE001 (raised again below, outside the nursery's group)
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
