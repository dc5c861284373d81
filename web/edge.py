"""The edge: connections at the public port, and the fast way through them.

A connection is one task that cuts bytes into requests (`web.framing`) and answers those of the API by itself,
through the same `handlers.respond` as Quart's app. What it does not answer (pages, assets, WebSockets, old
HTTP) goes to Hypercorn, request by request, through a `web.lane.Lane`. An event stream of one feed leaves its
task: its socket goes to the fan-out hub and, once the stream is over, comes back as a new task.

What clients may take is bounded: in time by one entry in the timing wheel for each connection (no timer and
no cancel scope per request), in size by `web.framing`.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from web.connection import BoundedStream, make_abrupt
from web.fanout import Hub
from web.framing import Framer, Message, Refused
from web.handlers import problem_response, respond
from web.http1 import CONTINUE, LAST_CHUNK, chunk, head, whole
from web.lane import Lane, Pages
from web.messages import DETAILS, Request, Response, Stream
from web.site import Site
from web.streaming import EventStream
from web.turnstile import Turnstile
from web.wheel import Wheel

RECEIVE_BYTES = 64 * 1024
REFUSALS = frozenset({400, 401, 403, 404, 405, 429})
"""Answers after which a client has to take its turn, see `web.turnstile`."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})

_log = structlog.get_logger("onda.edge")
_access = structlog.get_logger("onda.access")


class Seat(Protocol):
    """A connection's place in the server, kept for as long as its socket is open."""

    address: str

    def resume(self, sock: socket.socket, alive: bool) -> None:
        """The hub has done with the socket."""


class Edge:
    """What the connections of one server share."""

    def __init__(
        self,
        site: Site,
        wheel: Wheel,
        hub: Hub,
        pages: Pages,
        hand: Callable[[Lane], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.site = site
        self.pages = pages
        self.turnstile = Turnstile()
        self.wheel = wheel
        self.hub = hub
        self.hand = hand  # starts Hypercorn's side of a lane
        self.is_stopping = is_stopping
        config = site.config
        self.times = {
            "idle": config.idle_timeout_s,
            "head": config.head_timeout_s,
            "body": config.body_timeout_s,
        }


class Gone(Exception):
    """The client has left, or was too slow."""


class Visit:
    """One connection at the edge. `run` returns once it is closed or its socket is the hub's."""

    def __init__(self, edge: Edge, sock: socket.socket, seat: Seat) -> None:
        self.due = math.inf
        self.scope = trio.CancelScope()
        self._edge = edge
        self._config = edge.site.config
        self._sock = sock
        self._seat = seat
        self._framer = Framer()
        self._lane: Lane | None = None
        self._answering = False
        self._waits_for = "idle"
        self._times = edge.times
        self._late = False
        self._continued = False
        self._refused = False
        self._left = False  # the socket is the hub's

    async def run(self) -> bool:
        """Serve until the connection ends. True when the socket went to the hub."""
        try:
            with self.scope:
                await self._converse()
        except Gone:
            self.abort()
        finally:
            self.due = math.inf
            if self._lane is not None:
                self._lane.leave()
                await self._lane.closed.wait()  # a moment for the client to take its answer
            elif not self._left:
                self._sock.close()
        del self.scope, self._sock, self._seat, self._framer, self._lane  # the wheel keeps the rest a while
        return self._left

    def abort(self) -> None:
        """Close hard, and cancel what is under way."""
        self.due = math.inf
        if self._left:
            return
        if self._lane is not None:
            self._lane.abort()
        else:
            make_abrupt(self._sock)
            self._stop_waiting()
            self._sock.close()
        self.scope.cancel()

    def finish(self) -> None:
        """The server stops: what is being answered is answered, what is idle is closed."""
        if not self._answering and self._waits_for == "idle":
            self._stop_waiting()

    def expire(self, now: float) -> None:
        """The time for what the client does is over (called by the wheel)."""
        if self._answering and self._waits_for != "send":
            self.due = now + self._config.idle_timeout_s
        else:
            self._late = True
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)

    # Requests

    async def _converse(self) -> None:
        self._allow("idle")
        while (message := await self._next()) is not None:
            self._answering = True
            if not await self._serve(message):
                return
            if self._refused:
                self._refused = False
                await self._edge.turnstile.wait()
            elif self._framer.state != "idle":
                await trio.lowlevel.checkpoint()  # who sends many at once takes turns with the others
            self._answering = False
            if self._edge.is_stopping():
                return
            self._allow("idle")

    async def _next(self) -> Message | None:
        """Wait for a whole request; `None` when there will be no more."""
        framer = self._framer
        while True:
            try:
                message = framer.next()
            except Refused as refused:
                await self._refuse(refused.code, refused.detail)
                return None
            if message is not None:
                self._continued = False
                return message
            if framer.state != self._waits_for:
                self._allow(framer.state)
            if framer.wants_continue and not self._continued:
                self._continued = True
                await self._send(CONTINUE)
            try:
                data = await self._receive()
            except trio.ClosedResourceError:
                if self._late and framer.state == "body":
                    await self._refuse("timeout", DETAILS["timeout"])
                elif self._late and framer.state == "head":
                    raise Gone from None
                return None
            if not data:
                return None
            framer.feed(data)

    def _allow(self, state: str) -> None:
        """Give the client its time for what it does now."""
        self._waits_for = state
        self._within(self._times[state])

    def _within(self, seconds: float) -> None:
        due = trio.current_time() + seconds
        earlier = due < self.due
        self.due = due
        if earlier:
            self._edge.wheel.add(self)

    async def _serve(self, message: Message) -> bool:
        """Answer one request; true when the connection goes on with the next."""
        if message.path in self._edge.pages:
            return await self._hand_over(message, self._edge.pages.limiter)
        if message.minor == 0 or message.method not in METHODS or _may_become_websocket(message):
            return await self._hand_over(message)
        started_s = time.monotonic()
        site = self._edge.site
        peer, headers = site.proxies.look_through(self._seat.address, message.headers)
        request = Request(message.method, message.path, message.query, headers, message.body, peer)
        if "wait=" in message.query:
            response = await self._respond_watching(request)
        else:
            response = await respond(site, request)
        self._refused = response.status in REFUSALS
        close = not message.keep_alive or self._edge.is_stopping()
        if self._config.access_log:
            self._note(request, response, started_s)
        if response.stream is not None:
            return await self._stream(response, response.stream, close)
        await self._send(whole(response, close=close, bodiless=message.method == "HEAD"))
        return not close

    def _note(self, request: Request, response: Response, started_s: float) -> None:
        _access.info(
            "answered",
            method=request.method,
            path=request.path,
            query=request.query,
            status=response.status,
            ms=round((time.monotonic() - started_s) * 1000, 1),
            peer=request.peer,
        )

    async def _respond_watching(self, request: Request) -> Response:
        """Answer what may take long, unless the client leaves."""
        response = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            response = await respond(self._edge.site, request)
            nursery.cancel_scope.cancel()
        if response is None:
            raise Gone
        return response

    async def _stream(self, response: Response, stream: Stream, close: bool) -> bool:
        """Send a body that goes on, or leave that to the hub; true when the connection goes on after it."""
        hub, idle = self._edge.hub, self._framer.state == "idle"
        if isinstance(stream, EventStream) and hub.takes(stream) and idle and not close:
            if self._lane is not None:
                self._lane.retire()
                self._lane = None
            self._left = True
            hub.adopt(self._sock, stream, head(response), self._seat.resume)
            return False
        try:
            ended = await self._pull(head(response, close=close), stream)
        finally:
            stream.close()
        if not ended:
            raise Gone
        await self._send(LAST_CHUNK)
        return not close

    async def _pull(self, start: bytes, stream: Stream) -> bool:
        """Send blocks until the stream's end; false when the client left before."""
        ended = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await self._send(start)
                while block := await stream.pull():
                    await self._send(chunk(block))
                ended = True
            except Gone:
                ended = False
            nursery.cancel_scope.cancel()
        return ended

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel when the client leaves; what it sends on has to wait its turn."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._sock)
                if self._sock.recv(1, socket.MSG_PEEK):
                    return
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                return
            except OSError:
                scope.cancel()
                return
            scope.cancel()
            return

    async def _hand_over(self, message: Message, limiter: trio.CapacityLimiter | None = None) -> bool:
        """Have Hypercorn answer one request, or, where it may be an upgrade, keep the connection."""
        lane = self._lane
        if lane is None:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._sock))
            lane = self._lane = Lane(stream, self._config.send_timeout_s)
            self._edge.hand(lane)
        if _may_become_websocket(message):
            await lane.pass_on(message.raw + self._framer.rest(), for_good=True)
            return False
        alive = await lane.pass_on(message.raw, limiter=limiter)
        if early := lane.take_early():
            self._framer.feed(early)
        return alive

    async def _refuse(self, code: str, detail: str) -> None:
        """Say why this connection ends here; the client may still be sending."""
        self._answering = True
        response = problem_response(code, detail, [])
        self._edge.site.responses[response.status] += 1
        await self._send(whole(response, close=True))
        stream = self._lane
        if stream is None:
            plain = trio.SocketStream(trio.socket.from_stdlib_socket(self._sock))
            await BoundedStream(plain, self._config.send_timeout_s).aclose()
        else:
            await stream.aclose()

    # Bytes

    async def _receive(self) -> bytes:
        """Wait for bytes; none when the client has ended.

        Raises:
            ClosedResourceError: the wait was ended from here.
        """
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def _send(self, data: bytes) -> None:
        """Send all of it; as long as the client takes something within the send timeout.

        Raises:
            Gone: it does not, or has left.
        """
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            raise Gone from None
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    async def _send_rest(self, rest: memoryview) -> None:
        before, self._waits_for = self._waits_for, "send"
        while rest:
            self._within(self._config.send_timeout_s)
            try:
                await trio.lowlevel.wait_writable(self._sock)
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                raise Gone from None
        self._waits_for = before


def _may_become_websocket(message: Message) -> bool:
    """Return whether Hypercorn might make a WebSocket of it; that it does not is nothing worse than slow."""
    return message.upgrade and "websocket" in message.headers["upgrade"].lower()
